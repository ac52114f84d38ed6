"""Feature extractors: uint8 images (N, C, H, W) -> float32 features (N, D), none of which needs a network connection.

An extractor is a module with `name` and `hash` (8 hex digits of its weights and protocol). A new one needs no entry here:
give its `_target_` as `features`.
"""

import copy
import hashlib
import socket
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.data.images import to_float
from gan_lightning.errors import UserError
from gan_lightning.files import clear_abandoned, write_whole
from gan_lightning.networks.pretrained import SHA256, EfficientNetLite, rgb


class Extractor(nn.Module):
    """Base: chunks the images and moves them to the weights' device; subclasses give `features(images uint8)`."""

    name = "custom"
    scaled = False  # whether distances divide every feature by its mean deviation over the reals
    chunk = 256  # images at once: bounds the memory, not the result
    settings = ""  # what it was built with, where no weight tells

    @property
    def hash(self) -> str:
        """8 hex characters of the class, its settings and every weight."""
        digest = hashlib.sha256((type(self).__qualname__ + self.settings).encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:8]

    def features(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def _chunked(self, function: Any, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UserError(
                f"an extractor takes uint8 images (N, C, H, W), not {images.dtype} {tuple(images.shape)}"
            )
        weight = next(chain(self.parameters(), self.buffers()), images)
        with torch.inference_mode():
            parts = images.split(self.chunk)
            return torch.cat([function(part.to(weight.device)).float().cpu() for part in parts])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 (N, D) on the CPU."""
        return self._chunked(self.features, images)


class Lite2(Extractor):
    """EfficientNet-Lite2's last map, averaged over the places: 352 features that know shapes, as ImageNet taught it.

    Images are shown to it with 160 x 160 pixels' area. No training here ever sees this network: the aid uses Lite0.
    """

    name, scaled, chunk = "lite2", True, 32
    side = 160

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNetLite(2)

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"lite2 {SHA256[2]} {self.side}".encode()).hexdigest()[:8]

    def features(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        factor = self.side / (height * width) ** 0.5
        size = [max(32, round(length * factor)) for length in (height, width)]
        x = F.interpolate(rgb(to_float(images)), size, mode="bilinear", antialias=True)
        return self.net(x)[-1].mean((2, 3))

    @classmethod
    def build(cls, data: Any, cache_dir: Path, weights: str | None) -> "Lite2":
        return cls()


class Digits(Extractor):
    """Small classifier of 28 x 28 grey images; its last hidden layer (64) is the feature."""

    name = "digits"
    needed = 0.99  # test accuracy, below which its features mean nothing

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(32),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(576, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, num_classes)
        self.accuracy = 0.0

    def features(self, images: Tensor) -> Tensor:
        x = to_float(images).mean(1, keepdim=True)
        if x.shape[2:] != (28, 28):
            x = F.interpolate(x, size=(28, 28), mode="bilinear", antialias=True)
        return self.body(x)

    def classify(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> class probabilities (N, num_classes)."""
        return self.probabilities(self(images))

    def probabilities(self, features: Tensor) -> Tensor:
        """The same from features already extracted (N, 64)."""
        with torch.inference_mode():
            return self.head(features.to(self.head.weight.device)).softmax(1).cpu()

    def train_on(
        self,
        images: Tensor,
        labels: Tensor,
        test: tuple[Tensor, Tensor],
        seed: int = 0,
        rounds: int = 4,
    ) -> None:
        """Train until the test accuracy reaches `needed`: one cycle of 2 epochs at most `rounds` times. UserError."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            generator = torch.Generator().manual_seed(seed)
            for _ in range(rounds):
                self._cycle(images, labels, generator)
                self.accuracy = float((self.classify(test[0]).argmax(1) == test[1]).float().mean())
                if self.accuracy >= self.needed:
                    return
        raise UserError(
            f"features=digits: the classifier reached {self.accuracy:.1%} on the held-out digits, it needs"
            f" {self.needed:.0%}; choose features=lite2 for these images"
        )

    def _cycle(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        epochs: int = 2,
        batch: int = 128,
    ) -> None:
        steps = epochs * (len(images) // batch)
        if steps == 0:
            raise UserError(
                f"features=digits: {len(images)} labelled images are too few; choose lite2"
            )
        optimizer = torch.optim.Adam(self.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
        order = torch.cat(
            [torch.randperm(len(images), generator=generator) for _ in range(epochs + 1)]
        )
        self.train().requires_grad_(True)
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            loss = F.cross_entropy(
                self.head(self.features(images[index])), labels[index], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.eval().requires_grad_(False)

    @classmethod
    def build(cls, data: Any, cache_dir: Path, weights: str | None) -> "Digits":
        """From the cache, or trained on data's labelled images and tested on its held-out ones, once."""
        if data.train_labels is None or data.holdout_images is None:
            raise UserError(
                "features=digits needs a labelled dataset with a hold-out, such as mnist; choose lite2"
            )
        net, path = cls(int(data.num_classes)), Path(cache_dir) / f"digits-{data.content_hash}.pt"

        def train() -> dict[str, Any]:
            print(
                f"metrics: training the digit classifier that measures the digits (about a minute, kept in {path})"
            )
            images = data.train_images[torch.arange(len(data.train_images))]
            test = data.holdout_images[torch.arange(len(data.holdout_images))]
            with torch.inference_mode(False), torch.enable_grad():
                net.train_on(images, data.train_labels, (test, data.holdout_labels))
            return {"weights": net.state_dict(), "accuracy": net.accuracy}

        saved = cached(path, train)
        net.load_state_dict(saved["weights"])
        net.accuracy = saved["accuracy"]
        return net.requires_grad_(False)


class Inception(Extractor):
    """torch-fidelity's Inception v3, 2048 features: the only one whose Frechet distance is called fid."""

    name = "inception"

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        try:
            import torch_fidelity  # noqa: F401  (torchmetrics needs it and does not bring it along)
        except ImportError:
            raise ImportError(
                "torch-fidelity is not installed: pip install 'gan-lightning[inception]'"
            ) from None
        from torchmetrics.image.fid import NoTrainInceptionV3

        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(20)  # a network that swallows packets must not hang the run
        try:
            self.net = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights).requires_grad_(
                False
            )
        finally:
            socket.setdefaulttimeout(patience)

    def features(self, images: Tensor) -> Tensor:
        return self.net(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3])

    @classmethod
    def build(cls, data: Any, cache_dir: Path, weights: str | None) -> "Inception":
        if weights and not Path(weights).is_file():
            raise UserError(f"metrics.inception_weights: no file {weights}")
        return cls(weights)


class Given(Extractor):
    """Any module named by `_target_`: takes uint8 (N, C, H, W), gives (N, D)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval() if isinstance(module, nn.Module) else module
        self.name = type(module).__name__.lower()

    def features(self, images: Tensor) -> Tensor:
        return self.module(images)


EXTRACTORS = {kind.name: kind for kind in (Digits, Lite2, Inception)}


def build_extractor(
    features: str | Mapping[str, Any] | None,
    data: Any,
    cache_dir: str | Path = "data/cache",
    inception_weights: str | None = None,
) -> Extractor:
    """The extractor named 'digits', 'lite2', 'inception', a `_target_` block, null: by dataset.

    Null is digits for MNIST, lite2 for all else. Inception without weights falls back to that with one line, because
    scores must never end a run. UserError for an unknown name, or for digits where the data carry no labels.
    """
    with torch.random.fork_rng(devices=[]):  # building a network draws its first weights
        return _build(features, data, Path(cache_dir), inception_weights).eval()


def _build(features: Any, data: Any, cache_dir: Path, weights: str | None) -> Extractor:
    if isinstance(features, Mapping):
        from hydra.utils import instantiate

        made = instantiate(features)
        extractor = made if isinstance(made, Extractor) else Given(made)
        extractor.settings = repr(sorted((str(key), str(value)) for key, value in features.items()))
        return extractor
    if features is None:
        # the classifier needs many digits to reach its 99 %; a small slice of MNIST is measured as photographs are
        enough = (
            data.name == "mnist"
            and data.train_labels is not None
            and len(data.train_images) >= 20_000
        )
        features = "digits" if enough and data.holdout_images is not None else "lite2"
    if features not in EXTRACTORS:
        raise UserError(
            f"features={features}: unknown; choose {', '.join(EXTRACTORS)}, or give a _target_"
        )
    try:
        return EXTRACTORS[features].build(data, cache_dir, weights)
    except Exception as problem:
        if features != "inception" or isinstance(problem, UserError):
            raise
        spare = _build(None, data, cache_dir, None)
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        print(
            f"metrics: Inception cannot be had here ({reason}); scores use {spare.name!r} features instead."
            " Without a network give a file: metrics.inception_weights=PATH in training, evaluate --inception-weights PATH"
        )
        return spare


def shared_extractor(
    features: str | Mapping[str, Any] | Extractor | None,
    data: Any,
    cache_dir: str | Path = "data/cache",
    inception_weights: str | None = None,
) -> Extractor:
    """As `build_extractor`, once for the same data and choice: scores and diagnosis look with the same eyes."""
    if isinstance(features, Extractor):
        return features
    known = vars(data).setdefault("_extractors", {})
    key = repr(features)
    if key not in known:
        known[key] = build_extractor(features, data, cache_dir, inception_weights)
    return known[key]


def features_of(
    extractor: Extractor, data: Any, store: Any, rows: Tensor, cache_dir: str | Path
) -> Tensor:
    """Features (len(rows), D) of rows of data's training or held-out images, from the cache where they are there."""

    def compute() -> Tensor:
        return torch.cat([extractor(store[part]) for part in rows.split(1024)])

    if not getattr(data, "content_hash", ""):  # nothing to know it again by
        return compute()
    role = "train" if store is data.train_images else "holdout"
    which = hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:12]
    name = f"features-{extractor.name}-{extractor.hash}-{data.content_hash}-{role}-{which}.pt"
    return cached(Path(cache_dir) / name, compute)


def cached(path: Path, compute: Callable[[], Any]) -> Any:
    """What `path` holds, or else what `compute` gives, kept there; a file that cannot be read is computed again."""
    if path.is_file():
        try:
            return torch.load(path, weights_only=True)
        except Exception as problem:
            print(f"metrics: {path} cannot be read ({type(problem).__name__}) and is made again")
    value = compute()
    try:
        save(path, value)
    except OSError as problem:
        print(f"metrics: {path} cannot be kept for the next run ({problem.strerror})")
    return value


def save(path: Path, value: Any) -> None:
    """torch.save that never leaves half a file behind, as several runs may share one cache."""
    write_whole(path, lambda file: torch.save(copy.deepcopy(value), file))
    clear_abandoned(path.parent)

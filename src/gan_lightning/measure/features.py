"""Feature extractors: uint8 images (N, C, H, W) -> float32 (N, F)."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.data.images import to_float
from gan_lightning.data.sources import impatient
from gan_lightning.errors import UserError, first_line
from gan_lightning.files import clear_abandoned, write_whole
from gan_lightning.names import FEATURES
from gan_lightning.networks.pretrained import SHA256, EfficientNetLite, rgb


class Extractor(nn.Module):
    """Base: a few images at a time, on the weights' device; subclasses give `features(images)`."""

    name = "custom"
    scaled = False  # whether distances divide every feature by its mean deviation over the reals
    chunk = 256  # images at once: bounds the memory, not the result
    settings = ""  # what it was built with, where no weight tells

    @cached_property
    def hash(self) -> str:
        """8 hex characters of the class, its settings and every weight."""
        digest = hashlib.sha256((type(self).__qualname__ + self.settings).encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:8]

    def features(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 (N, F) on the CPU."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            what = f"{images.dtype} {tuple(images.shape)}"
            raise UserError(f"an extractor takes uint8 images (N, C, H, W), not {what}")
        device = next(chain(self.parameters(), self.buffers()), images).device
        with torch.inference_mode():
            parts = images.split(self.chunk)
            return torch.cat([self.features(part.to(device)).float().cpu() for part in parts])


class Lite2(Extractor):
    """EfficientNet-Lite2's last map of images of 160 x 160 pixels' area, averaged: 352 features.

    No training here ever sees this network: the aid uses Lite0.
    """

    name, scaled, chunk = "lite2", True, 32
    side = 160

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNetLite(2)

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(f"lite2 {SHA256[2]} {self.side}".encode()).hexdigest()[:8]

    def features(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        factor = self.side / (height * width) ** 0.5
        size = [max(32, round(length * factor)) for length in (height, width)]
        x = F.interpolate(rgb(to_float(images)), size, mode="bilinear", antialias=True)
        return self.net(x)[-1].mean((2, 3))


class Digits(Extractor):
    """Small classifier of 28 x 28 grey images; its last hidden layer (64) is the feature."""

    name = "digits"
    needed = 0.99  # test accuracy, below which its features mean nothing

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(after)]
        layers[-1] = nn.Flatten()
        self.body = nn.Sequential(*layers, nn.Linear(576, 64), nn.ReLU())
        self.head = nn.Linear(64, num_classes)
        self.accuracy = 0.0

    def features(self, images: Tensor) -> Tensor:
        x = to_float(images).mean(1, keepdim=True)
        if x.shape[2:] != (28, 28):
            x = F.interpolate(x, size=(28, 28), mode="bilinear", antialias=True)
        return self.body(x)

    def probabilities(self, features: Tensor) -> Tensor:
        """Of the classes, (N, num_classes), from extracted features (N, 64)."""
        with torch.inference_mode():
            return self.head(features.to(self.head.weight.device)).softmax(1).cpu()

    def train_on(self, images: Tensor, labels: Tensor, test: tuple[Tensor, Tensor]) -> None:
        """Train until the test accuracy reaches `needed`, two epochs at a time. UserError."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # alone: a GPU's belongs to the training
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                    layer.reset_parameters()
        draw = torch.Generator().manual_seed(0)
        for _ in range(4):
            self._cycle(images, labels, draw)
            right = self.probabilities(self(test[0])).argmax(1) == test[1]
            self.accuracy = float(right.float().mean())
            if self.accuracy >= self.needed:
                return
        raise UserError(
            f"features=digits: the classifier reached {self.accuracy:.1%} on the held-out digits,"
            f" it needs {self.needed:.0%}; choose features=lite2 for these images"
        )

    def _cycle(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> None:
        steps = 2 * (len(images) // 128)
        if steps == 0:
            few = f"{len(images)} labelled images are too few"
            raise UserError(f"features=digits: {few}; choose lite2")
        optimizer = torch.optim.Adam(self.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
        order = torch.cat([torch.randperm(len(images), generator=draw) for _ in range(3)])
        self.train().requires_grad_(True)
        for rows in order[: steps * 128].split(128):
            logits = self.head(self.features(images[rows]))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.eval().requires_grad_(False)

    @classmethod
    def build(cls, data: Any, cache_dir: Path) -> "Digits":
        """From the cache, or trained on data's labelled images, once."""
        if data.train_labels is None or data.holdout_images is None:
            needs = "needs a labelled dataset with a hold-out, such as mnist"
            raise UserError(f"features=digits {needs}; choose lite2")
        net, path = cls(int(data.num_classes)), cache_dir / f"digits-{data.content_hash}.pt"

        def train() -> dict[str, Any]:
            what = "training the digit classifier that measures the digits"
            print(f"metrics: {what} (about a minute, kept in {path})")
            stores = data.train_images, data.holdout_images
            images, test = (store[torch.arange(len(store))] for store in stores)
            with torch.inference_mode(False), torch.enable_grad():
                net.train_on(images, data.train_labels, (test, data.holdout_labels))
            return {"weights": net.state_dict(), "accuracy": net.accuracy}

        saved = cached(path, train)
        net.load_state_dict(saved["weights"])
        net.accuracy = saved["accuracy"]
        return net.requires_grad_(False)


class Inception(Extractor):
    """torch-fidelity's Inception v3, 2048 features: only their Fréchet distance is called fid."""

    name = "inception"

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        if weights and not Path(weights).is_file():
            raise UserError(f"metrics.inception_weights: no file {weights}")
        try:
            import torch_fidelity  # noqa: F401  (torchmetrics needs it and does not bring it along)
        except ImportError:
            install = "pip install 'gan-lightning[inception]'"
            raise ImportError(f"torch-fidelity is not installed: {install}") from None
        from torchmetrics.image.fid import NoTrainInceptionV3

        with impatient():
            net = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
        self.net = net.requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        return self.net(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3])


class Given(Extractor):
    """Any module named by `_target_`: takes uint8 (N, C, H, W), gives (N, F)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval() if isinstance(module, nn.Module) else module
        self.name = type(module).__name__.lower()

    def features(self, images: Tensor) -> Tensor:
        return self.module(images)


def build_extractor(
    features: str | Mapping[str, Any] | Extractor | None,
    data: Any,
    cache_dir: str | Path = "data/cache",
    inception_weights: str | None = None,
) -> Extractor:
    """The extractor named 'digits', 'lite2', 'inception', or by a `_target_` block.

    None, and Inception without weights: digits for MNIST, lite2 for all else. UserError for an
    unknown name, or for digits where the data carry no labels.
    """
    with torch.random.fork_rng(devices=[]):  # building a network draws its first weights
        return _build(features, data, Path(cache_dir), inception_weights).eval()


def _build(features: Any, data: Any, cache_dir: Path, weights: str | None) -> Extractor:
    if isinstance(features, Extractor):
        return features
    if isinstance(features, Mapping):
        from hydra.utils import instantiate

        made = instantiate(features)
        extractor = made if isinstance(made, Extractor) else Given(made)
        extractor.settings = repr(sorted((str(key), str(value)) for key, value in features.items()))
        return extractor
    if features is None:
        features = "digits" if _many_digits(data) else "lite2"
    if features not in FEATURES:
        known = ", ".join(FEATURES)
        raise UserError(f"features={features}: unknown; choose {known}, or give a _target_")
    if features != "inception":
        return Digits.build(data, cache_dir) if features == "digits" else Lite2()
    try:
        return Inception(weights)
    except UserError:
        raise
    except Exception as problem:  # whatever torch-fidelity and the network bring about
        spare = _build(None, data, cache_dir, None)
        print(
            f"metrics: Inception cannot be had here ({first_line(problem)}); scores use {spare.name!r} features"
            " instead. Without a network give a file: metrics.inception_weights=PATH in training,"
            " evaluate --inception-weights PATH"
        )
        return spare


def _many_digits(data: Any) -> bool:
    """Enough for the classifier's 99 %; a small slice of MNIST is measured as photographs are."""
    labelled = data.train_labels is not None and data.holdout_images is not None
    return data.name == "mnist" and labelled and len(data.train_images) >= 20_000


def cached(path: Path, compute: Callable[[], Any]) -> Any:
    """What `path` holds, or what `compute` gives, kept there; an unreadable file is made again."""
    if path.is_file():
        try:
            return torch.load(path, weights_only=True)
        except Exception as problem:
            print(f"metrics: {path} cannot be read ({type(problem).__name__}) and is made again")
    value = compute()
    try:
        write_whole(path, lambda file: torch.save(copy.deepcopy(value), file))
        clear_abandoned(path.parent)
    except OSError as problem:
        print(f"metrics: {path} cannot be kept for the next run ({problem.strerror})")
    return value

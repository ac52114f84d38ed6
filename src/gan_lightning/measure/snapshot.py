"""One moment of a run: reals, fakes, their features and logits."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.data.images import to_float, to_uint8
from gan_lightning.ema import in_mode
from gan_lightning.errors import UserError
from gan_lightning.latents import classes, inputs, latents, picked, seeded
from gan_lightning.measure import distances as D
from gan_lightning.measure.features import Extractor, cached

CHUNK = 64  # images at once through a network
GRID = 64  # images of a picture, from the same latents at every moment
LARGEST = 10_000  # reals that scores compare with
HELD_ENOUGH = 1000  # held-out images from which on these are the reference
YOUNG = 400  # steps until which the EMA holds little but the first weights
IMAGES, FEW = 256, 64  # of each kind the diagnosis looks at; by slow features


@contextmanager
def untouched(module: Any) -> Iterator[None]:
    """Within, nothing changes training's random states."""
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        yield


def like_the_data(labels: Tensor | None, n: int, draw: torch.Generator) -> Tensor | None:
    """n labels, each class as often as among these; None where the data have none."""
    return labels if labels is None else labels[torch.randint(len(labels), (n,), generator=draw)]


@dataclass(frozen=True)
class Fold:
    """Real images to compare with, and others that show what real ones get: (store, rows)."""

    reference: tuple[Any, Tensor]
    others: tuple[Any, Tensor]

    def __len__(self) -> int:
        return min(len(self.reference[1]), len(self.others[1]))


class Reals:
    """The real images that snapshots are compared with; what is known of them stays in the cache.

    1,000 held-out images or more are the scores' reference, and training images show what real ones
    get. With fewer the training set is cut in two: half of the fakes are measured against each half
    and the results averaged, and one half against the other shows what real ones get.
    """

    def __init__(
        self, data: Any, extractor: Extractor, cache_dir: str | Path = "data/cache"
    ) -> None:
        self.data, self.extractor, self.cache_dir = data, extractor, Path(cache_dir)
        train, held = data.train_images, data.holdout_images
        self.order = torch.randperm(len(train), generator=seeded(0))
        self.held_order = torch.randperm(0 if held is None else len(held), generator=seeded(0))
        if len(self.held_order) >= HELD_ENOUGH:
            rows = self.held_order[:LARGEST]
            self.folds = [Fold((held, rows), (train, self.order[: len(rows)]))]
        else:
            half = min(len(train), LARGEST) // 2
            a, b = (train, self.order[:half]), (train, self.order[half : 2 * half])
            self.folds = [Fold(a, b), Fold(b, a)]
        self.limit = sum(map(len, self.folds))  # fakes that can be scored
        self.few = FEW if extractor.scaled else IMAGES  # the other extractors are quick
        self.once = 0.0  # seconds spent on what is kept
        self._known: dict[int, Any] = {}

    # -- features --------------------------------------------------------------------------------

    def see(self, images: Tensor) -> Tensor:
        """Features (N, F) of uint8 images, each divided by its mean deviation over the reals."""
        return self.extractor(images) / self.scale

    def features(self, store: Any, rows: Tensor) -> Tensor:
        """The same of rows of the training or held-out images, from the cache."""
        return self._unscaled(store, rows) / self.scale

    @cached_property
    def scale(self) -> Tensor:
        """(F,), or 1 for extractors whose features are of one size."""
        if not self.extractor.scaled:
            return torch.ones(1)
        seen = self._unscaled(self.data.train_images, self.order[:1024])
        deviation = (seen - seen.mean(0)).abs().mean(0)
        # one that is dead in the reals would rule
        return deviation.clamp_min(0.1 * float(deviation.median()))

    def known(self, number: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Of a fold's reference: features, `gaussian` and `radii`."""
        if number not in self._known:
            real = self.features(*self.folds[number].reference)
            *normal, radii = self.kept(f"known{number}", lambda: [*D.gaussian(real), D.radii(real)])
            self._known[number] = real, tuple(normal), radii
        return self._known[number]

    def _unscaled(self, store: Any, rows: Tensor) -> Tensor:
        def compute() -> Tensor:
            return torch.cat([self.extractor(store[part]) for part in rows.split(1024)])

        return self.kept(self._place(store, rows), compute)

    def _place(self, store: Any, rows: Tensor) -> str:
        role = "train" if store is self.data.train_images else "holdout"
        return f"features-{role}-{hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:12]}"

    def has(self, store: Any, rows: Tensor) -> bool:
        return self.keeps(self._place(store, rows))

    # -- the cache -------------------------------------------------------------------------------

    def _path(self, what: str) -> Path:
        key = f"{self.extractor.name}-{self.extractor.hash}-{self.data.content_hash}"
        return self.cache_dir / f"{what}-{key}.pt"

    def keeps(self, what: str) -> bool:
        return bool(getattr(self.data, "content_hash", "")) and self._path(what).is_file()

    def kept(self, what: str, compute: Callable[[], Any]) -> Any:
        """What was computed once for these images and features, by its name."""

        def timed() -> Any:
            began, before = time.perf_counter(), self.once
            value = compute()
            self.once = before + time.perf_counter() - began
            return value

        if not getattr(self.data, "content_hash", ""):  # nothing to know it again by
            return timed()
        return cached(self._path(what), timed)

    # -- images ----------------------------------------------------------------------------------

    def train(self, count: int) -> tuple[Tensor, Tensor | None]:
        """The same training images every time, float in [-1, 1], with their labels."""
        return self._some(self.data.train_images, self.data.train_labels, self.order[:count])

    def held(self, count: int) -> tuple[Tensor, Tensor | None]:
        rows = self.held_order[:count]
        return self._some(self.data.holdout_images, self.data.holdout_labels, rows)

    def _some(
        self, store: Any, labels: Tensor | None, rows: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        return to_float(store[rows]).cpu(), picked(labels, rows)


class Snapshot:
    """Fakes beside the reals. `ceilings`: what an untrained generator got, score by score."""

    def __init__(
        self, reals: Reals, fakes: Tensor, ceilings: dict[str, float] | None = None
    ) -> None:
        shape = tuple(reals.data.train_images.shape[1:])
        if fakes.dtype != torch.uint8 or tuple(fakes.shape[1:]) != shape:
            what = f"{fakes.dtype} {tuple(fakes.shape[1:])}"
            raise UserError(f"images to score must be uint8 {shape} like the data's, not {what}")
        self.reals, self.fakes, self.ceilings = reals, fakes, ceilings or {}

    @cached_property
    def features(self) -> Tensor:
        """Of the fakes, (N, F)."""
        return self.reals.see(self.fakes)


class Moment(Snapshot):
    """A snapshot of a module in training, made as asked for; for use within `untouched`.

    `raw`: images by the weights as they are, of latents of this moment alone. `fakes`: `scored` in
    all, the grid of 64 seeds from `seed` on and images of the raw ones' latents by the EMA, if any.
    """

    def __init__(
        self,
        module: Any,
        reals: Reals | None = None,
        images: int = IMAGES,
        scored: int = 0,
        seed: int = 0,
        ceilings: dict[str, float] | None = None,
    ) -> None:
        self.module, self.images, self.scored, self.seed = module, images, scored, seed
        self.nimg, self.step, self.ceilings = module.nimg, module.step, ceilings or {}
        if reals is not None:
            self.reals = reals
            self.few = min(reals.few, images)

    # -- images ----------------------------------------------------------------------------------

    @cached_property
    def _latents(self) -> tuple[Tensor, Tensor | None]:
        draw, count = seeded(1 + self.step), max(self.images, self.scored - GRID)
        z = torch.randn(count, self.module.latent_dim, generator=draw)
        known = self.reals.data.train_labels if self.module.num_classes else None
        return z, like_the_data(known, count, draw)

    def _made(self, start: int, stop: int, ema: bool) -> Iterator[Tensor]:
        z, labels = self._latents
        for at in range(start, stop, CHUNK):
            part = slice(at, min(at + CHUNK, stop))
            yield self.module.sample(z[part], picked(labels, part), ema=ema).float().cpu()

    @cached_property
    def grid(self) -> Tensor:
        """Float (64, C, H, W), tile k of seed `seed` + k: `sample --seed` makes it again."""
        seeds = range(self.seed, self.seed + GRID)
        z = latents(seeds, self.module.latent_dim)
        return self.module.sample(z, classes(seeds, self.module.num_classes)).float()

    @cached_property
    def raw(self) -> Tensor:
        """Float (images, C, H, W)."""
        return torch.cat(list(self._made(0, self.images, ema=False)))

    @cached_property
    def shown(self) -> Tensor:
        """uint8 (N, C, H, W) of the same latents by the EMA."""
        count = max(self.few, self.scored - GRID)
        there = self.images and self.module.generator_ema is None
        parts = [to_uint8(self.raw[:count])] if there else []
        start = len(parts[0]) if parts else 0
        return torch.cat([*parts, *(to_uint8(x) for x in self._made(start, count, ema=True))])

    @cached_property
    def fakes(self) -> Tensor:  # type: ignore[override]
        grid = to_uint8(self.grid).cpu()
        return torch.cat([grid, self.shown])[: self.scored] if self.scored > GRID else grid

    @property
    def young(self) -> bool:
        """Too early for slow features to be spent on the EMA."""
        return self.step <= YOUNG and self.reals.extractor.scaled

    # -- features and logits ---------------------------------------------------------------------

    @cached_property
    def raw_features(self) -> Tensor:
        if self.module.generator_ema is None:
            return self.ema_features
        return self.reals.see(to_uint8(self.raw[: self.few]))

    @cached_property
    def ema_features(self) -> Tensor:
        """Of the raw ones' latents; the scores' own where these were extracted."""
        if self.scored >= GRID + self.few:
            return self.features[GRID : GRID + self.few]
        return self.reals.see(self.shown[: self.few])

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """(N,) of float images, on the CPU."""
        parts = torch.arange(len(images)).split(CHUNK)
        logits = (self.module.score(images[part], picked(labels, part)) for part in parts)
        return torch.cat([some.float().cpu() for some in logits])

    @cached_property
    def fake_logits(self) -> Tensor:
        return self.logits(self.raw, self._latents[1])

    @cached_property
    def train_logits(self) -> Tensor:
        return self._of_reals(*self.reals.train(self.images))

    @cached_property
    def held_logits(self) -> Tensor:
        return self._of_reals(*self.reals.held(self.images))

    def _of_reals(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.logits(images, labels if self.module.num_classes else None)

    @cached_property
    def grid_probabilities(self) -> Tensor:
        """(64,): the discriminator's, or its raw scores where its loss means none."""
        return self.module.probabilities(self.module.score(self.grid)).cpu()

    @cached_property
    def train_mode(self) -> Tensor:
        """`raw` in train mode, in training's batches, with copies of BatchNorm's buffers."""
        net, (z, labels) = self.module.generator, self._latents
        config = self.module.config.get("dataset", {})
        size = max(1, min(64, int(config.get("batch_size") or 64)))
        count = min(max(size, 64 // size * size), self.images)
        state = dict(net.named_parameters()) | {n: b.clone() for n, b in net.named_buffers()}
        parts = []
        with in_mode(net, training=True):
            for rows in torch.arange(count).split(size):
                given = inputs(z[rows].to(self.module.dtype), picked(labels, rows))
                given = tuple(x.to(self.module.device) for x in given)
                parts.append(torch.func.functional_call(net, state, given).float().cpu())
        return torch.cat(parts)

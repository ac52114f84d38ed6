"""The aid: pretrained features in the generator's loss, so that few photographs teach shapes."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval, Len
from torch import Tensor, nn

from gan_lightning.distributed import gather_rows
from gan_lightning.errors import UserError
from gan_lightning.networks.heads import FeatureHeads
from gan_lightning.networks.pretrained import STRIDES, EfficientNetLite, rgb
from gan_lightning.ranges import Above0, BelowOne, Said, Side, Width, checked

LEAST, MOST = 8, 2048  # real images that targets are taken from
Strides = Annotated[
    Sequence[Literal[4, 8, 16, 32]], Len(1), Said("a list of 4, 8, 16 and 32, as [8,16,32]")
]


class SlicedAid(nn.Module):
    """Sliced Wasserstein distance of generated and real images in features of EfficientNet-Lite0.

    Compared are whitened principal components of each map, averaged over `places` x `places`
    fields, and with classes the joint distribution of features and class. Along random directions,
    every generated image is drawn to the real quantile of its rank among the latest `queue`
    generated ones (after Deshpande et al. 2018): a generator that makes one kind of image has the
    wrong quantiles.

    weight: beside the discriminator's term; start: progress from which on it counts; side: pixels
    at which images are seen; components: per stride; heads: discriminators on the same features,
    which take every second step, both with twice their weight then.
    """

    @checked
    def __init__(
        self,
        weight: Above0 = 1.0,
        start: BelowOne = 0.0,
        side: Side = 96,
        components: Width = 64,
        strides: Strides = (8, 16, 32),
        places: Annotated[int, Interval(ge=1, le=16)] = 4,
        directions: Width = 128,
        queue: Annotated[int, Interval(ge=0, le=10**6)] = 480,
        num_classes: Width | None = None,
        heads: FeatureHeads | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.start, self.side = weight, start, side
        self.components, self.directions, self.queue_length = components, directions, queue
        self.num_classes, self.heads = num_classes, heads
        self.stages = sorted(STRIDES.index(stride) for stride in strides)
        self.places = [max(1, min(places, side // STRIDES[stage])) for stage in self.stages]
        self.network = EfficientNetLite(0)
        for name in self.names:
            self.register_buffer(name, torch.zeros(0))

    @property
    def names(self) -> list[str]:
        """Of the buffers that a checkpoint holds, four per stride, and the count of steps."""
        kinds = ("mean", "basis", "real", "queue")
        strides = range(len(self.stages))
        return [*(f"{kind}_{i}" for i in strides for kind in kinds), "classes", "steps"]

    @property
    def fitted(self) -> bool:
        """Whether the real images have been looked at."""
        return bool(self.steps.numel())

    def shape_like(self, saved: dict[str, Tensor]) -> None:
        """Makes room for what a checkpoint holds, before it is loaded."""
        for name in self.names:
            if name in saved:
                setattr(self, name, torch.zeros_like(saved[name], device=self.steps.device))

    def maps(self, images: Tensor, stages: int = len(STRIDES)) -> list[Tensor]:
        """The network's first maps of images (B, C, H, W) in [-1, 1]."""
        height, width = images.shape[2:]
        factor = self.side / (height * width) ** 0.5
        size = [max(32, round(length * factor)) for length in (height, width)]
        x = F.interpolate(rgb(images.float()), size, mode="bilinear", antialias=factor < 1)
        return self.network(x, stages)

    def vectors(self, images: Tensor) -> list[Tensor]:
        """Per stride (B, places² C) of images (B, C, H, W) in [-1, 1]."""
        maps = self.maps(images, self.stages[-1] + 1)
        pairs = zip(self.stages, self.places, strict=True)
        return [
            F.adaptive_avg_pool2d(maps[stage].float(), places).flatten(1) for stage, places in pairs
        ]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Takes targets from the first 2,048 real images in [-1, 1] and labels (B,) or None."""
        found: list[list[Tensor]] = [[] for _ in self.stages]
        seen: list[Tensor] = []
        count = 0
        for images, labels in batches:
            for part, vector in zip(found, self.vectors(images), strict=True):
                part.append(vector)
            seen += [] if labels is None or not self.num_classes else [labels]
            count += len(images)
            if count >= MOST:
                break
        if count < LEAST:
            needed = f"the aid needs at least {LEAST} real images to compare with"
            raise UserError(f"{needed}, not {count}: aid=none")
        if self.num_classes:
            known = torch.cat(seen)[:MOST]
            self.classes = torch.bincount(known, minlength=self.num_classes) / len(known)
        for i, part in enumerate(found):
            x = torch.cat(part)[:MOST]
            mean = x.mean(0)
            _, values, directions = torch.linalg.svd(x - mean, full_matrices=False)
            kept = min(self.components, int((values > 1e-4 * values[0]).sum()))
            basis = directions[:kept].T * (len(x) ** 0.5 / values[:kept])
            real = (x - mean) @ basis
            if self.num_classes:
                real = torch.cat([real, self._one_hot(known)], 1)
            values = {"mean": mean, "basis": basis, "real": real, "queue": real[:0]}
            for name, value in values.items():
                setattr(self, f"{name}_{i}", value.contiguous())
        self.steps = torch.zeros(1, dtype=torch.long, device=mean.device)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """Classes as whitened features: (one-hot - frequency) / sqrt(frequency)."""
        frequency = self.classes.clamp_min(1e-6)
        return (F.one_hot(labels, len(frequency)) - frequency) / frequency.sqrt()

    def forward(self, fake: Tensor, labels: Tensor | None = None) -> Tensor:
        """The distance of generated images (B, C, H, W), labels (B,), 0-d. Moves the queue."""
        vectors = self.vectors(fake)
        # drawn anew at every step, alike on every process
        draw = torch.Generator().manual_seed(int(self.steps))
        total = fake.new_zeros((), dtype=torch.float32)
        with torch.autocast(fake.device.type, enabled=False):
            for i, vector in enumerate(vectors):
                u = (vector - getattr(self, f"mean_{i}")) @ getattr(self, f"basis_{i}")
                if self.num_classes:
                    assert labels is not None
                    u = torch.cat([u, self._one_hot(labels)], 1)
                directions = torch.randn(u.shape[1], self.directions, generator=draw)
                total = total + self._distance(u, i, F.normalize(directions, dim=0).to(u))
        self.steps += 1
        return total / len(vectors)

    def _distance(self, u: Tensor, i: int, directions: Tensor) -> Tensor:
        """Mean squared way of u (B, K) along `directions` (K, D) to their ranks' real quantiles."""
        everyone, start = gather_rows(u.detach())
        latest = torch.cat([everyone, getattr(self, f"queue_{i}")])
        setattr(self, f"queue_{i}", latest[: self.queue_length])
        real = (getattr(self, f"real_{i}") @ directions).sort(0).values
        rank = (latest @ directions).argsort(0).argsort(0)
        quantile = (rank[start : start + len(u)] + 0.5) / len(latest)
        target = real.gather(0, (quantile * len(real)).long().clamp(max=len(real) - 1))
        return (u @ directions - target).square().mean()

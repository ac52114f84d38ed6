"""The data check: looks at images before anything is trained on them, and says what to do."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.data import cache, similar
from gan_lightning.data.cache import Scan
from gan_lightning.data.images import Shape, to_float
from gan_lightning.data.remarks import CheckReport, Remark, plain, shown
from gan_lightning.errors import UserError
from gan_lightning.text import console

# pictures to look at with features: fewer have no telling average. Tried on 15 sets of 129 to 800
LOOKED_AT = range(100, 5001)
SIDE = 96  # their pixels; 160, as for the scores, sees no more copies
SAME = 0.94  # cosine of two pictures' features, less their average, that only copies reach;
# where all are of one kind, copies are twice as near as the nearest of most pictures
LONELY = 2.2  # times the usual distance to the fifth neighbour; the healthy sets come to 2.1
EDGE = np.pad(np.zeros((14, 14), bool), 1, constant_values=True)  # the border of 16 x 16 places
THUMBNAILS = 16  # of a remark's files


def nothing_usable(scan: Scan, name: str) -> UserError:
    """The error for a folder in which no file is an image."""
    file, why = min(scan.bad.items())
    count = len(scan.bad)
    return UserError(f"{name}: none of {count} files is a usable image ({plain(file)}: {why})")


class Pictures:
    """What the checks look at; `pixels` are the fitted ones, uint8 (N, C, H, W)."""

    def __init__(self, scan: Scan, pixels: Tensor, shape: Shape, cache_dir: Path) -> None:
        self.scan, self.pixels, self.shape, self.cache_dir = scan, pixels, shape, cache_dir
        self.number = len(scan)
        self.names = [plain(name) for name in scan.names]
        self.bad = {plain(file): why for file, why in sorted(scan.bad.items())}
        sizes = np.array(scan.sizes)
        self.ratios = sizes[:, 1] / sizes[:, 0]
        self.short_sides = sizes.min(1)
        self.side = min(shape.height, shape.width)
        target = shape.width / shape.height
        self.lost = 1 - np.minimum(self.ratios / target, target / self.ratios)
        self.blank = np.array(scan.spreads) < 3
        self.mostly_blank = self.blank.mean() > 0.5

    def remark(
        self, name: str, which: np.ndarray, text: str, action: str, **numbers: float
    ) -> Remark | None:
        """A remark on the files where `which` (N,) is true, if any: {n} of {number}, {files}."""
        files = [self.names[row] for row in np.flatnonzero(which)]
        if not files:
            return None
        words = {"n": len(files), "number": self.number, "files": shown(files)}
        text, action = text.format(**words), action.format(**words)
        groups = [[file] for file in files]
        return Remark(name, text, action, numbers or {"images": len(files)}, groups)

    @cached_property
    def features(self) -> Tensor | None:
        """Pretrained features (N, 352), those that the scores use."""
        if self.number not in LOOKED_AT:
            return None
        from gan_lightning.measure.features import Lite2, cached

        def compute() -> Tensor:
            eyes = Lite2()
            eyes.side = SIDE
            return eyes(self.pixels)

        try:
            return cached(self.cache_dir / f"features-lite2-{SIDE}-{self.scan.key}.pt", compute)
        except UserError as problem:
            print(f"data check: {problem}; until then near copies are hard to tell", flush=True)
            return None

    @cached_property
    def equal_pairs(self) -> np.ndarray:
        return similar.same_pairs(np.array(self.scan.digests))

    @cached_property
    def near_pairs(self) -> np.ndarray:
        """Pairs (P, 2) of pictures that are not the same file and look the same, or mirrored."""
        pairs = [similar.look_alike(self.scan.thumbs, 0.5)]
        if self.features is not None:
            apart = F.normalize(self.features - self.features.mean(0), dim=1)
            cosine = apart @ apart.T
            usual = cosine.fill_diagonal_(-1).amax(1).median()  # of two that are not copies
            near = cosine > max(SAME, (1 + float(usual)) / 2)
            pairs.append(near.nonzero().numpy())
        both = np.concatenate(pairs)
        both = both[(both[:, 0] < both[:, 1]) & ~self.blank[both].any(1)]
        digests = np.array(self.scan.digests)
        return both[digests[both[:, 0]] != digests[both[:, 1]]]

    @cached_property
    def near_groups(self) -> list[list[int]]:
        return similar.groups(self.number, np.concatenate([self.near_pairs, self.equal_pairs]))

    @cached_property
    def distinct(self) -> list[int]:
        return [rows[0] for rows in self.near_groups]

    @cached_property
    def some(self) -> Tensor:
        """At most 512 of the fitted pictures, (n, C, 16, 16) in [-1, 1]."""
        rows = torch.linspace(0, self.number - 1, min(self.number, 512)).long().unique()
        parts = (self.pixels[part] for part in rows.split(64))
        return torch.cat([F.adaptive_avg_pool2d(to_float(part), 16) for part in parts])

    def counts(self) -> dict[str, str]:
        """What the pictures are, for the report."""
        number, ratios = self.number, self.ratios
        sizes = sorted(self.scan.sizes, key=lambda size: size[0] * size[1])
        named = [sizes[row] for row in sorted({0, number // 2, number - 1})]
        modes = Counter(self.scan.modes).most_common()
        counts = {
            "images": f"{number} usable, {len(self.scan.bad)} files that are not",
            "sizes (height x width)": " ... ".join(f"{h} x {w}" for h, w in named),
            "modes": ", ".join(f"{mode} {count}" for mode, count in modes),
            "width / height": " ... ".join(
                f"{ratio:.2f}" for ratio in (ratios.min(), np.median(ratios), ratios.max())
            ),
            "distinct images": f"{len(self.distinct)} (about {enough(self)} or more are wanted"
            f" at {self.side} px)",
        }
        if self.shape.fit == "crop":
            counts["lost to the crop"] = (
                f"{self.lost.mean():.0%} of an image on average, {self.lost.max():.0%} at most"
            )
        if self.shape.channels == 3:
            grey = int((np.array(self.scan.chromas) < 1).sum())
            counts["grey / colour"] = f"{grey} / {number - grey}"
        return counts


def unusable(seen: Pictures) -> Remark | None:
    if not (bad := seen.bad):
        return None
    why = Counter(reason.partition(":")[0] for reason in bad.values()).most_common(3)
    reasons = ", ".join(f"{count} {reason}" for reason, count in why)
    text = f"{len(bad)} of {seen.number + len(bad)} files cannot be used ({reasons})"
    action = f"repair or remove these files: {shown(list(bad))}"
    return Remark("unusable files", text, action, {"files": len(bad)})


def blank(seen: Pictures) -> Remark | None:
    text, action = "{n} images are one nearly uniform tone", "remove these files: {files}"
    return seen.remark("blank images", seen.blank, text, action)


def exact_copies(seen: Pictures) -> Remark | None:
    found = similar.groups(seen.number, seen.equal_pairs)
    return _copies(seen, "exact copies", "are byte-for-byte copies of", found)


def near_copies(seen: Pictures) -> Remark | None:
    first = {digest: row for row, digest in reversed(list(enumerate(seen.scan.digests)))}
    firsts = set(first.values())  # further files of the same bytes have the remark above
    found = [[row for row in rows if row in firsts] for rows in seen.near_groups]
    return _copies(seen, "near copies", "look nearly the same as (or mirror)", found)


def _copies(seen: Pictures, name: str, kind: str, found: list[list[int]]) -> Remark | None:
    groups = [[seen.names[row] for row in rows] for rows in found if len(rows) > 1]
    extra = [file for group in groups for file in group[1:]]
    if not extra:
        return None
    text = f"{len(extra)} of {seen.number} images {kind} another one;"
    text += f" {len(seen.distinct)} distinct images are left"
    action = f"remove these files: {shown(extra)}"
    return Remark(name, text, action, {"images": len(extra), "groups": len(groups)}, groups)


def shape(seen: Pictures) -> Remark | None:
    """Whether the fit cuts away or stretches too much."""
    lost = seen.lost
    if seen.shape.fit == "pad" or not (np.median(lost) > 0.4 or (lost > 0.5).mean() >= 0.05):
        return None
    cut = seen.shape.fit == "crop"
    how = "lose more than 40 % to the crop" if cut else "are stretched by more than 1.6"
    much = int((lost > 0.4).sum())
    text = f"{much} of {seen.number} images {how}"
    text += f" (median width / height {np.median(seen.ratios):.2f})"
    numbers = {"images": much, "median_lost": np.median(lost)}
    return Remark("far from the target's shape", text, "dataset.fit=pad", numbers)


def enough(seen: Pictures) -> int:
    """Rule of thumb: 100 photographs of one thing can do at 64 px with augmentation."""
    return max(50, round(1.5 * seen.side))


def few(seen: Pictures) -> Remark | None:
    distinct, wanted = len(seen.distinct), enough(seen)
    if distinct >= wanted:
        return None
    text = f"{distinct} distinct images; below about {wanted} the discriminator learns them by"
    text += f" heart at {seen.side} px: add more, and until then"
    numbers: dict[str, float] = {"distinct": distinct, "wanted": wanted}
    return Remark("too few images", text, "augment=ada", numbers)


def small(seen: Pictures) -> Remark | None:
    median = float(np.median(seen.short_sides))
    if median >= 0.75 * seen.side:
        return None
    text = f"half of the images are smaller than {median:.0f} px and are blown up to {seen.side}"
    smaller = max(16, 2 ** int(np.log2(median)))
    action = f"dataset.image_size={smaller}"
    return Remark("small originals", text, action, {"median_side": median})


def grey(seen: Pictures) -> Remark | None:
    which = np.array(seen.scan.chromas) < 1
    if seen.shape.channels != 3 or which.mean() < 0.05:
        return None
    colour = int((~which).sum())
    text = "{n} of {number} images are grey"
    text += ", the others coloured" if colour else ": two of three channels add nothing"
    action = "dataset.image_channels=1"
    if which.mean() < 0.5:
        action = f"remove these files, or make all of them grey ({action}): {{files}}"
    numbers = {"grey": seen.number - colour, "colour": colour}
    return seen.remark("grey images", which, text, action, **numbers)


def inverted(seen: Pictures) -> Remark | None:
    return _negative_pairs(seen) or _two_borders(seen) or _cold_colours(seen)


def _negative_pairs(seen: Pictures) -> Remark | None:
    thumbs = seen.scan.thumbs
    pairs = similar.pairs_below(thumbs, 255 - thumbs, 0.5)
    pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & ~seen.blank[pairs].any(1)]
    if not len(pairs):
        return None
    files = [[seen.names[row] for row in pair] for pair in pairs.tolist()]
    action = f"remove one of each pair: {shown([' / '.join(pair) for pair in files])}"
    text = f"{len(pairs)} images are negatives of another one"
    return Remark("inverted images", text, action, {"images": len(pairs)}, files)


def _two_borders(seen: Pictures) -> Remark | None:
    borders = np.median(seen.scan.thumbs[:, EDGE], axis=1)
    black, white = borders <= 40, borders >= 215
    rarer = min(black.mean(), white.mean())
    if rarer < 0.05 or (black | white).mean() < 0.9 or seen.mostly_blank:
        return None
    text = f"{black.sum()} images have a black border and {white.sum()} a white one:"
    text += " some may be inverted"
    action = "look at these files, and invert them if so: {files}"
    which = black if black.sum() < white.sum() else white
    numbers = {"black": black.sum(), "white": white.sum()}
    return seen.remark("inverted images", which, text, action, **numbers)


def _cold_colours(seen: Pictures) -> Remark | None:
    """A whole folder of negatives: most of the world is warm (red over green over blue)."""
    if seen.shape.channels < 3:
        return None
    colours = seen.some[:, :3].mean((2, 3))
    red, green, blue = colours.mean(0).tolist()
    cold = float((colours[:, 2] - colours[:, 0] > 0.04).float().mean())
    if not (blue - red > 0.08 and red < green < blue and cold >= 0.6):
        return None
    text = f"{cold:.0%} of the images are bluish, as negatives of photographs are"
    action = "if they are negatives, invert them (magick mogrify -negate FILES);"
    action += " of sky, snow or sea they are right"
    return Remark("inverted images", text, action, {"share": cold})


def off_centre(seen: Pictures) -> Remark | None:
    """Where the subject is: what differs from the border, as the network sees it."""
    grey = seen.some.mean(1).numpy()
    apart = np.abs(grey - np.median(grey[:, EDGE], axis=1)[:, None, None])
    weight = (apart / (apart.sum((1, 2), keepdims=True) + 1e-6)).mean(0)
    line = (np.arange(16) + 0.5) / 16 - 0.5
    dx, dy = float(weight.sum(0) @ line), float(weight.sum(1) @ line)
    if max(abs(dx), abs(dy)) <= 0.12 or seen.mostly_blank:
        return None
    text = f"on average the subject sits {abs(dx):.0%} {'right' if dx > 0 else 'left'} of the"
    text += f" centre and {abs(dy):.0%} {'below' if dy > 0 else 'above'} it"
    cut = seen.shape.fit == "crop" and seen.lost.mean() > 0.1
    crop = "crop the photographs so that the subject is in the middle"
    action = "dataset.fit=pad" if cut else crop
    return Remark("off-centre subject", text, action, {"across": dx, "down": dy})


def blurred(seen: Pictures) -> Remark | None:
    """Edges more than about 10 pixels wide; small originals have their own remark."""
    which = (np.array(seen.scan.sharpness) < 0.15) & ~seen.blank
    which &= seen.short_sides >= 0.75 * seen.side
    text = f"{{n}} of {{number}} images are blurred, as seen at {seen.side} px"
    return seen.remark("blurred images", which, text, "remove these files: {files}")


def dark(seen: Pictures) -> Remark | None:
    lightest = seen.scan.thumbs.max((1, 2))
    which = lightest < min(40, np.median(lightest) / 2)
    text = "{n} of {number} images are nearly black, and the others are not"
    action = "brighten or remove these files: {files}"
    return seen.remark("dark images", which & ~seen.blank, text, action)


def bright(seen: Pictures) -> Remark | None:
    darkest = 255 - seen.scan.thumbs.min((1, 2))
    which = darkest < min(40, np.median(darkest) / 2)
    text = "{n} of {number} images are nearly white, and the others are not"
    action = "darken or remove these files: {files}"
    return seen.remark("bright images", which & ~seen.blank, text, action)


def odd_one_out(seen: Pictures) -> Remark | None:
    """Pictures whose fifth neighbour is far more distant than the others'."""
    if seen.features is None or len(seen.distinct) < LOOKED_AT.start:
        return None
    x = seen.features[seen.distinct]
    x = x / ((x - x.mean(0)).abs().mean(0) + 1e-6)
    fifth = torch.cdist(x, x).kthvalue(6, dim=1).values  # the first is itself
    which = np.zeros(seen.number, bool)
    which[seen.distinct] = (fifth > LONELY * fifth.median()).numpy()
    text = "{n} of {number} images look like none of the others"
    action = "look at these files, and remove what does not belong: {files}"
    return seen.remark("odd ones out", which & ~seen.blank, text, action)


Check = Callable[[Pictures], Remark | None]
CHECKS: list[Check] = [unusable, blank, exact_copies, near_copies, shape, few, small, grey]
CHECKS += [inverted, off_centre, blurred, dark, bright, odd_one_out]


def check(scan: Scan, pixels: Tensor, shape: Shape, name: str, cache_dir: Path) -> CheckReport:
    """Checks what a scan found; `pixels` are the fitted pictures."""
    seen = Pictures(scan, pixels, shape, cache_dir)
    remarks = [remark for one in CHECKS if (remark := one(seen)) is not None]
    rows = {file: row for row, file in enumerate(seen.names)}
    thumbnails = {}
    for remark in remarks:
        if which := [rows[file] for group in remark.files for file in group if file in rows]:
            some = pixels[torch.tensor(which[:THUMBNAILS])]
            thumbnails[remark.name] = pictures.grid(some, gap=255)
    return CheckReport(name, seen.counts(), remarks, seen.bad, thumbnails)


def check_folder(
    folder: str,
    image_size: int | Sequence[int] | None = 64,
    fit: str = "crop",
    channels: int = 3,
    out: str | None = None,
    cache_dir: str = "data/cache",
) -> int:
    """Prints the check of `folder`, writes it to `out`, returns 0. Raises UserError."""
    from gan_lightning.data.sources import FolderImages

    source, target = FolderImages(folder), Shape.of(image_size, channels, fit)
    place = Path(out or "data_check")
    scan, pixels = cache.scan(source, target, Path(cache_dir))
    if not len(scan):
        CheckReport(source.name, unusable=scan.bad).write(place)
        raise nothing_usable(scan, source.name)
    report = check(scan, pixels, target, source.name, Path(cache_dir))
    some = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:64]
    report.write(place, pictures.grid(pixels[some], gap=255))
    terminal = console()
    terminal.print(report.table(), soft_wrap=True)
    terminal.print(f"What the network sees: {place / 'contact_sheet.png'}", soft_wrap=True)
    return 0

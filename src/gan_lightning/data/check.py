"""The data check: looks at a folder of images before anything is trained on them, and says what to do."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_lightning import pictures
from gan_lightning.data import images, similar
from gan_lightning.data.images import ImageStore, LazyStore, Scan, Shape
from gan_lightning.errors import UserError
from gan_lightning.files import write_json
from gan_lightning.text import console, printable


@dataclass
class Remark:
    """One finding: what it is called, what is the matter in a sentence, the one thing to do, and its numbers."""

    name: str
    text: str
    action: str  # an override, or what to do with which files
    numbers: dict[str, float]


@dataclass
class CheckReport:
    """What the images are (`counts`), what is the matter (`remarks`), and which files it concerns."""

    name: str
    counts: dict[str, str]
    remarks: list[Remark]
    unusable: dict[str, str] = field(default_factory=dict)  # file: reason
    copies: list[list[str]] = field(default_factory=list)  # groups of byte-for-byte equal files
    near_copies: list[list[str]] = field(default_factory=list)  # groups that look the same
    blank: list[str] = field(default_factory=list)
    grey: list[str] = field(default_factory=list)  # where most of the others are coloured
    inverted: list[list[str]] = field(
        default_factory=list
    )  # pairs of negatives, or single files with the rarer border

    def lines(self) -> list[str]:
        """The remarks, a line each."""
        return [f"{remark.name}: {remark.text} -> {remark.action}" for remark in self.remarks]

    def table(self) -> Any:
        """For the terminal, a rich renderable."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(_plain(self.name)), show_header=False, title_justify="left")
        for name, text in self.counts.items():
            table.add_row(name, Text(text))
        remarks: list[Any] = [Text(line) for line in self.lines()]
        return Group(table, *(remarks or [Text("nothing to remark")]))

    def write(self, folder: Path, sheet: Tensor | None = None) -> None:
        """check.json, and contact_sheet.png where there is a `sheet` (uint8 (C, H, W)), into `folder`."""
        write_json(folder / "check.json", asdict(self))
        if sheet is not None:
            pictures.save(sheet, folder / "contact_sheet.png")


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # file names need not be text


def _files(names: Sequence[str]) -> str:
    """Some of the names, as they can be shown in a terminal."""
    more = f" and {len(names) - 5} more (all in check.json)" if len(names) > 5 else ""
    return ", ".join(map(printable, names[:5])) + more


def nothing_usable(scan: Scan, name: str) -> UserError:
    """The error for a folder in which no file is an image."""
    file, why = min(scan.bad.items())
    return UserError(
        f"{name}: none of {len(scan.bad)} files is a usable image ({_plain(file)}: {why})"
    )


def _grouped(scan: Scan, pairs: np.ndarray) -> list[list[int]]:
    label = similar.groups(len(scan), pairs)
    members: dict[int, list[int]] = {}
    for row in np.unique(pairs).tolist():
        members.setdefault(int(label[row]), []).append(row)
    return [sorted(rows, key=lambda row: scan.names[row]) for rows in members.values()]


def check(scan: Scan, store: ImageStore | LazyStore, shape: Shape, name: str) -> CheckReport:
    """Checks what a scan found; `store` holds the fitted pictures in the same order. Touches no file."""
    number = len(scan)
    report = CheckReport(
        name, {}, [], unusable={_plain(file): why for file, why in sorted(scan.bad.items())}
    )
    counts = report.counts

    def remark(title: str, text: str, action: str, **numbers: float) -> None:
        report.remarks.append(
            Remark(title, text, action, {key: round(float(v), 4) for key, v in numbers.items()})
        )

    sizes = np.array(scan.sizes)
    ratios = sizes[:, 1] / sizes[:, 0]
    sides = np.sort(sizes.min(1))
    counts["images"] = f"{number} usable, {len(scan.bad)} files that are not"
    by_area = sizes[np.argsort(sizes.prod(1))]
    counts["sizes (height x width)"] = " ... ".join(
        f"{h} x {w}" for h, w in by_area[sorted({0, number // 2, number - 1})].tolist()
    )
    counts["modes"] = ", ".join(
        f"{mode} {count}" for mode, count in Counter(scan.modes).most_common()
    )
    counts["width / height"] = (
        f"{ratios.min():.2f} ... {np.median(ratios):.2f} ... {ratios.max():.2f}"
    )

    if scan.bad:
        why = Counter(reason.partition(":")[0] for reason in scan.bad.values()).most_common(3)
        reasons = ", ".join(f"{count} {reason}" for reason, count in why)
        files = list(report.unusable)
        text = f"{len(files)} of {number + len(files)} files cannot be used ({reasons})"
        remark(
            "unusable files",
            text,
            f"repair or remove these files: {_files(files)}",
            files=len(files),
        )

    blank = np.array(scan.spreads) < 3
    report.blank = [_plain(scan.names[row]) for row in np.flatnonzero(blank)]
    if report.blank:
        text = f"{len(report.blank)} images are one nearly uniform tone"
        remark(
            "blank images",
            text,
            f"remove these files: {_files(report.blank)}",
            images=len(report.blank),
        )

    equal = similar.same_pairs(np.array(scan.digests))
    hashes = similar.perceptual_hash(scan.thumbs)
    pairs = similar.close_pairs(np.concatenate([hashes, ~hashes]))
    close = pairs[pairs[:, 1] < number]
    close = close[
        similar.look_alike(scan.thumbs[close[:, 0]], scan.thumbs[close[:, 1]])
        & ~blank[close].any(1)
    ]
    near = _grouped(scan, np.concatenate([close, equal]))
    distinct = number - sum(len(rows) - 1 for rows in near)
    for title, found, kind, kept in (
        ("exact copies", _grouped(scan, equal), "are byte-for-byte copies of", report.copies),
        ("near copies", _grouped(scan, close), "look nearly the same as", report.near_copies),
    ):
        # What a group holds beyond exact copies; those have a remark of their own.
        first = {digest: row for row, digest in reversed(list(enumerate(scan.digests)))}
        if title == "near copies":
            found = [[row for row in rows if first[scan.digests[row]] == row] for rows in found]
        found = [rows for rows in found if len(rows) > 1]
        kept += [[_plain(scan.names[row]) for row in rows] for rows in found]
        extra = [name for group in kept for name in group[1:]]
        counts[title] = f"{len(extra)} in {len(kept)} groups"
        if extra:
            text = f"{len(extra)} of {number} images {kind} another one; {distinct} distinct images are left"
            remark(
                title,
                text,
                f"remove these files: {_files(extra)}",
                images=len(extra),
                groups=len(kept),
            )

    target = shape.width / shape.height
    lost = 1 - np.minimum(ratios / target, target / ratios)
    if shape.fit == "crop":
        counts["lost to the crop"] = (
            f"{lost.mean():.0%} of an image on average, {lost.max():.0%} at most"
        )
    if shape.fit != "pad" and (np.median(lost) > 0.4 or (lost > 0.5).mean() >= 0.05):
        much = int((lost > 0.4).sum())
        how = (
            "lose more than 40 % to the crop"
            if shape.fit == "crop"
            else "are stretched by more than 1.6"
        )
        text = f"{much} of {number} images {how} (median width / height {np.median(ratios):.2f})"
        remark(
            "far from the target's shape",
            text,
            "dataset.fit=pad",
            images=much,
            median_lost=np.median(lost),
        )

    # Rules of thumb: 100 photographs of one thing can do at 64 px with augmentation (DiffAugment), fewer do not.
    side = min(shape.height, shape.width)
    enough = max(50, round(1.5 * side))
    counts["distinct images"] = f"{distinct} (about {enough} or more are wanted at {side} px)"
    if distinct < enough:
        text = f"{distinct} distinct images; below about {enough} the discriminator learns them by heart at {side} px:"
        text += " add more, and until then"
        remark("too few images", text, "augment=ada", distinct=distinct, wanted=enough)
    if np.median(sides) < 0.75 * side:
        smaller = max(16, 2 ** int(np.log2(np.median(sides))))
        text = f"half of the images are smaller than {np.median(sides):.0f} px and are blown up to {side}"
        remark(
            "small originals", text, f"dataset.image_size={smaller}", median_side=np.median(sides)
        )

    if shape.channels == 3:
        grey = np.array(scan.chromas) < 1
        counts["grey / colour"] = f"{grey.sum()} / {(~grey).sum()}"
        if grey.mean() >= 0.05:
            what = f"{grey.sum()} of {number} images are grey"
            text = (
                f"{what}, the others coloured"
                if (~grey).any()
                else f"{what}: two of three channels add nothing"
            )
            action = "dataset.image_channels=1"
            if grey.mean() < 0.5:
                report.grey = [_plain(scan.names[row]) for row in np.flatnonzero(grey)]
                action = f"remove these files, or make all of them grey ({action}): {_files(report.grey)}"
            remark("grey images", text, action, grey=grey.sum(), colour=(~grey).sum())

    negative = pairs[(pairs[:, 0] < number) & (pairs[:, 1] >= number)] - [0, number]
    negative = negative[
        similar.look_alike(scan.thumbs[negative[:, 0]], 255 - scan.thumbs[negative[:, 1]])
    ]
    negative = negative[~blank[negative].any(1)]
    edge = np.ones(scan.thumbs.shape[1:], bool)
    edge[1:-1, 1:-1] = False
    borders = np.median(scan.thumbs[:, edge], axis=1)
    black, white = borders <= 40, borders >= 215
    if len(negative):
        pairs = negative[negative[:, 0] < negative[:, 1]]
        report.inverted = [[_plain(scan.names[row]) for row in pair] for pair in pairs.tolist()]
        text = f"{len(pairs)} images are negatives of another one"
        action = (
            f"remove one of each pair: {_files([' / '.join(pair) for pair in report.inverted])}"
        )
        remark("inverted images", text, action, images=len(pairs))
    elif (
        min(black.mean(), white.mean()) >= 0.05
        and (black | white).mean() >= 0.9
        and not blank.mean() > 0.5
    ):
        few = black if black.sum() < white.sum() else white
        text = f"{black.sum()} images have a black border and {white.sum()} a white one: some may be inverted"
        report.inverted = [[_plain(scan.names[row])] for row in np.flatnonzero(few)]
        action = f"look at these files, and invert them if so: {_files([name for (name,) in report.inverted])}"
        remark("inverted images", text, action, black=black.sum(), white=white.sum())

    rows = torch.linspace(0, number - 1, min(number, 512)).long().unique()
    # small ones, as all that is asked here are averages; a few at a time, as large floats may not fit into memory
    shrink = functools.partial(torch.nn.functional.adaptive_avg_pool2d, output_size=16)
    some = torch.cat([shrink(images.to_float(store[part])) for part in rows.split(64)])
    # A whole folder of negatives has nothing to be compared with but the world: lamps, wood, soil, skin and most of what
    # people photograph are warm (red over green over blue on average, as in every large set of photographs).
    if shape.channels >= 3 and not report.inverted:
        colours = some[:, :3].mean((2, 3))
        red, green, blue = colours.mean(0).tolist()
        cold = float((colours[:, 2] - colours[:, 0] > 0.04).float().mean())
        if blue - red > 0.08 and red < green < blue and cold >= 0.6:
            text = f"{cold:.0%} of the images are bluish, as negatives of photographs are"
            action = "if they are negatives, invert them (magick mogrify -negate FILES); of sky, snow or sea they are right"
            remark("inverted images", text, action, share=cold)

    # Where the subject is: what differs from the border, as the network sees it.
    seen = some.mean(1).numpy()
    apart = np.abs(seen - np.median(seen[:, edge], axis=1)[:, None, None])
    weight = (apart / (apart.sum((1, 2), keepdims=True) + 1e-6)).mean(0)
    line = (np.arange(16) + 0.5) / 16 - 0.5
    dx, dy = float(weight.sum(0) @ line), float(weight.sum(1) @ line)
    counts["subject from the centre"] = (
        f"{dx:+.0%} across, {dy:+.0%} down (of the picture, on average)"
    )
    if max(abs(dx), abs(dy)) > 0.12 and not blank.mean() > 0.5:
        text = f"on average the subject sits {abs(dx):.0%} {'right' if dx > 0 else 'left'} of the centre and"
        text += f" {abs(dy):.0%} {'below' if dy > 0 else 'above'} it"
        cut = shape.fit == "crop" and lost.mean() > 0.1
        action = (
            "dataset.fit=pad"
            if cut
            else "crop the photographs so that the subject is in the middle"
        )
        remark("off-centre subject", text, action, across=dx, down=dy)
    return report


def check_folder(
    folder: str,
    image_size: int | Sequence[int] | None = 64,
    fit: str = "crop",
    channels: int = 3,
    out: str | None = None,
    cache_dir: str = "data/cache",
) -> int:
    """`gan-lightning check`: prints the check of `folder`, writes it to `out` (data_check/), 0. Raises UserError."""
    from gan_lightning.data.sources import FolderImages

    source, shape, place = (
        FolderImages(folder),
        Shape.of(image_size, channels, fit),
        Path(out or "data_check"),
    )
    scan, pixels = images.scan(source, shape, Path(cache_dir), cache_limit_gb=10)
    if not len(scan):
        CheckReport(source.name, {}, [], unusable=scan.bad).write(place)
        raise nothing_usable(scan, source.name)
    store = LazyStore(source, shape, scan.numbers) if pixels is None else ImageStore(pixels)
    report = check(scan, store, shape, source.name)
    some = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:64]
    report.write(place, pictures.grid(images.to_uint8(images.to_float(store[some])), gap=255))
    terminal = console()
    terminal.print(report.table(), soft_wrap=True)
    terminal.print(f"What the network sees: {place / 'contact_sheet.png'}", soft_wrap=True)
    return 0

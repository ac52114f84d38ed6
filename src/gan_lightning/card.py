"""The card of a generator for a model hub."""

import re
from pathlib import Path
from typing import Any

from gan_lightning import pictures
from gan_lightning.errors import UserError
from gan_lightning.files import inside, read_json, write_text
from gan_lightning.patterns import ANY
from gan_lightning.sampling import Sampler

KNOWN = (  # that a hub has a name for; others go by "other"
    *("mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-3.0"),
    *("cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "odbl", "unknown"),
)
NUMBER = (float, None)
SCORES = {
    "scores": [
        {"name": str, "value": float, "floor?": NUMBER, "ceiling?": NUMBER, "n?": int, str: ANY}
    ],
    "nimg?": int,
    "best?": (dict, None),
    str: ANY,
}
SHOWN = 32  # samples in the picture
TASK = "unconditional-image-generation"
PAGE = """
# {title}

A generator of a GAN, trained with gan-lightning{amount}. It makes images of {size} pixels, {colours}.

![samples of seeds 0 to {last}](samples.png)

Samples of seeds 0 to {last}, not chosen.

## Use

```python
from gan_lightning import load_generator

images = load_generator("{folder}").images(8, seed=0)  # uint8 (8, {shape})
```

or, with the hub's own library and as floats in [-1, 1]:

```python
import torch
from gan_lightning.hub import HubGenerator

images = HubGenerator.from_pretrained("{folder}")(torch.randn(8, {latent_dim}){labels})
```

## Data

{data}

Licence of the data: {license}.

## Scores

{scores}

## Limits

It can show only what its photographs show, and repeats what is one-sided in them.
{copies}
"""


def write_card(folder: Path, sampler: Sampler, checkpoint: Path, license: str | None) -> None:
    """README.md, with the scores of the checkpoint's run, and samples.png. UserError."""
    images = sampler.images(SHOWN)
    pictures.save_image(pictures.labelled_grid(images, range(SHOWN)), folder / "samples.png")
    rows = scores_of(checkpoint, sampler.nimg)
    data = Path(str(sampler.config["dataset"].get("root") or "")).name
    channels, height, width = images.shape[1:]
    title = plain(folder.resolve().name) or "generator"
    text = PAGE.format(
        title=title,
        amount=f" on {sampler.nimg:,} images shown" if sampler.nimg else "",
        size=f"{height} x {width}",
        colours={1: "grey", 3: "in colour", 4: "in colour with alpha"}[channels],
        last=SHOWN - 1,
        folder=title,
        shape=f"{channels}, {height}, {width}",
        latent_dim=sampler.config["latent_dim"],
        labels=", torch.zeros(8).long()" if sampler.num_classes else "",
        data=described(data, sampler),
        license=plain(license) if license else "not stated; find out before sharing this",
        scores=table(rows),
        copies=copies_line(rows),
    )
    front = front_matter(title, plain(data) or "photographs", rows, license)
    write_text(folder / "README.md", f"---\n{front}\n---\n{text}")


def described(data: str, sampler: Sampler) -> str:
    fit = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}
    how = fit.get(sampler.config["dataset"].get("fit") or "", "brought")
    named = f"The folder or data set `{plain(data)}`" if data else "Images of a folder"
    classes = f", in {sampler.num_classes} classes" if sampler.num_classes else ""
    return f"{named}, {how} to that size{classes}. Say here what they show, and whose they are."


def plain(text: str) -> str:
    """Without what Markdown, YAML or HTML would obey."""
    return re.sub(r"[^\w .,:()/+-]", "_", text)[:200].strip()


def scores_of(checkpoint: Path, nimg: int | None) -> list[dict[str, Any]]:
    """The run's scores, if they are of this checkpoint; of its best one what was noted then."""
    run = checkpoint.absolute().parent.parent
    if not (run / "config.yaml").is_file() or not inside(run, "scores.json"):
        return []
    found = read_json(run / "scores.json", SCORES)
    if nimg is None or found.get("nimg") == nimg:
        return found["scores"]
    best = found.get("best") or {}
    if best.get("nimg") != nimg or not isinstance(best.get("scores"), dict):
        return []
    n, main = best.get("n"), str(best.get("name"))
    rows = [{"name": f"{k}_{n}", "value": v, "n": n} for k, v in best["scores"].items()]
    return [
        row | {key: best.get(key) for key in ("floor", "ceiling") if row["name"] == main}
        for row in rows
        if isinstance(row["value"], float | int) and isinstance(n, int)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    if not rows:
        return "None known; `gan-lightning evaluate` measures them."
    lines = ["| score | value | other real images | untrained | images |", "|---|---|---|---|---|"]
    for row in rows:
        numbers = (row["value"], row.get("floor"), row.get("ceiling"))
        shown = ("–" if x is None else f"{x:.4g}" for x in numbers)
        lines.append(f"| {plain(row['name'])} | {' | '.join(shown)} | {row.get('n', '–')} |")
    return "\n".join(lines)


def copies_line(rows: list[dict[str, Any]]) -> str:
    near = next((row for row in rows if row["name"].startswith("near_copies")), None)
    if near is None:
        return "How many of its images are near-copies of photographs was not measured."
    what = "images are near-copies of training photographs"
    return f"{near['value']:.1%} of {near.get('n', 'the')} {what}."


def front_matter(title: str, data: str, rows: list[dict[str, Any]], license: str | None) -> str:
    """YAML as the hub's library writes and reads it."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=re.sub(r"[^\w.-]", "-", data)[:80],
            dataset_name=data,
            metric_type=plain(row["name"]),
            metric_value=round(row["value"], 6),
        )
        for row in rows
    ]
    known = re.sub(r"[^a-z0-9.]+", "-", (license or "").lower()).strip("-")
    named: dict[str, Any] = {"license": known} if known in KNOWN else {}
    if license and not named:
        named = {"license": "other", "license_name": known}
    try:
        return ModelCardData(
            pipeline_tag=TASK,
            library_name="gan-lightning",
            tags=["gan", "image-generation", "pytorch"],
            model_name=title if rows else None,
            eval_results=results or None,
            **named,
        ).to_yaml()
    except ValueError as error:
        raise UserError(f"the card cannot be written: {error}") from None

"""Which curves stand on one pair of axes, with what beside them."""

from typing import Any

from gan_lightning.report.reading import Curve, Seen

POINTS = 300  # of a curve on the page
# name of the title in words.yaml: beginnings of the log keys, in the order of the page
PANES: dict[str, tuple[str, ...]] = {
    "curve_score": ("metric/frechet", "metric/fid"),
    "curve_kinds": ("metric/precision", "metric/recall", "metric/coverage"),
    "curve_loss": ("loss/",),
    "curve_logits": ("score/",),
    "curve_auc": ("signal/auc_train", "signal/auc_heldout"),
    "curve_diversity": ("signal/diversity",),
    "curve_kid": ("metric/kid",),
    "curve_gradients": ("grad_norm/",),
    "curve_rates": ("lr/",),
    "curve_augment": ("augment/",),
}
FIRST = 4  # panes that are open at once


def panes(seen: Seen) -> list[dict[str, Any]]:
    """Series, yardsticks as bands, for report.js; a pane without two points of a curve is none."""
    found = []
    for title, wanted in PANES.items():
        keys = [k for k in sorted(seen.curves) if k.startswith(wanted) and not k.endswith("_floor")]
        curves = {key: seen.curves[key] for key in keys if len(seen.curves[key]) > 1}
        moving = title != "curve_augment" or any(
            len({y for _, y in c}) > 1 for c in curves.values()
        )
        if curves and moving:
            series = [{"name": short(key), "points": thin(curve)} for key, curve in curves.items()]
            found.append({"title": title, "series": series, "bands": _bands(seen, list(curves))})
    return found


NETWORKS = {"d": "discriminator", "g": "generator"}


def short(key: str) -> str:
    """metric/frechet_lite2_224 as frechet; loss/d as discriminator."""
    name = key.partition("/")[2]
    short = name.partition("_")[0] if key.startswith("metric/") else name
    return NETWORKS.get(short, short.replace("_", " "))


def _bands(seen: Seen, keys: list[str]) -> list[dict[str, Any]]:
    """What real images get, and an untrained generator, where a pane has one score."""
    if len(keys) != 1 or not keys[0].startswith("metric/"):
        return []
    name = keys[0].removeprefix("metric/")
    floors = seen.curves.get(f"{keys[0]}_floor", [])
    score = next((s for s in seen.scores if s["name"] == name), {})
    floor = floors[-1][1] if floors else score.get("floor")
    bands = [("real", floor), ("untrained", score.get("ceiling"))]
    return [{"label": label, "value": value} for label, value in bands if value is not None]


def thin(curve: Curve) -> Curve:
    """At most 300 of its points, the last one always, four digits each."""
    step = max(1, -(-len(curve) // POINTS))
    kept = curve[::step] if (len(curve) - 1) % step == 0 else [*curve[::step], curve[-1]]
    return [(x / 1000, float(f"{y:.4g}")) for x, y in kept]

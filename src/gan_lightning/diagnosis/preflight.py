"""Before step 0: what the settings and the first batch already tell. A suspicious setting without a symptom is a note."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gan_lightning.diagnosis.rules import (
    FROM_FACTS,
    RULES,
    Finding,
    History,
    Thresholds,
    augmentation_leaks,
    remedies,
    sane_lr,
)


def preflight(facts: dict[str, Any], thresholds: dict[str, Thresholds]) -> list[Finding]:
    """Findings on the data (as rules give them) and notes on settings known not to work together."""
    h, common = History([], facts), thresholds.get("common", {})
    certain = [
        rule(h, {**common, **thresholds.get(rule.__name__, {})})
        for rule in RULES
        if rule.__name__ in FROM_FACTS
    ]
    choices = remedies(facts.get("config", {}), facts.get("n_train"))
    found = [f for f in certain if f is not None]
    for name, evidence in _remarks(h, thresholds.get("preflight", {})):
        if name not in {f.name for f in found}:
            found.append(Finding(name, "note", 0.5, 0.0, evidence, (choices.get(name) or [""])[0]))
    return found


def _remarks(h: History, t: Thresholds) -> Iterator[tuple[str, dict[str, float | str]]]:
    get, facts = h.setting, h.facts
    batch, n_train = (
        int(facts.get("batch_size") or get("dataset.batch_size", 64)),
        int(facts.get("n_train") or 10**9),
    )
    loss, gamma, gp = (
        get("loss._target_", "").rpartition(".")[2],
        get("loss.gamma", 0.0),
        get("loss.gp_weight", 0.0),
    )
    if not facts.get("n_holdout", 1):
        yield "holdout_off", {"n_holdout": 0}
    if batch < t["batch"] and facts.get("batchnorm_g"):
        yield "small_batch_norm", {"batch_size": batch}
    if facts.get("batchnorm_d") and (gp > 0 or gamma > 0):
        yield "penalty_with_norm", {"loss.gamma": gamma, "loss.gp_weight": gp}
    if gamma > 0 and gp > 0:
        yield "two_penalties", {"loss.gamma": gamma, "loss.gp_weight": gp}
    if gamma == 0 and gp == 0 and loss in ("RpGAN", "Wasserstein"):
        yield "unpenalised", {"loss": loss}
    if get("network.discriminator.minibatch_stddev", 0) and batch % get(
        "network.discriminator.minibatch_stddev", 1
    ):
        yield (
            "stddev_group",
            {"batch_size": batch, "group": get("network.discriminator.minibatch_stddev")},
        )
    tops = {side: max(t["lr"], sane_lr(facts.get("config", {}), side)[1]) for side in "gd"}
    if any(get(f"optimizer_{side}.lr", 0.0) > top for side, top in tops.items()):
        yield (
            "lr_too_high",
            {"optimizer_g.lr": get("optimizer_g.lr"), "optimizer_d.lr": get("optimizer_d.lr")},
        )
    if get("latent_dim", 100) < t["latent"]:
        yield "tiny_latent", {"latent_dim": get("latent_dim")}
    if n_train < t["few"] and not get("augment.ops", []):
        yield "augmentation_missing", {"n_train": n_train}
    if augmentation_leaks(facts.get("config", {})):
        yield "augmentation_leaks", {"augment.p": get("augment.p")}
    halflife, total = get("ema.halflife_kimg", 0.0), get("total_kimg", 0.0)
    if total and halflife > t["halflife"] * total and not get("ema.rampup", 0.0):
        yield "stale_ema", {"halflife_kimg": halflife, "total_kimg": total}

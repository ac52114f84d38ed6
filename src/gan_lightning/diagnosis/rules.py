"""One small pure function per failure: history and thresholds in, `Finding` or None out.

A new rule is a function here, its name in RULES and NEEDS, its words in words.py and its thresholds in conf/diagnosis/.

Ranking: still there before gone again, then severity (fatal, fault, warning, note), then confidence, then the order of
RULES. A confidence says how sure it is that this is the *cause*: a symptom that the settings explain (a learning rate out
of range, a lopsided n_critic) ranks above the same symptom without.

Rows of the catalogue without a rule here: bad crops, and duplicates beyond a sample of them, are the data check's
(`gan-lightning check`), which sees the files; `dataset_too_small` only counts. Everything needs a lasting symptom and,
but for the certain ones, pictures that are poor and not getting better: a confident discriminator alone is no fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import Any

from gan_lightning.config import key_of, lookup
from gan_lightning.diagnosis import words

Thresholds = dict[str, float]
SEVERITIES = ("fatal", "fault", "warning", "note")
OUR_DATA = "dataset._target_=gan_lightning.data.loader.ImageData"  # in place of one that changes what it reads
SANE_LR = (1e-5, 4e-3)  # where Adam's learning rates for GANs are found in publications


def sane_lr(config: dict[str, Any], side: str) -> tuple[float, float]:
    """The learning rates that raise no doubt for a network's optimiser; any for SGD, whose steps follow the gradients'."""
    return (
        (0.0, math.inf)
        if setting(config, f"optimizer_{side}._target_", "").endswith(".SGD")
        else SANE_LR
    )


@dataclass(frozen=True)
class Finding:
    """What is wrong, how sure, since when, the numbers it rests on, and ONE Hydra override to paste."""

    name: str
    severity: str
    confidence: float
    since_kimg: float
    evidence: dict[str, float | str]
    override: str = ""
    restart: str = "scratch"  # or "checkpoint": going on from the last one is enough
    resolved: bool = False

    def as_dict(self, language: str = "en") -> dict[str, Any]:
        return {
            "name": self.name, "title": words.title(self.name, language), "severity": self.severity,
            "confidence": round(self.confidence, 2), "since_kimg": round(self.since_kimg, 3), "resolved": self.resolved,
            "evidence": self.evidence, "why": words.why(self.name, language), "override": self.override, "restart": self.restart,
        }  # fmt: skip


RECORD = {
    "nimg": int,
    "step": int,
    "kind": str,
    str: (float, str, bool, None),
}  # one look, as in signals.jsonl


@dataclass(frozen=True)
class History:
    """The records of a run, oldest first, and its facts: config, n_train, n_holdout, batch statistics, `ended`."""

    records: Sequence[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def full(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record.get("kind") == "full"]

    def __getitem__(self, name: str) -> list[float]:
        """A signal over the full checks; NaN where it was not measured, so that no comparison with it holds."""
        return [_number(record.get(name)) for record in self.full]

    def setting(self, path: str, default: Any = None) -> Any:
        return setting(self.facts.get("config", {}), path, default)


def setting(config: Any, path: str, default: Any = None) -> Any:
    """A nested configuration value by its dotted name; `default` where it is missing or null."""
    value = lookup(config, path)
    return default if value is None else value


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


# -- what to change ------------------------------------------------------------------------------------------------


def remedies(config: dict[str, Any], n_train: float | None = None) -> dict[str, list[str]]:
    """For each rule the overrides that apply to this configuration, the best first; one that changes nothing is left out.

    `n_train`: training images, where they are known: no batch is larger.
    """
    most = min(32, int(n_train or 32))
    lr_g, lr_d = setting(config, "optimizer_g.lr", 2e-4), setting(config, "optimizer_d.lr", 2e-4)
    gamma, gp = setting(config, "loss.gamma", 0.0), setting(config, "loss.gp_weight", 0.0)
    adversarial = setting(config, "loss._target_", "").rpartition(".")[2]
    n_critic, latent, batch = (
        setting(config, "n_critic", 1),
        setting(config, "latent_dim", 100),
        setting(config, "dataset.batch_size", 64),
    )
    total, ops = setting(config, "total_kimg"), setting(config, "augment.ops", [])
    group = setting(config, "network.discriminator.minibatch_stddev", 0) or 4
    width = {side: _width(config, side) for side in "gd"}
    # without momentum and a step of its own for every weight a GAN's learning rate can hardly be right
    sgd = {
        side: setting(config, f"optimizer_{side}._target_", "").endswith(".SGD")
        and rate <= SANE_LR[1]
        for side, rate in (("g", lr_g), ("d", lr_d))
    }
    halflife, epochs = (
        setting(config, "ema.halflife_kimg", 0.0),
        setting(config, "trainer.max_epochs", -1),
    )
    upsample, (beta_g, beta_d) = setting(config, "network.generator.upsample"), _betas(config)
    family = (
        setting(config, "network.generator._target_", "")
        .rpartition(".Generator")[0]
        .rpartition(".")[2]
    )
    penalised, wasserstein = gamma > 0 or gp > 0, adversarial == "Wasserstein"

    def lr(side: str, value: float) -> str:
        return f"optimizer_{side}.lr={value:.3g}"

    usual = 5e-4 if min(beta_g, beta_d) == 0 else 2e-4
    rates = {"g": (lr_g, *sane_lr(config, "g")), "d": (lr_d, *sane_lr(config, "d"))}
    both_high = all(value > top for value, _, top in rates.values())
    both_low = all(value < bottom for value, bottom, _ in rates.values())

    def sane(side: str) -> float:
        """The other network's learning rate where it is an ordinary one, else a usual one."""
        other, bottom, top = rates["d" if side == "g" else "g"]
        return other if bottom <= other <= top else usual

    def lower(side: str) -> str:
        value, bottom, top = rates[side]
        if value < 4 * bottom:  # it is low enough
            return ""
        return lr(side, value / 4 if value <= top else sane(side))

    def higher(side: str) -> str:
        value, bottom, top = rates[side]
        return lr(side, min(value * 10, top) if bottom <= value < top else sane(side))

    hot, slow_g = ("g" if lr_g >= lr_d else "d"), lr_g < 1e-4 <= lr_d
    fewer_turns = (
        1.0 if wasserstein else min(n_critic, 5) ** 0.5
    )  # a generator with fewer steps needs larger ones
    regularise = [
        (not penalised and wasserstein, "loss.gp_weight=10"),
        (not penalised and not wasserstein, "loss.gamma=1"),
    ]
    # of two rates far apart the one that is further from the usual moves to the other
    hasty_g = lr_d >= rates["d"][1] and lr_g * lr_d > usual**2
    leaks = augmentation_leaks(config)
    # digits are learnt without; the network wants images to be seen at 32 pixels or more
    aided = (
        not setting(config, "aid._target_")
        and min(_sides(setting(config, "dataset.image_size", 64))) >= 32
    )
    endless_warmup = setting(config, "schedule.warmup_kimg", 0.0) > 0.2 * (total or 200)
    doubles = _doubles(setting(config, "dataset.image_size", 64))
    # photographs need convolutions, a penalty and an average at once: where a whole experiment lacks them, another one
    source = setting(config, "dataset.source._target_", "").rpartition(".")[2]
    recipe = {"EggImages": "experiment=egg", "FolderImages": "experiment=few_photos"}.get(
        source, ""
    )
    bare = family == "mlp" and not penalised and not halflife and _from_experiment(config)
    # fully connected layers have to learn every pixel's neighbours anew: convolutions help there more than any penalty
    steady = [
        (bare and doubles, recipe),
        (family == "mlp" and doubles, "network=dcgan"),
        *regularise,
    ]
    variety = [
        (latent < 8, "latent_dim=100"), (leaks, "augment.p=0.5"), *steady, (batch < 16 <= most, f"dataset.batch_size={most}"),
        (adversarial != "RpGAN", "loss=rpgan"), (gamma > 0, f"loss.gamma={gamma * 4:.3g}"), (True, lower("d")),
    ]  # fmt: skip
    augment = [
        (not ops, "augment=diffaugment"),
        (
            not setting(config, "augment.ada_target")
            and adversarial != "RpGAN"
            and not wasserstein,
            "augment=ada",
        ),
    ]
    table: dict[str, list[tuple[Any, str]]] = {
        "divergence": [
            (both_high, f"lr={usual}"), (not penalised and wasserstein, "loss.gp_weight=10"), (any(value > top for value, _, top in rates.values()), lower(hot)),
            (True, lower(hot)), (not setting(config, "grad_clip"), "grad_clip=1"),
        ],
        "wrong_range": [(True, OUR_DATA)], "altered_images": [(True, OUR_DATA)],
        "network_too_small": [(width[side] <= min(width.values()), f"network.{name}.{wider}") for side, name, wider in (
            ("g", "generator", "hidden=[256,512,1024]" if family == "mlp" else "channels=128"),
            ("d", "discriminator", "hidden=[1024,512,256]" if family == "mlp" else "channels=128"),
        )],
        "wrong_output": [(doubles, "network=dcgan"), (doubles, "network=resnet")],
        "wrong_channels": [(setting(config, "dataset.image_channels") == 3, "dataset.image_channels=1"), (True, "dataset.image_channels=3")],
        "dataset_too_small": [*augment, (total, f"total_kimg={(total or 0) / 2:.6g}"), (True, "loss.lecam_weight=0.1")],
        "lr_too_high": [(both_high, f"lr={usual}"), (True, lower(hot)), (True, lower("d" if hot == "g" else "g"))],
        "lr_too_low": [(endless_warmup, "schedule.warmup_kimg=0"), (sgd["g"], "optimizer_g._target_=torch.optim.Adam"), (both_low, f"lr={usual}"), (True, higher("g")), (True, higher("d"))],
        "small_batch_norm": [(batch < most and most >= 16, f"dataset.batch_size={most}"),
                             (setting(config, "network.generator.norm") == "batch", "network.generator.norm=group"), (True, "network=resnet")],
        "stale_ema": [(halflife > 0, f"ema.halflife_kimg={max(0.1, min(10, 0.05 * (total or 200), halflife / 4)):.3g}")],
        "d_too_weak": [(endless_warmup, "schedule.warmup_kimg=0"), (sgd["d"], "optimizer_d._target_=torch.optim.Adam"), (lr_d < lr_g / 4 and hasty_g, lr("g", lr_d)), (lr_d < lr_g / 4, lr("d", sane("d"))), (leaks, "augment.p=0.5"), (gamma > 10, f"loss.gamma={gamma / 10:.3g}"),
                       (n_critic > 1 and lr_g > lr_d, lr("g", lr_d)), (True, lr("d", min(lr_d * 4, rates["d"][2])))],
        "d_too_strong": [
            (slow_g and lr_d >= 4 * lr_g, f"optimizer_g.lr={min(lr_d, 1e-3) * fewer_turns:.1g}"), (lr_d >= 4 * lr_g, lr("d", lr_g)),
            (n_critic > 1 and not wasserstein, "n_critic=1"), (adversarial == "Minimax", "loss=bce"), *steady, (True, lower("d")),
        ],
        "d_overfits": [*augment, *regularise, (gamma > 0, f"loss.gamma={gamma * 4:.3g}"), (True, "loss.lecam_weight=0.1")],
        "dead_output": [(both_high, f"lr={usual}"), (lr_g > rates["g"][2], lower("g")), *steady, (True, lower("g"))],
        "full_collapse": variety, "partial_collapse": variety,
        "mode_dropping": [*steady, (gamma > 10, f"loss.gamma={gamma / 4:.3g}"), (adversarial != "RpGAN", "loss=rpgan"), (True, lower("d"))],
        "oscillation": [*steady, (beta_g > 0.5, "optimizer_g.betas=[0.0,0.99]"), (beta_d > 0.5, "optimizer_d.betas=[0.0,0.99]"), (True, lower(hot))],
        "checkerboard": [(upsample in ("transposed", "resize"), "network.generator.upsample=smooth"), (doubles, "network=dcgan"), (doubles, "network=resnet")],
        "copies_photos": [*augment, (total, f"total_kimg={(total or 0) / 2:.6g}"), (True, "loss.lecam_weight=0.1")],
        "stuck": [*steady, *variety],
        "wrong_shapes": [*steady, (aided, "aid=sliced"), (total, f"total_kimg={2 * (total or 0):.6g}"), (True, lower("d"))],
        "stopped_early": [(total, f"total_kimg={2 * (total or 0):.6g}"), (epochs > 0, f"trainer.max_epochs={2 * epochs}"), (True, "total_kimg=1000")],
        "holdout_off": [(True, "dataset.holdout=0.1")],
        "penalty_with_norm": [(setting(config, "network.discriminator.norm"), "network.discriminator.norm=none"), (True, "network=resnet")],
        "stddev_group": [(True, f"dataset.batch_size={max(group, batch // group * group)}")],
        "augmentation_missing": augment,
        "unpenalised": regularise,
        "two_penalties": [(True, "loss.gamma=0")],
        "tiny_latent": [(True, "latent_dim=100")],
        "augmentation_leaks": [(True, "augment.p=0.5")],
    }  # fmt: skip

    def changes(override: str) -> bool:
        key, _, value = override.partition("=")
        if key == "lr":  # typed last it takes the place of both (config.let_last_rate_win)
            return any(rate != float(value) for rate, _, _ in rates.values())
        return str(setting(config, key)) != value and not (key == "network" and value == family)

    return {
        name: list(dict.fromkeys(o for holds, o in pairs if holds and o and changes(o)))
        for name, pairs in table.items()
    }


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def augmentation_leaks(config: dict[str, Any]) -> bool:
    """Whether images are augmented more often than conf/augment says is possible without showing in the samples."""
    p, most = setting(config, "augment.p", 0.0), setting(config, "augment.max_p", 0.8)
    return bool(setting(config, "augment.ops", [])) and p > most


def _from_experiment(config: dict[str, Any]) -> bool:
    """Whether an experiment chose the networks and the loss, so that another one, pasted behind it, replaces them."""
    typed = {key_of(o).partition(".")[0] for o in setting(config, "overrides", [])}
    return "experiment" in typed and not {"network", "loss", "ema", "augment"} & typed


def _doubles(size: Any) -> bool:
    """Whether the convolutional networks can make images of this size."""
    from gan_lightning.networks.blocks import doublings

    try:
        return bool(doublings(size))
    except ValueError:
        return False


def printed_overrides(config: dict[str, Any]) -> list[str]:
    """Every literal override that a rule or the preflight can print for this configuration.

    Each composes in the place that `verdict.follow` gives it (a group's option drops that group's own keys).
    """
    return sorted({override for overrides in remedies(config).values() for override in overrides})


def _betas(config: dict[str, Any]) -> tuple[float, float]:
    return tuple(float((setting(config, f"optimizer_{side}.betas") or [0.9])[0]) for side in "gd")  # type: ignore[return-value]


# -- what the rules are made of --------------------------------------------------------------------------------------


def _poor(h: History, t: Thresholds) -> list[bool]:
    return [q > t["poor"] for q in h["quality"]]


def _flat(h: History, t: Thresholds) -> list[bool]:
    """At each check: no new best quality, by a share of `gain`, within the last `window` checks."""
    q, w = h["quality"], int(t["window"])
    return [
        i >= w + 1 and min(q[i - w + 1 : i + 1]) > (1 - t["gain"]) * min(q[: i - w + 1])
        for i in range(len(q))
    ]


def _slow(h: History, t: Thresholds) -> list[bool]:
    """At each check: quality has not fallen by a share of `slow` since the latest check that is `steps` steps older."""
    q, when = h["quality"], [record["step"] for record in h.full]
    older = [
        max((j for j in range(i) if when[j] <= when[i] - t["steps"]), default=None)
        for i in range(len(q))
    ]
    return [j is not None and q[i] > (1 - t["slow"]) * q[j] for i, j in enumerate(older)]


def _all(*masks: Sequence[bool]) -> list[bool]:
    return [all(values) for values in zip(*masks, strict=True)]


def _any(*masks: Sequence[bool]) -> list[bool]:
    return [any(values) for values in zip(*masks, strict=True)]


def _found(
    h: History,
    t: Thresholds,
    name: str,
    symptom: Sequence[bool],
    confidence: float,
    numbers: str,  # names of signals, facts or settings, for the evidence
    gate: Sequence[bool] = (),
    still: Sequence[bool] = (),
    severity: str = "fault",
    restart: str = "scratch",
) -> Finding | None:
    """The last stretch in which `symptom` held for `checks` full checks over `steps` steps (one miss allowed), or None.

    Where there is a `gate` (nothing improves), it has to hold at the last two of these checks. Once found it stays while
    `still` holds (symptom and gate if not given), and has gone again (`resolved`) when the two latest checks are free of it.
    """
    gate = gate or [True] * len(symptom)
    still = still or _all(symptom, gate)
    found: tuple[int, int] | None = None
    start, hits, last = -1, 0, 0
    for i, bad in enumerate(symptom):
        if start >= 0 and i - last > 2:
            start, hits = -1, 0
        if bad:
            start, hits, last = i if start < 0 else start, hits + 1, i
            long = hits >= t.get("checks", 1) and h.full[i]["step"] - h.full[start][
                "step"
            ] >= t.get("steps", 0)
            if long and gate[i] and gate[max(0, i - 1)]:
                found = start, i
        if found is not None and found[0] == start and i - found[1] <= 2 and still[i]:
            found = start, i
    if found is None:
        return None
    first, latest = h.full[found[0]], h.full[found[1]]
    values = {n: _number(latest.get(n, h.facts.get(n, h.setting(n)))) for n in numbers.split()}
    evidence: dict[str, float | str] = {
        n: _short(value) for n, value in values.items() if not math.isnan(value)
    }
    since, gone = first["nimg"] / 1000, len(symptom) - 1 - found[1] >= 2
    return Finding(name, severity, confidence, since, evidence, _remedy(h, name), restart, gone)


def _remedy(h: History, name: str) -> str:
    return next(iter(remedies(h.facts.get("config", {}), h.facts.get("n_train")).get(name, [])), "")


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _auc(h: History) -> list[float]:
    """Held-out AUC, or the training images' where nothing is held out."""
    return [
        train if math.isnan(held) else held
        for held, train in zip(h["auc_heldout"], h["auc_train"], strict=True)
    ]


def _lr(h: History, side: str) -> float:
    return float(h.setting(f"optimizer_{side}.lr", 2e-4))


def _plain(h: History) -> bool:
    return h.setting("loss.gamma", 0.0) == 0 and h.setting("loss.gp_weight", 0.0) == 0


# -- the rules, likely causes first ----------------------------------------------------------------------------------


def divergence(h: History, t: Thresholds) -> Finding | None:
    """A NaN or infinity (fatal), or logits or gradients that have run away."""
    for record in h.records:
        if record.get("bad"):
            evidence: dict[str, float | str] = {
                "first_bad": str(record["bad"]),
                "step": record["step"],
            }
            return Finding(
                "divergence",
                "fatal",
                1.0,
                record["nimg"] / 1000,
                evidence,
                _remedy(h, "divergence"),
            )
    run_away = [
        max(abs(a), abs(b)) > t["score"]
        for a, b in zip(h["score_real"], h["score_fake"], strict=True)
    ]
    for side in "gd":
        g = h[f"grad_norm_{side}"]
        run_away = [
            a or (i >= 4 and x > t["gradient"] * median(g[:i]))
            for i, (a, x) in enumerate(zip(run_away, g, strict=True))
        ]
    numbers = "score_real score_fake grad_norm_g grad_norm_d quality"
    return _found(h, t, "divergence", _all(run_away, _poor(h, t)), 0.55, numbers, _flat(h, t))


def wrong_range(h: History, t: Thresholds) -> Finding | None:
    """Training pixels that do not use [-1, 1], differ from what is stored, or are inverted. Known before step 0."""
    low, high, mean = (_number(h.facts.get(f"real_{k}")) for k in ("min", "max", "mean"))
    stored, confidence, problem = _number(h.facts.get("stored_mean")), 0.0, ""
    apart = max(
        t["apart"], 4 * (_number(h.facts.get("mean_error", 0.0)))
    )  # one batch is not the whole set
    changed, agree = abs(mean - stored) > apart, _number(h.facts.get("mean_image"))
    if high > 1.01 or low < -1.01:
        confidence, problem = 1.0, "outside [-1, 1]"
    elif agree < -t.get("agree", 1.0) or (
        changed and abs(stored) > apart and abs(mean + stored) < apart / 2
    ):
        confidence, problem = 0.95, "inverted against the stored images"
    elif changed and abs(mean - (stored + 1) / 2) < apart / 2:
        confidence, problem = 0.95, "in [0, 1] instead of [-1, 1]"
    elif low >= -0.05:
        confidence, problem = (
            (0.9, "in [0, 1] instead of [-1, 1]")
            if abs(low) < 0.01 and high > 0.95
            else (0.5, "no dark pixel at all")
        )
    elif h.facts.get("dataset") in ("mnist", "fashion_mnist") and mean > 0:
        confidence, problem = 0.9, "inverted: these images are mostly dark"
    if not problem:
        return None
    evidence: dict[str, float | str] = {"problem": problem}
    evidence |= {"minimum": _short(low), "maximum": _short(high), "mean": _short(mean)}
    override = _remedy(h, "wrong_range")
    return Finding(
        "wrong_range",
        "fault" if confidence > 0.6 else "warning",
        confidence,
        0.0,
        evidence,
        override,
    )


def altered_images(h: History, t: Thresholds) -> Finding | None:
    """The images that reach the networks are not those that are stored, by more than chance, whatever was done to them."""
    apart, chance = _number(h.facts.get("seen_apart")), _number(h.facts.get("seen_chance"))
    if not apart > max(t["distance"], t["chance"] * chance):
        return None
    evidence: dict[str, float | str] = {
        "distance_to_stored": _short(apart),
        "distance_by_chance": _short(chance),
    }
    return Finding("altered_images", "fault", 0.88, 0.0, evidence, _remedy(h, "altered_images"))


def wrong_channels(h: History, t: Thresholds) -> Finding | None:
    """Images whose channels are not those of `dataset.image_channels`."""
    have, want = _number(h.facts.get("channels")), _number(h.setting("dataset.image_channels"))
    if math.isnan(have) or math.isnan(want) or have == want:
        return None
    evidence: dict[str, float | str] = {"images_have": have, "configured": want}
    return Finding(
        "wrong_channels", "fault", 1.0, 0.0, evidence, f"dataset.image_channels={have:.0f}"
    )


def dataset_too_small(h: History, t: Thresholds) -> Finding | None:
    """Fewer training images than a generator can learn from, or mostly copies of each other."""
    count, copies = _number(h.facts.get("n_train")), _number(h.facts.get("duplicates"))
    if not (count < t["images"] or copies > t["duplicates"]):
        return None
    override = _remedy(h, "dataset_too_small")
    return Finding(
        "dataset_too_small",
        "warning",
        0.92,
        0.0,
        {"n_train": count, "duplicates": _short(copies)},
        override,
    )


def lr_too_high(h: History, t: Thresholds) -> Finding | None:
    """Updates that are large beside the weights, or a learning rate out of every range, while the pictures stay poor."""
    side = "g" if _lr(h, "g") >= _lr(h, "d") else "d"
    extreme = _lr(h, side) > sane_lr(h.facts.get("config", {}), side)[1]
    ratio = [
        max(a, b) if extreme else min(a, b)
        for a, b in zip(h["update_ratio_g"], h["update_ratio_d"], strict=True)
    ]
    symptom = _all(_poor(h, t), [extreme or x > t["ratio"] for x in ratio])
    numbers = "optimizer_g.lr optimizer_d.lr update_ratio_g update_ratio_d quality"
    return _found(h, t, "lr_too_high", symptom, 0.95 if extreme else 0.45, numbers, _flat(h, t))


def lr_too_low(h: History, t: Thresholds) -> Finding | None:
    """The generator's weights hardly move, and its pictures are poor."""
    ended = [share < 0.1 for share in h["lr_share"]]  # a schedule's end is meant to be slow
    mask = _all(
        _poor(h, t),
        [x < t["ratio"] and not end for x, end in zip(h["update_ratio_g"], ended, strict=True)],
    )
    confidence = 0.95 if _lr(h, "g") < sane_lr(h.facts.get("config", {}), "g")[0] else 0.6
    return _found(h, t, "lr_too_low", mask, confidence, "optimizer_g.lr update_ratio_g quality")


def small_batch_norm(h: History, t: Thresholds) -> Finding | None:
    """The generator makes other images in train mode than in eval mode: batch statistics over too few images."""
    batch = _number(h.facts.get("batch_size", h.setting("dataset.batch_size", 64)))
    tiny = batch < t["batch"]
    mask = [
        x > t["gap"] if tiny else (x > 2.5 * t["gap"] and p)
        for x, p in zip(h["mode_gap"], _poor(h, t), strict=True)
    ]
    return _found(
        h, t, "small_batch_norm", mask, 0.9 if tiny else 0.5, "batch_size mode_gap quality"
    )


def stale_ema(h: History, t: Thresholds) -> Finding | None:
    """The average of the generator's weights is clearly worse than the weights: it still remembers too old ones."""
    halflife, total = (
        h.setting("ema.halflife_kimg", 0.0) * 1000,
        h.setting("total_kimg", 0.0) * 1000,
    )
    if not halflife:
        return None
    planned = total or (h.full[-1]["nimg"] if h.full and h.facts.get("ended") else math.inf)
    judged = [r["nimg"] > 5 * halflife or halflife > t["share"] * planned for r in h.full]
    worse = [
        e > (1 + t["worse"]) * max(r, 0) + t["margin"]
        for e, r in zip(h["quality_ema"], h["quality_raw"], strict=True)
    ]
    numbers = "quality_ema quality_raw ema.halflife_kimg total_kimg"
    return _found(h, t, "stale_ema", _all(judged, worse), 0.85, numbers)


def d_too_weak(h: History, t: Thresholds) -> Finding | None:
    """The discriminator cannot tell poor fakes from held-out reals, or hardly learns while the generator does.

    Where the settings favour the generator, all pictures that are not good and hardly get better count.
    """
    # one that stands still because it is right about everything is not weak
    moves = zip(h["update_ratio_d"], h["update_ratio_g"], _auc(h), strict=True)
    frozen = [d < t["ratio"] and g > 20 * d and not a > t["sure"] for d, g, a in moves]
    blind = _all([a < t["auc"] for a in _auc(h)], _flat(h, t))
    outrun = _lr(h, "d") * h.setting("n_critic", 1) < _lr(h, "g") / t["lead"]
    behind = _all([outrun and q > t["good"] for q in h["quality"]], _any(_flat(h, t), _slow(h, t)))
    symptom = _any(_all(_poor(h, t), _any(frozen, blind)), behind)
    explained = outrun or h.setting("loss.gamma", 0.0) > 100
    numbers = "optimizer_d.lr optimizer_g.lr auc_heldout auc_train update_ratio_d quality"
    confidence = 0.92 if explained else 0.85 if frozen and frozen[-1] else 0.55
    return _found(h, t, "d_too_weak", symptom, confidence, numbers)


def d_too_strong(h: History, t: Thresholds) -> Finding | None:
    """A sure discriminator *and* pictures that stay poor; surest when the settings favour it or the gradient has vanished.

    Where the settings favour it, pictures that get better only slowly count as well, and all that are not good yet.
    """
    g = h["grad_norm_g"]
    early = median([x for x in g[:4] if not math.isnan(x)] or [math.nan])
    vanished = bool(g) and g[-1] < t["gradient"] * early
    wasserstein = str(h.setting("loss._target_", "")).endswith("Wasserstein")
    lead = _lr(h, "d") * (1 if wasserstein else h.setting("n_critic", 1)) / max(_lr(h, "g"), 1e-12)
    held_back = _slow(h, t) if lead >= t["lead"] else _flat(h, t)
    bad = [q > (t["good"] if lead >= t["lead"] else t["poor"]) for q in h["quality"]]
    symptom = _all(bad, [a > t["auc"] for a in _auc(h)])
    confidence = min(0.92, 0.5 + 0.35 * (lead >= t["lead"]) + 0.2 * vanished)
    numbers = "optimizer_d.lr optimizer_g.lr n_critic auc_heldout auc_train grad_norm_g quality"
    return _found(h, t, "d_too_strong", symptom, confidence, numbers, held_back)


def d_overfits(h: History, t: Thresholds) -> Finding | None:
    """Training images look more real to the discriminator than held-out ones, by more than chance, and it hurts.

    Hurts: the pictures are not good, and either nothing improves or held-out images look about as fake as the fakes.
    """
    beyond_chance = [
        m - 0.5 > t["sigma"] * e
        for m, e in zip(h["auc_memory"], h["auc_memory_error"], strict=True)
    ]
    gap = [a - b > t["gap"] for a, b in zip(h["auc_train"], h["auc_heldout"], strict=True)]
    large = [a or v > t["r_v"] for a, v in zip(gap, h["r_v"], strict=True)]
    hurts = [
        q > t["good"] and (f or v > t["blatant"])
        for q, f, v in zip(h["quality"], _flat(h, t), h["r_v"], strict=True)
    ]
    few = _number(h.facts.get("n_train")) < 2000 and not h.setting("augment.ops", [])
    numbers = "n_train r_v auc_train auc_heldout auc_memory quality"
    return _found(
        h, t, "d_overfits", _all(beyond_chance, large, hurts), 0.88 if few else 0.6, numbers
    )


def dead_output(h: History, t: Thresholds) -> Finding | None:
    """Pixels stuck at black or white far beyond the data's, or images without contrast."""
    stuck = [
        f - r > t["saturated"] or s < t["std"]
        for f, r, s in zip(h["saturated_fake"], h["saturated_real"], h["image_std"], strict=True)
    ]
    numbers = "saturated_fake saturated_real image_std"
    return _found(h, t, "dead_output", _all(stuck, _poor(h, t)), 0.75, numbers, _flat(h, t))


def wrong_output(h: History, t: Thresholds) -> Finding | None:
    """Bright images whose darkest value is pinned at 0 where the data's is far below, as a sigmoid's; or values beyond [-1, 1]."""
    dark, bright = _number(h.facts.get("darkest_real")), _number(h.facts.get("brightest_real"))
    ends = list(zip(h["darkest_fake"], h["brightest_fake"], _poor(h, t), strict=True))
    pinned = [
        p and -0.02 < low < t["zero"] and dark < -t["apart"] and high > bright - t["apart"]
        for low, high, p in ends
    ]
    beyond = [low < -t["limit"] or high > t["limit"] for low, high, _ in ends]
    numbers = "darkest_fake darkest_real brightest_fake brightest_real quality"
    return _found(h, t, "wrong_output", _any(pinned, beyond), 0.9, numbers)


def network_too_small(h: History, t: Thresholds) -> Finding | None:
    """A network that the settings made very narrow, and pictures that are not good and hardly get better."""
    narrow = [
        width < t["width"] for width in (_width(h.facts.get("config", {}), side) for side in "gd")
    ]
    mask = [q > t["good"] and any(narrow) for q in h["quality"]]
    numbers = "network.generator.channels network.discriminator.channels params_g params_d quality coverage"
    return _found(
        h, t, "network_too_small", mask, 0.9, numbers, _any(_flat(h, t), _slow(h, t)), mask
    )


def _width(config: dict[str, Any], side: str) -> float:
    """Channels of a convolutional network where it has most of them, or values of a fully connected one's widest layer."""
    network = setting(config, f"network.{'generator' if side == 'g' else 'discriminator'}", {})
    if channels := setting(network, "channels"):
        return float(
            max(channels, setting(network, "min_channels", 0))
        )  # of which there are never fewer
    return float(max(setting(network, "hidden", []), default=math.inf))


def full_collapse(h: History, t: Thresholds) -> Finding | None:
    """Whatever the noise, the generator makes the same image."""
    mask = _all(_poor(h, t), [d < t["diversity"] for d in h["diversity"]])
    confidence = 0.9 if h.setting("latent_dim", 100) < 8 else 0.75
    return _found(h, t, "full_collapse", mask, confidence, "diversity coverage quality")


def oscillation(h: History, t: Thresholds) -> Finding | None:
    """The generator runs from one kind of image to another, check after check, and does not get better or loses it again."""
    moved, q = h["travel"], h["quality"]
    lost = [q[i] > t["worse"] * min(q[: i + 1]) for i in range(len(q))]
    gate = _any(_flat(h, t), lost)
    far = [i >= 2 and median(moved[i - 2 : i + 1]) > t["travel"] for i in range(len(moved))]
    confidence = 0.5 + 0.15 * _plain(h) + 0.15 * (max(_betas(h.facts.get("config", {}))) > 0.5)
    # without a penalty nothing holds the two together: there, pictures that are only not good count as well
    bad = [x > t["invited" if _plain(h) else "poor"] for x in q]
    lasts = _all(far, bad)
    return _found(h, t, "oscillation", lasts, confidence, "travel quality", gate, lasts)


def partial_collapse(h: History, t: Thresholds) -> Finding | None:
    """Large parts of the data are never made, and their share does not grow."""
    seen, null = h["coverage"], _number(h.facts.get("coverage_null", 0.97))
    stale = [
        i >= 3 and max(seen[i - 1 : i + 1]) <= max(seen[: i - 1]) + t["growth"]
        for i in range(len(seen))
    ]
    few = [
        c < t["coverage"] * null or m > t["missing"]
        for c, m in zip(seen, h["modes_missing"], strict=True)
    ]
    latent = 0.2 * (h.setting("latent_dim", 100) < 8)
    # next to no variety counts even where the pictures' average is not poor
    bad = [p or c < t.get("blatant", 0) * null for p, c in zip(_poor(h, t), seen, strict=True)]
    lasts, numbers = _all(few, bad), "coverage coverage_null modes_missing diversity quality"
    return _found(
        h, t, "partial_collapse", lasts, 0.6 + latent, numbers, _all(stale, _flat(h, t)), lasts
    )


def wrong_shapes(h: History, t: Thresholds) -> Finding | None:
    """No generated image lies where real ones do, in features that know shapes, and this does not change soon."""
    real, null = _number(h.facts.get("precision_real")), _number(h.facts.get("coverage_null", 0.97))
    pairs = zip(h["precision"], h["coverage"], strict=True)
    apart = [p < t["precision"] * real and c < t["coverage"] * null for p, c in pairs]
    numbers = "precision precision_real coverage coverage_null quality"
    return _found(
        h,
        t,
        "wrong_shapes",
        _all(apart, _poor(h, t)),
        0.7,
        numbers,
        _any(_flat(h, t), _slow(h, t)),
        apart,
    )


def _few_for_modes(h: History, t: Thresholds) -> bool:
    """Too few images to compare with: clusters of a handful each."""
    return _number(h.facts.get("mode_images", h.facts.get("n_holdout"))) < t.get("images", 0)


def mode_dropping(h: History, t: Thresholds) -> Finding | None:
    """A known class or cluster of the held-out images that the generator does not make, while it makes the others.

    Certain where the held-out labels name a class that training has (nearly) no image of: nobody can make it then.
    """
    if untrained := h.facts.get("untrained_classes"):
        evidence: dict[str, float | str] = {
            "classes_without_training_images": ", ".join(map(str, untrained))
        }
        return Finding("mode_dropping", "fault", 0.9, 0.0, evidence, _remedy(h, "mode_dropping"))
    if _few_for_modes(h, t):
        return None
    mask = [
        0 < m <= t["missing"] and c > t["coverage"]
        for m, c in zip(h["modes_missing"], h["coverage"], strict=True)
    ]
    # classes are certain; a cluster of odd photographs comes late in many a good run, and is worth no more than a note
    severity = "fault" if h.facts.get("mode_labels", True) else "note"
    return _found(
        h,
        t,
        "mode_dropping",
        mask,
        0.6,
        "modes_missing rarest_mode rarest_share coverage",
        severity=severity,
    )


def checkerboard(h: History, t: Thresholds) -> Finding | None:
    """A pattern with a period of two pixels that the photos do not have: a peak, not noise."""
    late = [r["step"] > t["warmup"] and _number(r.get("quality")) < t["quality"] for r in h.full]
    least = t["ratio"] * max(
        _number(h.facts.get("nyquist_real")), t["visible"]
    )  # NaN first: nothing then
    mask = _all(
        late, [a > least for a in h["nyquist_fake"]], [p > t["peak"] for p in h["nyquist_peak"]]
    )
    transposed = h.setting("network.generator.upsample") == "transposed"
    return _found(
        h,
        t,
        "checkerboard",
        mask,
        0.85 if transposed else 0.65,
        "nyquist_fake nyquist_real nyquist_peak",
    )


def copies_photos(h: History, t: Thresholds) -> Finding | None:
    """Fakes lie much nearer to training images than held-out reals do."""
    return _found(
        h, t, "copies_photos", [x < t["ratio"] for x in h["copy_ratio"]], 0.7, "copy_ratio n_train"
    )


def stuck(h: History, t: Thresholds) -> Finding | None:
    """Poor pictures that have long stopped getting better, and no other rule knows why. Said with little confidence."""
    bad = [q > t["quality"] for q in h["quality"]]
    return _found(h, t, "stuck", bad, 0.3, "quality diversity coverage auc_train", _flat(h, t))


def stopped_early(h: History, t: Thresholds) -> Finding | None:
    """Not a fault: the run has ended while its pictures were still getting better."""
    q = [x for x in h["quality"] if not math.isnan(x)]
    if (
        not (h.facts.get("ended") and q)
        or q[-1] <= t["good"]
        or (len(q) > 3 and min(q[-2:]) > (1 - 2 * t["per_check"]) * min(q[:-2]))
    ):
        return None
    mask = [False] * (len(h.full) - 1) + [True]
    found = _found(
        h, {}, "stopped_early", mask, 0.8, "quality", severity="note", restart="checkpoint"
    )
    return replace(found, override=longer(h)) if found else None


def longer(h: History) -> str:
    """The override that raises what ended the run."""
    epochs, total = h.setting("trainer.max_epochs", -1), h.setting("total_kimg", 0.0)
    shown = h.records[-1]["nimg"] / 1000
    if epochs > 0 and shown < total:
        return f"trainer.max_epochs={2 * epochs}"
    if (
        not total and epochs <= 0
    ):  # the clock ended it, and a run that goes on has its whole time again
        return f"total_kimg={max(1000, 2 * shown):.6g}"
    return _remedy(h, "stopped_early")


Rule = Callable[[History, Thresholds], "Finding | None"]
RULES: tuple[Rule, ...] = (
    divergence, wrong_range, altered_images, wrong_channels, lr_too_high, lr_too_low, small_batch_norm, stale_ema, d_too_weak, d_too_strong,
    d_overfits, wrong_output, dead_output, network_too_small, full_collapse, oscillation, wrong_shapes, partial_collapse, mode_dropping, checkerboard, copies_photos,
    dataset_too_small, stuck, stopped_early,
)  # fmt: skip

# the signals or facts without which a rule is off (and says so), all of them; the others only need a full check
NEEDS: dict[str, tuple[str, ...]] = {
    "d_overfits": ("auc_heldout",), "wrong_shapes": ("precision", "precision_real"), "mode_dropping": ("modes_missing",), "copies_photos": ("copy_ratio",), "small_batch_norm": ("mode_gap",),
    "stale_ema": ("quality_ema",), "wrong_output": ("darkest_fake", "darkest_real"), "wrong_range": ("real_min",), "altered_images": ("seen_apart",), "wrong_channels": ("channels",), "dataset_too_small": ("n_train",),
}  # fmt: skip
# known before step 0 or soon after
FROM_FACTS = ("wrong_range", "altered_images", "wrong_channels", "dataset_too_small")
LAST_RESORT = ("stuck", "stopped_early")  # said only when nothing else is active


def diagnose(h: History, thresholds: dict[str, Thresholds]) -> list[Finding]:
    """The findings of all rules, the most likely cause first; `thresholds` as in conf/diagnosis, one dict per rule and `common`."""
    common = thresholds.get("common", {})
    found = [
        f
        for rule in RULES
        if (f := rule(h, {**common, **thresholds.get(rule.__name__, {})})) is not None
    ]
    if any(
        not f.resolved
        and f.severity != "note"
        and f.name not in LAST_RESORT
        and f.name not in FROM_FACTS
        for f in found
    ):
        found = [f for f in found if f.name not in LAST_RESORT]
    if any(f.name == "wrong_range" for f in found):  # which says how they are altered
        found = [f for f in found if f.name != "altered_images"]
    if any(
        f.severity == "fault" and not f.resolved for f in found
    ):  # then too little data is no mere remark
        found = [
            replace(f, severity="fault") if f.name == "dataset_too_small" else f for f in found
        ]
    if any(f.name == "stuck" and not f.resolved for f in found):
        found = [f for f in found if f.name != "stopped_early"]
    order = [rule.__name__ for rule in RULES]
    return sorted(
        found,
        key=lambda f: (
            f.resolved,
            SEVERITIES.index(f.severity),
            -round(f.confidence, 2),
            order.index(f.name),
        ),
    )


def status(
    h: History, findings: Sequence[Finding], thresholds: dict[str, Thresholds]
) -> tuple[list[str], list[str]]:
    """(names of the checks that passed, names of those that are off: no data for them, or not yet enough)."""
    have = {n for r in h.records for n, v in r.items() if not math.isnan(_number(v))} | set(h.facts)
    spanned = h.full[-1]["step"] - h.full[0]["step"] if h.full else -1
    passed: list[str] = []
    off: list[str] = []
    for name in (rule.__name__ for rule in RULES):
        t = {**thresholds.get("common", {}), **thresholds.get(name, {})}
        able = all(n in have for n in NEEDS.get(name, ("quality",)))
        if name not in FROM_FACTS:
            able &= len(h.full) >= t.get("checks", 1) and spanned >= t.get("steps", 0)
        if name == "mode_dropping":
            able &= not _few_for_modes(h, t)
        if name not in LAST_RESORT and name not in {f.name for f in findings}:
            (passed if able else off).append(name)
    return passed, off

"""Every rule on injected streams: it fires, does not fire, is resolved; healthy streams give no
finding.
"""

import math
import sys

import pytest
from conftest import Photos, compose
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lightning.diagnosis import findings, rules
from gan_lightning.diagnosis.history import History, slow
from gan_lightning.diagnosis.rules import RULES, printed_overrides
from gan_lightning.diagnosis.settings import Settings
from gan_lightning.diagnosis.verdict import follow
from gan_lightning.errors import UserError
from gan_lightning.recipe import choose

STEPS = [25, 50, 100, 200, 400, *range(500, 6001, 500)]
CONFIG = {
    "lr": 5e-4,  # what the configuration says where nobody asked: either rate may differ
    "latent_dim": 100,
    "n_critic": 1,
    "total_kimg": 400,
    "optimizer_g": {"lr": 1e-3, "betas": [0.0, 0.99]},
    "optimizer_d": {"lr": 1e-3, "betas": [0.0, 0.99]},
    "ema": {"halflife_kimg": 10, "rampup": 0.05},
    "loss": {"gamma": 0.5, "gp_weight": 0.0},
    "augment": {"ops": ["color"], "ada_target": None},
    "network": {"generator": {"upsample": "resize", "norm": "batch"}},
    "dataset": {"batch_size": 64, "image_channels": 1, "image_size": 64},
    "trainer": {"max_epochs": -1, "precision": "32-true"},
}
FACTS = {
    "config": CONFIG, "generator": {"family": "dcgan"}, "n_train": 60000, "n_holdout": 10000, "dataset": "mnist", "channels": 1, "batch_size": 64, "coverage_null": 0.97,
    "real_min": -1.0, "real_max": 1.0, "real_mean": -0.74, "stored_mean": -0.74, "nyquist_real": 2.0, "duplicates": 0.0, "batchnorm_g": True,
    "batchnorm_d": False, "darkest_real": -1.0, "brightest_real": 1.0, "precision_real": 0.9, "seen_apart": 0.004, "seen_chance": 0.01,
}  # fmt: skip


def with_(config, **changes):
    """A copy of a nested dict with dotted keys changed (dots written as two underscores)."""
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place[key] = dict(place.get(key, {}))
            place = place[key]
        place[last] = value
    return config


def stream(facts=None, steps=STEPS, settings=None, **signals):
    """A run that gets better and better, but for `signals`: constants or functions of (check
    number, step).
    """
    records = []
    for i, step in enumerate(steps):
        quality = 0.6 * math.exp(-step / 400) + 0.005
        record = {
            "nimg": step * 64, "step": step, "kind": "full", "quality": quality, "diversity": 0.95, "precision": 0.7, "coverage": 0.9 - 0.8 * math.exp(-step / 800),
            "auc_train": 0.8, "auc_heldout": 0.79, "auc_memory": 0.51, "auc_memory_error": 0.025, "r_v": 0.02, "travel": 0.1,
            "nyquist_fake": 2.1, "nyquist_peak": 1.0, "saturated_fake": 0.7, "saturated_real": 0.75, "image_std": 0.6, "darkest_fake": -0.99, "brightest_fake": 0.98, "mode_gap": 0.03,
            "modes_missing": 0.0, "rarest_mode": 3.0, "copy_ratio": 0.95, "update_ratio_g": 2e-3, "update_ratio_d": 3e-3,
            "grad_norm_g": 0.5, "grad_norm_d": 1.0, "score_real": 0.5, "score_fake": -0.5,
        }  # fmt: skip
        for name, value in signals.items():
            record[name] = value(i, step) if callable(value) else value
        record.setdefault("quality_raw", record["quality"])
        record.setdefault("quality_ema", record["quality"])
        records.append({k: v for k, v in record.items() if v is not None})
    config = with_(CONFIG, **(settings or {}))
    return History(records, FACTS | {"config": config} | (facts or {}))


def diagnose(history, thresholds=None):
    return findings.diagnose(history, thresholds or {})


def preflight(facts):
    return findings.preflight(facts, {})


def status(history, found):
    return findings.status(history, found, {})


def names(history, active=True):
    return [f.name for f in diagnose(history) if f.resolved is not active]


def first(history):
    return diagnose(history)[0]


def remedies(rule, settings=None, facts=None):
    """All that a rule can print for these settings, the best first."""
    config = with_(CONFIG, **(settings or {}))
    return list(RULES[rule].overrides(Settings(FACTS | {"config": config} | (facts or {}))))


POOR = {"quality": 0.5}  # and flat

# rule: (signals, settings, facts) of a run with this fault
FAULTS = {
    "d_too_strong": (
        POOR | {"auc_heldout": 1.0, "auc_train": 1.0},
        {"optimizer_g__lr": 5e-5, "n_critic": 5},
        {},
    ),
    "d_too_weak": (
        POOR | {"auc_heldout": 0.3, "update_ratio_d": 4e-6},
        {"optimizer_d__lr": 1e-6},
        {},
    ),
    "d_overfits": (
        {"r_v": 0.8, "auc_train": 0.99, "auc_heldout": 0.6, "auc_memory": 0.9, "quality": 0.08},
        {"augment__ops": []},
        {"n_train": 60},
    ),
    "full_collapse": (POOR | {"diversity": 0.02, "coverage": 0.0}, {"latent_dim": 1}, {}),
    "partial_collapse": ({"quality": 0.2, "coverage": 0.1, "modes_missing": 0.6}, {}, {}),
    "wrong_shapes": (POOR | {"precision": 0.0, "coverage": 0.0}, {}, {}),
    "mode_dropping": ({"modes_missing": 0.1}, {}, {}),
    "oscillation": (
        POOR | {"travel": 0.6},
        {"loss__gamma": 0.0, "optimizer_g__betas": [0.9, 0.999]},
        {},
    ),
    "divergence": (POOR | {"score_real": lambda i, s: 10.0**i}, {}, {}),
    "dead_output": (POOR | {"image_std": 0.001, "diversity": 0.5}, {}, {}),
    "checkerboard": (
        {"nyquist_fake": 10.0, "nyquist_peak": 30.0},
        {"network__generator__upsample": "transposed"},
        {},
    ),
    "wrong_range": ({}, {}, {"real_min": 0.0, "real_mean": 0.13}),
    "altered_images": ({}, {}, {"seen_apart": 0.08}),
    "network_too_small": (POOR, {"network__generator__channels": 4}, {}),
    "wrong_output": (POOR | {"darkest_fake": 0.0}, {}, {}),
    "wrong_channels": ({}, {"dataset__image_channels": 3}, {}),
    "dataset_too_small": ({}, {}, {"n_train": 30}),
    "copies_photos": ({"copy_ratio": 0.2}, {}, {"n_train": 100}),
    "lr_too_high": (POOR | {"update_ratio_g": 0.1}, {"optimizer_g__lr": 0.05}, {}),
    "lr_too_low": (
        POOR | {"update_ratio_g": 2e-6, "auc_heldout": 1.0},
        {"optimizer_g__lr": 1e-6},
        {},
    ),
    "small_batch_norm": ({"mode_gap": 0.5}, {"dataset__batch_size": 2}, {"batch_size": 2}),
    "stale_ema": (
        {"quality_raw": 0.02, "quality_ema": 0.3, "quality": 0.02},
        {"ema__halflife_kimg": 500},
        {},
    ),
    "stuck": (POOR, {}, {}),
}
FROM_FACTS = {name for name, rule in RULES.items() if rule.before_start}


@pytest.mark.parametrize("rule", FAULTS)
def test_a_planted_fault_is_named_first(rule):
    signals, config, facts = FAULTS[rule]
    found = first(stream(facts, settings=config, **signals))
    assert found.name == rule
    assert not found.resolved and 0 < found.confidence <= 1 and found.override and found.evidence
    assert found.restart in ("scratch", "checkpoint")
    assert all(isinstance(v, (int, float, str)) for v in found.evidence.values())


@pytest.mark.parametrize("rule", sorted(FAULTS.keys() - FROM_FACTS))
def test_a_symptom_has_to_last(rule):
    """Two checks of the symptom in a run that is otherwise healthy are no finding."""
    signals, config, facts = FAULTS[rule]
    healthy = stream().full

    def briefly(name, value):
        return lambda i, step: (
            (value(i, step) if callable(value) else value) if i in (0, 1) else healthy[i][name]
        )

    assert rule not in [
        f.name
        for f in diagnose(
            stream(facts, settings=config, **{n: briefly(n, v) for n, v in signals.items()}),
        )
    ]


@pytest.mark.parametrize("rule", sorted(FAULTS.keys() - FROM_FACTS - {"stuck"}))
def test_a_finding_that_is_resolved_says_so(rule):
    signals, config, facts = FAULTS[rule]
    healthy = stream().full

    def at_first(name, value):
        return lambda i, step: (
            (value(i, step) if callable(value) else value)
            if i < len(STEPS) - 4
            else healthy[i][name]
        )

    found = diagnose(
        stream(facts, settings=config, **{n: at_first(n, v) for n, v in signals.items()}),
    )
    over = {f.name: f for f in found}[rule]
    assert over.resolved
    assert found.index(over) == len([f for f in found if not f.resolved])


def test_since_when():
    late = first(
        stream(
            diversity=lambda i, s: 0.01 if s >= 3000 else 0.9,
            quality=lambda i, s: 0.5 if s >= 3000 else 0.02,
        )
    )
    assert late.name == "full_collapse"
    assert late.since_kimg == pytest.approx(3000 * 64 / 1000)


def test_one_miss_does_not_end_a_stretch():
    missed = lambda i, s: 0.5 if s == 4000 else 0.01  # noqa: E731
    found = first(stream(**POOR | {"diversity": missed}))
    assert found.name == "full_collapse" and found.since_kimg < 100


def test_wrong_output():
    assert first(stream(brightest_fake=3.0)).name == "wrong_output"  # no tanh at all
    for signals in (
        {"darkest_fake": 0.0},  # good pictures
        POOR
        | {"darkest_fake": -0.2, "brightest_fake": 0.2},  # a generator that has not begun to learn
        POOR | {"darkest_fake": 1.0, "image_std": 0.0},  # dead_output
        POOR | {"darkest_fake": 0.5},  # bright for another reason
    ):
        assert "wrong_output" not in names(stream(**signals))
    assert "wrong_output" not in names(
        stream({"darkest_real": -0.3}, **POOR | {"darkest_fake": 0.0})
    )  # bright photographs


# -- what must not fire ----------------------------------------------------------------------------------------------


def test_a_healthy_run_gives_no_finding():
    assert diagnose(stream()) == []
    assert diagnose(stream({"ended": True})) == []
    assert diagnose(History([], FACTS)) == []


def test_a_sure_discriminator_alone_is_no_fault():
    """PyTorch's DCGAN example on photographs: D(x) .94, D(G(z)) .08 to the end, and better pictures
    all the way.
    """
    improving = lambda i, s: 0.8 * math.exp(-s / 2500)  # noqa: E731
    lopsided = {"optimizer_g__lr": 5e-5}
    assert (
        names(
            stream(
                auc_heldout=1.0,
                auc_train=1.0,
                quality=improving,
                grad_norm_g=lambda i, s: 5 / (i + 1),
            )
        )
        == []
    )
    assert names(stream(auc_heldout=1.0, auc_train=1.0, quality=0.02, settings=lopsided)) == []
    assert names(stream(auc_heldout=1.0, auc_train=1.0, settings=lopsided)) == []
    slowly = lambda i, s: 0.8 * math.exp(-s / 6000)  # noqa: E731
    assert names(stream(auc_heldout=1.0, auc_train=1.0, quality=slowly)) == []
    assert names(stream(auc_heldout=1.0, auc_train=1.0, quality=slowly, settings=lopsided)) == [
        "d_too_strong"
    ]


def test_a_blind_discriminator_beside_good_pictures_is_no_fault():
    assert names(stream(auc_heldout=0.5, auc_train=0.5)) == []


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(100, 1500),
    st.floats(0.5, 1.0),
    st.floats(0.001, 0.06),
    st.floats(0.0, 0.3),
    st.sampled_from([1e-4, 2e-4, 1e-3]),
    st.booleans(),
)
def test_random_healthy_streams_give_no_finding(seed, pace, auc, floor, jitter, lr, critic):
    """Curves of any pace, a discriminator from weak to sure, any noise on every signal within what
    healthy runs show.
    """
    import random

    dice = random.Random(seed)

    def noisy(value, share=jitter):
        return lambda i, s: (
            (value(s) if callable(value) else value) * (1 + dice.uniform(-share, share))
        )

    history = stream(
        {"loss": {"critic": critic}}, settings={"optimizer_g__lr": lr, "optimizer_d__lr": lr},
        quality=noisy(lambda s: math.exp(-s / pace) + floor),
        diversity=noisy(lambda s: 0.95 - 0.5 * math.exp(-s / pace)),
        coverage=noisy(lambda s: 0.85 * (1 - math.exp(-s / pace))),
        auc_heldout=auc, auc_train=min(1.0, auc + 0.02), travel=noisy(lambda s: 0.1 + 0.8 * math.exp(-s / pace)),
        update_ratio_g=noisy(lr * 8), update_ratio_d=noisy(lr * 8), grad_norm_g=noisy(0.7), grad_norm_d=noisy(2.0),
        nyquist_fake=noisy(lambda s: 2 + 9 * math.exp(-s / 40)), saturated_fake=noisy(0.6), r_v=noisy(0.05), copy_ratio=noisy(0.9),
    )  # fmt: skip
    assert diagnose(history) == []


# -- single rules ----------------------------------------------------------------------------------------------------


def test_a_number_that_is_none_is_fatal_and_certain():
    h = stream()
    records = [*h.records, {"nimg": 9, "step": 6010, "kind": "light", "bad": "loss/d"}]
    found = first(History(records, h.facts))
    assert (found.name, found.severity, found.confidence, found.evidence["first_bad"]) == (
        "divergence",
        "fatal",
        1.0,
        "loss/d",
    )


@pytest.mark.parametrize(
    "facts,problem",
    [
        ({"real_min": 0.0, "real_max": 1.0, "real_mean": 0.13}, "[0, 1]"),
        ({"real_max": 255.0}, "outside"),
        ({"real_mean": 0.74}, "inverted"),
        ({"real_mean": 0.4, "stored_mean": 0.41, "dataset": "folder"}, None),
        ({"real_mean": -0.05, "stored_mean": 0.05, "mean_image": -0.9}, "inverted"),
        ({"real_mean": -0.05, "stored_mean": 0.05, "mean_image": -0.3}, None),
        (
            {
                "real_min": 0.1,
                "real_mean": 0.53,
                "stored_mean": 0.08,
                "mean_error": 0.07,
                "mean_image": 0.9,
            },
            "in [0, 1]",
        ),
        ({"real_mean": 0.4, "stored_mean": 0.41, "dataset": "mnist"}, "inverted"),
        ({"real_mean": -0.6}, None),  # a batch is not the whole set
    ],
)
def test_wrong_range(facts, problem):
    found = [f for f in preflight(FACTS | facts) if f.name == "wrong_range"]
    assert [problem in str(f.evidence["problem"]) for f in found] == ([True] if problem else [])


@pytest.mark.parametrize(
    ("apart", "chance", "wrong", "found"),
    [
        (0.016, 0.010, {}, ["altered_images"]),
        (0.014, 0.005, {}, []),  # too little to matter, however sure
        (0.030, 0.025, {}, []),  # chance: few images
        (
            0.9,
            0.01,
            {"real_min": 0.0, "real_mean": 0.13},
            ["wrong_range"],
        ),  # which says how they are altered
        (None, None, {}, []),
    ],
)
def test_images_that_are_not_the_stored_ones(apart, chance, wrong, found):
    assert names(stream({"seen_apart": apart, "seen_chance": chance} | wrong)) == found


def test_bright_photographs_are_a_warning_at_most():
    facts = {"real_min": 0.2, "real_mean": 0.6, "stored_mean": 0.6, "dataset": "folder"}
    (found,) = [f for f in preflight(FACTS | facts) if f.name == "wrong_range"]
    assert found.severity == "warning"


def test_a_class_without_training_images_is_certain():
    found = first(stream({"untrained_classes": [3, 7]}))
    assert (found.name, found.confidence) == ("mode_dropping", 0.9)
    assert found.evidence == {"classes_without_training_images": "3, 7"}


def test_too_few_images_come_before_the_classes_that_are_not_among_them():
    assert first(stream({"untrained_classes": [3, 7], "n_train": 20})).name == "dataset_too_small"


def test_still_improving_is_a_note_and_only_at_the_end():
    falling = lambda i, s: 0.9 - s / 10000  # noqa: E731
    assert diagnose(stream(quality=falling, travel=0.0)) == []
    (note,) = diagnose(stream({"ended": True}, quality=falling))
    assert (note.name, note.severity, note.restart, note.override) == (
        "stopped_early",
        "note",
        "checkpoint",
        "total_kimg=800",
    )
    # with what it is not yet: better is not good
    usual = {"precision": 0.7, "precision_real": 0.9, "coverage": 0.9, "coverage_null": 0.97}
    assert (note.since_kimg, note.evidence) == (384.0, {"quality": 0.3} | usual)
    # of a few hundred steps, or of two snapshots, nobody can say whether they are getting better
    assert diagnose(stream({"ended": True}, quality=falling, steps=[100, 200, 300])) == []
    assert diagnose(stream({"ended": True}, quality=falling, steps=[1000, 2000])) == []


@pytest.mark.parametrize(
    ("limit", "twice"),
    [
        ("00:00:08:00", "00:00:16:00"),
        ("00:13:00:40", "01:02:01:20"),
        ({"hours": 1, "seconds": 1.5}, "00:02:00:03"),
    ],
)
def test_a_run_that_the_clock_ended_has_twice_the_time(limit, twice):
    falling = lambda i, s: 0.9 - s / 10000  # noqa: E731
    settings = {"trainer__max_time": limit, "total_kimg": None}
    (note,) = diagnose(stream({"ended": True}, settings=settings, quality=falling))
    assert (note.name, note.override) == ("stopped_early", f"trainer.max_time={twice}")


def test_a_check_has_passed_only_after_enough_looks():
    h = stream(steps=STEPS[:4])
    passed, off = status(h, [])
    assert "d_too_strong" in off and "wrong_range" in passed
    passed, off = status(stream(), [])
    assert set(passed) == FAULTS.keys() - {"stuck"} and not off


def test_rules_that_need_a_held_out_slice_are_off_without_one():
    h = stream({"n_holdout": 0}, auc_heldout=None, auc_memory=None, r_v=None, copy_ratio=None)
    passed, off = status(h, diagnose(h))
    assert {"d_overfits", "copies_photos"} <= set(off) and "d_too_strong" in passed
    assert "holdout_off" in [f.name for f in preflight(h.facts)]
    assert names(stream(auc_heldout=None, auc_train=1.0, quality=0.5))[0] == "d_too_strong"


@pytest.mark.parametrize(
    "settings,facts,remark",
    [
        ({"loss__gamma": 0.0}, {"loss": {"needs_penalty": True}}, "unpenalised"),
        ({"loss__gp_weight": 10.0, "loss__gamma": 0.0}, {"batchnorm_d": True}, "penalty_with_norm"),
        ({"loss__gp_weight": 10.0, "loss__gamma": 0.5}, {}, "two_penalties"),
        ({"optimizer_d__lr": 0.05}, {}, "lr_too_high"),
        ({"latent_dim": 2}, {}, "tiny_latent"),
        ({"augment__ops": []}, {"n_train": 300}, "augmentation_missing"),
        ({"augment__p": 1.0}, {}, "augmentation_leaks"),
        ({"ema__halflife_kimg": 500, "ema__rampup": 0}, {}, "stale_ema"),
        ({"network__discriminator": {"minibatch_stddev": 4}}, {"batch_size": 6}, "stddev_group"),
        ({}, {"batch_size": 2}, "small_batch_norm"),
        ({}, {"n_holdout": 0}, "holdout_off"),
    ],
)
def test_a_suspicious_setting_is_a_note_before_the_start_and_no_finding_without_symptom(
    settings, facts, remark
):
    h = stream(facts, settings=settings)
    assert {f.name: f.severity for f in preflight(h.facts)}.get(remark) == "note"
    assert diagnose(h) == []
    assert [f.name for f in preflight(FACTS)] == []


# -- words, thresholds, overrides ------------------------------------------------------------------------------------


def test_every_entry_is_whole():
    assert {rule.name for rule in RULES.values() if rule.symptom} == FAULTS.keys() | {
        "stopped_early"
    }
    assert [name for name, rule in RULES.items() if not (rule.remark or rule.symptom)] == []
    for name, rule in RULES.items():
        assert rule.remedies and (rule.evidence or rule.before_start), name
        for language in rules.LANGUAGES:
            korean = [
                any("가" <= c <= "힣" for c in text)
                for text in (rule.words(language).title, rule.words(language).why)
            ]
            assert korean == [language == "ko"] * 2, name
        assert 1 <= rule.en.why.count(".") <= 4, name
        assert all(isinstance(value, int | float) for value in rule.thresholds.values()), name
        assert {*rule.hides} <= RULES.keys() and rule.beside_a_fault in ("", *rules.SEVERITIES)


def test_every_threshold_is_used():
    """By its function or its remark; a misspelt one would only be noticed as a KeyError in
    somebody's run.
    """
    import inspect

    for name, rule in RULES.items():
        used = inspect.getsource(rule.symptom) if rule.symptom else ""
        used += "".join(f'"{word}"' for word in f"{rule.remark} {' '.join(rule.needs)}".split())
        for helper in ("slow(h, t)", "checks", "steps"):
            used += '"slow"' * (helper in used) + '"checks" "steps"'
        assert [key for key in rule.thresholds if f'"{key}"' not in used] == [], name


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ("", True),
        ("penalised", True),
        ("not penalised", False),
        ("gamma > 0 and not paired", True),
        ("gamma > 0 and paired", False),
        ("lr_g < lr_d", False),
        ("lr_d >= 4*lr_g", False),
        ("lr_g <= lr_d", True),
        ("latent_dim >= least", True),  # a threshold
    ],
)
def test_conditions(condition, held):
    assert rules.holds(condition, Settings(FACTS), {"least": 100}) is held


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("loss.gamma={gamma*4}", "loss.gamma=2"),
        ("total_kimg={total/16:.6g}", "total_kimg=25"),
        ("optimizer_{hot}.lr={lower_hot}", "optimizer_g.lr=0.00025"),
        ("trainer.max_epochs={epochs*2}", "trainer.max_epochs=-2"),
        ("experiment={experiment}", ""),  # not known: nothing is printed
    ],
)
def test_overrides_are_filled_in(override, text):
    assert rules.filled(override, Settings(FACTS)) == text


@pytest.mark.parametrize("settings", [{}, *(config for _, config, _ in FAULTS.values())])
def test_overrides_change_something_and_are_one_key(settings):
    config = with_(CONFIG, **settings)
    for override in printed_overrides(Settings(FACTS | {"config": config})):
        key, _, value = override.partition("=")
        assert key and value and " " not in override and "{" not in override
        now = History([], {"config": config}).setting(key)
        now = config["optimizer_g"]["lr"] if key == "lr" else now
        assert now is None or isinstance(now, dict) or str(now) != value, override


@pytest.mark.parametrize(
    "rule,settings,override",
    [
        ("lr_too_high", {"optimizer_g__lr": 0.05}, "optimizer_g.lr=0.001"),
        ("lr_too_low", {"optimizer_g__lr": 1e-6}, "optimizer_g.lr=0.001"),
        ("d_too_weak", {"optimizer_d__lr": 1e-6}, "optimizer_d.lr=0.001"),
        ("lr_too_low", {"schedule__warmup_kimg": 100000.0}, "schedule.warmup_kimg=0"),
        ("d_too_weak", {"loss__gamma": 1000.0}, "loss.gamma=100"),
        ("d_too_strong", {"optimizer_d__lr": 8e-3}, "optimizer_d.lr=0.001"),
        ("d_too_strong", {"n_critic": 5}, "n_critic=1"),
        (
            "d_too_strong",
            {"n_critic": 5, "optimizer_d__lr": 1e-3, "optimizer_g__lr": 5e-5},
            "optimizer_g.lr=0.002",
        ),
        (
            "d_too_strong",
            {"optimizer_d__lr": 1e-3, "optimizer_g__lr": 5e-5},
            "optimizer_g.lr=0.001",
        ),
        ("d_overfits", {}, "augment=ada"),
        ("stale_ema", {"ema__halflife_kimg": 500}, "ema.halflife_kimg=10"),
        ("small_batch_norm", {"dataset__batch_size": 2}, "dataset.batch_size=32"),
        (
            "checkerboard",
            {"network__generator__upsample": "transposed"},
            "network.generator.upsample=smooth",
        ),
        ("checkerboard", {"network__generator__upsample": "smooth"}, "network=resnet"),
        (
            "lr_too_low",
            {"optimizer_g__lr": 1e-6, "optimizer_d__lr": 1e-6},
            "lr=0.0005",
        ),
        ("oscillation", {"loss__gamma": 0.0}, "loss.gamma=1"),
        ("full_collapse", {"latent_dim": 1}, "latent_dim=100"),
    ],
)
def test_the_remedy_follows_the_settings(rule, settings, override):
    assert remedies(rule, settings)[0] == override


@pytest.mark.parametrize(
    ("rule", "facts", "settings", "override"),
    [
        ("divergence", {"loss": {"critic": True}}, {"loss__gamma": 0.0}, "loss.gp_weight=10"),
        ("unpenalised", {"loss": {"critic": True}}, {"loss__gamma": 0.0}, "loss.gp_weight=10"),
        ("unpenalised", {}, {"loss__gamma": 0.0}, "loss.gamma=1"),
        ("d_too_strong", {"loss": {"saturating": True}}, {}, "loss=bce"),
        ("d_too_strong", {"loss": {"critic": True}}, {"n_critic": 5}, "optimizer_d.lr=0.00025"),
        ("d_overfits", {"loss": {"centred": False}}, {}, "loss.gamma=2"),
        ("partial_collapse", {}, {}, "loss=rpgan"),
        ("partial_collapse", {"loss": {"paired": True}}, {}, "loss.gamma=2"),
        ("small_batch_norm", {}, {"network__generator__norm": "group"}, "network=resnet"),
        ("penalty_with_norm", {"generator": {"family": "resnet"}}, {}, None),
        ("wrong_channels", {"channels": 3}, {}, "dataset.image_channels=3"),
    ],
)
def test_the_remedy_follows_what_the_parts_say_of_themselves(rule, facts, settings, override):
    """Of a loss or network that nobody here knows as well: its class has the same attributes."""
    assert next(iter(remedies(rule, settings, facts)), None) == override


@pytest.mark.parametrize(
    ("typed", "experiment", "override"),
    [
        ("experiment=vanilla_mnist dataset=folder lr=1e-4", "few_photos", "experiment=few_photos"),
        ("experiment=vanilla_mnist dataset=egg", "egg", "experiment=egg"),
        ("experiment=vanilla_mnist", "", "network=dcgan"),
        ("network=mlp dataset=folder", "few_photos", "network=dcgan"),
        ("experiment=vanilla_mnist dataset=folder loss.gamma=0", "few_photos", "network=dcgan"),
        ("experiment=vanilla_mnist dataset=folder ~loss.r2", "few_photos", "network=dcgan"),
    ],
)
def test_photographs_in_the_notes_experiment_need_another_experiment(typed, experiment, override):
    """Where settings of one's own would win over the pasted experiment, it is not printed."""
    settings = {"overrides": typed.split(), "loss__gamma": 0.0, "ema__halflife_kimg": 0}
    facts = {"generator": {"fully_connected": True}, "source": {"experiment": experiment}}
    for rule in ("full_collapse", "partial_collapse", "oscillation", "stuck"):
        assert remedies(rule, settings, facts)[0] == override
    trained = remedies("full_collapse", settings | {"ema__halflife_kimg": 10}, facts)
    assert trained[0] == "network=dcgan"


@pytest.mark.parametrize(
    ("lr_g", "lr_d", "override"),
    [
        (4e-3, 1e-4, "optimizer_g.lr=0.0001"),
        (5e-4, 1e-6, "optimizer_d.lr=0.0005"),
        (2e-4, 2e-5, "optimizer_d.lr=0.0002"),
    ],
)
def test_a_generator_that_outruns_counts_until_the_pictures_are_good(lr_g, lr_d, override):
    """Of two rates far apart the one that is further from the usual moves; pictures that are good,
    or get better, are let be.
    """
    settings = {"optimizer_g__lr": lr_g, "optimizer_d__lr": lr_d}
    found = first(stream(settings=settings, quality=0.07))
    assert (found.name, found.override) == ("d_too_weak", override)
    assert "d_too_weak" not in names(stream(settings=settings, quality=0.02))
    assert "d_too_weak" not in names(
        stream(settings=settings, quality=lambda i, s: 0.6 * math.exp(-s / 400))
    )
    assert "d_too_weak" not in names(
        stream(settings={"optimizer_g__lr": lr_d * 4, "optimizer_d__lr": lr_d}, quality=0.07)
    )


def test_a_discriminator_that_stands_still_because_it_is_right_is_not_weak():
    """Fashion-MNIST, the note's networks at rates of .002: AUC 1, updates 0, every fake black."""
    for auc, found in ((1.0, False), (0.4, True)):
        history = stream(
            quality=2.0, auc_heldout=auc, auc_train=auc, update_ratio_d=0.0, diversity=0.01
        )
        assert ("d_too_weak" in names(history)) is found


def test_swinging_counts_sooner_without_a_penalty():
    for gamma, quality, found in (
        (0.0, 0.07, True),
        (0.0, 0.03, False),
        (0.5, 0.07, False),
        (0.5, 0.2, True),
    ):
        history = stream(settings={"loss__gamma": gamma}, quality=quality, travel=0.4)
        assert ("oscillation" in names(history)) is found, (gamma, quality)


@pytest.mark.parametrize(
    ("n_train", "override"),
    [
        (60000, "dataset.batch_size=32"),
        (24, "dataset.batch_size=24"),
        (12, "network.generator.norm=group"),
    ],
)
def test_no_batch_is_larger_than_the_data(n_train, override):
    few = remedies("small_batch_norm", {"dataset__batch_size": 6}, {"n_train": n_train})
    assert few[0] == override


def test_pictures_that_stay_poor_for_long_are_stuck_and_not_too_early():
    assert first(stream({"ended": True}, quality=0.2)).name == "stuck"


SGD = {f"optimizer_{side}": {"adaptive": False} for side in "gd"}


def test_sgd_is_told_of_adam():
    assert remedies("lr_too_low", facts=SGD)[0] == "optimizer_g._target_=torch.optim.Adam"
    assert remedies("d_too_weak", facts=SGD)[0] == "optimizer_d._target_=torch.optim.Adam"
    fast = with_(CONFIG, optimizer_g__lr=0.1, optimizer_d__lr=0.1)  # which Adam could not bear
    printed = printed_overrides(Settings(FACTS | SGD | {"config": fast}))
    assert printed and not any("Adam" in override for override in printed)


@pytest.mark.parametrize(
    ("generator", "discriminator", "override"),
    [
        ({"channels": 4}, {"channels": 32}, "network.generator.channels=128"),
        ({"channels": 32}, {"channels": 2}, "network.discriminator.channels=128"),
        (
            {"hidden": [8, 8]},
            {"hidden": [512]},
            "network.generator.hidden=[256,512,1024]",
        ),
        ({"channels": 32}, {"channels": 32}, None),
        ({"channels": 8, "min_channels": 32}, {"channels": 32}, None),  # really 32 everywhere
        ({"_target_": "mine.Generator"}, {}, None),
    ],
)
def test_a_narrow_network_is_named_where_the_pictures_are_not_good(
    generator, discriminator, override
):
    settings = {"network": {"generator": generator, "discriminator": discriminator}}
    facts = {"generator": {"fully_connected": "hidden" in generator}}
    found = {f.name: f.override for f in diagnose(stream(facts, settings=settings, quality=0.05))}
    assert found.get("network_too_small") == override
    assert "network_too_small" not in names(stream(settings=settings, quality=0.02))


@pytest.mark.parametrize(("count", "override"), [(60, "augment=diffaugment"), (60_000, "augment=ada")])  # fmt: skip
def test_an_augmentation_that_the_recipe_would_switch_off_is_not_printed(count, override):
    """Of 20,000 images or more augment=diffaugment changes none."""
    settings = {"augment__ops": [], "augment__ada_target": None}
    assert remedies("d_overfits", settings, {"n_train": count})[0] == override
    cfg = compose(override)
    choose(cfg, Photos(count), on_gpu=False)
    assert cfg.augment.p > 0 or cfg.augment.ada_target is not None


def test_a_low_rate_is_never_lowered_by_raising_it():
    low = remedies("partial_collapse", {"optimizer_d__lr": 2e-5, "optimizer_g__lr": 5e-4})
    assert not any(override.startswith("optimizer_d.lr") for override in low)
    usual = remedies("partial_collapse", {"optimizer_d__lr": 5e-4})
    assert "optimizer_d.lr=0.000125" in usual


@pytest.mark.parametrize(("facts", "found"), [({}, ["lr_too_high"]), (SGD, [])])
def test_sgd_is_not_judged_by_the_rates_of_adam(facts, found):
    settings = {f"optimizer_{side}": {"lr": 0.05} for side in "gd"}
    history = stream(facts, settings=settings, quality=0.5)
    said = [n for n in names(history) if n == "lr_too_high"]
    remarks = [f.name for f in preflight(history.facts) if f.name == "lr_too_high"]
    assert said == remarks == found


@pytest.mark.parametrize(("better", "found"), [(0.15, True), (0.02, False)])
def test_one_better_moment_does_not_clear_a_rate_out_of_every_range(better, found):
    """Flat and poor, then at the two last snapshots better than ever: still poor, or good."""
    settings = {f"optimizer_{side}__lr": 0.05 for side in "gd"}
    history = stream(settings=settings, quality=lambda i, step: better if step > 5000 else 0.5)
    assert ("lr_too_high" in names(history)) is found


def test_a_schedules_end_is_no_low_rate():
    """The last tenth of a cosine moves the weights by less than any rate that is too low."""
    for share, found in ((1.0, True), (0.05, False)):
        history = stream(quality=0.5, update_ratio_g=1e-6, lr_fraction=share)
        assert ("lr_too_low" in names(history)) is found


@pytest.mark.parametrize(
    ("settings", "override"),
    [
        ({"total_kimg": None, "trainer__max_epochs": 40}, "trainer.max_epochs=80"),
        ({"total_kimg": 10_000, "trainer__max_epochs": 40}, "trainer.max_epochs=80"),
        (
            {"trainer__max_epochs": 40, "total_kimg": STEPS[-1] * 64 / 1000},
            f"total_kimg={2 * STEPS[-1] * 64 / 1000:.6g}",
        ),
    ],
    ids=["epochs", "epochs come first", "images come first"],
)
def test_going_on_raises_what_ended_the_run(settings, override):
    history = stream({"ended": True}, settings=settings, quality=lambda i, s: 0.9 - s / 10000)
    assert [f.override for f in diagnose(history)] == [override]


@pytest.mark.parametrize(("factor", "found"), [(2.5, True), (1.5, False)])
def test_losing_again_what_was_won_is_oscillation(factor, found):
    """Still improving until just before the end, so that nothing is flat yet."""
    better = [0.9 - 0.6 * step / STEPS[-1] for step in STEPS]
    q = [*better[:-2], factor * better[-3], factor * better[-3]]
    assert ("oscillation" in names(stream(quality=lambda i, s: q[i], travel=0.4))) is found


def test_fully_connected_layers_are_replaced_first():
    """Planted oscillation: Fréchet 434, with a penalty 183, with convolutions 43; on photographs a
    penalty did not help at all.
    """
    facts = {"generator": {"fully_connected": True}}
    for name in ("full_collapse", "partial_collapse", "oscillation", "stuck"):
        found = remedies(name, {"loss__gamma": 0.0}, facts)
        assert found[:2] == ["network=dcgan", "loss.gamma=1"]


def test_too_little_data_is_the_cause_where_something_is_wrong():
    alone = diagnose(History([], FACTS | {"n_train": 20}))
    assert [(f.name, f.severity) for f in alone] == [("dataset_too_small", "warning")]
    bright = diagnose(History([], FACTS | {"n_train": 20, "real_mean": 0.74}))
    assert [(f.name, f.severity) for f in bright] == [
        ("wrong_range", "fault"),
        ("dataset_too_small", "fault"),
    ]


@pytest.mark.parametrize(
    ("rate", "rule"), [(0.1, "lr_too_high"), (0.1, "divergence"), (1e-6, "lr_too_low")]
)
def test_two_wrong_rates_are_mended_by_one_key(rate, rule):
    both = {"optimizer_g__lr": rate, "optimizer_d__lr": rate}
    assert remedies(rule, both)[0] == "lr=0.0005"
    assert follow([f"optimizer_g.lr={rate}", f"optimizer_d.lr={rate}", "seed=1"], "lr=0.0005") == [
        "seed=1",
        "lr=0.0005",
    ]


@pytest.mark.parametrize(("labels", "severity"), [(True, "fault"), (False, "note")])
def test_a_missing_class_is_a_fault_and_a_missing_cluster_a_note(labels, severity):
    records = [{"kind": "full", "step": 250 * k, "nimg": 4000 * k, "quality": 0.02, "modes_missing": 0.1, "coverage": 0.8} for k in range(1, 9)]  # fmt: skip
    found = diagnose(History(records, FACTS | {"mode_labels": labels, "mode_images": 1000}))
    assert [(f.name, f.severity) for f in found] == [("mode_dropping", severity)]
    few = diagnose(History(records, FACTS | {"mode_labels": labels, "mode_images": 100}))
    assert few == []


@pytest.mark.parametrize("images", [1000, 100])
def test_a_check_with_too_few_images_says_that_it_is_off(images):
    records = [{"kind": "full", "step": 250 * k, "nimg": 4000 * k, "quality": 0.02, "modes_missing": 0.0, "coverage": 0.8} for k in range(1, 9)]  # fmt: skip
    h = History(records, FACTS | {"mode_images": images})
    assert ["mode_dropping" in names for names in status(h, diagnose(h))] == [
        images >= 500,
        images < 500,
    ]


def test_the_pages_of_findings_are_up_to_date():
    from benchmarks.findings import PAGES

    for path, made in PAGES.items():
        assert path.read_text() == made(), "python -m benchmarks.findings writes it anew"


# -- rules and thresholds of one's own ---------------------------------------------------------------------------------


def test_thresholds_that_are_given_take_the_place_of_the_rules_own():
    history = stream(quality=0.08)
    assert names(history) == []
    assert [f.name for f in diagnose(history, {"stuck": {"quality": 0.05}})] == ["stuck"]
    assert [f.name for f in diagnose(stream(**POOR), {"stuck": {"quality": 0.6}})] == []
    limits = RULES["stuck"].limits({"common": {"steps": 7, "good": 0.01}})
    assert limits["steps"] == 1500 and limits["good"] == 0.01 and limits["poor"] == 0.1


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody else's: write(entry) makes rules/too_blue.yaml beside its function."""
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(RULES)
    (tmp_path / "elsewhere" / "rules").mkdir(parents=True)
    (tmp_path / "elsewhere" / "__init__.py").touch()
    (tmp_path / "elsewhere" / "symptoms.py").write_text(
        "from gan_lightning.diagnosis.history import Lasting\n\n\n"
        "def too_blue(h, t):\n"
        "    return Lasting([blue > t['most'] for blue in h['blue']], 0.9)\n"
    )

    def write(entry):
        (tmp_path / "elsewhere" / "rules" / "too_blue.yaml").write_text(entry)

    yield write
    for name in RULES.keys() - before.keys():
        del RULES[name]
    for name in [name for name in sys.modules if name.startswith("elsewhere")]:
        del sys.modules[name]


TOO_BLUE = """\
severity: warning
needs: [blue]
thresholds:
  most: 0.5  # mean of the blue channel
evidence: [blue, latent_dim]
remedies:
  - latent_dim > 200: latent_dim=200
  - not paired: loss=rpgan
en: {title: The pictures are blue, why: There is too much blue.}
ko: {title: 그림이 파랗습니다, why: 파란색이 너무 많습니다.}
"""


def test_a_rule_from_a_package_outside(package):
    package(TOO_BLUE)
    rules.add_rules("elsewhere.symptoms")
    found = first(stream(blue=0.7))
    assert (found.name, found.severity, found.override) == ("too_blue", "warning", "loss=rpgan")
    assert found.evidence == {"blue": 0.7, "latent_dim": 100} and found.since_kimg == 1.6
    assert found.as_dict("ko")["title"] == "그림이 파랗습니다"
    assert diagnose(stream(blue=0.7), {"too_blue": {"most": 0.8}}) == []
    assert "too_blue" in status(stream(), [])[1] and "too_blue" in status(stream(blue=0.1), [])[0]
    assert rules.thresholds()["too_blue"] == {"most": 0.5}


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("severity: warning", "severity: awful", "severity Input should be 'fatal', 'fault'"),
        ("evidence: [blue, latent_dim]", "colour: red", "colour Extra inputs"),
        ("ko: {title", "ko: {heading", "ko.title Field required"),
        ("not paired", "not pared", "there is no pared in Settings"),
        ("latent_dim > 200", "latent_dim == 200", "latent_dim == 200 is not made of names"),
        ("=200\n", "={latent_dm}\n", "there is no latent_dm in Settings"),
        ("loss=rpgan", "loss={__class__}", "there is no __class__ in Settings"),
        ("- not paired: loss=rpgan", "- stedy", "stedy is neither key=value nor a list"),
        ("en: {", "en: [", "cannot be read"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_wrong(package, wrong, right, said):
    assert wrong in TOO_BLUE
    package(TOO_BLUE.replace(wrong, right))
    with pytest.raises(UserError, match="too_blue.yaml") as error:
        rules.add_rules("elsewhere.symptoms")
    assert said in str(error.value) and "too_blue" not in RULES


def test_a_module_that_is_none(package):
    with pytest.raises(UserError, match="nothing.here cannot be imported"):
        rules.add_rules("nothing.here")
    with pytest.raises(UserError, match="rules should hold a YAML file"):
        rules.add_rules("elsewhere.symptoms")


def test_a_watch_takes_rules_from_outside(package):
    from gan_lightning.diagnosis.watch import Watch

    package(TOO_BLUE)
    Watch({}, rules=["elsewhere.symptoms"])
    assert "too_blue" in RULES


def test_the_configuration_shows_every_threshold():
    from conftest import compose
    from omegaconf import OmegaConf

    cfg = compose("diagnosis.thresholds.stuck.quality=0.2")
    shown = OmegaConf.to_container(cfg.diagnosis.thresholds)
    assert shown.pop("stuck")["quality"] == 0.2
    assert shown == {name: own for name, own in rules.thresholds().items() if name != "stuck"}


# -- what the parts say of themselves ----------------------------------------------------------------------------------


def test_facts_of_the_parts():
    from types import SimpleNamespace

    from torch import nn
    from torch.optim import SGD, Adam

    from gan_lightning.diagnosis.parts import parts
    from gan_lightning.losses import Minimax, RpGAN, Wasserstein

    class Mine(SGD):
        pass

    weights = [nn.Parameter()]

    def facts(loss, optimizer, **more):
        both = [optimizer(weights, lr=0.1), Adam(weights)]
        module = SimpleNamespace(
            generator=SimpleNamespace(**more), loss=loss, optimizers=lambda **_: both
        )
        return Settings(parts(module, SimpleNamespace(experiment="egg")))

    paired = facts(RpGAN(), Mine, family="mlp", fully_connected=True)
    assert paired.paired and paired.needs_penalty and not (paired.critic or paired.centred)
    assert paired.sgd_g and not paired.sgd_d and paired.experiment == "egg"
    assert paired.fully_connected and paired.family == "mlp"
    critic = facts(Wasserstein(), Adam)
    assert critic.critic and critic.needs_penalty and not critic.paired and not critic.sgd_g
    assert facts(Minimax(), Adam).saturating and facts(Minimax(), Adam).centred
    nobodys = facts(object(), Adam)  # a loss that says nothing is an ordinary one
    assert not (nobodys.paired or nobodys.critic or nobodys.saturating) and nobodys.centred


def test_networks_and_sources_name_the_option_that_makes_them():
    from pathlib import Path

    from conftest import CONF, compose
    from hydra.utils import get_class

    for path in Path(CONF, "network").glob("*.yaml"):
        generator = compose(f"network={path.stem}").network.generator
        assert get_class(generator._target_).family == path.stem
    for name in ("egg", "folder"):
        source = get_class(compose(f"dataset={name}").dataset.source._target_)
        assert Path(CONF, "experiment", f"{source.experiment}.yaml").is_file()


def test_faces_without_the_aid():
    """450 cat faces, few_photos aid=none, 50,000 images on a slow CPU: four snapshots in all."""
    steps = [25, 1407, 2188, 3125]
    quality = [0.882, 0.371, 0.252, 0.272]
    precision, coverage = [0.0, 0.0, 0.0625, 0.281], [0.0, 0.0, 0.016, 0.051]
    seen = {"quality": quality, "precision": precision, "coverage": coverage}
    signals = {name: lambda i, s, v=values: v[i] for name, values in seen.items()}
    signals |= {"auc_heldout": 0.97, "auc_train": 0.97}
    facts = {"precision_real": 0.92, "coverage_null": 0.676, "n_train": 450}
    found = first(stream(facts, steps, **signals))
    assert (found.name, found.override, found.resolved) == ("wrong_shapes", "aid=heads", False)


def test_quality_that_falls_by_half_in_every_thousand_steps_is_not_slow():
    """Also where the snapshots lie 2,000 steps apart, and has to have fallen to a quarter."""
    limits = {"slow": 0.5, "steps": 1000.0}
    for factor, found in ((0.26, True), (0.24, False)):
        history = stream(steps=[0, 2000], quality=lambda i, s, f=factor: 0.8 * f**i)
        assert slow(history, limits) == [False, found]

"""Every rule on injected streams: it fires, does not fire, has gone again; healthy streams give no finding."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lightning.diagnosis import rules, words
from gan_lightning.diagnosis.preflight import preflight
from gan_lightning.diagnosis.rules import History, diagnose, printed_overrides, status
from gan_lightning.diagnosis.verdict import follow

CONF = Path(__file__).parents[1] / "conf" / "diagnosis" / "default.yaml"
THRESHOLDS = yaml.safe_load(CONF.read_text())["thresholds"]
STEPS = [25, 50, 100, 200, 400, *range(500, 6001, 500)]
CONFIG = {
    "lr": 5e-4,  # what the configuration says where nobody asked: either rate may differ
    "latent_dim": 100,
    "n_critic": 1,
    "total_kimg": 400,
    "optimizer_g": {"lr": 1e-3, "betas": [0.0, 0.99]},
    "optimizer_d": {"lr": 1e-3, "betas": [0.0, 0.99]},
    "ema": {"halflife_kimg": 10, "rampup": 0.05},
    "loss": {
        "_target_": "gan_lightning.losses.BCE",
        "gamma": 0.5,
        "gp_weight": 0.0,
    },
    "augment": {"ops": ["color"], "ada_target": None},
    "network": {
        "generator": {
            "_target_": "gan_lightning.networks.dcgan.Generator",
            "upsample": "resize",
            "norm": "batch",
        }
    },
    "dataset": {"batch_size": 64, "image_channels": 1},
    "trainer": {"max_epochs": -1, "precision": "32-true"},
}
FACTS = {
    "config": CONFIG, "n_train": 60000, "n_holdout": 10000, "dataset": "mnist", "channels": 1, "batch_size": 64, "coverage_null": 0.97,
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
    """A run that gets better and better, but for `signals`: constants or functions of (check number, step)."""
    records = []
    for i, step in enumerate(steps):
        quality = 0.6 * math.exp(-step / 400) + 0.005
        record = {
            "nimg": step * 64, "step": step, "kind": "full", "quality": quality, "diversity": 0.95, "precision": 0.7, "coverage": 0.9 - 0.8 * math.exp(-step / 800),
            "auc_train": 0.8, "auc_heldout": 0.79, "auc_memory": 0.51, "auc_memory_error": 0.025, "r_v": 0.02, "r_t": 0.4, "travel": 0.1,
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


def names(history, active=True):
    return [f.name for f in diagnose(history, THRESHOLDS) if f.resolved is not active]


def first(history):
    return diagnose(history, THRESHOLDS)[0]


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
TITLED = {"stopped_early"} | set(FAULTS)


@pytest.mark.parametrize("rule", FAULTS)
def test_a_planted_fault_is_named_first(rule):
    signals, config, facts = FAULTS[rule]
    found = first(stream(facts, settings=config, **signals))
    assert found.name == rule
    assert not found.resolved and 0 < found.confidence <= 1 and found.override and found.evidence
    assert found.restart in ("scratch", "checkpoint")
    assert all(isinstance(v, (int, float, str)) for v in found.evidence.values())


@pytest.mark.parametrize("rule", sorted(set(FAULTS) - set(rules.FROM_FACTS)))
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
            THRESHOLDS,
        )
    ]


@pytest.mark.parametrize("rule", sorted(set(FAULTS) - set(rules.FROM_FACTS) - {"stuck"}))
def test_a_finding_that_has_gone_again_says_so(rule):
    signals, config, facts = FAULTS[rule]
    healthy = stream().full

    def at_first(name, value):
        return lambda i, step: (
            (value(i, step) if callable(value) else value)
            if i < len(STEPS) - 4
            else healthy[i][name]
        )

    findings = diagnose(
        stream(facts, settings=config, **{n: at_first(n, v) for n, v in signals.items()}),
        THRESHOLDS,
    )
    gone = {f.name: f for f in findings}[rule]
    assert gone.resolved
    assert findings.index(gone) == len([f for f in findings if not f.resolved])


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
    assert diagnose(stream(), THRESHOLDS) == []
    assert diagnose(stream({"ended": True}), THRESHOLDS) == []
    assert diagnose(History([], FACTS), THRESHOLDS) == []


def test_a_sure_discriminator_alone_is_no_fault():
    """PyTorch's DCGAN example on photographs: D(x) .94, D(G(z)) .08 to the end, and better pictures all the way."""
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
    st.sampled_from(["BCE", "Hinge", "RpGAN", "Wasserstein", "LSGAN"]),
)
def test_random_healthy_streams_give_no_finding(seed, pace, auc, floor, jitter, lr, loss):
    """Curves of any pace, a discriminator from weak to sure, any noise on every signal within what healthy runs show."""
    import random

    dice = random.Random(seed)

    def noisy(value, share=jitter):
        return lambda i, s: (
            (value(s) if callable(value) else value) * (1 + dice.uniform(-share, share))
        )

    history = stream(
        settings={"optimizer_g__lr": lr, "optimizer_d__lr": lr, "loss___target_": f"gan_lightning.losses.{loss}"},
        quality=noisy(lambda s: math.exp(-s / pace) + floor),
        diversity=noisy(lambda s: 0.95 - 0.5 * math.exp(-s / pace)),
        coverage=noisy(lambda s: 0.85 * (1 - math.exp(-s / pace))),
        auc_heldout=auc, auc_train=min(1.0, auc + 0.02), travel=noisy(lambda s: 0.1 + 0.8 * math.exp(-s / pace)),
        update_ratio_g=noisy(lr * 8), update_ratio_d=noisy(lr * 8), grad_norm_g=noisy(0.7), grad_norm_d=noisy(2.0),
        nyquist_fake=noisy(lambda s: 2 + 9 * math.exp(-s / 40)), saturated_fake=noisy(0.6), r_v=noisy(0.05), copy_ratio=noisy(0.9),
    )  # fmt: skip
    assert diagnose(history, THRESHOLDS) == []


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
    found = [f for f in preflight(FACTS | facts, THRESHOLDS) if f.name == "wrong_range"]
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
    (found,) = [f for f in preflight(FACTS | facts, THRESHOLDS) if f.name == "wrong_range"]
    assert found.severity == "warning"


def test_a_class_without_training_images_is_certain():
    found = first(stream({"untrained_classes": [3, 7]}))
    assert (found.name, found.confidence) == ("mode_dropping", 0.9)
    assert found.evidence == {"classes_without_training_images": "3, 7"}


def test_too_few_images_come_before_the_classes_that_are_not_among_them():
    assert first(stream({"untrained_classes": [3, 7], "n_train": 20})).name == "dataset_too_small"


def test_still_improving_is_a_note_and_only_at_the_end():
    falling = lambda i, s: 0.9 - s / 10000  # noqa: E731
    assert diagnose(stream(quality=falling, travel=0.0), THRESHOLDS) == []
    (note,) = diagnose(stream({"ended": True}, quality=falling), THRESHOLDS)
    assert (note.name, note.severity, note.restart, note.override) == (
        "stopped_early",
        "note",
        "checkpoint",
        "total_kimg=800",
    )
    (note,) = diagnose(stream({"ended": True}, steps=STEPS[:3]), THRESHOLDS)
    assert note.name == "stopped_early"


def test_a_check_has_passed_only_after_enough_looks():
    h = stream(steps=STEPS[:4])
    passed, off = status(h, [], THRESHOLDS)
    assert "d_too_strong" in off and "wrong_range" in passed
    passed, off = status(stream(), [], THRESHOLDS)
    assert set(passed) == {r.__name__ for r in rules.RULES} - set(rules.LAST_RESORT) and not off


def test_rules_that_need_a_held_out_slice_are_off_without_one():
    h = stream({"n_holdout": 0}, auc_heldout=None, auc_memory=None, r_v=None, copy_ratio=None)
    passed, off = status(h, diagnose(h, THRESHOLDS), THRESHOLDS)
    assert {"d_overfits", "copies_photos"} <= set(off) and "d_too_strong" in passed
    assert "holdout_off" in [f.name for f in preflight(h.facts, THRESHOLDS)]
    assert names(stream(auc_heldout=None, auc_train=1.0, quality=0.5))[0] == "d_too_strong"


@pytest.mark.parametrize(
    "settings,facts,remark",
    [
        (
            {"loss__gamma": 0.0, "loss___target_": "gan_lightning.losses.RpGAN"},
            {},
            "unpenalised",
        ),
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
    assert {f.name: f.severity for f in preflight(h.facts, THRESHOLDS)}.get(remark) == "note"
    assert diagnose(h, THRESHOLDS) == []
    assert [f.name for f in preflight(FACTS, THRESHOLDS)] == []


# -- words, thresholds, overrides ------------------------------------------------------------------------------------


def test_every_rule_has_words_thresholds_and_a_remedy():
    named = [rule.__name__ for rule in rules.RULES]
    assert TITLED == set(named)
    assert set(THRESHOLDS) == set(named) | {"common", "preflight"}
    assert set(named) <= set(words.WORDS) and set(named) <= set(rules.remedies({}))
    for texts in words.WORDS.values():
        assert len(texts) == 4 and all(texts)
        assert all(any("가" <= c <= "힣" for c in korean) for korean in texts[2:])
        assert not any("가" <= c <= "힣" for c in "".join(texts[:2]))
        assert 1 <= sum(texts[1].count(mark) for mark in (". ", ".")) <= 4


@pytest.mark.parametrize("settings", [{}, *(config for _, config, _ in FAULTS.values())])
def test_overrides_change_something_and_are_one_key(settings):
    config = with_(CONFIG, **settings)
    for override in printed_overrides(config):
        key, _, value = override.partition("=")
        assert key and value and " " not in override
        now = rules.setting(config, key) if key != "lr" else config["optimizer_g"]["lr"]
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
        ("d_overfits", {"augment__ops": []}, "augment=diffaugment"),
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
            "divergence",
            {
                "loss__gamma": 0.0,
                "loss___target_": "gan_lightning.losses.Wasserstein",
            },
            "loss.gp_weight=10",
        ),
        ("oscillation", {"loss__gamma": 0.0}, "loss.gamma=1"),
        ("full_collapse", {"latent_dim": 1}, "latent_dim=100"),
    ],
)
def test_the_remedy_follows_the_settings(rule, settings, override):
    assert rules.remedies(with_(CONFIG, **settings))[rule][0] == override


@pytest.mark.parametrize(
    ("typed", "source", "override"),
    [
        (
            ["experiment=vanilla_mnist", "dataset=folder", "lr=1e-4"],
            "FolderImages",
            "experiment=few_photos",
        ),
        (["experiment=vanilla_mnist", "dataset=egg"], "EggImages", "experiment=egg"),
        (["experiment=vanilla_mnist"], "TorchvisionImages", "network=dcgan"),
        (["network=mlp", "dataset=folder"], "FolderImages", "network=dcgan"),
        (
            ["experiment=vanilla_mnist", "dataset=folder", "loss.gamma=0"],
            "FolderImages",
            "network=dcgan",
        ),
        (
            ["experiment=vanilla_mnist", "dataset=folder", "~loss.r2"],
            "FolderImages",
            "network=dcgan",
        ),
    ],
)
def test_photographs_in_the_notes_experiment_need_another_experiment(typed, source, override):
    """Where settings of one's own would win over the pasted experiment, it is not printed."""
    settings = {
        "overrides": typed, "dataset__source": {"_target_": f"gan_lightning.data.sources.{source}"}, "loss__gamma": 0.0,
        "network__generator": {"_target_": "gan_lightning.networks.mlp.Generator"}, "ema__halflife_kimg": 0, "dataset__image_size": 64,
    }  # fmt: skip
    found = rules.remedies(with_(CONFIG, **settings))
    assert {
        found[rule][0] for rule in ("full_collapse", "partial_collapse", "oscillation", "stuck")
    } == {override}
    trained = rules.remedies(with_(CONFIG, **settings | {"ema__halflife_kimg": 10}))
    assert trained["full_collapse"][0] == "network=dcgan"


@pytest.mark.parametrize(
    ("lr_g", "lr_d", "override"),
    [
        (4e-3, 1e-4, "optimizer_g.lr=0.0001"),
        (5e-4, 1e-6, "optimizer_d.lr=0.0005"),
        (2e-4, 2e-5, "optimizer_d.lr=0.0002"),
    ],
)
def test_a_generator_that_outruns_counts_until_the_pictures_are_good(lr_g, lr_d, override):
    """Of two rates far apart the one that is further from the usual moves; pictures that are good, or get better, are let be."""
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


def test_no_batch_is_larger_than_the_data():
    config = with_(CONFIG, dataset__batch_size=6, network__generator__norm="batch")
    assert rules.remedies(config)["small_batch_norm"][0] == "dataset.batch_size=32"
    assert rules.remedies(config, 24)["small_batch_norm"][0] == "dataset.batch_size=24"
    assert rules.remedies(config, 12)["small_batch_norm"][0] == "network.generator.norm=group"


def test_a_run_that_the_clock_ended_goes_on_beyond_what_it_has_seen():
    history = stream(
        {"ended": True}, settings={"total_kimg": None}, quality=lambda i, s: 0.9 - s / 10000
    )
    assert first(history).override == f"total_kimg={max(1000, 2 * STEPS[-1] * 64 / 1000):.6g}"
    long = stream(
        {"ended": True},
        settings={"total_kimg": None},
        quality=lambda i, s: 0.9 - s / 10000,
        nimg=2_000_000,
    )
    assert first(long).override == "total_kimg=4000"


def test_pictures_that_stay_poor_for_long_are_stuck_and_not_too_early():
    assert first(stream({"ended": True}, quality=0.2)).name == "stuck"


def test_sgd_is_told_of_adam():
    config = with_(
        CONFIG, optimizer_g___target_="torch.optim.SGD", optimizer_d___target_="torch.optim.SGD"
    )
    found = rules.remedies(config)
    assert found["lr_too_low"][0] == "optimizer_g._target_=torch.optim.Adam"
    assert found["d_too_weak"][0] == "optimizer_d._target_=torch.optim.Adam"
    fast = rules.remedies(
        with_(config, optimizer_g__lr=0.1, optimizer_d__lr=0.1)
    )  # which Adam could not bear
    assert not any("Adam" in override for overrides in fast.values() for override in overrides)


@pytest.mark.parametrize(
    ("generator", "discriminator", "override"),
    [
        ({"channels": 4}, {"channels": 32}, "network.generator.channels=128"),
        ({"channels": 32}, {"channels": 2}, "network.discriminator.channels=128"),
        (
            {"_target_": "gan_lightning.networks.mlp.Generator", "hidden": [8, 8]},
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
    found = {
        f.name: f.override for f in diagnose(stream(settings=settings, quality=0.05), THRESHOLDS)
    }
    assert found.get("network_too_small") == override
    assert "network_too_small" not in names(stream(settings=settings, quality=0.02))


def test_a_low_rate_is_never_lowered_by_raising_it():
    found = rules.remedies(with_(CONFIG, optimizer_d__lr=2e-5, optimizer_g__lr=5e-4))
    assert not any(o.startswith("optimizer_d.lr") for o in found["partial_collapse"])
    assert (
        "optimizer_d.lr=0.000125"
        in rules.remedies(with_(CONFIG, optimizer_d__lr=5e-4))["partial_collapse"]
    )


@pytest.mark.parametrize(
    ("target", "found"), [("torch.optim.Adam", ["lr_too_high"]), ("torch.optim.SGD", [])]
)
def test_sgd_is_not_judged_by_the_rates_of_adam(target, found):
    settings = {f"optimizer_{side}": {"_target_": target, "lr": 0.05} for side in "gd"}
    history = stream(settings=settings, quality=0.5)
    said = [n for n in names(history) if n == "lr_too_high"]
    remarks = [f.name for f in preflight(history.facts, THRESHOLDS) if f.name == "lr_too_high"]
    assert said == remarks == found


def test_a_schedules_end_is_no_low_rate():
    """The last tenth of a cosine moves the weights by less than any rate that is too low."""
    for share, found in ((1.0, True), (0.05, False)):
        history = stream(quality=0.5, update_ratio_g=1e-6, lr_share=share)
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
    assert [f.override for f in diagnose(history, THRESHOLDS)] == [override]


@pytest.mark.parametrize(("factor", "found"), [(2.5, True), (1.5, False)])
def test_losing_again_what_was_won_is_oscillation(factor, found):
    """Still improving until just before the end, so that nothing is flat yet."""
    better = [0.9 - 0.6 * step / STEPS[-1] for step in STEPS]
    q = [*better[:-2], factor * better[-3], factor * better[-3]]
    assert ("oscillation" in names(stream(quality=lambda i, s: q[i], travel=0.4))) is found


def test_fully_connected_layers_are_replaced_first():
    """Planted oscillation: Fréchet 434, with a penalty 183, with convolutions 43; on photographs a penalty did not help at all."""
    config = {
        "network": {"generator": {"_target_": "gan_lightning.networks.mlp.Generator"}},
        "loss": {"gamma": 0.0, "_target_": "gan_lightning.losses.BCE"},
    }
    for name in ("full_collapse", "partial_collapse", "oscillation", "stuck"):
        assert rules.remedies(config)[name][:2] == ["network=dcgan", "loss.gamma=1"]
    assert rules.remedies(config)["unpenalised"][0] == "loss.gamma=1"


def test_too_little_data_is_the_cause_where_something_is_wrong():
    alone = diagnose(History([], FACTS | {"n_train": 20}), THRESHOLDS)
    assert [(f.name, f.severity) for f in alone] == [("dataset_too_small", "warning")]
    bright = diagnose(History([], FACTS | {"n_train": 20, "real_mean": 0.74}), THRESHOLDS)
    assert [(f.name, f.severity) for f in bright] == [
        ("wrong_range", "fault"),
        ("dataset_too_small", "fault"),
    ]


@pytest.mark.parametrize(
    ("rate", "rule"), [(0.1, "lr_too_high"), (0.1, "divergence"), (1e-6, "lr_too_low")]
)
def test_two_wrong_rates_are_mended_by_one_key(rate, rule):
    config = {
        "optimizer_g": {"lr": rate, "betas": [0.0, 0.99]},
        "optimizer_d": {"lr": rate, "betas": [0.0, 0.99]},
    }
    assert rules.remedies(config)[rule][0] == "lr=0.0005"
    assert follow([f"optimizer_g.lr={rate}", f"optimizer_d.lr={rate}", "seed=1"], "lr=0.0005") == [
        "seed=1",
        "lr=0.0005",
    ]


@pytest.mark.parametrize(("labels", "severity"), [(True, "fault"), (False, "note")])
def test_a_missing_class_is_a_fault_and_a_missing_cluster_a_note(labels, severity):
    records = [{"kind": "full", "step": 250 * k, "nimg": 4000 * k, "quality": 0.02, "modes_missing": 0.1, "coverage": 0.8} for k in range(1, 9)]  # fmt: skip
    found = diagnose(
        History(records, FACTS | {"mode_labels": labels, "mode_images": 1000}), THRESHOLDS
    )
    assert [(f.name, f.severity) for f in found] == [("mode_dropping", severity)]
    few = diagnose(
        History(records, FACTS | {"mode_labels": labels, "mode_images": 100}), THRESHOLDS
    )
    assert few == []


@pytest.mark.parametrize("images", [1000, 100])
def test_a_check_with_too_few_images_says_that_it_is_off(images):
    records = [{"kind": "full", "step": 250 * k, "nimg": 4000 * k, "quality": 0.02, "modes_missing": 0.0, "coverage": 0.8} for k in range(1, 9)]  # fmt: skip
    h = History(records, FACTS | {"mode_images": images})
    assert [
        "mode_dropping" in names for names in status(h, diagnose(h, THRESHOLDS), THRESHOLDS)
    ] == [
        images >= 500,
        images < 500,
    ]

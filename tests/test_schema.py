"""The schema knows every key of conf/, lets through what stands there, and words its own types."""

import inspect
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval
from conftest import CONF, compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from gan_lightning.errors import UserError
from gan_lightning.names import DATA_SETS, FEATURES
from gan_lightning.ranges import Count, Layers, checked, words
from gan_lightning.schema import KEYS, OPEN, TAKEN, kind, leaves, needed, validate

CHOICES = [
    [f"{path.parent.name}={path.stem}"]
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name != "sweep"
]


def plain(*overrides):
    """The configuration without Hydra's part, whose paths are known."""
    cfg = compose(*overrides)
    cfg.hydra.runtime.output_dir = "run"
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice[0])
def test_what_stands_in_conf_is_known_and_right(choice):
    """A new key of conf/ is an argument of the class in its block, with what it may hold."""
    needs_root = choice[0].startswith(("dataset=folder", "experiment=few_photos"))
    cfg = plain(*choice, *["dataset.root=photos"] * needs_root)
    content = OmegaConf.to_container(cfg)
    assert not [key for key, _ in leaves(content) if kind(key, content) is None]
    validate(cfg)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice[0])
def test_every_key_can_say_what_it_takes(choice):
    """No type without words, and none with more than a line."""
    cfg = OmegaConf.to_container(plain(*choice))
    for key, _ in leaves(cfg):
        if not key.startswith("logger.") and not key.rpartition(".")[2].startswith("_"):
            said = words(kind(key, cfg))
            assert len(said) < 120 and (said != "a value" or key in KEYS), (key, said)


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        (bool, "true or false"),
        (Annotated[int, Ge(1)], "a whole number of at least 1"),
        (Annotated[float, Gt(0)] | None, "a number above 0, or null"),
        (Annotated[float, Interval(ge=0, le=1)], "a number from 0 to 1"),
        (Annotated[float, Interval(ge=0, lt=1)], "a number from 0 to below 1"),
        (Annotated[float, Interval(gt=0, le=10)], "a number above 0 and up to 10"),
        (Literal["crop", "pad", "stretch"], "crop, pad or stretch"),
        (str | int, "text or a whole number"),
        (dict[str, int], "a block of keys"),
    ],
)
def test_words(type_, said):
    assert words(type_) == said


class Made:
    @checked
    def __init__(self, size: Count, layers: Layers = (1, 2), name=None) -> None:
        self.made = size, layers, name


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"size": 0}, "size=0 should be a whole number from 1 to 1000000000"),
        ({"size": "5"}, 'size="5" should be .*, without quotes'),
        ({"size": True}, "size=true should be"),
        ({"size": float("inf")}, "size=inf should be"),
        ({"size": 1, "layers": [1, 0]}, r"layers=\[1,0\] should be a list of layer sizes"),
        ({"size": 1, "layers": "12"}, "layers=.* should be a list"),
    ],
)
def test_a_constructor_refuses_what_its_types_do_not_admit(arguments, line):
    with pytest.raises(UserError, match=f"^{line}"):
        Made(**arguments)


def test_a_constructor_takes_the_rest():
    assert Made(2, OmegaConf.create([3, 4]), object).made == (2, [3, 4], object)
    assert Made(2).made == (2, (1, 2), None)


@pytest.mark.parametrize(
    ("key", "right"),
    [("lr", True), ("dataset", True), ("dataset.flip", True), ("optimizer_g.lr", True)]
    + [("optimizer_g.betas", False), ("logger.csv", False), ("experiment", False)],
)
def test_what_cannot_be_taken_away(key, right):
    assert needed(key) == right


def test_a_key_that_a_class_does_not_take_is_answered_wherever_it_comes_from():
    with pytest.raises(UserError, match=r"^network.generator.channels is no key that .*mlp"):
        validate(
            plain(
                "experiment=few_photos",
                "dataset.root=x",
                "network=mlp",
                "+network.generator.channels=8",
            )
        )


def test_what_lightning_takes_is_known():
    """What the schema says of the Trainer's arguments is said of those it has."""
    from lightning import Trainer

    takes = set(inspect.signature(Trainer.__init__).parameters)
    known = {key.partition(".")[2] for key in KEYS if key.startswith("trainer.")}
    assert known <= takes and set(TAKEN) <= known


def test_names_are_those_that_can_be_built():
    from gan_lightning.evaluate import TORCHVISION
    from gan_lightning.measure.features import Digits, Inception, Lite2

    assert set(FEATURES) == {kind.name for kind in (Digits, Lite2, Inception)}
    assert set(DATA_SETS) == {*TORCHVISION, "egg"}


def test_blocks_of_others_are_open():
    """A network, loss or data source of somebody else's takes what it takes."""
    cfg = plain(
        "network.generator._target_=my.Net", "network.generator.channels=many", "+network.generator.more=[x]",
        "loss._target_=my.Loss", "dataset.source._target_=my.Source", "+dataset.source.number=none",
        "loss.label_smoothing=9",
    )  # fmt: skip
    validate(cfg)
    content = OmegaConf.to_container(cfg)
    assert kind("network.generator.more", content) is OPEN
    assert kind("network.discriminator.more", content) is None
    with pytest.raises(
        UserError,
        match=r"network.discriminator.channels=many should be a whole number from 1 to 65536",
    ):
        validate(plain("network.generator._target_=my.Net", "network.discriminator.channels=many"))


@pytest.mark.parametrize(
    ("typed", "first"),
    [((), "seed=-1"), (("lr",), "lr=0"), (("optimizer_d.lr",), "optimizer_d.lr=0")],
)
def test_what_was_typed_is_answered_first(typed, first):
    with pytest.raises(UserError, match=f"^{first} should be"):
        validate(plain("seed=-1", "lr=0"), typed)

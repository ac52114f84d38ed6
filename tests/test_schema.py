"""The schema knows every key of conf/, lets through what stands there, and words its own types."""

import inspect
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval
from conftest import CONF, compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from gan_lightning.config import keys
from gan_lightning.errors import UserError
from gan_lightning.names import DATA_SETS, FEATURES
from gan_lightning.schema import TAKEN, Block, Config, Trainer, annotation, validate, words

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
    """A new key of conf/ needs a line in schema.py: what it may hold."""
    needs_root = choice[0].startswith(("dataset=folder", "experiment=few_photos"))
    cfg = plain(*choice, *["dataset.root=photos"] * needs_root)
    unknown = [key for key in keys(cfg) if annotation(key, OmegaConf.to_container(cfg)) is None]
    assert not unknown
    validate(cfg)


def test_every_block_can_say_what_it_takes():
    """No type without words, and none with more than a line."""

    def inner(model):
        for name, field in model.model_fields.items():
            said = words(annotation_of(model, name))
            assert said and said != "a value" and len(said) < 120, (model, name, said)
            for part in getattr(field.annotation, "__args__", [field.annotation]):
                if isinstance(part, type) and issubclass(part, Block):
                    inner(part)

    def annotation_of(model, name):
        from typing import get_type_hints

        return get_type_hints(model, include_extras=True)[name]

    inner(Config)


@pytest.mark.parametrize(
    ("kind", "said"),
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
def test_words(kind, said):
    assert words(kind) == said


def test_what_lightning_takes_is_known():
    """Every argument of the Trainer's is either in the schema or given by the program."""
    from lightning import Trainer as Lightning

    takes = set(inspect.signature(Lightning.__init__).parameters) - {"self"}
    known = {field.alias or name for name, field in Trainer.model_fields.items()} - {"_target_"}
    assert known <= takes
    assert takes - known == set(TAKEN)


def test_names_are_those_that_can_be_built():
    from gan_lightning.evaluate import TORCHVISION
    from gan_lightning.measure.features import EXTRACTORS

    assert set(FEATURES) == set(EXTRACTORS)
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
    assert annotation("network.generator.more", content) is not None
    assert annotation("network.discriminator.more", content) is None
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

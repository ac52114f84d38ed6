"""Overrides that the program writes itself are read back by Hydra as they were meant."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from gan_lightning.config import assign


@pytest.mark.parametrize(
    "value",
    ["logs/egg/last.ckpt", "/home/me/my (photos)/x", "/data [1]/{a}", "O'Neil", "seed=1,dataset=egg", "a#b", "/home/사진/last.ckpt",
     'say "hi"', "back\\slash", 'a\\\\"b', "end\\\\", "a b", "null", "12"],
)  # fmt: skip
def test_assign(value):
    override = OverridesParser.create().parse_override(assign("ckpt_path", value))
    assert override.key_or_group == "ckpt_path"
    read = override.value()
    assert str(read) == value or (value == "null" and read is None)

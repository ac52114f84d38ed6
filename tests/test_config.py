"""Overrides that the program writes itself are read back by Hydra as they were meant."""

import pytest
from conftest import compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from gan_lightning.config import assign, let_last_rate_win, quoted


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


@pytest.mark.parametrize(
    ("typed", "rates", "gone"),
    [
        (["optimizer_g.lr=0.1", "optimizer_d.lr=0.2", "lr=0.0003"], (0.0003, 0.0003), 2),
        (["optimizer_d.lr=0.2", "lr=0.0003", "optimizer_g.lr=0.1"], (0.1, 0.0003), 1),
        (["lr=0.0003", "optimizer_g.lr=0.1"], (0.1, 0.0003), 0),
        (["optimizer_g.lr=0.1"], (0.1, 0.0005), 0),
    ],
)
def test_the_rate_typed_last_holds(typed, rates, gone):
    cfg = compose(*typed)
    assert let_last_rate_win(cfg, typed) == [o for o in typed if o.startswith("opt")][:gone]
    assert (cfg.optimizer_g.lr, cfg.optimizer_d.lr) == rates


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("dataset.root=/사진", 'dataset.root="/사진"'),
        ("dataset.root=/plain", "dataset.root=/plain"),
        ('dataset.root="/사진"', 'dataset.root="/사진"'),
        ("dataset.root=~/photos", 'dataset.root="~/photos"'),
        ("dataset.root=/photos (1)", 'dataset.root="/photos (1)"'),
        ("dataset.root=/a=b", 'dataset.root="/a=b"'),
        ("+new.key=1,2", "+new.key=1,2"),
        ("lr=interval(0.1,0.2)", "lr=interval(0.1,0.2)"),
        ("optimizer_g.betas=[0.0,0.99]", "optimizer_g.betas=[0.0,0.99]"),
        ("-m", "-m"),
    ],
)
def test_paths_of_any_letters_need_no_quotes(typed, given):
    assert quoted(typed) == given

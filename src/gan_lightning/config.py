"""Keys, values and overrides, read by name and written so that Hydra and the shell read them."""

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

LONG = r"\d\.\d{5,}(e[+-]?\d+)?"  # numbers with more digits than anybody wants to read


def lookup(config: Any, path: str) -> Any:
    """A nested value of plain dicts by its dotted name, as it stands; None where it is missing."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config


def key_of(override: str) -> str:
    """The key that a typed override sets, adds or removes: `+a.b=1` -> `a.b`."""
    return override.lstrip("+~").partition("=")[0]


def varied(lines: Sequence[Sequence[str]]) -> list[str]:
    """Of each run's overrides those that not all share, in one line, long numbers cut."""
    common = set.intersection(*map(set, lines)) if len(lines) > 1 else set()
    own = (" ".join(one for one in line if one not in common) for line in lines)
    return [re.sub(LONG, lambda number: f"{float(number[0]):.4g}", one) for one in own]


def let_last_rate_win(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """Of `lr` and `optimizer_g.lr` or `optimizer_d.lr` on one command line the later one holds;
    returns what gave way.

    So `lr=5e-4` pasted behind any command sets both networks' rates, as a prescription needs.
    """
    typed = {key_of(override): place for place, override in enumerate(overrides)}
    gone = [
        k
        for k in ("optimizer_g.lr", "optimizer_d.lr")
        if typed.get(k, len(overrides)) < typed.get("lr", -1)
    ]
    for key in gone:
        OmegaConf.update(cfg, key, cfg.lr)
    return [overrides[typed[key]] for key in gone]


def assign(key: str, value: object) -> str:
    """The override that sets `key` to a string, in quotes where Hydra's grammar needs them."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        return f"{key}={text}"
    # backslashes are themselves, but for those before a quote and at the end
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text)
    return f'{key}="{escaped}"'


def quoted(argument: str) -> str:
    """An override as typed, in quotes where Hydra's grammar needs them (/사진, /photos (1))."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = argument.partition("=")
    if (
        not re.fullmatch(r"\+{0,2}[\w.@/]+", key)
        or not value
        or value[0] in "\"'[{"
        or "," in value
    ):
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return assign(key, value)
    return argument


EXTRAS = {
    "hydra/sweeper/optuna": "search",
    "hydra/launcher/cluster": "cluster",
    "hydra/launcher/cluster_local": "cluster",
}

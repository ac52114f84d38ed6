"""The one exception that the entry points print as a single line instead of a stack trace."""

import os


class UserError(Exception):
    """Something the user can put right: the message names it and says what would be right."""


def traces_wanted() -> bool:
    """HYDRA_FULL_ERROR=1, set by the user, asks for the stack trace of every error."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and not os.environ.get("GAN_LIGHTNING_GUARDED")


def first_line(error: BaseException) -> str:
    """What an error says, for use within a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

"""How the entry points end: a mistake of the user's is one line and exit code 1, never a stack
trace."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gan_lightning import interrupt, together
from gan_lightning.errors import UserError, traces_wanted
from gan_lightning.text import printable, tolerant_output

before_run: set[Path] = set()  # the folders that were there before Hydra made the run's


def guarded(main: Callable[[], Any], conf: str) -> int:
    """Runs Hydra's `main` once the command line is checked; the exit code."""
    try:
        code = _guarded(main, conf)
    except SystemExit as end:
        together.leave(None if end.code in (0, None) else f"exit code {end.code}")
        raise
    except BaseException:
        together.leave("an error of the program, which it shows itself")
        raise
    together.leave()
    return code


def _guarded(main: Callable[[], Any], conf: str) -> int:
    tolerant_output()
    before_run.clear()
    if sys.argv[1:] in (["--help"], ["-h"]):  # in which nothing can be wrong
        main()
        return 0
    with in_words():
        from gan_lightning.commandline import checked
        from gan_lightning.config import quoted
        from gan_lightning.sweep import finish, launcher

        typed = together.arguments([quoted(launcher(argument)) for argument in sys.argv[1:]])
        sys.argv[1:], there = checked(typed, conf)
        before_run.update(there)
        if not traces_wanted():
            # what sweepers and launchers raise is handed on by Hydra then, to be said in one line as well; the mark
            # tells child processes who set it
            os.environ["HYDRA_FULL_ERROR"] = os.environ["GAN_LIGHTNING_GUARDED"] = "1"
        try:
            main()
        finally:
            finish()
    return 0


@contextmanager
def in_words() -> Iterator[None]:
    """A user's mistake as one line and exit code 1; HYDRA_FULL_ERROR=1 asks for the stack trace."""
    if traces_wanted():
        yield
        return
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(interrupt.exit_code() or 130)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        from gan_lightning.commandline import explain, leave_nothing

        leave_nothing(before_run)
        sys.exit(complain(str(error) if isinstance(error, UserError) else explain(error)))
    except OSError as error:  # after Hydra's, of which one is an OSError
        from gan_lightning.commandline import leave_nothing

        leave_nothing(before_run)
        sys.exit(complain(in_short(error)))


def in_short(error: OSError) -> str:
    """What the system said, and of which file."""
    where = f"{error.filename}: " if error.filename else ""
    advice = "; name a place that can be written to" if isinstance(error, PermissionError) else ""
    return where + (error.strerror or str(error) or type(error).__name__) + advice


def complain(message: str) -> int:
    """Says it, unless another process does; the exit code."""
    if together.leave(message):
        print(f"error: {printable(message)}", file=sys.stderr)
    return 1

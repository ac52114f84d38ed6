"""How the entry points end: a mistake of the user's is one line and exit code 1, never a stack trace."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gan_lightning import interrupt, together
from gan_lightning.errors import UserError, traces_wanted


def guarded(main: Callable[[], Any], config_dir: str) -> int:
    """Runs Hydra's `main`; returns the exit code. HYDRA_FULL_ERROR=1 asks for the stack trace instead."""
    try:
        code = _guarded(main, config_dir)
    except SystemExit as end:
        together.leave(None if end.code in (0, None) else f"exit code {end.code}")
        raise
    except BaseException:
        together.leave("an error of the program, which it shows itself")
        raise
    together.leave()
    return code


def _guarded(main: Callable[[], Any], config_dir: str) -> int:
    if traces_wanted():
        sys.argv[1:] = together.arguments(sys.argv[1:])
        main()
        return 0
    from gan_lightning.config import quoted
    from gan_lightning.sweep import finish, launcher

    sys.argv[1:] = [quoted(launcher(argument)) for argument in sys.argv[1:]]
    # makes Hydra hand its errors on, so that one place words them; the mark tells child processes who set it
    os.environ["HYDRA_FULL_ERROR"] = os.environ["GAN_LIGHTNING_GUARDED"] = "1"

    with in_words(config_dir):
        sys.argv[1:] = together.arguments(sys.argv[1:])
        try:
            main()
        finally:
            finish()
    return 0


@contextmanager
def in_words(config_dir: str) -> Iterator[None]:
    """Turns a mistake of the user's into its one line and exit code 1; HYDRA_FULL_ERROR=1 asks for the stack trace."""
    if traces_wanted():
        yield
        return
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except UserError as error:
        sys.exit(complain(str(error)))
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(interrupt.exit_code() or 130)
    except (HydraException, OmegaConfBaseException) as error:
        from gan_lightning.config import explain

        cause = error.__cause__
        sys.exit(
            complain(str(cause) if isinstance(cause, UserError) else explain(error, lambda: known_keys(config_dir)))
        )
    except OSError as error:  # after Hydra's, of which one is an OSError
        sys.exit(complain(in_short(error)))
    except ValueError as error:
        if "Config group override" not in str(error):  # Hydra's answer to group=null; any other is a mistake of ours
            raise
        from gan_lightning.config import explain

        sys.exit(complain(explain(error, list)))


def in_short(error: OSError) -> str:
    """What the system said, and of which file."""
    where = f"{error.filename}: " if error.filename else ""
    advice = "; name a place that can be written to" if isinstance(error, PermissionError) else ""
    return where + (error.strerror or str(error) or type(error).__name__) + advice


def complain(message: str) -> int:
    if together.leave(message):  # else another process says it
        print(f"error: {message}", file=sys.stderr)
    return 1


def known_keys(config_dir: str) -> list[str]:
    """Every key of the default configuration."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from gan_lightning.config import keys

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir, version_base="1.3"):
        return list(keys(compose("config")))

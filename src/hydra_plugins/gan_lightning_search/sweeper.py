"""Optuna's sweeper for searches that are stopped and started again."""

from pathlib import Path
from typing import Any

from gan_lightning.errors import UserError

try:
    from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
except ImportError:  # the extra `search` is not installed
    pass
else:

    class Search(OptunaSweeper):  # type: ignore[misc]
        """`n_trials` in all: those that the storage holds from before count."""

        def sweep(self, arguments: list[str]) -> Any:
            settings = self.sweeper
            storage, name, wanted = settings.storage, settings.study_name, settings.n_trials
            if done := earlier(storage, name):
                print(f"search {name}: {done} of {wanted} runs are there from before", flush=True)
            settings.n_trials = wanted - done
            Path(settings.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
            try:
                return super().sweep(arguments)
            except ValueError as error:
                text = " ".join(str(error).split())
                if "No trials are completed" in text:
                    raise UserError(f"search {name}: no run came to a score") from None
                right = "another hydra.sweeper.study_name begins a new search"
                raise UserError(f"search {name} in {storage}: {text}; {right}") from None


def earlier(storage: str | None, name: str | None) -> int:
    """Runs of a search that its storage holds as over; makes the folder of an SQLite file."""
    import optuna

    if not storage or not name:
        return 0
    if storage.startswith("sqlite:///"):
        Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return 0
    return sum(trial.state.is_finished() for trial in study.trials)

"""The search's trials: kept in a journal on disk, chosen by Optuna, within a budget of time."""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, OutputError
from ..reducers.spaces import SearchRange

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
except ImportError as error:
    raise ConfigError(
        "--search needs Optuna: pip install 'lightning-expedite[search]' (or pip install optuna)"
    ) from error

JOURNAL_FILE = "journal.log"
_NOTHING_NEW = 20  # repeated settings in a row: the space is searched


@dataclass(frozen=True)
class Tried:
    """One setting on the subset: its mIoU in percent, what it loses there in points, what a window costs."""

    settings: dict[str, Any]
    miou: float
    loss: float
    gflops: float
    seconds: float


Try = Callable[[dict[str, Any], float], Tried | None]
"""Tries settings until a time on the clock of ``time.perf_counter``; gives nothing where the time was over first."""


class Study:
    """Trials of one search, of which an earlier call may have done some.

    Args:
        folder: Where the journal is kept.
        space: Settings to vary.
        fingerprint: What trials depend on; those of another search are refused.
        seed: Of the choice of settings.
        max_loss: Where one is given, settings that lose more on the subset count as worse than all others.

    Raises:
        OutputError: The journal is of another search, or damaged.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, SearchRange],
        fingerprint: Mapping[str, Any],
        seed: int,
        max_loss: float | None,
    ) -> None:
        self._space = space
        self._max_loss = max_loss
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--output: {folder} cannot be made a folder: {error.strerror}") from error
        path = folder / JOURNAL_FILE
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
                self._study = optuna.create_study(
                    study_name="search", storage=storage, directions=["maximize", "minimize"], load_if_exists=True
                )
            except (ValueError, KeyError) as error:
                raise OutputError(f"{path} is damaged: give --overwrite or another --output ({error})") from error
            self._claim(path, {**fingerprint, "max_loss": max_loss})
            # The same seed would begin with the same settings again.
            self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(self._study.trials))
        for trial in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # interrupted

    @property
    def tried(self) -> list[Tried]:
        """All settings that were tried to the end, each once."""
        done = self._study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        found = (Tried(**json.loads(trial.user_attrs["tried"])) for trial in done)
        return list({json.dumps(tried.settings): tried for tried in found}.values())

    @property
    def seconds(self) -> float:
        """Seconds that all trials took, those that were given up included."""
        return sum(trial.user_attrs.get("seconds", 0.0) for trial in self._study.trials)

    def run(self, attempt: Try, budget: float, progress: Callable[[Tried], None]) -> None:
        """Try settings until the budget is used or nothing new is left.

        Args:
            attempt: Tries settings.
            budget: Seconds for all trials of the study, earlier calls' included.
            progress: Told of each setting that was tried.
        """
        end = time.perf_counter() + budget - self.seconds
        known = {json.dumps(tried.settings): tried for tried in self.tried}
        repeated = 0
        while time.perf_counter() < end and repeated < _NOTHING_NEW:
            trial = self._study.ask()
            settings = {name: span.suggest(trial, name) for name, span in self._space.items()}
            settings = json.loads(json.dumps(settings))  # as the journal gives them back
            key = json.dumps(settings)
            if key in known:
                repeated += 1
                self._tell(trial, known[key], 0.0)
                continue
            repeated = 0
            start = time.perf_counter()
            tried = attempt(settings, end)
            self._tell(trial, tried, time.perf_counter() - start)
            if tried is not None:
                known[key] = tried
                progress(tried)

    def _tell(self, trial: Any, tried: Tried | None, seconds: float) -> None:
        trial.set_user_attr("seconds", seconds)
        if tried is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        trial.set_user_attr("tried", json.dumps(asdict(tried)))
        if self._max_loss is not None:
            trial.set_constraint("loss", tried.loss - self._max_loss)
        self._study.tell(trial, [tried.miou, tried.gflops])

    def _claim(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Write what the trials depend on, or compare it with what an earlier call wrote."""
        wanted = json.loads(json.dumps(fingerprint, default=str))
        found = self._study.user_attrs.get("fingerprint")
        if found is None:
            self._study.set_user_attr("fingerprint", wanted)
            return
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        if differing:
            raise OutputError(
                f"{path} is of a search with another {', '.join(differing)}: give --overwrite or another --output"
            )


def pareto_front(tried: Sequence[Tried]) -> list[Tried]:
    """Give the settings to which none is preferable in both mIoU and GFLOPs, cheapest first."""
    front: list[Tried] = []
    for one in sorted(tried, key=lambda tried: (tried.gflops, -tried.miou)):
        if not front or one.miou > front[-1].miou:
            front.append(one)
    return front


def choose_finalists(tried: Sequence[Tried], count: int, max_loss: float | None) -> list[Tried]:
    """Choose settings of the Pareto front that deserve a test on all images.

    With a limit of the loss: the cheapest that keep it on the subset, and the one just beyond it, as the subset is not
    the data set. Without: spread over the front, from its cheapest to its best.
    """
    front = pareto_front(tried)
    if max_loss is None:
        last = max(count - 1, 1)
        places = {round(number * (len(front) - 1) / last) for number in range(min(count, len(front)))}
        return [front[place] for place in sorted(places)]
    within = [one for one in front if one.loss <= max_loss]
    beyond = [one for one in front if one.loss > max_loss][::-1]  # nearest first: the front's loss falls with its cost
    chosen = within[: max(count - 1, 1)] if beyond else within[:count]
    return chosen + beyond[: count - len(chosen)]

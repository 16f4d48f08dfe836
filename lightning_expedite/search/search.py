"""A search for good settings of one reducer: on a subset of the images first, then the finalists on all of them."""

import functools
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from torch import Tensor

from ..benchmarking.costs import on_meta
from ..benchmarking.flops import count_multiply_adds
from ..benchmarking.variants import Precision, autocast, input_dtype
from ..data.base import SegmentationDataModule
from ..data.samples import Sample
from ..errors import ConfigError, OutputError
from ..evaluation import SegmenterModule
from ..evaluation.finite import require_finite
from ..evaluation.inference import run_windows
from ..evaluation.metrics import class_counts, scores_of
from ..evaluation.resume import first_difference
from ..reducers import EncoderShape, Reducer
from ..reducers.spaces import SearchRange
from .grid import BASELINE, point_name
from .points import POINTS_FOLDER, Point, find_reducer, resolve_reducer
from .workers import LOCKS_FOLDER, SWEEP_FILE, Steps, is_locked, machine, open_study, run_points, say, try_lock

_REPEATS = 20  # settings suggested again in a row: there are no others
_IMAGES_IN_MEMORY = 64  # a larger subset is read anew for each setting
_IMAGES_COUNTED = 4  # for the GFLOPs of a reducer whose shapes depend on the image


@dataclass(frozen=True)
class Tried:
    """A setting with its mIoU on the subset in percent, the loss against the baseline in points, and its GFLOPs."""

    settings: dict[str, Any]
    miou: float
    loss: float
    gflops: float


def search(
    reducer: str,
    output: Path,
    subset: "Subset",
    settings: Mapping[str, Mapping[str, Any]],
    steps: Steps,
    console: Console,
    *,
    seconds: float,
    finalists: int,
    max_loss: float | None,
    seed: int,
    overwrite: bool,
) -> int:
    """Search, then run the baseline and the finalists as points of a sweep, together with other workers.

    Args:
        reducer: Name or path of the reducer's class.
        output: Folder of the study and the points.
        subset: Where settings are tried.
        settings: Settings of each step without a reducer, as results store them.
        steps: What is done for the finalists.
        console: Where to show progress.
        seconds: Time for trials, summed over all workers.
        finalists: Number of settings that are tested on all images.
        max_loss: Points of mIoU that a setting may lose on the subset; worse ones count as worse than all others.
        seed: Of the sampler.
        overwrite: Whether another search in this folder is removed.

    Returns:
        The exit status of `run_points`.

    Raises:
        ConfigError: There is no such reducer, it declares no search space, or there was no time for a single setting.
        OutputError: The folder belongs to another search or to a sweep.
    """
    kind = find_reducer(reducer)
    shape = subset.model.architecture
    encoder = EncoderShape(shape.depth, shape.grid, shape.class_token)
    space = kind.search_space(encoder)
    path = f"{kind.__module__}.{kind.__qualname__}"
    if not space:
        raise ConfigError(f"--reducer {path} declares no settings to search: add the class method search_space to it")
    earlier_points(output)  # refuses the folder of a sweep
    images = len(subset.positions)
    inputs = {"config": settings["test"], "reducer": path, "images": subset.positions, "space": repr(space)}
    study = Study(output, space, {**inputs, "max_loss": max_loss}, seed, overwrite)
    say(console, f"searching {path} on {images} of {subset.total} images for {seconds:g} s")
    baseline = functools.cache(lambda: subset.miou(None))

    def evaluate(setting: dict[str, Any], end: float) -> Tried | None:
        candidate = kind(**setting)
        with machine(output, alone=False, wait=lambda: None):
            base_miou, miou = baseline(), subset.miou(candidate, end)
            if miou is None or base_miou is None:
                return None
            tried = Tried(setting, miou, base_miou - miou, subset.gflops(candidate))
        values = ", ".join(f"{name} {value}" for name, value in setting.items())
        say(console, f"{values}: loses {tried.loss:.2f} points, {tried.gflops:.4g} GFLOPs")
        return tried

    study.run(evaluate, seconds, lambda: say(console, "waiting for the trials of other workers"))
    chosen = choose_finalists(study.tried, finalists, max_loss)
    if not chosen:
        raise ConfigError(f"--seconds {seconds:g} was not enough for one setting: allow more, or fewer --images")
    count = len(study.tried)
    say(console, f"{count} settings tried in {study.seconds:.0f} s; testing {len(chosen)} on all images")
    reducers = {BASELINE: None, **earlier_points(output)}
    for finalist in chosen:
        name = point_name(kind.__name__.lower(), finalist.settings)
        reducers[name] = resolve_reducer({"class_path": reducer, "init_args": finalist.settings}, encoder)
    summary = {"reducer": path, "images": images, "seconds": study.seconds, "settings": count}
    points = [Point(output, name, each, settings) for name, each in reducers.items()]
    return run_points(
        output, points, steps, {"config": settings["test"], "grid": {"search": summary}}, overwrite, console
    )


def earlier_points(output: Path) -> dict[str, dict[str, Any] | None]:
    """Return the reducers of the points in a search's folder: finalists of a shorter search keep their results.

    Raises:
        OutputError: The points are not of a search.
    """
    sweep = output / SWEEP_FILE
    try:
        content = json.loads(sweep.read_bytes())
        content["grid"]["search"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if sweep.exists() or (output / POINTS_FOLDER).exists():
            raise OutputError(f"{output} holds results of a sweep, not of a search: use another --output") from error
        return {}
    return {point["name"]: point["reducer"] for point in content["points"]}


class Study:
    """The trials of a search, with mIoU and GFLOPs as objectives, shared by its workers.

    With ``overwrite``, a search with other ``inputs`` (what the trials depend on) is removed, with its points.

    Raises:
        OutputError: The folder has a search with other inputs, or its study is damaged.
    """

    def __init__(
        self,
        output: Path,
        space: Mapping[str, SearchRange],
        inputs: Mapping[str, Any],
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        self._output, self._space, self._seed = output, space, seed
        self._max_loss = inputs.get("max_loss")
        self._study, storage = open_study(output, "search", ["maximize", "minimize"])
        self._lock = FileLock(output / LOCKS_FOLDER / "study.lock")
        wanted = json.loads(json.dumps(inputs, default=str))
        with self._lock:
            changed = first_difference(self._study.user_attrs.get("inputs", wanted), wanted)
            if changed and (not overwrite or self._lost_trials() != self._trials(TrialState.RUNNING)):
                raise OutputError(
                    f"{output} has a search with other settings ({changed}): use another --output, or --overwrite "
                    "once no worker uses it"
                )
            if changed:
                optuna.delete_study(study_name="search", storage=storage)
                self._study, _ = open_study(output, "search", ["maximize", "minimize"])
                shutil.rmtree(output / POINTS_FOLDER, ignore_errors=True)
                (output / SWEEP_FILE).unlink(missing_ok=True)
            self._study.set_user_attr("inputs", wanted)

    @property
    def tried(self) -> list[Tried]:
        """The settings that were tried, each once."""
        found = [Tried(**trial.user_attrs["tried"]) for trial in self._trials(TrialState.COMPLETE)]
        return list({json.dumps(tried.settings): tried for tried in found}.values())

    @property
    def seconds(self) -> float:
        """Seconds of all trials, summed over workers."""
        return sum(trial.user_attrs.get("seconds", 0.0) for trial in self._study.get_trials(deepcopy=False))

    def run(
        self,
        evaluate: Callable[[dict[str, Any], float], Tried | None],
        budget: float,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Try settings until the budget is spent or there are no others, and wait for the trials of other workers.

        Args:
            evaluate: Tries a setting until a time of ``time.perf_counter``; returns ``None`` if that was too short.
            budget: Seconds of all trials together, also of other workers and earlier starts.
            on_wait: Called if other workers have to be waited for.
        """
        repeats = 0
        while (left := budget - self.seconds) > 0 and repeats < _REPEATS:
            known = {json.dumps(tried.settings): tried for tried in self.tried}
            with self._lock:
                trial = self._study.ask()
                lock = try_lock(self._output, f"trial_{trial.number}")
            assert lock is not None
            # Seeded by its number, a trial does not depend on interruptions, and workers do not repeat each other.
            self._study.sampler = optuna.samplers.TPESampler(seed=self._seed + trial.number)
            settings = {name: values.suggest(trial, name) for name, values in self._space.items()}
            settings = json.loads(json.dumps(settings))  # as the study returns them
            start, tried = time.perf_counter(), known.get(json.dumps(settings))
            repeats = 0 if tried is None else repeats + 1
            try:
                if tried is None:
                    tried = evaluate(settings, start + left)
            finally:
                self._tell(trial, tried, time.perf_counter() - start)
                lock.release()
                Path(lock.lock_file).unlink()
        if self._trials(TrialState.RUNNING):
            on_wait()
        while self._trials(TrialState.RUNNING):
            with self._lock:
                for lost in self._lost_trials():
                    self._study.tell(lost.number, state=TrialState.FAIL)
            time.sleep(1)

    def _tell(self, trial: optuna.Trial, tried: Tried | None, seconds: float) -> None:
        trial.set_user_attr("seconds", seconds)
        if tried is None:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("tried", asdict(tried))
        if self._max_loss is not None:
            trial.set_constraint("loss", tried.loss - self._max_loss)
        self._study.tell(trial, [tried.miou, tried.gflops])

    def _lost_trials(self) -> list[FrozenTrial]:
        """Return the running trials whose worker was killed."""
        running = self._trials(TrialState.RUNNING)
        return [trial for trial in running if not is_locked(self._output, f"trial_{trial.number}")]

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(state,))


def choose_finalists(tried: Sequence[Tried], count: int, max_loss: float | None) -> list[Tried]:
    """Choose settings of the Pareto front for a test on all images.

    With a limit of the loss, these are the cheapest that keep it on the subset, and the next one beyond it, as the
    subset is not the data set. Without, they are spread over the front from its cheapest to its best.
    """
    front: list[Tried] = []
    for candidate in sorted(tried, key=lambda tried: (tried.gflops, -tried.miou)):
        if not front or candidate.miou > front[-1].miou:
            front.append(candidate)
    if max_loss is None:
        last = max(count - 1, 1)
        places = {round(number * (len(front) - 1) / last) for number in range(min(count, len(front)))}
        return [front[place] for place in sorted(places)]
    within = [candidate for candidate in front if candidate.loss <= max_loss]
    beyond = [candidate for candidate in front if candidate.loss > max_loss][::-1]  # the nearest first
    chosen = within[: max(count - 1, 1)] if beyond else within[:count]
    return chosen + beyond[: count - len(chosen)]


class Subset:
    """A model, and ``images`` spread evenly over a data set on which it is scored with one reducer after another.

    Raises:
        ConfigError: The numbers of classes of model and data differ.
        DataError: The data set is missing or damaged.
        CheckpointError: The weights are missing or damaged.
    """

    def __init__(
        self,
        module: SegmenterModule,
        data: SegmentationDataModule,
        images: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        data.protocol = module.protocol
        dataset = data.open_dataset()
        self._read = functools.lru_cache(_IMAGES_IN_MEMORY)(dataset.__getitem__)
        self.total = len(dataset)
        self.positions = spread(self.total, images)
        self.device, self.precision = device, precision
        self.model = module.model = module.load_model()
        module.check_classes(data)
        self._windows = replace(module.build_sliding_window(self.model), forward=run_windows)
        self._meta_model = on_meta(self.model)
        self.model.to(device, input_dtype(precision))

    def miou(self, reducer: Reducer | None, end: float = float("inf")) -> float | None:
        """Return the mIoU in percent, ``None`` if ``end`` (of ``time.perf_counter``) comes before the last image.

        Raises:
            ReducerError: The reducer cannot be applied to the model.
            NumericalError: Logits are NaN or infinite.
        """
        self.model.reducer = reducer
        counts = torch.zeros(3, self.model.num_classes, dtype=torch.int64)
        for position in self.positions:
            if time.perf_counter() >= end:
                return None
            counts += self._count(self._read(position))
        return float(scores_of(counts)["mIoU"])

    def gflops(self, reducer: Reducer | None) -> float:
        """Return the GFLOPs of one window in the published convention, the mean of some if they depend on the image."""
        if reducer is None or not reducer.shapes_depend_on_content:
            self._meta_model.reducer = reducer
            side = self._windows.window
            return count_multiply_adds(self._meta_model, torch.empty(1, 3, side, side, device="meta")) / 1e9
        self.model.reducer = reducer
        counts = []
        for position in self.positions[:: max(len(self.positions) // _IMAGES_COUNTED, 1)]:
            windows = self._windows.crops(self._to_device(self._read(position)["views"][0]["image"]))
            with autocast(self.precision, self.device):
                counts.append(count_multiply_adds(self.model, windows[len(windows) // 2][None]))
        return float(np.mean(counts)) / 1e9

    def _count(self, sample: Sample) -> Tensor:
        """Predict an image and return its pixel counts ``(3, K)``: intersection, prediction and target."""
        views = [(self._to_device(view["image"]), view["mirrored"]) for view in sample["views"]]
        assert sample["label"] is not None
        with torch.inference_mode(), autocast(self.precision, self.device):
            prediction = self._windows.predict(self.model, views, (sample["size"][0], sample["size"][1]))
            require_finite(prediction.finite, self.model, sample["name"])
            target = sample["label"].to(prediction.labels.device)
            return class_counts(prediction.labels[None], target[None], self.model.num_classes)[0]

    def _to_device(self, image: Tensor) -> Tensor:
        return image.to(self.device, input_dtype(self.precision))


def spread(total: int, count: int) -> Sequence[int]:
    """Return ``count`` positions spread evenly over ``total``, or all if there are not more."""
    count = min(count, total)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]

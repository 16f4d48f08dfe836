"""The keys that are read from ``results.json``, ``images.jsonl``, ``benchmark.json`` and ``failed.json``."""

import json
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import DataError

MAX_DEPTH = 50  # levels of nesting: far more than any result has, far fewer than Python's recursion limit

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
MiB = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
S = TypeVar("S", bound="Section")
V = TypeVar("V")
_FACTS = ("device", "threads", "precision", "processes", "torch", "timm", "lightning_expedite", "commit", "platform")


def at(keys: str, **options: Any) -> Any:
    """Read a field from nested keys, such as ``config.model.checkpoint``."""
    return Field(validation_alias=AliasPath(*keys.split(".")), **options)


class Section(BaseModel):
    """A mapping whose values have exactly these types: text is not converted to a number."""

    model_config = ConfigDict(strict=True, extra="ignore")
    # By identity: two files may have the same content.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class ClassSpec(Section):
    """A reducer or data module: its class and settings."""

    class_path: Annotated[str, Field(min_length=1)]
    init_args: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the class without its module."""
        return self.class_path.rpartition(".")[2]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, empty where there are none."""
        return self.init_args or {}


class ClassScore(Section):
    """IoU of a class in percent; ``None`` for a class in neither predictions nor labels."""

    name: str
    IoU: Percent | None


class Evaluation(Section):
    """``results.json``: the scores of one ``test``, in percent."""

    path: Path
    checkpoint: str = at("config.model.checkpoint")
    weights_folder: str | None = at("config.model.weights_folder", default=None)
    reducer: ClassSpec | None = at("config.model.reducer")
    data: ClassSpec = at("config.data")
    mIoU: Percent | None = at("scores.mIoU")  # noqa: N815 (the file's own names)
    aAcc: Percent | None = at("scores.aAcc")  # noqa: N815
    mAcc: Percent | None = at("scores.mAcc")  # noqa: N815
    per_class: list[ClassScore] = []
    images: Count
    images_total: Count | None = None
    complete: bool = True
    protocol: dict[str, Any] = {}
    environment: dict[str, Any]
    weights: dict[str, str] = at("run.weights", default={})  # a hash of each file
    data_hash: str | None = at("run.data.sha256", default=None)  # of all scored images and labels
    data_files: str | None = at("run.data.files", default=None)  # which results of earlier versions lack
    intersection: list[Count] = []  # pixels of each class over all images, as the next two
    prediction: list[Count] = []
    label: list[Count] = []

    @property
    def precision(self) -> str:
        """As Lightning names it."""
        return str(self.environment.get("precision"))

    @property
    def facts(self) -> dict[str, Any]:
        """What the scores were computed with."""
        images = self.images if self.complete else f"{self.images} of {self.images_total}"
        protocol = {
            name.replace("_", " "): "not set" if value is None else value for name, value in self.protocol.items()
        }
        return {name: self.environment.get(name) for name in _FACTS} | {"images": images} | protocol

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [score.name for score in self.per_class]

    @property
    def data_title(self) -> str:
        """Name of the data set with its split or folders, which identify it wherever it lies on a machine."""
        split, *folders = (self.data.settings.get(name) for name in ("split", "images", "labels"))
        return ", ".join([self.data.name, *([f"split {split}"] if split else []), *map(str, filter(None, folders))])


class _Shown(Section):
    scores: dict[str, Percent | None]
    per_class: list[dict[str, Any]]
    label: list[Count]
    images: Count
    images_total: Count | None = None
    complete: bool
    windows: Count
    windows_unreduced: Count
    seconds: Positive
    warnings: list[str] = []


class ImageLine(Section):
    """A line of ``images.jsonl``; the lists have one entry per class that occurs."""

    index: Count
    name: str
    digest: str | None = None  # of the image and its label
    height: Count
    width: Count
    classes: list[Count]
    intersection: list[Count]
    prediction: list[Count]
    label: list[Count]

    @model_validator(mode="after")
    def check_lengths(self) -> Self:
        """Refuse lists of different lengths."""
        if len({len(self.classes), len(self.intersection), len(self.prediction), len(self.label)}) > 1:
            raise ValueError("the lists of classes and counts differ in length")
        return self


class Pair(Section, Generic[V]):
    """A figure of the baseline and of the reduced model, which a row without a reducer does not have."""

    unreduced: V
    reduced: V | None = None


class Quartiles(Section):
    """Median and quartiles, of milliseconds or ratios."""

    median: Positive = Field(validation_alias=AliasChoices("median", "median_ms"))
    q1: Positive = Field(validation_alias=AliasChoices("q1", "q1_ms"))
    q3: Positive = Field(validation_alias=AliasChoices("q3", "q3_ms"))


class Timing(Section):
    """A row of ``benchmark.json``: one config, timed alternately with its baseline."""

    path: Path
    environment: dict[str, Any]
    precision: str = at("settings.precision")
    compile: bool | str | None = at("settings.compile")
    config: str
    commit: str | None = None
    checkpoint: str = at("model.checkpoint")
    untrained: bool = at("model.untrained", default=False)
    query_scale: float = at("model.query_scale", default=1.0)
    reducer: ClassSpec | None
    source: str | None = at("input.source", default=None)
    size: list[Count] | None = at("input.size", default=None, min_length=2, max_length=2)
    gflops: Pair[Positive]
    latency: Pair[Quartiles]  # of one window at batch 1
    speedup: Quartiles = at("latency.speedup")  # ratios within the pairs of passes
    pairs: Count | None = at("latency.speedup.pairs", default=None)
    efficiency: Positive | None
    throughput: Pair[Positive]
    batch_size: Annotated[int, Field(ge=1, le=2**53)] = at("throughput.batch_size")
    batch_speedup: Positive | None = at("throughput.speedup.median", default=None)
    seconds: Pair[Annotated[list[Positive], Field(min_length=1)]] | None = at("throughput.seconds", default=None)
    memory: Pair[MiB | None] | None = Field(validation_alias="peak_memory_mib", default=None)
    memory_pass: str = Field(validation_alias="peak_memory_pass", default="timed")
    memory_source: str | None = Field(validation_alias="peak_memory_source", default=None)

    @model_validator(mode="after")
    def check_variants(self) -> Self:
        """Refuse a row with a reducer but without its figures."""
        if self.reducer is not None and None in (self.gflops.reduced, self.latency.reduced, self.throughput.reduced):
            raise ValueError("a row with a reducer lacks the figures of the reduced model")
        return self

    @property
    def place(self) -> str:
        """Device, threads, precision and compilation: times are comparable only where these are the same."""
        words = [str(self.environment.get("device")), self.precision]
        threads = self.environment.get("threads")
        if self.environment.get("device_type") == "cpu" and threads is not None:
            words.insert(1, f"{threads} thread{'' if threads == 1 else 's'}")
        if self.compile:
            words.append("compiled" if self.compile is True else f"compiled: {self.compile}")
        return ", ".join(words)

    @property
    def input_size(self) -> str | None:
        """Height and width of the timed windows."""
        return None if self.size is None else f"{self.size[0]} x {self.size[1]}"

    @property
    def facts(self) -> dict[str, Any]:
        """What the times were taken with."""
        return {name: self.environment.get(name) for name in _FACTS} | {
            "commit": self.commit or self.environment.get("commit"),
            "compile": str(self.compile),
            "input": self.source,
            "input size": self.input_size,
            "batch size": self.batch_size,
            "weights": "untrained" if self.untrained else "trained",
            "query scale": self.query_scale,
            "memory pass": self.memory_pass,
        }


class FailedRun(Section):
    """A config of a benchmark, or a step of a sweep's point, that failed."""

    name: str = Field(validation_alias=AliasChoices("config", "step"))
    error: str


class _BenchmarkFile(Section):
    environment: dict[str, Any]
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    failed: list[FailedRun] = []


def read_result(path: Path) -> tuple[list[Evaluation | Timing], list[FailedRun]]:
    """Read ``results.json`` or ``benchmark.json``.

    Raises:
        DataError: The file cannot be read, or neither command writes such a file.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind", "benchmark") != "benchmark":
        raise DataError(f"{path} is not a result of test or benchmark")
    if "kind" not in content:
        return [check({**content, "path": path}, Evaluation, path)], []
    file = check(content, _BenchmarkFile, path)
    shared = {"path": path, "environment": file.environment, "settings": file.settings}
    rows = [check({**row, **shared}, Timing, f"{path}, row {number}") for number, row in enumerate(file.rows, start=1)]
    return [*rows], file.failed


def load_shown(path: Path) -> dict[str, Any]:
    """Return the content of a ``results.json`` that has everything ``test`` prints.

    Raises:
        DataError: The file cannot be read, or ``test`` writes no such file.
    """
    content: dict[str, Any] = read_json(path)
    check(content, _Shown, path)
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It cannot be read, or is nested too deeply.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if _deeper(content, MAX_DEPTH):
        raise DataError(f"{path} is not a result of test or benchmark: it is nested more than {MAX_DEPTH} levels deep")
    return content


def check(content: Any, model: type[S], source: object) -> S:
    """Return content as a model; ``source`` names the file, and the line if there are several, in errors.

    Raises:
        DataError: Something is missing or has the wrong type; the first such key is named.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "its content"
        raise DataError(
            f"{source} is damaged or not a result of test or benchmark: {key}: {first['msg']}; run it again"
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{source} is damaged: {error}; run it again") from error


def _deeper(value: Any, levels: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(item, levels - 1) for item in items)

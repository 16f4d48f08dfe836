"""What a results file has to hold before anything is made of it.

The models check; what is handed on is the file's own content. Keys that are not named here are left alone, so files of
other versions are read as long as what is used is there.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import DataError

DEEPEST = 50  # levels of nesting: far more than any result has, far fewer than Python bears

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A mapping whose values are of the very types named: no text is taken for a number."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ReducerPart(Part):
    """A reducer's class and settings."""

    class_path: Annotated[str, Field(min_length=1)]
    init_args: dict[str, Any] | None = None


class ModelPart(Part):
    """The model of a ``test``'s config."""

    checkpoint: str
    reducer: ReducerPart | None


class DataPart(Part):
    """The data of a ``test``'s config."""

    class_path: Annotated[str, Field(min_length=1)]
    init_args: dict[str, Any] | None = None


class ConfigPart(Part):
    """A ``test``'s config."""

    data: DataPart
    model: ModelPart


class EnvironmentPart(Part):
    """What a result was computed with."""

    precision: str
    device: str = ""
    device_type: str = ""
    threads: int | None = None
    commit: str | None = None
    torch: str | None = None
    lightning_expedite: str | None = None


class ScoresPart(Part):
    """Scores in percent."""

    mIoU: Percent | None  # noqa: N815 (the file's own names)
    aAcc: Percent | None  # noqa: N815
    mAcc: Percent | None  # noqa: N815


class ClassPart(Part):
    """Scores of one class in percent."""

    name: str
    IoU: Percent | None
    Acc: Percent | None = None


class TestFile(Part):
    """``results.json``."""

    scores: ScoresPart
    per_class: list[ClassPart] = []
    images: Count
    images_total: Count | None = None
    complete: bool = True
    protocol: dict[str, Any] = {}
    config: ConfigPart
    environment: EnvironmentPart


class ShownFile(TestFile):
    """``results.json`` with all that `test` itself shows of it, which results of earlier versions need not have."""

    per_class: list[ClassPart]
    label: list[Count]
    windows: Count
    windows_unreduced: Count
    seconds: Positive
    warnings: list[str] = []


class ImageLine(Part):
    """A line of ``images.jsonl``; the lists are aligned."""

    index: Count
    name: str
    height: Count
    width: Count
    classes: list[Count]
    intersection: list[Count]
    prediction: list[Count]
    label: list[Count]

    @model_validator(mode="after")
    def aligned(self) -> Self:
        """Refuse lists of different lengths."""
        if len({len(self.classes), len(self.intersection), len(self.prediction), len(self.label)}) > 1:
            raise ValueError("the lists of classes and counts differ in length")
        return self


class SidesPart(Part):
    """A figure of both sides; a model without a reducer has one."""

    unreduced: Positive
    reduced: Positive | None


class MemoryPart(Part):
    """Peak memory of both sides; there is none where the device does not tell."""

    unreduced: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    reduced: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


class FlopsPart(SidesPart):
    """FLOPs of both sides and their ratio."""

    ratio: Positive | None


class LatencyPart(Part):
    """Times of one side in milliseconds."""

    median_ms: Positive
    q1_ms: Positive
    q3_ms: Positive


class SpeedupPart(Part):
    """Ratios within the pairs of passes."""

    median: Positive
    q1: Positive
    q3: Positive


class LatenciesPart(Part):
    """Times of both sides and their ratio."""

    unreduced: LatencyPart
    reduced: LatencyPart | None
    speedup: SpeedupPart


class ThroughputPart(SidesPart):
    """Images per second of both sides."""

    batch_size: Annotated[int, Field(ge=1)]


class InputPart(Part):
    """What was given to the model."""

    source: str
    size: Annotated[list[Count], Field(min_length=2, max_length=2)]


class TimedModelPart(Part):
    """The model of a row."""

    checkpoint: str
    untrained: bool = False
    query_scale: Finite = 1.0


class RowPart(Part):
    """A row of ``benchmark.json``."""

    config: str
    commit: str | None = None
    reducer: ReducerPart | None
    model: TimedModelPart
    input: InputPart | None = None
    gflops: FlopsPart
    latency: LatenciesPart
    efficiency: Positive | None
    throughput: ThroughputPart
    peak_memory_mib: MemoryPart
    peak_memory_pass: str = "timed"

    @model_validator(mode="after")
    def sides(self) -> Self:
        """Refuse a row with a reducer but without its figures."""
        if self.reducer is not None and None in (self.gflops.reduced, self.latency.reduced, self.throughput.reduced):
            raise ValueError("a row with a reducer lacks the reduced side")
        return self


class SettingsPart(Part):
    """How a benchmark measured."""

    precision: str
    compile: bool | str | None


class TimedEnvironmentPart(EnvironmentPart):
    """What a benchmark was run on."""

    device: str
    device_type: str
    threads: int


class FailurePart(Part):
    """A config that could not be measured."""

    config: str
    error: str


class BenchmarkFile(Part):
    """``benchmark.json``."""

    environment: TimedEnvironmentPart
    settings: SettingsPart
    rows: list[RowPart]
    failed: list[FailurePart] = []


class PointFailure(Part):
    """``failed.json`` of a sweep's point."""

    step: str
    error: str


def load_checked(path: Path) -> dict[str, Any]:
    """Read ``results.json`` or ``benchmark.json``.

    Raises:
        DataError: The file cannot be read, or is not what these commands write.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind", "benchmark") != "benchmark":
        raise DataError(f"{path} is not a result of test or benchmark")
    check(content, BenchmarkFile if content.get("kind") == "benchmark" else TestFile, path)
    return content


def load_shown(path: Path) -> dict[str, Any]:
    """Read a ``results.json`` that is to be shown as `test` does.

    Raises:
        DataError: The file cannot be read, or is not what `test` writes.
    """
    content = read_json(path)
    check(content, ShownFile, path)
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It cannot be read; nesting without end counts as that too.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if _deeper(content, DEEPEST):
        raise DataError(f"{path} is not a result of test or benchmark: it is nested more than {DEEPEST} levels deep")
    return content


def _deeper(value: Any, levels: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(item, levels - 1) for item in items)


def check(content: Any, model: type[Part], source: object) -> None:
    """Compare content with a model.

    Args:
        content: What was read.
        model: What it has to be.
        source: Names the file, and the line where there are several, in the error.

    Raises:
        DataError: Something is missing or of another type; the first such place is named.
    """
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        raise DataError(
            f"{source} is damaged or no result of test or benchmark: {place}: {first['msg']}; run it again"
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{source} is damaged: {error}; run it again") from error

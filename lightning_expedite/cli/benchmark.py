"""``benchmark``: time reduced models alternately with their baselines."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from rich.console import Console

from ..benchmarking import CropSource, compare, untrained_segmenter
from ..benchmarking.kernels import describe_kernels
from ..benchmarking.tables import benchmark_csv, benchmark_table
from ..benchmarking.variants import Variant, forget_compiled
from ..benchmarking.whole_images import measure_whole_images
from ..data.base import SegmentationDataModule
from ..data.dataset import SampleDataset
from ..data.demo import Demo
from ..errors import CheckpointError, DataError, ExpediteError
from ..evaluation.compiling import CompiledWindows, one_graph
from ..evaluation.device_memory import free_cached_memory, out_of_memory
from ..evaluation.environment import describe_environment
from ..files import claim_output, write_atomically
from ..models import Architecture, Segmenter, known_weights, open_checkpoint
from .benchmark_options import BenchmarkCLI, Options, read_options, row_name, split_configs

RESULTS_FILE = "benchmark.json"
CSV_FILE = "benchmark.csv"
TABLE_WIDTH = 110
UNTRAINED_NOTE = (
    "the weights are untrained: scores would be meaningless, and what a method that adapts to content (ACT) saves "
    "depends on the weights"
)


def run(arguments: Sequence[str]) -> int:
    """Benchmark every config; configs that fail are reported after the others are done."""
    configs, words = split_configs(arguments)
    clis = [BenchmarkCLI([*before, *words]) for before in ([["--config", config] for config in configs] or [[]])]
    options = read_options(clis, words)
    if clis[0].config.threads is not None:
        torch.set_num_threads(clis[0].config.threads)
    output = Path(clis[0].config.output or Path("runs") / f"benchmark_{clis[0].output.name}")
    claim_output(output, output / RESULTS_FILE, clis[0].config.overwrite or without_rows(output / RESULTS_FILE))
    results = new_results(clis, options)
    for number, cli in enumerate(clis, start=1):
        add_row(results, cli, options, f"[{number}/{len(clis)}] {row_name(cli)}")
        write_results(results, output)  # after each row: an interruption loses at most the row in progress
    if results["rows"]:
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, TABLE_WIDTH)  # rich takes a file for a narrow terminal
        console.print(benchmark_table(results))
        print(f"results are in {output / RESULTS_FILE} and {output / CSV_FILE}")
    for failure in results["failed"]:
        print(f"error: {failure['config']}: {failure['error']}", file=sys.stderr)
    return 2 if results["failed"] else 0


def without_rows(results: Path) -> bool:
    """Return whether a results file is of a call in which every config failed: it holds nothing to lose."""
    try:
        return json.loads(results.read_bytes())["rows"] == []
    except (OSError, ValueError, KeyError, TypeError):
        return False


def new_results(clis: Sequence[BenchmarkCLI], options: Options) -> dict[str, Any]:
    """Return the content of ``benchmark.json`` before the first row."""
    device, precision = options.settings.torch_device, options.settings.precision
    return {
        "kind": "benchmark",
        "environment": {**describe_environment(device, precision), "kernels": describe_kernels(device)},
        "settings": describe_settings(clis, options),
        "notes": [],
        "rows": [],
        "failed": [],
    }


def describe_settings(clis: Sequence[BenchmarkCLI], options: Options) -> dict[str, Any]:
    """Return the settings that apply to all rows."""
    return {
        "configs": [row_name(cli) for cli in clis],
        **asdict(options.settings),
        "device": str(options.settings.torch_device),
        "input_size": options.input_size and list(options.input_size),
        "threads": clis[0].config.threads,
        "whole_images": options.whole_images,
        "untrained": options.untrained,
    }


def add_row(results: dict[str, Any], cli: BenchmarkCLI, options: Options, title: str) -> None:
    """Measure a config and add its row, or the reason why there is none."""
    failure = None
    try:
        row = measure(cli, options, lambda step: print(f"{title}: {step}", file=sys.stderr, flush=True))
    except ExpediteError as error:
        failure = str(error)
    except Exception as error:
        failure = advice_for(error)
        if failure is None:
            raise
    else:
        results["notes"] += [note for note in row.pop("notes") if note not in results["notes"]]
        results["rows"].append(row)
    finally:  # neither the models nor an error that refers to them are left here
        if options.settings.compile:
            forget_compiled()
        free_cached_memory()
    if failure is not None:
        results["failed"].append({"config": row_name(cli), "error": failure})


def write_results(results: dict[str, Any], output: Path) -> None:
    """Write ``benchmark.json`` and ``benchmark.csv``."""
    write_atomically(output / RESULTS_FILE, json.dumps(results, indent=1, allow_nan=False).encode())
    write_atomically(output / CSV_FILE, benchmark_csv(results).encode())


def advice_for(error: Exception) -> str | None:
    """Return what to change after an error of PyTorch's that other options avoid; ``None`` for any other."""
    if out_of_memory(error):
        return "memory ran out; use a smaller --input_size or another --precision"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"it cannot be compiled ({reason}); leave --compile out"
    return None


def measure(cli: BenchmarkCLI, options: Options, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure one config.

    Returns:
        Its row of the results, with the notes that apply to it as ``notes``.
    """
    module, settings = cli.model, options.settings
    progress("loading")
    model = load_model(module, options.untrained)
    windows = module.build_sliding_window(model)
    if settings.compile:
        mode = "default" if settings.compile is True else settings.compile
        forward = CompiledWindows(windows.window, windows.batch_size, mode, one_graph(model.reducer))
        windows = replace(windows, forward=forward)
    source = choose_input(cli, options, (windows.window, windows.window))
    figures = compare(model, source.crops, settings, progress)
    share = None
    if options.whole_images:
        progress("full images")
        variant = Variant(model, settings.precision, settings.torch_device)
        share = measure_whole_images(source.samples, options.whole_images, variant, windows)
    resolved = yaml.safe_load(cli.resolved_config())
    return {
        "config": row_name(cli),
        "reducer": None if model.reducer is None else json.loads(json.dumps(resolved["model"]["reducer"])),
        "settings": {name: resolved[name] for name in ("model", "data")},
        "model": {"checkpoint": module.checkpoint, "untrained": options.untrained},
        "input": {"source": source.name, "size": list(source.crops.size), "crops": source.crops.count},
        **figures,
        "test_share": share,
        "notes": [*source.notes, *([UNTRAINED_NOTE] if options.untrained else [])],
    }


def load_model(module: Any, untrained: bool) -> Segmenter:
    """Return a config's model with its reducer, in float32 on the CPU.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        ReducerError: The reducer cannot apply to the model.
    """
    if untrained:
        model = untrained_segmenter(configured_architecture(module), module.convention or "mmseg")
        model.reducer = module.reducer
        return model
    try:
        return cast(Segmenter, module.load_model())
    except CheckpointError as error:
        if known_weights(module.checkpoint) is None:
            raise
        raise CheckpointError(f"{error} To measure speed alone, without these weights: --untrained true.") from error


def configured_architecture(module: Any) -> Architecture:
    """Return the architecture of a config's model, without its weights where they are known ones."""
    known = known_weights(module.checkpoint)
    if known is not None and known.architecture is not None:
        return known.architecture
    return open_checkpoint(module.checkpoint, module.weights_folder).architecture


@dataclass(frozen=True)
class Input:
    """The data that a row is measured with."""

    name: str
    samples: SampleDataset
    crops: CropSource
    notes: list[str] = field(default_factory=list)


def choose_input(cli: BenchmarkCLI, options: Options, window: tuple[int, int]) -> Input:
    """Open a config's data set, or the demo scenes where it is not on this machine.

    Raises:
        DataError: The data set is damaged, or not at the place that the user named.
    """
    size = options.input_size or window
    data = cli.datamodule
    try:
        samples = open_data(data, cli.model)
    except DataError:
        if options.root_given or data.root.exists():
            raise
        note = f"{type(data).__name__} is not at {data.root}: the input is the bundled demo scenes"
        samples = open_data(Demo(short_side=max(size)), cli.model)
        return Input("Demo", samples, CropSource(samples, size, enlarge=True), [note])
    return Input(type(data).__name__, samples, CropSource(samples, size, enlarge=options.input_size is not None))


def open_data(data: SegmentationDataModule, module: Any) -> SampleDataset:
    """Return a data set's samples, with labels where there are any, resized as in an evaluation."""
    data.protocol = module.protocol
    try:
        return data.open_dataset()
    except DataError:
        return data.open_dataset(labels=False)

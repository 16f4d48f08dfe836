"""``benchmark``: time reduced models alternately with their baselines."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from pytorch_lightning.cli import LightningArgumentParser
from rich.console import Console

from ..benchmarking import BenchmarkSettings, CropSource, compare, untrained_segmenter
from ..benchmarking.kernels import describe_kernels
from ..benchmarking.tables import benchmark_csv, benchmark_table
from ..benchmarking.variants import Variant, forget_compiled, parse_precision
from ..benchmarking.whole_images import measure_whole_images
from ..data.base import SegmentationDataModule
from ..data.dataset import SampleDataset
from ..data.demo import Demo
from ..errors import CheckpointError, ConfigError, DataError, ExpediteError
from ..evaluation.compiling import CompiledWindows, one_graph
from ..evaluation.device_memory import free_cached_memory, out_of_memory
from ..evaluation.environment import describe_environment
from ..files import claim_output, write_atomically
from ..models import Architecture, Segmenter, known_weights, open_checkpoint
from .settings import CONFIG_OPTIONS, EvaluationCLI, config_name

logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)  # else one line per config

RESULTS_FILE = "benchmark.json"
CSV_FILE = "benchmark.csv"
TABLE_WIDTH = 110
UNTRAINED_NOTE = (
    "the weights are untrained: scores would be meaningless, and what a method that adapts to content (ACT) saves "
    "depends on the weights"
)
PER_CONFIG = ("config", "base", "seed_everything", "trainer", "model", "data")
MOVED = ("--query_scale", "--act_gflops")


class BenchmarkCLI(EvaluationCLI):
    """The options of ``benchmark``, checked, and one config's model and data.

    Raises:
        ConfigError: An option is out of range, or contradicts the config.
    """

    name = "benchmark"
    uses_trainer = False

    def __init__(self, arguments: Sequence[str] | None) -> None:
        super().__init__(arguments)
        config, words = self.config, arguments or ()
        self.row_name = config_name(self.config_files[-1]) if self.config_files else self.output.name
        self.root_given = any(word.startswith(("--data.root", "--data.images")) for word in words)
        for name, least in (("threads", 1), ("whole_images", 0)):
            if config[name] is not None and config[name] < least:
                raise ConfigError(f"--{name} is {config[name]}: it must be {least} or more")
        asked = config.trainer.precision
        if asked is not None and parse_precision(asked) != config.precision:
            raise ConfigError(
                f"config {self.row_name} has trainer.precision {asked}, but benchmark runs without Lightning's "
                f"trainer, at --precision {config.precision}: make them agree"
            )
        if self.model.compile_mode is not None:
            raise ConfigError("benchmark compiles both variants or none: use --compile instead of --model.compile")
        self.settings = BenchmarkSettings(**{field.name: config[field.name] for field in fields(BenchmarkSettings)})
        self.input_size = read_size(config.input_size)

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add how to measure."""
        parser.add_class_arguments(BenchmarkSettings, instantiate=False)
        add = parser.add_argument
        add("--input_size", type=int | str | None, default=None, help="side, or H,W, in pixels (the config's window)")
        add("--threads", type=int | None, default=None, help="threads on the CPU (PyTorch's choice)")
        add("--whole_images", type=int, default=2, help="full images to time, including reading; 0 for none")
        add("--untrained", type=bool, default=False, help="random weights instead of the checkpoint's")


def run(arguments: Sequence[str]) -> int:
    """Benchmark every config; configs that fail are reported after the others are done."""
    configs, words = split_configs(arguments)
    clis = [BenchmarkCLI([*before, *words]) for before in ([["--config", config] for config in configs] or [[]])]
    require_agreement(clis)
    first = clis[0]
    if first.config.threads is not None:
        torch.set_num_threads(first.config.threads)
    output = Path(first.config.output or Path("runs") / f"benchmark_{first.output.name}")
    claim_output(output, output / RESULTS_FILE, first.config.overwrite or without_rows(output / RESULTS_FILE))
    device = first.settings.torch_device
    results: dict[str, Any] = {
        "kind": "benchmark",
        "environment": {
            **describe_environment(device, first.settings.precision),
            "kernels": describe_kernels(device),
        },
        "settings": describe_settings(clis),
        "notes": [],
        "rows": [],
        "failed": [],
    }
    for number, cli in enumerate(clis, start=1):
        add_row(results, cli, f"[{number}/{len(clis)}] {cli.row_name}")
        # After each row: an interruption loses at most the row in progress.
        write_atomically(output / RESULTS_FILE, json.dumps(results, indent=1, allow_nan=False).encode())
        write_atomically(output / CSV_FILE, benchmark_csv(results).encode())
    if results["rows"]:
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, TABLE_WIDTH)  # rich takes a file for a narrow terminal
        console.print(benchmark_table(results))
        print(f"results are in {output / RESULTS_FILE} and {output / CSV_FILE}")
    for failure in results["failed"]:
        print(f"error: {failure['config']}: {failure['error']}", file=sys.stderr)
    return 2 if results["failed"] else 0


def split_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the configs, one row each, from the words that apply to all of them.

    Raises:
        ConfigError: A word belongs to Lightning's trainer, or is an option that has moved.
    """
    configs: list[str] = []
    words: list[str] = []
    given = iter(arguments)
    for word in given:
        option, equals, value = word.partition("=")
        if option in MOVED:
            raise ConfigError(f"{option} is now in benchmarks/scaled_queries.py, which scales the queries for ACT")
        if option in CONFIG_OPTIONS:
            configs.append(value if equals else next(given, ""))
        else:
            words.append(word)
    if any(word.startswith("--trainer") for word in words):
        raise ConfigError("benchmark runs without Lightning's trainer; use --device, --precision or --threads instead")
    return configs, words


def require_agreement(clis: Sequence[BenchmarkCLI]) -> None:
    """Raise `ConfigError` where configs differ in an option that applies to all."""
    first = clis[0].config
    for cli in clis:
        for name in vars(first):
            if name not in PER_CONFIG and cli.config[name] != first[name]:
                raise ConfigError(
                    f"--{name} is {cli.config[name]} in config {cli.row_name} and {first[name]} in "
                    f"{clis[0].row_name}, but applies to all: set it on the command line"
                )


def read_size(value: int | str | None) -> tuple[int, int] | None:
    """Parse ``640`` or ``512,1024`` to height and width."""
    if value is None:
        return None
    try:
        sides = [int(part) for part in str(value).strip("[]()").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ConfigError(f"--input_size is {value!r}: it must be a side or H,W in pixels, each 1 or more")
    return sides[0], sides[-1]


def without_rows(results: Path) -> bool:
    """Return whether a results file is of a call in which every config failed: it holds nothing to lose."""
    try:
        return json.loads(results.read_bytes())["rows"] == []
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe_settings(clis: Sequence[BenchmarkCLI]) -> dict[str, Any]:
    """Return the settings that apply to all rows."""
    first = clis[0]
    return {
        "configs": [cli.row_name for cli in clis],
        **asdict(first.settings),
        "device": str(first.settings.torch_device),
        "input_size": first.input_size and list(first.input_size),
        "threads": first.config.threads,
        "whole_images": first.config.whole_images,
        "untrained": first.config.untrained,
    }


def add_row(results: dict[str, Any], cli: BenchmarkCLI, title: str) -> None:
    """Measure a config and add its row, or the reason why there is none."""
    try:
        row = measure(cli, lambda step: print(f"{title}: {step}", file=sys.stderr, flush=True))
    except Exception as error:
        failure = str(error) if isinstance(error, ExpediteError) else advice_for(error)
        if failure is None:
            raise
        results["failed"].append({"config": cli.row_name, "error": failure})
    else:
        results["notes"] += [note for note in row.pop("notes") if note not in results["notes"]]
        results["rows"].append(row)
    finally:  # neither the models nor an error that refers to them are left here
        if cli.settings.compile:
            forget_compiled()
        free_cached_memory()


def advice_for(error: Exception) -> str | None:
    """Return what to change after an error of PyTorch's that other options avoid; ``None`` for any other."""
    if out_of_memory(error):
        return "memory ran out; use a smaller --input_size or another --precision"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"it cannot be compiled ({reason}); leave --compile out"
    return None


def measure(cli: BenchmarkCLI, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure one config.

    Returns:
        Its row of the results, with the notes that apply to it as ``notes``.
    """
    module, settings, untrained = cli.model, cli.settings, cli.config.untrained
    progress("loading")
    model = load_model(module, untrained)
    windows = module.build_sliding_window(model)
    if settings.compile:
        mode = "default" if settings.compile is True else settings.compile
        forward = CompiledWindows(windows.window, windows.batch_size, mode, one_graph(model.reducer))
        windows = replace(windows, forward=forward)
    source, samples, crops, notes = choose_input(cli, (windows.window, windows.window))
    figures = compare(model, crops, settings, progress)
    share = None
    if cli.config.whole_images:
        progress("full images")
        variant = Variant(model, settings.precision, settings.torch_device)
        share = measure_whole_images(samples, cli.config.whole_images, variant, windows)
    resolved = yaml.safe_load(cli.resolved_config())
    return {
        "config": cli.row_name,
        "reducer": None if model.reducer is None else json.loads(json.dumps(resolved["model"]["reducer"])),
        "settings": {name: resolved[name] for name in ("model", "data")},
        "model": {"checkpoint": module.checkpoint, "untrained": untrained},
        "input": {"source": source, "size": list(crops.size), "crops": crops.count},
        **figures,
        "test_share": share,
        "notes": [*notes, *([UNTRAINED_NOTE] if untrained else [])],
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


def choose_input(cli: BenchmarkCLI, window: tuple[int, int]) -> tuple[str, SampleDataset, CropSource, list[str]]:
    """Open a config's data set, or the demo scenes where it is not on this machine.

    Returns:
        The data set's name, its samples, crops of them, and notes about the choice.

    Raises:
        DataError: The data set is damaged, or not at the place that the user named.
    """
    size = cli.input_size or window
    data = cli.datamodule
    try:
        samples = open_data(data, cli.model)
    except DataError:
        if cli.root_given or data.root.exists():
            raise
        note = f"{type(data).__name__} is not at {data.root}: the input is the bundled demo scenes"
        samples = open_data(Demo(short_side=max(size)), cli.model)
        return "Demo", samples, CropSource(samples, size, enlarge=True), [note]
    return type(data).__name__, samples, CropSource(samples, size, enlarge=cli.input_size is not None), []


def open_data(data: SegmentationDataModule, module: Any) -> SampleDataset:
    """Return a data set's samples, with labels where there are any, resized as in an evaluation."""
    data.protocol = module.protocol
    try:
        return data.open_dataset()
    except DataError:
        return data.open_dataset(labels=False)

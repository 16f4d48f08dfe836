"""Resume interrupted runs.

While a run works, ``unfinished_COMMAND`` in its output folder holds ``run.json``, what the run depends on, and one
append-only file per process with a JSON line for each finished image. The system has a line as soon as its image is
finished, so it survives a killed process; a last line that was cut off is dropped and its image computed again.
"""

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from ..data.samples import ListedImage
from ..errors import CheckpointError, OutputError
from ..files import claim_output, sha256_of, write_atomically
from ..models import CHECKPOINT_FILE, MODEL_CONFIG_FILE, VARIANT_FILE, WEIGHTS_FILE
from ..version import __version__
from .module import ImageResult, SegmenterModule

RUN = "run"  # key of a result with what it depends on
LOCK_FILE = ".lock"
LIMITS = ("limit_test_batches", "limit_predict_batches", "fast_dev_run")

_RUN_FILE = "run.json"
_MODEL_FILES = (CHECKPOINT_FILE, VARIANT_FILE, MODEL_CONFIG_FILE, WEIGHTS_FILE)
_TRAINER_SETTINGS = ("precision", "plugins", "deterministic", *LIMITS)
# Settings that change no result: how the work is divided. Fewer windows at once is what helps where memory runs out.
_DATA_DIVISION = ("num_workers", "batch_size")
_MODEL_DIVISION = ("weights_folder", "window_batch_size", "pack_weights")
_MAX_VALUE = 60  # characters of a value in a message

Record = dict[str, Any]


@dataclass
class RunState:
    """What is left to do of a run.

    Attributes:
        folder: Where finished images are kept.
        run: What the run depends on, see `describe_run`; on the first process only, as are the next two.
        images: Name and file sizes of every image.
        records: Images that an interrupted run has finished.
        complete: Whether the results are there already.
        keeps_images: Whether finished images are kept; not for a run over some of the images.
    """

    folder: Path
    run: Record = field(default_factory=dict)
    images: Sequence[ListedImage] = ()
    records: list[Record] = field(default_factory=list)
    complete: bool = False
    keeps_images: bool = True

    @property
    def header(self) -> Record:
        """The content of ``run.json``: files may change while their images are not finished."""
        return {**self.run, "data": {"images": len(self.images)}}


def describe_run(
    command: str, config: Mapping[str, Any], device_type: str, checkpoint: Path, images: Sequence[ListedImage]
) -> Record:
    """Return what a run depends on, in JSON's types: two runs with the same one compute the same.

    Args:
        command: The subcommand.
        config: Its resolved settings.
        device_type: Type of the device, ``cpu`` or ``cuda``.
        checkpoint: File or folder of the weights.
        images: Name and file sizes of every image.

    Raises:
        CheckpointError: The weights cannot be read.
    """
    listed = "".join(f"{name} {sizes}\n" for name, sizes in images)
    return {
        "command": command,
        "settings": relevant_settings(config),
        "device": device_type,
        "weights": hash_weights(checkpoint),
        "data": {"images": len(images), "files": hash_text(listed)},
        "versions": {"lightning_expedite": __version__, "torch": torch.__version__},
    }


def relevant_settings(config: Mapping[str, Any]) -> Record:
    """Return a resolved config without what changes no result."""
    trainer = {name: config["trainer"][name] for name in _TRAINER_SETTINGS if name in config["trainer"]}
    data = dict(config["data"])
    data["init_args"] = {key: value for key, value in data.get("init_args", {}).items() if key not in _DATA_DIVISION}
    return {
        **config,
        "trainer": {name: None if name in LIMITS and is_all(value) else value for name, value in trainer.items()},
        "data": data,
        "model": {name: value for name, value in config["model"].items() if name not in _MODEL_DIVISION},
    }


def is_all(limit: object) -> bool:
    """Return whether a trainer's limit allows all batches: for Lightning 1 is a number, 1.0 a share."""
    return limit is None or limit is False or (isinstance(limit, float) and limit == 1.0)


def hash_weights(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a checkpoint is read from; raises `CheckpointError` if one is unreadable."""
    if checkpoint.is_dir():
        files = [checkpoint / name for name in _MODEL_FILES]
    else:
        files = [checkpoint, *(checkpoint.with_name(name) for name in (VARIANT_FILE, MODEL_CONFIG_FILE))]
    try:
        return {file.name: sha256_of(file) for file in files if file.is_file()}
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from error


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text; names of files may hold bytes that are not UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def difference(found: Any, wanted: Any, key: str = "") -> str | None:
    """Return the first setting in which two mappings differ, with both values; ``None`` if they are equal."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in dict.fromkeys((*wanted, *found)):
            below = difference(found.get(name), wanted.get(name), f"{key}.{name}" if key else str(name))
            if below:
                return below
        return None
    return None if found == wanted else f"{key} {_shorten(found)} instead of {_shorten(wanted)}"


def _shorten(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock an output folder; the system unlocks it when this process ends, however it ends.

    Raises:
        OutputError: Another process works there, or the folder cannot be written to.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0).acquire()
        with suppress(OSError):  # a full disk; the text is only for the message to a second run
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except (Timeout, OSError) as error:
        if isinstance(error, Timeout) and path.exists():
            holder = path.read_text().strip() or "another process"
            reason = f"is in use by {holder}: wait until it has ended, or use another folder"
        else:
            reason = "cannot be written to: check its permissions and the space left"
        raise OutputError(f"--output {folder} {reason}") from error
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def claim_run(
    state: RunState,
    describe: Callable[[], None],
    result: Path,
    product: Path,
    *,
    first: bool,
    resume: bool,
    overwrite: bool,
) -> Iterator[None]:
    """Lock the output folder of a run and find out what is left to do there.

    Args:
        state: Receives what is left to do.
        describe: Sets ``state.run`` and ``state.images``; it may take a while.
        result: The file, written last, that says what a finished run depended on.
        product: File or folder whose presence shows that there was an earlier run.
        first: Whether this is the run's first process; the others change nothing.
        resume: Whether to continue an interrupted run.
        overwrite: Whether results, or finished images of another run, may be replaced.

    Raises:
        OutputError: Another process works there, or there are results that may neither be used nor replaced.
    """
    if not first:
        # The first process does not change the result before this one takes part.
        if resume and result.exists():
            describe()
            state.complete = matches_run(result, state.run, overwrite=True)
        yield
        return
    with lock_folder(result.parent):
        describe()
        if resume and matches_run(result, state.run, overwrite=True):
            state.complete = True
            if _read_header(state.folder) == state.header:  # the run was killed before it could remove them
                shutil.rmtree(state.folder)
        elif not _take_over(state, resume, overwrite):
            if resume:
                matches_run(result, state.run, overwrite)
            claim_output(result.parent, product, overwrite)
        yield


def matches_run(result: Path, run: Mapping[str, Any], overwrite: bool) -> bool:
    """Return whether a result file was written by this run.

    Args:
        result: A JSON file with the key `RUN`, or no file.
        run: What this run depends on.
        overwrite: Whether a result of another run may be replaced.

    Raises:
        OutputError: It was written by another run, or does not say by which, and may not be replaced.
    """
    try:
        found = json.loads(result.read_bytes())[RUN]
        found["data"] = {name: value for name, value in found["data"].items() if name != "sha256"}  # known at the end
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if overwrite:
            return False
        raise OutputError(
            f"{result} does not say what it depends on, so it cannot be resumed; use --overwrite to replace it, "
            "or another --output"
        ) from error
    changed = difference(found, run)
    if changed and not overwrite:
        raise OutputError(f"{result} is of another run ({changed}); use --overwrite to replace it, or another --output")
    return changed is None


def _take_over(state: RunState, resume: bool, overwrite: bool) -> bool:
    """Return whether this run continues an interrupted one, whose images are then in ``state.records``.

    Raises:
        OutputError: There are finished images that may neither be used nor thrown away.
    """
    if not state.folder.exists():
        return False
    header, (records, damaged) = _read_header(state.folder), read_records(state.folder)
    changed = _what_changed(header, records, state)
    if resume and changed is None:
        if damaged:
            rank_zero_warn(f"{damaged} lines in {state.folder} are damaged: their images are computed again")
        state.records = records
        return True
    if (records or damaged) and not overwrite:
        kept = f"{state.folder} holds {len(records)} finished images of an interrupted run"
        if resume:
            raise OutputError(
                f"{kept} that was another ({changed}); resume it as it was, or use --overwrite to start again"
            )
        raise OutputError(f"{kept}; use --resume true to continue it, or --overwrite to start again")
    shutil.rmtree(state.folder)
    return False


def _read_header(folder: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads((folder / _RUN_FILE).read_bytes())
    return None


def _what_changed(header: Any, records: Sequence[Record], state: RunState) -> str | None:
    """Return the first setting or finished image that is not as it was; ``None`` if there is none."""
    if not isinstance(header, dict):
        return f"{_RUN_FILE} is missing or damaged"
    if changed := difference(header, state.header):
        return changed
    for record in records:
        listed = [[name, list(sizes)] for name, sizes in state.images[record["index"] : record["index"] + 1]]
        if listed != [[record["name"], record.get("files")]]:
            return f"the files of image {record['name']} have changed"
    return None


def read_records(folder: Path) -> tuple[list[Record], int]:
    """Return the finished images in a folder, each once, and the number of damaged lines."""
    records: dict[int, Record] = {}
    damaged = 0
    for path in sorted(folder.glob("*.jsonl")):
        *lines, _ = path.read_bytes().split(b"\n")  # after the last newline there is at most a line that was cut off
        for line in lines:
            try:
                record = json.loads(line)
                _check_record(record)
            except (ValueError, TypeError, KeyError, RecursionError):
                damaged += 1
            else:
                records.setdefault(record["index"], record)
    return list(records.values()), damaged


def _check_record(record: Record) -> None:
    index, name, notices = record["index"], record["name"], record.get("notices", [])
    if type(index) is not int or index < 0 or not isinstance(name, str) or not isinstance(notices, list):
        raise TypeError("not the record of an image")
    if not all(isinstance(text, str) for text in notices):
        raise TypeError("notices are not texts")
    if "counts" in record:
        ImageResult.from_record(record)


class FinishedImages(Callback):
    """Keeps every finished image, and leaves out those that an interrupted run has finished.

    It has to be the last callback: what the others write of an image is there before it counts as finished, and the
    records are removed only after the results are written.

    Args:
        state: What is left to do.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self._file: IO[bytes] | None = None
        self._images: Sequence[ListedImage] = ()
        self._kept = 0
        self._noted = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Send what is left to do to all processes, and open their files.

        Raises:
            OutputError: A file cannot be written.
        """
        if not self.state.keeps_images:
            return
        assert isinstance(pl_module, SegmenterModule)
        state, records = self.state, self.state.records
        finished, self._images = trainer.strategy.broadcast(([record["index"] for record in records], state.images))
        trainer.datamodule.finished = frozenset(finished)  # type: ignore[attr-defined]
        if stage == "test":
            pl_module.finished = [ImageResult.from_record(record) for record in records]
        pl_module.notices.recall(text for record in records for text in record.get("notices", ()))
        self._kept, self._noted = 0, len(pl_module.notices.texts)
        try:
            state.folder.mkdir(parents=True, exist_ok=True)
            if trainer.is_global_zero:
                write_atomically(state.folder / _RUN_FILE, json.dumps(state.header).encode())
            self._file = (state.folder / f"{secrets.token_hex(8)}.jsonl").open("xb", buffering=0)
        except OSError as error:
            raise OutputError(f"{state.folder} cannot be written: {error.strerror}") from error

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the process on SIGTERM."""
        end_on_sigterm()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the process on SIGTERM."""
        end_on_sigterm()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Keep the counts of a batch's images."""
        assert isinstance(pl_module, SegmenterModule)
        for image in pl_module.images[len(pl_module.finished) + self._kept :]:
            self._keep(vars(image), pl_module)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the names of a batch's images."""
        assert isinstance(pl_module, SegmenterModule)
        for sample in batch:
            if sample["index"] >= 0:
                self._keep({"index": sample["index"], "name": sample["name"]}, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the records."""
        self._remove(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the records."""
        self._remove(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Print what is kept, and how to continue."""
        if self._file is not None and (self._kept or self.state.records) and trainer.is_global_zero:
            print("finished images are kept: the same command with --resume true continues from them", file=sys.stderr)

    def _keep(self, record: Record, pl_module: SegmenterModule) -> None:
        self._kept += 1
        if self._file is None:
            return
        record = {**record, "files": self._images[record["index"]].sizes}
        if new := pl_module.notices.texts[self._noted :]:
            record["notices"] = new
            self._noted += len(new)
        try:
            append(self._file, record)
        except OSError as error:
            raise OutputError(
                f"{self.state.folder} cannot be written: {error.strerror}; finished images are kept: fix that, then "
                "continue with --resume true"
            ) from error

    def _remove(self, trainer: Trainer) -> None:
        if self._file is None:
            return
        self._file.close()
        trainer.strategy.barrier("the results are written")
        if trainer.is_global_zero:
            shutil.rmtree(self.state.folder)


def append(file: IO[bytes], record: Record) -> None:
    """Write a record as one line of JSON to an unbuffered file."""
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    while line:
        line = line[file.write(line) :]


def end_on_sigterm() -> None:
    """End this process at once on SIGTERM, with the matching status, instead of Lightning's handler.

    With that one, ``test`` ends with status 0 and ``predict`` does not end. Finished images are kept already.
    """
    if threading.current_thread() is threading.main_thread():  # Python allows it there only
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, TypeAdapter
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from ..data.samples import ListedImage
from ..errors import CheckpointError, OutputError
from ..files import claim_output, require_no_file, sha256_of, write_atomically
from ..models import CHECKPOINT_FILE, MODEL_CONFIG_FILE, VARIANT_FILE, WEIGHTS_FILE
from ..version import __version__
from .module import Count, ImageResult, SegmenterModule

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

_IMAGE_RESULT = TypeAdapter(ImageResult)


class _FinishedImage(BaseModel):
    index: Count
    name: str
    notices: list[str] = []


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

    def find_finished(self, result: Path, product: Path, *, resume: bool, overwrite: bool) -> None:
        """Find out what earlier runs have finished, and remove what is to be replaced.

        Args:
            result: The file, written last, that says what a finished run depended on.
            product: File or folder whose presence shows that there was an earlier run.
            resume: Whether to continue an interrupted run.
            overwrite: Whether results, or finished images of another run, may be replaced.

        Raises:
            OutputError: There are results or finished images that may neither be used nor replaced.
        """
        if resume and matches_run(result, self.run, overwrite=True):
            self.complete = True
            if _read_header(self.folder) == self.header:  # the run was killed before it could remove them
                shutil.rmtree(self.folder)
            return
        if self.folder.exists():
            records, damaged = read_records(self.folder, counts=self.run["command"] == "test")
            changed = self._what_changed(records)
            if resume and changed is None:
                if damaged:
                    rank_zero_warn(f"{damaged} lines in {self.folder} are damaged: their images are computed again")
                self.records = records
                return
            if (records or damaged) and not overwrite:
                kept = f"{self.folder} holds {len(records)} finished images of an interrupted run"
                if resume:
                    kept += f" that was another ({changed}); resume it as it was, or use --overwrite to start again"
                else:
                    kept += "; use --resume true to continue it, or --overwrite to start again"
                raise OutputError(kept)
            shutil.rmtree(self.folder)
        if resume:
            matches_run(result, self.run, overwrite)
        claim_output(result.parent, product, overwrite)

    def _what_changed(self, records: Sequence[Record]) -> str | None:
        """Return the first setting or finished image that is not as it was; ``None`` if there is none."""
        header = _read_header(self.folder)
        if not isinstance(header, dict):
            return f"{_RUN_FILE} is missing or damaged"
        if changed := first_difference(header, self.header):
            return changed
        for record in records:
            listed = [[name, list(sizes)] for name, sizes in self.images[record["index"] : record["index"] + 1]]
            if listed != [[record["name"], record.get("files")]]:
                return f"the files of image {record['name']} have changed"
        return None


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
    trainer = {name: config["trainer"].get(name) for name in _TRAINER_SETTINGS}
    data = config["data"].get("init_args", {})
    return {
        "command": command,
        "settings": {
            **config,
            "trainer": {name: None if name in LIMITS and is_all(value) else value for name, value in trainer.items()},
            "data": {**config["data"], "init_args": _without(data, _DATA_DIVISION)},
            "model": _without(config["model"], _MODEL_DIVISION),
        },
        "device": device_type,
        "weights": hash_weights(checkpoint),
        "data": {"images": len(images), "files": hash_text("".join(f"{name} {sizes}\n" for name, sizes in images))},
        "versions": {"lightning_expedite": __version__, "torch": torch.__version__},
    }


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> Record:
    return {name: value for name, value in settings.items() if name not in names}


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


def first_difference(found: Any, wanted: Any, key: str = "") -> str | None:
    """Return the first setting in which two mappings differ, with both values; ``None`` if they are equal."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in dict.fromkeys((*wanted, *found)):
            below = first_difference(found.get(name), wanted.get(name), f"{key}.{name}" if key else str(name))
            if below:
                return below
        return None
    if found == wanted:
        return None
    texts = (json.dumps(value, default=str) for value in (found, wanted))
    short = (text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..." for text in texts)
    return f"{key} {' instead of '.join(short)}"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock an output folder; the system unlocks it when this process ends, however it ends.

    Raises:
        OutputError: Another process works there, or the folder cannot be written to.
    """
    path = folder / LOCK_FILE
    require_no_file(folder)
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


def matches_run(result: Path, run: Mapping[str, Any], overwrite: bool) -> bool:
    """Return whether a result file was written by a run; ``False`` where there is none.

    Raises:
        OutputError: It was written by another run, or does not say by which, and may not be replaced.
    """
    try:
        found = json.loads(result.read_bytes())[RUN]
        found["data"].pop("sha256", None)  # known at the end
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if overwrite:
            return False
        raise OutputError(
            f"{result} does not say what it depends on, so it cannot be resumed; use --overwrite to replace it, "
            "or another --output"
        ) from error
    changed = first_difference(found, run)
    if changed and not overwrite:
        raise OutputError(f"{result} is of another run ({changed}); use --overwrite to replace it, or another --output")
    return changed is None


def _read_header(folder: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads((folder / _RUN_FILE).read_bytes())
    return None


def read_records(folder: Path, counts: bool = False) -> tuple[list[Record], int]:
    """Return the finished images in a folder, each once, and the number of damaged lines.

    Args:
        folder: Where finished images are kept.
        counts: Whether a record without pixel counts is damaged.
    """
    records: dict[int, Record] = {}
    damaged = 0
    for path in sorted(folder.glob("*.jsonl")):
        *lines, _ = path.read_bytes().split(b"\n")  # after the last newline there is at most a line that was cut off
        for line in lines:
            try:
                record = json.loads(line)
                _FinishedImage.model_validate(record)
                if counts or "counts" in record:
                    _IMAGE_RESULT.validate_python(record)
            except (ValueError, RecursionError):
                damaged += 1
            else:
                records.setdefault(record["index"], record)
    return list(records.values()), damaged


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
            pl_module.finished = [_IMAGE_RESULT.validate_python(record) for record in records]
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
        """End the process at once on SIGTERM, with the matching status, instead of Lightning's handler.

        With that one, ``test`` ends with status 0 and ``predict`` does not end. Finished images are kept already.
        """
        if threading.current_thread() is threading.main_thread():  # Python allows it there only
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    on_predict_start = on_test_start

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
        if self._file is None:
            return
        self._file.close()
        trainer.strategy.barrier("the results are written")
        if trainer.is_global_zero:
            shutil.rmtree(self.state.folder)

    on_predict_end = on_test_end

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


def append(file: IO[bytes], record: Record) -> None:
    """Write a record as one line of JSON to an unbuffered file."""
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    while line:
        line = line[file.write(line) :]

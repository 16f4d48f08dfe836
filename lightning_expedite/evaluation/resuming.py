"""Going on with an interrupted run: whether what it left behind fits, what is left to do, and keeping what is done."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from ..errors import OutputError
from .differing import difference
from .journal import Journal, JournalWriter, Record, read_journal
from .module import ImageResult, SegmenterModule

RUN = "run"  # key of a result that tells what it is of
CONTENT = "content"  # key of a record with its image's checksum
NOTICES = "notices"  # key of a record with what the run warned of since the one before


@dataclass
class Start:
    """How a run begins.

    Args:
        journal: Folder of its journal.
        run: What the run is of, see `fingerprints`; the first process alone knows it.
        contents: A checksum of each image of the data set; the first process alone knows them.
        records: Records of images that an interrupted run has finished; the first process alone has them.
        complete: Whether there is nothing left to do.
        whole: Whether the run is to see all images; one that sees a part keeps no journal.
    """

    journal: Path
    run: Record = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    complete: bool = False
    whole: bool = True

    @property
    def header(self) -> Record:
        """What the run is of, as its journal says: without the data as a whole, since each record tells its image."""
        return {**self.run, "data": {"images": len(self.contents)}}


def is_of(result: Path, run: Mapping[str, Any], overwrite: bool) -> bool:
    """Tell whether a result is of this very run, or refuse one of another.

    Args:
        result: A JSON file with the key `RUN`, or none.
        run: What this run is of.
        overwrite: Whether a result of another run may be replaced.

    Raises:
        OutputError: It is of another run, or does not tell, and may not be replaced.
    """
    try:
        found = json.loads(result.read_bytes())[RUN]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        if overwrite:
            return False
        raise OutputError(
            f"{result} does not tell what it is of, so that nothing can go on from it; give --overwrite to replace it, "
            "or another --output"
        ) from error
    differing = difference(found, run)
    if differing and not overwrite:
        raise OutputError(
            f"{result} is of another run ({differing}); give --overwrite to replace it, or another --output"
        )
    return differing is None


def claim_journal(start: Start, resume: bool, overwrite: bool) -> bool:
    """Take over what an interrupted run left behind.

    Images that it has not finished may have changed since: a damaged one that ended it can be mended.

    Args:
        start: What this run is of.
        resume: Whether to go on with an interrupted run.
        overwrite: Whether what cannot be gone on with may be thrown away.

    Returns:
        Whether this run goes on with an interrupted one; `Start.records` then has its images, which are in one file.

    Raises:
        OutputError: There are finished images that neither may be used nor thrown away.
    """
    folder = start.journal
    try:
        journal = read_journal(folder)
    except OutputError:
        if not overwrite:
            raise
        Journal(folder).discard()
        return False
    _leave_out_damaged(journal)
    differing = _what_changed(journal, start)
    if journal.damaged and resume:
        rank_zero_warn(f"{journal.damaged} lines in {folder} are damaged: their images are computed again")
    if journal.run is not None and resume and differing is None:
        journal.merge()
        start.records = journal.records
        return True
    if (journal.records or journal.damaged) and not overwrite and not (resume and journal.run is None):
        held = f"{folder} holds {len(journal.records)} finished images of an interrupted run"
        if journal.damaged:
            held += f" and {journal.damaged} damaged lines"
        if resume:
            raise OutputError(
                f"{held} that was another ({differing}); resume it as it was, or give --overwrite to begin anew"
            )
        raise OutputError(f"{held}; give --resume true to go on with it, or --overwrite to begin anew")
    journal.discard()
    return False


def forget_journal(start: Start) -> None:
    """Take away the journal of a run whose results were written, but which was killed before it could do so."""
    journal = read_journal(start.journal)
    if journal.run is not None and difference(journal.run, start.header) is None:
        journal.discard()


def _what_changed(journal: Journal, start: Start) -> str | None:
    """Name the first setting or finished image that is not what it was; ``None`` where none is."""
    if journal.run is None:
        return None
    if found := difference(journal.run, start.header):
        return found
    for record in journal.records:
        if start.contents[record["index"] : record["index"] + 1] != [record.get(CONTENT)]:
            return f"the files of image {record['name']} have changed"
    return None


def _leave_out_damaged(journal: Journal) -> None:
    """Count records from which no image's counts or warnings can be made as damaged."""
    whole = [
        record for record in journal.records if _is_whole(record, counts=(journal.run or {}).get("command") == "test")
    ]
    journal.damaged += len(journal.records) - len(whole)
    journal.records = whole


def _is_whole(record: Record, counts: bool) -> bool:
    notices = record.get(NOTICES, [])
    if not isinstance(notices, list) or not all(isinstance(text, str) for text in notices):
        return False
    try:
        if counts:
            ImageResult.from_record(record)
    except (KeyError, TypeError, ValueError):
        return False
    return True


class JournalKeeper(Callback):
    """Keeps every finished image in the journal, and leaves out those that an interrupted run has finished.

    It has to be the last callback: what the others write of an image is there before it counts as finished, and the
    journal is put away only after the results are written.

    Args:
        start: How the run begins.
    """

    def __init__(self, start: Start) -> None:
        self.start = start
        self._writer: JournalWriter | None = None
        self._kept = 0
        self._contents: list[str] = []
        self._noted = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell all processes what is left to do, and begin their files.

        Raises:
            OutputError: A file cannot be written.
        """
        assert isinstance(pl_module, SegmenterModule)
        finished = [record["index"] for record in self.start.records]
        header, finished, self._contents = trainer.strategy.broadcast(
            (self.start.header, finished, self.start.contents)
        )
        trainer.datamodule.finished = frozenset(finished)  # type: ignore[attr-defined]
        if stage == "test":
            pl_module.finished = [ImageResult.from_record(record) for record in self.start.records]
        for record in self.start.records:
            pl_module.notices.recall(record.get(NOTICES, ()))
        self._noted = len(pl_module.notices.texts)
        self._writer, self._kept = JournalWriter(self.start.journal, header), 0

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
        """Put the journal away."""
        self._put_away(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the journal away."""
        self._put_away(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what is kept."""
        if self._writer is None:
            return
        self._writer.close()
        if not self._kept and not self.start.records:
            return
        if trainer.is_global_zero:
            print("finished images are kept: the same command with --resume true goes on from them", file=sys.stderr)

    def _keep(self, record: Record, pl_module: SegmenterModule) -> None:
        assert self._writer is not None, "setup() comes first"
        record = {**record, CONTENT: self._contents[record["index"]]}
        if new := pl_module.notices.texts[self._noted :]:
            record[NOTICES] = new
            self._noted += len(new)
        self._writer.add(record)
        self._kept += 1

    def _put_away(self, trainer: Trainer) -> None:
        assert self._writer is not None
        self._writer.close()
        trainer.strategy.barrier("the results are written")
        if trainer.is_global_zero:
            Journal(self.start.journal).discard()

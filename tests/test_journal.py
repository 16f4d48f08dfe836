"""The journal of finished images: what is read is what was written, whatever happened to the files."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_expedite.errors import OutputError
from lightning_expedite.evaluation import journal as module
from lightning_expedite.evaluation.journal import JournalWriter, read_journal
from lightning_expedite.evaluation.locking import LOCK_FILE, held

pytestmark = pytest.mark.promise("resume")

RUN = {"command": "test", "settings": {"ratio": 0.1, "name": "Straße\n"}}


def record(index):
    counts = [[index * 1000 + value for value in range(7)] for _ in range(3)]
    return {"index": index, "name": f"part/{index}", "size": [70, 90], "counts": counts}


def write(folder, records, run=RUN):
    writer = JournalWriter(folder, run)
    for one in records:
        writer.add(one)
    writer.close()
    return writer.path


def test_what_several_processes_wrote_is_read_once(tmp_path):
    write(tmp_path, [record(0), record(2)])
    write(tmp_path, [record(1), record(2)])
    journal = read_journal(tmp_path)
    assert journal.run == RUN
    assert sorted(one["index"] for one in journal.records) == [0, 1, 2]
    assert all(one == record(one["index"]) for one in journal.records)
    assert journal.damaged == 0


def test_merging_keeps_all_in_one_file(tmp_path):
    for index in range(5):
        write(tmp_path, [record(index), record(0)])
    before = read_journal(tmp_path)
    before.merge()
    after = read_journal(tmp_path)
    assert len(after.files) == 1
    assert (after.run, after.records) == (before.run, before.records)


def test_an_interrupted_merge_loses_nothing(tmp_path, monkeypatch):
    for index in range(3):
        write(tmp_path, [record(index)])
    monkeypatch.setattr(module.Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        read_journal(tmp_path).merge()
    monkeypatch.undo()
    assert sorted(one["index"] for one in read_journal(tmp_path).records) == [0, 1, 2]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_file_cut_off_anywhere_gives_its_whole_lines(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    path = write(folder, [record(index) for index in range(4)])
    content = path.read_bytes()
    kept = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:kept])
    journal = read_journal(folder)
    lines = content[:kept].count(b"\n")
    assert journal.records == [record(index) for index in range(max(lines - module.HEADERS, 0))]
    assert journal.run == (RUN if lines else None)
    assert journal.damaged == 0


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_changed_bytes_never_give_other_records(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    path = write(folder, [record(index) for index in range(4)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    journal = read_journal(folder)
    assert all(one == record(one["index"]) for one in journal.records)
    assert journal.run in (RUN, None)
    whole = len(journal.records) == 4 and journal.run == RUN
    assert journal.damaged or whole or not content.endswith(b"\n") or journal.run is None


def test_parts_of_different_runs_are_refused(tmp_path):
    write(tmp_path, [record(0)])
    write(tmp_path, [record(1)], run={"command": "test", "settings": {}})
    with pytest.raises(OutputError, match="different runs"):
        read_journal(tmp_path)


def test_a_folder_that_is_not_there_is_an_empty_journal(tmp_path):
    journal = read_journal(tmp_path / "none")
    assert (journal.run, journal.records) == (None, [])
    journal.discard()


def test_lines_go_to_the_system_at_once_and_to_the_disk_in_time(tmp_path, monkeypatch):
    now, synced = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.os, "fsync", lambda file: synced.append(now[0]))
    writer = JournalWriter(tmp_path, RUN)
    for index in range(10):
        now[0] += 0.5
        writer.add(record(index))
        assert len(read_journal(tmp_path).records) == index + 1
    assert synced == [0.0, 2.0, 4.0]  # the folder first


def test_a_disk_that_fills_up_in_the_middle_of_a_line_keeps_the_lines_before(tmp_path, monkeypatch):
    write_bytes, room = os.write, [900]

    def fill(file, content):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write_bytes(file, content[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(module.os, "write", fill)
    writer = JournalWriter(tmp_path, RUN)
    added = 0
    while room[0] > 150:  # a record takes more than 100 bytes
        writer.add(record(added))
        added += 1
    with pytest.raises(OutputError, match=r"No space left on device; finished images are kept.*--resume true"):
        writer.add({**record(added), "name": "long" * 50})
    assert added > 1
    assert room[0] == 0
    writer.close()
    assert read_journal(tmp_path).records == [record(one) for one in range(added)]


@pytest.mark.parametrize("classes", [11, 150])
def test_an_image_takes_a_bounded_number_of_bytes(tmp_path, classes):
    counts = [[10**9] * classes for _ in range(3)]  # more than the pixels of any image
    one = {**record(0), "counts": counts}
    path = write(tmp_path, [one] * 10)
    header = module.HEADERS * (len(path.read_bytes().split(b"\n")[0]) + 1)
    assert (path.stat().st_size - header) / 10 <= 200 + len(one["name"]) + 3 * 11 * classes


@pytest.mark.promise("one-run-per-folder")
def test_a_lock_that_was_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / LOCK_FILE).write_text("process 1 on elsewhere, killed long ago")
    with held(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()
    assert not (tmp_path / LOCK_FILE).exists()

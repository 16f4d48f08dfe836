"""Steps of points in processes of their own, so that one that is killed (out of memory) fails alone."""

import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Command = Callable[[Sequence[str]], int]
"""The command line: takes its words and returns an exit status."""

_CONTEXT = multiprocessing.get_context("forkserver")


def start_processes(modules: Sequence[str]) -> None:
    """Start the server that processes of steps are forked from, once it has imported the modules."""
    _CONTEXT.set_forkserver_preload(list(modules))
    # A step that is killed leaves semaphores to Python's resource tracker, which removes them, but not silently.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server inherits this: Ctrl-C is for the worker
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)


def run_in_process(command: Command, words: Sequence[str], log: Path) -> int:
    """Run a command in a process of its own, which prints to the end of ``log``, and return its exit status."""
    process = _CONTEXT.Process(target=_run, args=(command, list(words), log.absolute(), Path.cwd()))
    process.start()
    assert process.pid is not None
    try:
        process.join()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # loaders and ranks that it started, and itself after Ctrl-C
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(command: Command, words: list[str], log: Path, folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # else loaders would inherit this process's way to start
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("ab") as stream:
        for descriptor in (1, 2):  # also of libraries and of processes started here
            os.dup2(stream.fileno(), descriptor)
    # Lightning starts further ranks by the command line of this process.
    sys.argv = ["lightning_expedite", *words]
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("lightning_expedite")
    sys.exit(command(words))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)

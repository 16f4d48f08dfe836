"""The process that does a sweep's work: ``python -m lightning_expedite.search.worker``, started by `client.Worker`.

Jobs come as lines of JSON on standard input, answers go to standard output in the same form. What a job prints goes to
the log that it names.
"""

import contextlib
import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .client import how_it_ended

Job = dict[str, Any]


def main() -> None:
    """Do jobs until standard input ends."""
    jobs, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, waiting), daemon=True).start()
    while True:
        answer = do(waiting.get())
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _receive(descriptor: int, waiting: "queue.SimpleQueue[Job]") -> None:
    """Hand jobs on; where there can be no more, the sweep is gone, and nothing that it started may go on."""
    unread = b""
    while block := os.read(descriptor, 1 << 16):
        *lines, unread = (unread + block).split(b"\n")
        for line in lines:
            waiting.put(json.loads(line))
    os.killpg(0, signal.SIGKILL)


def do(job: Job) -> Job:
    """Do one job; gives its answer, and whether this process is as good as before."""
    try:
        with output_to(Path(job["log"])):
            match job["kind"]:
                case "resolve":
                    return _resolve(job["request"])
                case "separate":
                    return _run_apart(job["words"])
                case _:
                    return _run_here(job["words"])
    except OSError as error:
        return {"status": 1, "error": f"{job['log']} cannot be written: {error.strerror}", "usable": True}


def _resolve(request: Any) -> Job:
    from ..errors import message_for
    from .resolving import Request, resolve

    try:
        return {"status": 0, "value": resolve(Request(**request)), "usable": True}
    except SystemExit:  # how argparse ends; its message is in the log
        return {"status": 2, "error": "", "usable": True}
    except Exception as error:
        traceback.print_exc()
        message = message_for(error)
        return {"status": 2, "error": message or _in_words(error), "usable": False}


def _run_here(words: Sequence[str]) -> Job:
    from ..cli import main as command_line

    try:
        with process_state_kept(words[0]):
            status = command_line(words)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        traceback.print_exc()
        # The process may be broken for good, as a CUDA context is after some errors.
        return {"status": 1, "error": _in_words(error), "usable": False}
    finally:
        gc.collect()
    return {"status": status, "usable": True}


def _run_apart(words: Sequence[str]) -> Job:
    """Run a subcommand in a process of its own: Lightning starts further ones by its command line."""
    command = [sys.executable, "-m", "lightning_expedite", *words]
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    error = how_it_ended(status) if status < 0 else ""
    return {"status": status, "error": error, "usable": status == 0}


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Append to a file all that this process and those that it starts print."""
    with log.open("a", buffering=1, encoding="utf-8") as stream, contextlib.ExitStack() as stack:
        for descriptor in (1, 2):  # what is printed from other languages, and by processes that are started
            stack.callback(_put_back, descriptor, os.dup(descriptor))
            os.dup2(stream.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        yield


def _put_back(descriptor: int, kept: int) -> None:
    os.dup2(kept, descriptor)
    os.close(kept)


@contextlib.contextmanager
def process_state_kept(subcommand: str) -> Iterator[None]:
    """Give PyTorch's and OpenCV's settings of the whole process back as they were, whatever a subcommand set.

    ``test`` forks processes that read images: OpenCV's threads, which ``benchmark`` may have started, would be missing
    there, and are ended before.
    """
    import cv2
    import torch

    threads, readers = torch.get_num_threads(), cv2.getNumThreads()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    choose_kernels, products = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    if subcommand == "test":
        cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = choose_kernels
        torch.set_float32_matmul_precision(products)
        cv2.setNumThreads(readers)


if __name__ == "__main__":
    main()

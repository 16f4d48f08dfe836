"""Errors that a user can fix, and how the command line shows them: one line that names the file, key or value."""

import difflib
import errno
import functools
import inspect
import numbers
import sys
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_FILE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
}
_KINDS = {int: (numbers.Integral, "an integer"), float: (numbers.Real, "a number"), bool: (bool, "True or False")}
_HALF_MESSAGE = 1000  # characters kept of the beginning and the end of an error


class ExpediteError(Exception):
    """Base of all errors that the command line shows without a traceback."""


class ArgumentError(ExpediteError, TypeError):
    """A function has no argument of that name, one is missing, or a value is not of its kind."""


class CheckpointError(ExpediteError):
    """A checkpoint is missing, damaged or of an unknown layout."""


class ReducerError(ExpediteError):
    """A reducer's settings cannot be applied to the model."""


class DataError(ExpediteError):
    """A data set's folder, file list, image or label is missing, damaged or inconsistent."""


class ConfigError(ExpediteError):
    """Settings contradict each other or name something that does not exist."""


class OutputError(ExpediteError):
    """The output folder cannot be used."""


class ExportError(ExpediteError):
    """A model cannot be exported, or the exported file does not compute the same as the model."""


class NumericalError(ExpediteError):
    """A model computes NaN or infinite values."""


class DeviceMemoryError(ExpediteError):
    """A device's memory does not suffice."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` for the name that is most like the given one, an empty text if none is."""
    by_lower = {known.lower(): known for known in names}
    longer = [known for known in by_lower if name and known.startswith(name.lower())]
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6) or longer
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""


def is_integer(value: object) -> bool:
    """Return True for an integer of Python or NumPy, False for ``True``."""
    return _is_of(int, value)


def _is_of(kind: type, value: object) -> bool:
    return isinstance(value, _KINDS[kind][0]) and isinstance(value, bool) == (kind is bool)


def checks_arguments(function: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function so that unknown or missing arguments, and values of another kind, raise `ArgumentError`.

    Integers, numbers and booleans are checked; the function checks its other arguments.
    """
    signature = inspect.signature(function)
    kinds = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    label = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> Result:
        for name in named.keys() - kinds.keys():
            known = ", ".join(known for known in kinds if known != "self")
            raise ArgumentError(f"{label} has no argument {name!r}{nearest(name, kinds)}; it has {known}")
        try:
            given = signature.bind(*args, **named).arguments
        except TypeError as error:
            raise ArgumentError(f"{label}: {error}") from error
        for name, value in given.items():
            if kinds[name] in _KINDS and not _is_of(kinds[name], value):
                raise ArgumentError(f"{label}: {name}={value!r} must be {_KINDS[kinds[name]][1]}")
        return function(*args, **named)

    return call


def message_for(error: BaseException) -> str | None:
    """Return the message to show for an error that the user can fix, ``None`` for a defect of the program.

    jsonargparse wraps what a class raises in its constructor, and a loader's worker process sends its errors inside a
    traceback: the user is shown the original message in both cases.
    """
    # Importing Lightning takes seconds; an error of its own can only occur where it is loaded already.
    lightning = sys.modules.get("pytorch_lightning.utilities.exceptions")
    fixable = (ExpediteError, *((lightning.MisconfigurationException,) if lightning else ()))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, fixable):
            name = f"{type(cause).__module__}.{type(cause).__qualname__}: "
            return str(cause).rpartition(name)[2].strip()
        if isinstance(cause, (OSError, RuntimeError)) and "Too many open files" in str(cause):
            return "too many open files: raise the limit (ulimit -n 1024), or set --data.num_workers 0"
        if isinstance(cause, OSError) and cause.errno in _FILE_SYSTEM and cause.filename is not None:
            return f"{cause.filename}: {cause.strerror}"
        if isinstance(cause, ValueError) and str(cause) == "embedded null byte":
            return "the name of a file or folder contains a zero byte; correct the name"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, RuntimeError) and "Connection closed by peer" in str(error):
        return "another process stopped; its message is above"
    return None


def fail(message: str) -> int:
    """Print an error in one line and return the exit status, 2."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 2


def one_line(message: str) -> str:
    """Return a message as one line of limited length, with control characters (terminal commands) escaped."""
    words = " ".join(message.split())
    if len(words) > 2 * _HALF_MESSAGE:
        words = f"{words[:_HALF_MESSAGE]} [...] {words[-_HALF_MESSAGE:]}"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)

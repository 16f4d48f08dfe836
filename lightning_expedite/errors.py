"""Errors that a user can mend: each message names the file, key or value and says what to do."""


class ExpediteError(Exception):
    """Base of all errors that the command line shows without a traceback."""


class CheckpointError(ExpediteError):
    """A checkpoint is missing, damaged or of no known layout."""


class ReducerError(ExpediteError):
    """A reducer's settings cannot apply to the model."""


class DataError(ExpediteError):
    """A data set's folder, listing, image or label is missing, damaged or inconsistent."""


class ConfigError(ExpediteError):
    """Settings contradict each other or name something that does not exist."""


class OutputError(ExpediteError):
    """The output folder cannot be used as it is."""


class ExportError(ExpediteError):
    """A model cannot be exported, or what was exported does not compute what the model does."""


class NumericalError(ExpediteError):
    """A model computes NaN or infinite numbers, of which no label could be trusted."""


class DeviceMemoryError(ExpediteError):
    """A device's memory does not suffice for what was asked."""

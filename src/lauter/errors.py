"""Errors that users meet: each names the thing, the value, what was expected, and the way out."""


class LauterError(ValueError):
    """Base of everything lauter raises about a user's input; the command line turns it into exit code 2."""


class DataError(LauterError):
    """A data set cannot be opened or cannot be used as it is."""


class ModelError(LauterError):
    """A model name, a weights file or a model's shape is not what was asked for."""


class ConfigError(LauterError):
    """A setting is out of its range, or two settings contradict each other."""


class RunError(LauterError):
    """A run directory is in the way, incomplete, or of another run."""


class BankError(LauterError):
    """A teacher bank is incomplete, damaged, of something else, or finds no room on the disk."""


class NonFiniteLossError(LauterError):
    """A loss term became NaN or infinite; names the step, the terms and the last good checkpoint."""

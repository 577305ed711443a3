"""What can go wrong through no fault of kilter's.

    KilterError
    ├── DataError            (ValueError)       rows, files, columns
    ├── DistributionError    (ValueError)       numbers that are no distribution, or two that cannot be compared
    ├── ConfigError          (ValueError)       options that contradict each other or the data
    ├── ModelError           (ValueError)       a model that cannot be loaded, scored or trusted
    ├── ProofError           (ModelError)       a fast path that disagrees with the model's own forward
    ├── RunError             (OSError)          run directories and what is written there
    ├── NonFiniteError       (ArithmeticError)  a score, loss or gradient that is no number
    ├── OutOfMemoryError     (MemoryError)      a step that needs more memory than there is
    ├── StoppedError                            a run that stopped when asked, saved
    └── WorkerError                             a worker whose run another worker ended

A message says what was found, what was wanted, and what to do. The command line prints it without a traceback;
any other exception is a bug in kilter and keeps its traceback.
"""


class KilterError(Exception):
    """Base of every error that a user can mend."""


class DataError(KilterError, ValueError):
    """A file or a row that cannot be used as it is."""


class DistributionError(KilterError, ValueError):
    """Numbers that are no distribution, or two that cannot be compared."""


class ConfigError(KilterError, ValueError):
    """Options that are impossible, unused, or contradict each other."""


class ModelError(KilterError, ValueError):
    """A model or tokenizer that cannot be loaded, or scored as asked."""


class ProofError(ModelError):
    """A fast path that disagreed with the model's own forward."""


class RunError(KilterError, OSError):
    """A run directory that cannot be written or read."""


class NonFiniteError(KilterError, ArithmeticError):
    """A score, a loss or a gradient that is not finite; nothing was updated with it."""


class OutOfMemoryError(KilterError, MemoryError):
    """A step that needs more memory than there is."""


class StoppedError(KilterError):
    """A run that stopped when asked, with all it needs to go on saved; `signal` is what asked."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal = signal_number


class WorkerError(KilterError):
    """What ends the other workers of a run when one has stopped."""

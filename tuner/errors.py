"""The tree of errors.

    TunerError                      everything tuner raises on purpose
    ├── UsageError                  what the user gave is wrong: one line, exit code 2
    │   ├── SpaceError              a search-space file: names file, line and key
    │   ├── ModelError              a SavedModel, or the requests for it
    │   ├── StudyError              a study, its storage or its name
    │   ├── TableError              a recorded table: a missing column, an empty row
    │   └── UnavailableError        this machine cannot do what was asked, and why
    │       └── LostError           what a running study stands on went away: it ends, to go on later
    └── TrialFailure                a trial ended without a measurement: carries the reason
"""

from __future__ import annotations


class TunerError(Exception):
    """Everything tuner raises on purpose."""


class UsageError(TunerError):
    """What the user gave is wrong; the message is one line that says what would be right."""


class SpaceError(UsageError):
    """A search-space file is wrong.

    Args:
        message: what is wrong and what would be right.
        file: the file's name as the user gave it.
        line: 1-based line in that file.
        key: dotted path of the key, e.g. ``parameters.max_batch_size.low``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        self.message, self.file, self.line, self.key = message, file, line, key
        place = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(": ".join(part for part in (place, key, message) if part))


class ModelError(UsageError):
    """A SavedModel cannot be read, or the requests do not fit its signature."""


class StudyError(UsageError):
    """A study or its storage is missing, damaged, or belongs to something else."""


class TableError(UsageError):
    """A recorded table lacks what was asked of it."""


class UnavailableError(UsageError):
    """This machine cannot do what was asked; the message says why and what comes nearest."""


class LostError(UnavailableError):
    """What a running study stands on, such as a container engine, does not answer any more.

    No configuration is to blame: the trial that runs does not count, and the study ends.
    """


class TrialFailure(TunerError):
    """A trial ended without a measurement.

    Args:
        reason: one of ``tuner.measurement.REASONS``.
        message: what happened, for a person.
        log_tail: the last lines of the server's log, if there is one.
    """

    def __init__(self, reason: str, message: str, log_tail: str = "") -> None:
        self.reason, self.message, self.log_tail = reason, message, log_tail
        super().__init__(f"{reason}: {message}")

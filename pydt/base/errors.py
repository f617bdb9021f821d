"""The errors that pydt raises: what is wrong, where, and how to mend it."""

from __future__ import annotations


class PydtError(Exception):
    """Base of every error pydt raises on purpose.

    Args:
        what: the thing that is wrong, in one clause.
        where: the place: a file, a row, an argument.
        mend: what the reader can do about it.
    """

    def __init__(self, what: str, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        text = what if where is None else f"{where}: {what}"
        super().__init__(text if mend is None else f"{text}. {mend}")

    def __reduce__(self) -> tuple[type[PydtError], tuple[str, str | None, str | None]]:
        # The default would rebuild from args, the joined text: an error from another process would lose its parts.
        return type(self), (self.what, self.where, self.mend)


class DataWarning(UserWarning):
    """Something was left out or changed; the notes of the data set say it, too."""


class ConfigError(PydtError):
    """An option, recipe or plan that makes no sense."""


class DataError(PydtError):
    """A source or target that cannot be read or is inconsistent."""


class DesignError(PydtError):
    """Masks that cannot be drawn or that do not fit the groups."""


class TrainError(PydtError):
    """A row that trained but gave nothing usable (a non-finite loss, say); it is stored as failed."""


class StoreError(PydtError):
    """A store that cannot be written, or whose bytes are not what they claim to be."""


class EstimateError(PydtError):
    """Masks and outputs from which the influence asked for cannot be computed."""

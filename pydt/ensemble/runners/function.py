"""A Python function as the recipe of a plan."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydt.base import ConfigError, canonical_json, digest, one_of, whole
from pydt.ensemble.runners.depends import Files, contents, digests, unchanged

if TYPE_CHECKING:
    from pydt.ensemble.row import RowInput

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, eq=False)
class Function:
    """A function that computes rows: `function(row) -> {name of a measure: outputs}`.

    The rows' names hold the function's own text (comments and layout do not count), its settings and the files that it
    depends on: a change of any of them gives rows of another plan. What else it calls or reads is not looked at.

    Args:
        function: called with a `pydt.RowInput` in a worker process. A function of the script itself may travel there,
            with the global variables that it reads.
        settings: JSON types, which the function reads as `row.settings`.
        depends: files whose content decides the numbers: modules that it imports, data.
        threads: cores of a row.
        device: "cpu", or "cuda" for one GPU a row.

    Raises:
        ConfigError: no function, settings that are no JSON, or a file that cannot be read.
    """

    function: Callable[[RowInput], Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    depends: Sequence[str | os.PathLike[str]] = ()
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not callable(self.function) or not hasattr(self.function, "__qualname__"):
            mend = "give a function or a class; what it needs besides the row goes into settings"
            raise ConfigError(f"is of type {type(self.function).__name__}", "Function.function", mend)
        object.__setattr__(self, "threads", whole(self.threads, "threads", "Function", 1, error=ConfigError))
        one_of(self.device, DEVICES, "device", "Function")
        if not isinstance(self.settings, Mapping):
            raise ConfigError(f"is {self.settings!r}", "Function.settings", "give a dict")
        object.__setattr__(self, "settings", dict(self.settings))
        canonical_json(self.settings)
        files: Files = contents(self.depends, "Function.depends", Path.cwd())
        object.__setattr__(self, "depends", tuple(files))
        object.__setattr__(self, "_files", files)
        object.__setattr__(self, "_text", _text(self.function))

    method = "function"

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(self.function.__qualname__)

    @property
    def digest(self) -> str:
        """Name of what decides the rows."""
        return digest("function", self.name, self._text, self.settings, digests(self._files))  # type: ignore[attr-defined]

    def described(self) -> dict[str, Any]:
        """The function as JSON types, for stores and reports."""
        about = {"method": self.method, "function": self.name, "settings": dict(self.settings)}
        return {**about, "depends": digests(self._files), "threads": self.threads, "device": self.device}  # type: ignore[attr-defined]

    def compute(self, row: RowInput) -> Mapping[str, Any]:
        """The outputs of a row."""
        unchanged(self._files, f"Function {self.name}")  # type: ignore[attr-defined]
        return self.function(row)


def _text(function: Any) -> str | None:
    """The text of a function without comments and layout; None where there is no file of it."""
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):
        return None

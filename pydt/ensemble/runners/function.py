"""A Python function as the recipe of a plan."""

from __future__ import annotations

import ast
import inspect
import json
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from pydt.base import ConfigError, canonical_json, digest, one_of, shown, whole
from pydt.ensemble.runners.depends import Files, contents, digests, unchanged

if TYPE_CHECKING:
    from pydt.ensemble.row import RowInput

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, eq=False)
class Function:
    """A function that computes rows: `function(row) -> {name of a measure: outputs}`.

    The rows' names hold the function's own text (comments and layout do not count), the numbers and texts that are its
    defaults or that it reads of an enclosing function, its settings and the files that it depends on: a change of any
    of them gives rows of another plan. What else it calls or reads is not looked at. Of a lambda, and of a function
    that no file holds, the compiled code takes the place of the text: another Python version may then compute rows
    anew.

    Args:
        function: a `def`, called with a `pydt.RowInput` in a worker process. A function of the script itself may travel
            there, with the global variables that it reads.
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

    _files: Files = field(init=False, repr=False)
    _text: str = field(init=False, repr=False)
    _enclosed: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not inspect.isfunction(self.function):
            mend = "give a def: def f(row): return {...}; what it needs besides the row goes into settings"
            raise ConfigError(f"{shown(self.function)} is not a function", "Function.function", mend)
        object.__setattr__(self, "threads", whole(self.threads, "threads", "Function", 1, error=ConfigError))
        one_of(self.device, DEVICES, "device", "Function")
        object.__setattr__(self, "settings", _as_json(self.settings))
        files = contents(self.depends, "Function.depends", Path.cwd())
        object.__setattr__(self, "depends", tuple(files))
        object.__setattr__(self, "_files", files)
        object.__setattr__(self, "_text", _text(self.function))
        object.__setattr__(self, "_enclosed", _enclosed(self.function))

    method = "function"

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(self.function.__qualname__)

    @property
    def digest(self) -> str:
        """Name of what decides the rows."""
        code = self.name, self._text, self._enclosed
        return digest("function", *code, self.settings, digests(self._files))

    def described(self) -> dict[str, Any]:
        """The function as JSON types, for stores and reports."""
        about = {"method": self.method, "function": self.name, "settings": deepcopy(self.settings)}
        return {**about, "depends": digests(self._files), "threads": self.threads, "device": self.device}

    def compute(self, row: RowInput) -> Mapping[str, Any]:
        """The outputs of a row."""
        unchanged(self._files, f"Function {self.name}")
        return self.function(row)


def _as_json(settings: Any) -> dict[str, Any]:
    """A copy of settings that are JSON types."""
    mend = "give a dict of texts, plain numbers, lists and dicts: float(x) and x.tolist() make them of numpy's"
    try:
        found = json.loads(canonical_json(settings))
    except ConfigError as error:
        raise ConfigError(f"is no JSON ({error.what})", "Function.settings", mend) from error
    if not isinstance(found, dict) or found != settings:  # tuples, and names that are no texts
        raise ConfigError(f"{shown(settings)} is not the same as JSON", "Function.settings", mend)
    return found


def _text(function: Any) -> str:
    """The text of a function without comments and layout; of a lambda, or without a file, its compiled code."""
    if function.__name__ != "<lambda>":
        try:
            return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
        except (OSError, TypeError, SyntaxError):
            pass
    return repr(_compiled(function.__code__))


def _compiled(code: CodeType) -> tuple[Any, ...]:
    """What a code object does, without where it stands in a file."""
    constants = [_compiled(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return code.co_code.hex(), code.co_names, constants


def _constant(value: Any) -> str:
    """A constant as text; sets have another order in every process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _enclosed(function: Any) -> dict[str, str]:
    """The plain numbers and texts that a function reads of the function around it, or has as defaults."""
    inner = inspect.unwrap(function)
    defaults = {name: argument.default for name, argument in inspect.signature(inner).parameters.items()}
    found = {**inspect.getclosurevars(inner).nonlocals, **defaults}
    return {name: repr(value) for name, value in found.items() if isinstance(value, bool | int | float | str)}

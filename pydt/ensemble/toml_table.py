"""The tables of a TOML file, taken key by key: what is wrong is named with file, table and key."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from pydt.base import ConfigError, PydtError, StoreError, read, suggest

_DOTTED = re.compile(r"""(?<![\w"'-])(?>[\w"'-]++[ \t]*+\.[ \t]*+){100}""")  # takes tomllib quadratic time
_LARGEST = 1 << 26
TYPES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
"""What values are called in errors, by type."""


def parsed(place: Path) -> dict[str, Any]:
    """The content of a TOML file; raises a ConfigError that names the file and what is wrong with it."""
    try:
        if place.stat().st_size > _LARGEST:
            raise ConfigError(f"is larger than {_LARGEST >> 20} MiB", str(place), "this is no plan or study")
        text = read(place).decode("utf-8-sig")
        if _DOTTED.search(text):
            raise ConfigError("has a key of more than a hundred parts", str(place), "this is no plan or study")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            "no such file", str(place), "name a file; pydt.write_plan(plan, path) writes one of a plan"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", str(place), "name a plan or study file") from error
    except StoreError as error:
        raise ConfigError("is no regular file", str(place), "name a plan or study file") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is no TOML: {error}", str(place), "mend the file there") from error


class Table:
    """One table of the file. Its values are taken by name and type; keys that nobody took are refused."""

    def __init__(self, values: Mapping[str, Any], file: str, name: str) -> None:
        self._values, self._file, self.name = dict(values), file, name
        self._asked: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def where(self, key: str = "") -> str:
        """File, table and key as the place of an error."""
        inside = ".".join(part for part in (self.name, key) if part)
        return f"{self._file}: {inside}" if inside else self._file

    def take(self, key: str, kind: type, default: Any = MISSING) -> Any:
        """The value of a key; whole numbers serve as float."""
        self._asked[key] = None
        if key not in self._values:
            if default is MISSING:
                misspelt = [other for other in self._values if suggest(other, [key]).startswith("did you")]
                mend = f"is {misspelt[0]!r} meant to be it?" if misspelt else f"add {key} = ..."
                raise ConfigError("is missing", self.where(key), mend)
            return default
        value = self._values[key]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"is {value!r}, not {TYPES[kind]}", self.where(key), f"give {TYPES[kind]}")
        return value

    def table(self, key: str, required: bool = True, of: str = "") -> Table:
        """A table in this one; where a list stands instead, it is meant for its key `of`."""
        if of and isinstance(self._values.get(key), list):
            raise ConfigError("is a list, not a table", self.where(key), f"write {key}.{of} = [...]")
        inside = f"{self.name}.{key}" if self.name else key
        return Table(self.take(key, dict, MISSING if required else {}), self._file, inside)

    def tables(self, key: str) -> list[Table]:
        if isinstance(self._values.get(key), dict):
            wrong = f"is one table, and there may be several [{key}]"
            raise ConfigError(wrong, self.where(key), f"write [[{key}]], with two brackets")
        found = self.take(key, list)
        for i, values in enumerate(found):
            if not isinstance(values, dict):
                raise ConfigError(f"is {values!r}, not a table", self.where(f"{key}[{i}]"), f"write [[{key}]]")
        return [Table(values, self._file, f"{key}[{i}]") for i, values in enumerate(found)]

    def values(self) -> dict[str, Any]:
        return dict(self._values)

    def left(self) -> Table:
        """What was not taken yet, as a table of its own."""
        left = Table({key: self._values[key] for key in self._values if key not in self._asked}, self._file, self.name)
        left._asked = dict(self._asked)  # keys to suggest
        return left

    def rest(self, known: tuple[str, ...]) -> dict[str, Any]:
        """Everything not taken yet; only `known` keys are allowed."""
        self._asked.update(dict.fromkeys(known))
        self.finish()
        return {key: self._values[key] for key in known if key in self._values}

    def finish(self) -> None:
        for key in self._values:
            if key not in self._asked:
                raise ConfigError("is no key of this table", self.where(key), suggest(key, list(self._asked)))


@contextlib.contextmanager
def placed(where: str) -> Iterator[None]:
    """Add the place in the file to errors from inside."""
    try:
        yield
    except PydtError as error:
        raise type(error)(
            error.what, where if error.where is None else f"{where}: {error.where}", error.mend
        ) from error

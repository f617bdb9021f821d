"""Errors in the words of the command line: what Python calls drop=3 and sure=True is --drop 3 and --sure there."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from pydt.base import PydtError


def spoken(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose errors name its options."""
    options = {
        name: "--" + name.removeprefix("as_").replace("_", "-") for name in inspect.signature(command).parameters
    }

    @functools.wraps(command)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return command(*arguments, **named)
        except PydtError as error:
            where, mend = (text and _spoken(text, options) for text in (error.where, error.mend))
            if (what := _spoken(error.what, options), where, mend) == (error.what, error.where, error.mend):
                raise
            raise type(error)(what, where, mend) from error

    return run


def _spoken(text: str, options: dict[str, str]) -> str:
    """The text with `name=value` of an option as it is typed; calls of Python functions and lines of files stay."""
    if "(" in text and re.search(r"\w\([^)]*\w=", text):
        return text

    def typed(found: re.Match[str]) -> str:
        option, value = options[found["name"]], found["value"] or ""
        return option if value in ("True", "") else f"{option} {value}"

    names = "|".join(map(re.escape, options))
    return re.sub(rf"(?<![\w.\-])(?P<name>{names})=(?P<value>\w+|\"[^\"]*\"|)", typed, text)

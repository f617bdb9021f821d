"""JSON from disk: parsed strictly, then compared with the form that its reader expects. A form is one of

str, bool, dict, list       a value of that type
int, float                  a whole number; a number (JSON writes 1.0 as 1)
range(a, b)                 a whole number in it
{"ok", "failed"}            one of these values
re.compile(...)             a text that matches it as a whole
None                        null
str | None                  one of several types
[form]                      a list of any length
(form, form)                a list of this length
{"a": form, "b?": form}     an object with these keys ("?": may be absent); other keys are allowed, since a newer
                            pydt may have written them
{str: form}                 an object of any keys
"""

from __future__ import annotations

import json
import re
from types import UnionType
from typing import Any

from pydt.base.errors import StoreError

_MOST_ITEMS = 1 << 25  # a file of a gigabyte that is all brackets would fill 20 GB
_LIMIT = 1 << 63
HEX32, HEX64 = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
SEED = range(_LIMIT)
Form = Any


def parse(data: bytes | str) -> Any:
    """The value of JSON as pydt writes it: no half characters, no key twice, finite numbers, whole ones of 64 bits.

    Raises:
        StoreError: it is something else, is nested too deeply, or has more than 33 million items.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        if text.count(",") + text.count("[") + text.count("{") > _MOST_ITEMS:
            raise ValueError("too many items")
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:  # half a character cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise StoreError(f"is damaged (no JSON of pydt: {reason})") from error


def check(value: Any, form: Form, at: str = "") -> None:
    """Raise a StoreError if a value has not the form; `at` names the value in the error."""
    if (wrong := _wrong(value, form)) is not None:
        inside, text = wrong
        raise StoreError(f"is damaged ({(at + inside).removeprefix('.') or 'the whole'} {text})")


def _wrong(value: Any, form: Form) -> tuple[str, str] | None:
    """Place inside the value and text of the first fault; None if there is none."""
    if isinstance(form, dict):
        return _wrong_object(value, form)
    if isinstance(form, list):
        (each,) = form
        if type(value) is not list:
            return "", "is no list"
        if isinstance(each, type) and each is not float and {*map(type, value)} <= {each}:
            return None  # 50 times faster for a million names
        return next(((f"[{i}]{w[0]}", w[1]) for i, v in enumerate(value) if (w := _wrong(v, each))), None)
    if isinstance(form, tuple):
        if type(value) is not list or len(value) != len(form):
            return "", f"is no list of {len(form)}"
        pairs = enumerate(zip(value, form, strict=True))
        return next(((f"[{i}]{w[0]}", w[1]) for i, (v, f) in pairs if (w := _wrong(v, f))), None)
    if isinstance(form, UnionType):
        fits = any(_wrong(value, None if one is type(None) else one) is None for one in form.__args__)
    elif isinstance(form, range):
        fits = type(value) is int and value in form
    elif isinstance(form, (set, frozenset)):
        fits = type(value) is str and value in form
    elif isinstance(form, re.Pattern):
        fits = type(value) is str and form.fullmatch(value) is not None
    elif form is None:
        fits = value is None
    else:
        fits = type(value) is form or (form is float and type(value) is int)
    return None if fits else ("", f"is {_short(value)}")


def _wrong_object(value: Any, form: dict[Any, Form]) -> tuple[str, str] | None:
    if type(value) is not dict:
        return "", "is no object"
    if str in form:
        return next(((f".{k}{w[0]}", w[1]) for k, v in value.items() if (w := _wrong(v, form[str]))), None)
    for name, inner in form.items():
        key = name.removesuffix("?")
        if key not in value:
            if key is name:
                return f".{key}", "is missing"
        elif wrong := _wrong(value[key], inner):
            return f".{key}{wrong[0]}", wrong[1]
    return None


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    shown = ascii(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its pairs; ValueError if a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _whole(text: str) -> int:
    if not -_LIMIT <= (number := int(text)) < _LIMIT:
        raise ValueError("a whole number of more than 64 bits")
    return number


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise ValueError("a number that is not finite")
    return number


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=once, parse_int=_whole, parse_float=_finite, parse_constant=_constant)

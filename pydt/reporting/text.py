"""Numbers, counts, lists and p values as text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from pydt.base import UNNAMED

Item = TypeVar("Item")
MINUS = "\u2212"
DASH = "\u2013"
_DECIMALS = 6  # the most that are written out


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """A number with `digits` decimals and a true minus; a dash for None. Zero after rounding never carries a minus.

    More than six decimals are written as a power of ten: 1.2e-9.
    """
    if value is None:
        return DASH
    plus = "+" if sign else ""
    if digits > _DECIMALS:
        if round(value, digits) == 0:
            return "0"
        mantissa, power = f"{value:{plus}.{max(0, digits + math.floor(math.log10(abs(value))))}e}".split("e")
        return f"{mantissa}e{int(power)}".replace("-", MINUS)
    text = f"{value:{plus}.{digits}f}"
    if not any(c in "123456789" for c in text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def percent(share: float | None, digits: int, sign: bool = False) -> str:
    """A fraction in percent, as `number`."""
    return number(None if share is None else 100 * share, digits, sign)


def ends(items: Sequence[Item], most: int) -> Sequence[Item]:
    """The first and the last `most` items."""
    return items if len(items) <= 2 * most else [*items[:most], *items[-most:]]


def digits_for(stderr: float | None) -> int:
    """Decimals (0 to 40) that show two significant digits of a standard error; 3 without one."""
    if stderr is None or not stderr > 0:
        return 3
    return min(40, max(0, 1 - math.floor(math.log10(stderr))))


def plus_minus(value: float, stderr: float, sign: bool = True) -> str:
    """A number and its standard error, with the decimals of `digits_for`."""
    digits = digits_for(stderr)
    return f"{number(value, digits, sign)} \u00b1 {number(stderr, digits)}"


def percent_text(share: float, digits: int = 0, error: float | None = None) -> str:
    """A share with its unit, and its standard error if one is given: 12 %, 12.1 \u00b1 0.4 %."""
    return percent(share, digits) + ("" if error is None else f" \u00b1 {percent(error, digits)}") + " %"


def percent_range(share: float, low: float, high: float, digits: int = 0) -> str:
    """A share with its interval: 12 % (8 % to 17 %)."""
    return "{} ({} to {})".format(*(percent_text(value, digits) for value in (share, low, high)))


def points(value: float, low: float, high: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its interval: +1.2 points (-0.3 to +2.7)."""
    return f"{100 * value:+.{digits}f} points ({100 * low:+.{digits}f} to {100 * high:+.{digits}f})"


def signs(estimand: str) -> str:
    """What the sign of an influence means, in words."""
    if estimand == "swap":
        return "+ is better, \u2212 is worse than an average group"
    return "+ helps, \u2212 hurts"


def finite(value: Any) -> Any:
    """The same tree with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def legible(name: str, most: int = 120) -> str:
    """A name to show: control characters made visible, direction marks dropped, never empty, at most `most` long."""
    out = []
    for char in str(name):
        kind = unicodedata.category(char)
        if char in "\n\r\t":
            out.append(" ")
        elif kind == "Cc":
            out.append(chr(0x2400 + ord(char)) if ord(char) < 0x20 else "\ufffd")
        elif kind == "Cs":
            out.append("\ufffd")
        elif unicodedata.bidirectional(char) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"):
            out.append(char)
    text = "".join(out).strip()
    if not any(unicodedata.category(c)[0] in "LNPS" for c in text):
        return "(no name)" if not text else f"(no visible name, U+{ord(text[0]):04X})"
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def quoted(name: str) -> str:
    """A name in a sentence, in quotes; right-to-left text is isolated, so that it does not reorder its neighbours."""
    text = legible(name, 40)
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        text = f"\u2068{text}\u2069"
    return f"\u201c{text}\u201d"


def called_output(name: str) -> str:
    """An output of the models as sentences call it."""
    return {"correct": "accuracy", "auroc": "AUROC"}.get(name, name)


def called(name: str, what: str) -> str:
    """The name of a data set in a sentence; "the source" or "the target" if it has none."""
    return f"the {what}" if name == UNNAMED else name


def tied(text: str) -> str:
    """The text with no-break spaces inside quantities (81.0 %, p = 0.41, 0.2 +- 0.1)."""
    inside = r"(?<=\d) (?=%)|(?<=\bp) (?=[=<])|(?<=\bp [=<]) (?=\d)|(?<=\d) (?=\u00b1)|(?<=\u00b1) (?=\d)"
    return re.sub(inside, "\u00a0", text)


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first `most` names as prose: a, b and 3 more."""
    shown = [quoted(n) for n in names[:most]]
    if len(names) > most:
        shown.append(f"{len(names) - most:,} more")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def p_text(p: float | None) -> str:
    """A p-value: p = 0.012, p < 0.0001."""
    if p is None:
        return f"p {DASH}"
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.{4 if p < 0.001 else 3 if p < 0.1 else 2}f}"


def count(n: int | None, one: str, many: str | None = None) -> str:
    """3 models, 1 model."""
    return f"{DASH if n is None else f'{n:,}'} {one if n == 1 else many or one + 's'}"

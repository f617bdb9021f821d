"""What models are trained for, as a text: "stderr < 0.5", "effect 1.0 power 0.9 q 0.05"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pydt.base import ConfigError, suggest

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_KEYS = ("stderr", "effect")
_FORMS = 'write "stderr < 0.5", or "effect 1.0", with "power 0.9" and "level 0.01" or "q 0.05" after it as wished'


@dataclass(frozen=True)
class Wish:
    """What the models are for. Make one with `Wish.parse`.

    Attributes:
        kind: "stderr" or "effect".
        size: the standard error, or the effect's absolute size, in the unit of the influences.
        power: chance to find the effect. level: of its two-sided test, of one group; or, with `family`, the false
            discovery rate among all groups.
    """

    kind: str
    size: float
    power: float = 0.8
    level: float = 0.05
    family: bool = False

    @staticmethod
    def parse(text: str) -> Wish:
        """Read "stderr < 0.5" or "effect 1.0 [power 0.9] [level 0.01 | q 0.05]".

        Power is 0.8 and level 0.05 unless said. `level` is that of one group's test, without allowance for the number
        of groups. With `q` the group is to be found by Benjamini-Hochberg among all groups. That procedure rejects
        every p <= q / groups, so the test is planned at q / groups, and the power is at least the one wished for.

        Raises:
            ConfigError: anything else.
        """
        if not isinstance(text, str):
            raise ConfigError(f"a {type(text).__name__} is not a wish", "wish", _FORMS)
        words = re.findall(rf"{_NUMBER}(?![\w.])|<|[a-z]+|\S+", text.lower())
        if words[:2] == ["stderr", "<"] and len(words) == 3:
            return Wish("stderr", _positive(words[2], "stderr"))
        if words[:1] != ["effect"] or len(words) % 2:
            hint = f". {suggest(words[0], _KEYS)}" if words and words[0] not in _KEYS else ""
            raise ConfigError(f"{text!r} is not a wish{hint}", "wish", _FORMS)
        given: dict[str, float] = {}
        for name, value in zip(words[2::2], words[3::2], strict=True):
            if name not in ("power", "level", "q"):
                raise ConfigError(f"unknown word {name!r} in {text!r}", "wish", suggest(name, ("power", "level", "q")))
            if name in given or (name != "power" and given.keys() & {"level", "q"}):
                both = f"{name!r} is there twice" if name in given else '"level" and "q" exclude each other'
                raise ConfigError(f"{both} in {text!r}", "wish", "say it once")
            given[name] = _positive(value, name)
            if given[name] >= 1:
                raise ConfigError(f"{name} {value} is not between 0 and 1", "wish", "0.05 is 5 %")
        level = given.get("level", given.get("q", 0.05))
        wish = Wish("effect", _positive(words[1], "effect", signed=True), given.get("power", 0.8), level, "q" in given)
        if wish.power <= wish.level:
            raise ConfigError(f"a power of {wish.power:g} is no more than the level", "wish", "wish for more power")
        return wish

    def per_group(self, groups: int) -> float:
        """Level of the test of one group."""
        return self.level / groups if self.family else self.level

    def __str__(self) -> str:
        if self.kind == "stderr":
            return f"stderr < {self.size:g}"
        return f"effect {self.size:g} power {self.power:g} {'q' if self.family else 'level'} {self.level:g}"


def _positive(text: str, name: str, signed: bool = False) -> float:
    value = float(text) if re.fullmatch(_NUMBER, text) else math.nan
    value = abs(value) if signed else value
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} {text!r} is not a {'' if signed else 'positive '}number", "wish", _FORMS)
    return value

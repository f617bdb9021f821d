"""The results of a study in the order of its page: what exists, what stands open, how each source is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import median
from typing import Any

from pydt.reporting.html_templates import FILTERED
from pydt.reporting.metric import METRICS
from pydt.reporting.text import DASH, count, legible, p_text, percent

LINES = 8
"""Sources drawn in a figure; of more, the best, the worst and the chosen one."""
NAME = 40
"""Characters shown of a name."""
ROWS = 200
"""Rows shown of a table."""

_SHAPES = ("circle", "drop random", "drop bottom", "full", "drop top", "cross", "hexagon", "hourglass")
STYLES = [(f"line-{i + 1}", shape) for i, shape in enumerate(_SHAPES)]
"""CSS class and mark of each line of a figure: eight marks, four colours filled or hollow, four dashes."""
SCRATCH = ("scratch", "circle")
"""Of a network without pre-training, and of what noise alone gives: grey, dashed, hollow."""

Arm = tuple[str, str | None, int | None, str]  # kind, source, size, method
Task = tuple[str, str]  # target, mode
Combination = tuple[str, int | None]  # method, size


@dataclass(frozen=True)
class View:
    """The results in the order of the study: what exists, what stands open, and how each source is drawn."""

    results: Mapping[str, Any]

    @property
    def study(self) -> Mapping[str, Any]:
        return self.results["study"]

    def names(self, axis: str) -> list[str]:
        return [one["name"] for one in self.study[axis]]

    @cached_property
    def shots(self) -> list[int | str]:
        """From the fewest to all labelled images."""
        return sorted(self.study["shots"], key=lambda shots: (isinstance(shots, str), shots))

    @property
    def ends(self) -> tuple[int | str, int | str]:
        """The fewest labelled images, and the most; zero-shot alone where there are none."""
        return next((shots for shots in self.shots if shots), self.shots[0]), self.shots[-1]

    @cached_property
    def _by_task(self) -> dict[Task, dict[Arm, dict[int | str, Mapping[str, Any]]]]:
        found: dict[Task, dict[Arm, dict[int | str, Mapping[str, Any]]]] = {}
        for row in self.results["accuracy"]:
            arm = (row["kind"], row["source"], row["size"], row["method"])
            found.setdefault((row["target"], row["mode"]), {}).setdefault(arm, {})[row["shots"]] = row
        return found

    def arms(self, task: Task) -> dict[Arm, dict[int | str, Mapping[str, Any]]]:
        """The records of accuracy of a task, by arm and shots."""
        return self._by_task[task]

    @cached_property
    def all_arms(self) -> list[Arm]:
        return list(dict.fromkeys(arm for arms in self._by_task.values() for arm in arms))

    @cached_property
    def tasks(self) -> list[Task]:
        return [(t, m) for t in self.names("targets") for m in self.names("modes") if (t, m) in self._by_task]

    @cached_property
    def combinations(self) -> list[Combination]:
        """Methods and sizes of trained arms. First the one with the most sources: the chosen one, or of the largest
        size and the first method."""
        sources: dict[Combination, set] = {}
        for kind, source, size, method in self.all_arms:
            if kind == "trained":
                sources.setdefault((method, size), set()).add(source)
        order = {name: i for i, name in enumerate(self.names("methods"))}

        def place(one: Combination) -> tuple:
            return order.get(one[0], len(order)), -(one[1] or 0)

        chosen = self.results.get("chosen") or {}
        wish = (chosen.get("method"), chosen.get("size"))
        ends = sorted(sources, key=lambda one: (-len(sources[one]), one != wish, -(one[1] or 0), place(one)))
        return [*ends[:1], *sorted(ends[1:], key=place)]

    @cached_property
    def drawn(self) -> list[str]:
        """The sources of the figures, in their order: all, or LINES of them."""
        names = self.names("sources")
        if len(names) <= LINES or not self.combinations:
            return names[:LINES]
        means: dict[str, list[float]] = {}
        for row in self.results["accuracy"]:
            own = row["kind"] == "trained" and (row["method"], row["size"]) == self.combinations[0]
            if own and row["mean"] is not None:
                means.setdefault(row["source"], []).append(row["mean"])
        order = sorted(means, key=lambda source: -sum(means[source]) / len(means[source]))
        chosen = (self.results.get("chosen") or {}).get("source")
        kept = [name for name in order if name != chosen] if chosen in names else order
        room = LINES - (chosen in names)
        kept = kept[: room - room // 2] + kept[-(room // 2) :]
        return [name for name in names if name in kept or name == chosen]

    @cached_property
    def digits(self) -> int:
        """Decimals of percent and points, so that a typical standard error is seen."""
        errors = [row["stderr"] for row in self.results["accuracy"] if row["stderr"]]
        return 2 if errors and median(errors) < 0.001 else 1

    @cached_property
    def level(self) -> str:
        """What the levels of the targets are: accuracy, or AUROC."""
        return " or ".join(dict.fromkeys(self.metric(one["name"]) for one in self.study["targets"]))

    def metric(self, target: str) -> str:
        """The metric of a target, in words."""
        kinds = {one["name"]: one["metric"] for one in self.study["targets"]}
        return METRICS.get(kinds[target], METRICS["top-1"])

    def points(self, value: float | None, sign: bool = True) -> str:
        return percent(value, self.digits, sign)

    def interval(self, low: float | None, high: float | None, sign: bool = False) -> str:
        return DASH if low is None or high is None else f"{self.points(low, sign)} to {self.points(high, sign)}"

    def style(self, source: str) -> tuple[str, str]:
        return STYLES[self.drawn.index(source)]


def shots_text(shots: int | str | None) -> str:
    """1 shot, 5 shots, full; zero-shot."""
    if shots == 0:
        return "zero-shot"
    return DASH if shots is None else shots if isinstance(shots, str) else count(shots, "shot")


def all_shots_text(shots: Sequence[int | str]) -> str:
    """All shots of the study in words."""
    few = ", ".join(str(one) for one in shots if not isinstance(one, str))
    parts = [f"{few} labelled image{'' if few == '1' else 's'} per class"] if few else []
    return ", and ".join(parts + ["all labelled images"] * ("full" in shots))


def short_size(size: int) -> str:
    """A number of images below a scale: 500, 1.5k, 15M."""
    for power, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if size >= power:
            return f"{size / power:.3g}{letter}"
    return str(size)


def task_text(task: Task) -> str:
    return f"{legible(task[0], NAME)}, {legible(task[1], NAME)}"


def combined_text(combination: Combination) -> str:
    method, size = combination
    return legible(method, NAME) + ("" if size is None else f", {count(size, 'image')}")


def p_number(p: float | None) -> str:
    return p_text(p).removeprefix("p ").removeprefix("= ")


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: str, file: str) -> dict[str, Any]:
    """A table of texts; sides: l or r for each column. Beyond ROWS rows the file is named.

    Consecutive rows that begin alike stand below that text, if there are few such texts.
    """
    columns = [(head, "left" if side == "l" else "") for head, side in zip(heads, sides, strict=True)]
    shown, left_out = rows[:ROWS], max(0, len(rows) - ROWS)
    groups = [(title, [row[1:] for row in own]) for title, own in groupby(shown, lambda row: row[0])]
    told = {"left_out": left_out, "file": file, "filter": len(shown) > FILTERED}
    if 2 * len(groups) > len(shown):
        return {"columns": columns, "groups": [("", shown)], **told}
    return {"columns": columns[1:], "groups": groups, **told}

"""How a task's metric reads: its name, the unit of its levels and changes, and which direction is better.

level     what rows reach, as they store it, times `scale`: "87.7 %", "2.31 nats"
change    of a level, positive where it is better, whatever the direction: "+0.05" is a loss that falls by 0.05
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydt.reporting.text import digits_for

NO_UNIT = "units"
"""The unit of a `pydt.Measure` of which none was given."""
METRICS = {"top-1": "accuracy", "mean per class": "mean accuracy per class", "auroc": "AUROC"}


@dataclass(frozen=True)
class Metric:
    """How the metric of a task reads. Make one with `Metric.of_task`, or of the question of results.json.

    Attributes:
        name: what it is called. unit: of a change; empty where none was given.
        scale: what a stored number is multiplied by to be shown.
        higher_is_better: False for losses and errors.
        measured: it is a `pydt.Measure`: a number for each example, which need not be an image.
        shared: it is one number a row, which is score half and report half.
    """

    name: str = METRICS["top-1"]
    unit: str = "points"
    scale: float = 100.0
    higher_is_better: bool = True
    measured: bool = False
    shared: bool = False

    @staticmethod
    def of(question: Mapping[str, Any]) -> Metric:
        """That of results.json's question: by "measure" if there is one, else by "metric"."""
        if not (measure := question.get("measure")):
            return Metric(METRICS.get(question.get("metric") or "", METRICS["top-1"]))
        unit, scale = measure["unit"], measure["scale"]
        unit = "points" if scale == 100 and unit.startswith("points ") else "" if unit == NO_UNIT else unit
        return Metric(measure["name"], unit, scale, measure["higher_is_better"], True, measure["shared"])

    @staticmethod
    def of_task(task: Mapping[str, Any]) -> Metric:
        """That of a task as plans describe it: "name" and "settings"."""
        settings = task.get("settings", {})
        measure = settings.get("measure") and {**settings["measure"], "name": task["name"]}
        return Metric.of({"metric": settings.get("target", {}).get("metric"), "measure": measure})

    @property
    def sign(self) -> int:
        """1, or -1 where lower is better: of a change of the stored number."""
        return 1 if self.higher_is_better else -1

    @property
    def share(self) -> bool:
        """Whether levels are shares, which are shown in percent and their changes in points."""
        return self.scale == 100 and self.unit == "points"

    @property
    def suffix(self) -> str:
        """What follows the number of a level."""
        return " %" if self.share else "" if self.unit in ("", self.name) else f" {self.unit}"

    @property
    def key(self) -> str:
        """By which results.json and CSV files hold levels of single rows."""
        return "value" if self.measured else "accuracy"

    @property
    def examples(self) -> str:
        """What source and target consist of."""
        return "examples" if self.measured else "images"

    @property
    def direction(self) -> str:
        """The remark on a number's sign; empty where a higher number is the better one."""
        return "" if self.higher_is_better else "lower is better"

    def decimals(self, usual: int, error: float | None) -> int:
        """Decimals of levels and changes: `usual` of shares, else by an error or spread, as rows store it."""
        return usual if self.share else digits_for(None if error is None else self.scale * error)

    def compared(self, change: float) -> str:
        """The word after the size of a change: "more", "better (lower)"."""
        if self.share and self.higher_is_better:
            return "more" if change >= 0 else "less"
        higher = "higher" if (change >= 0) == self.higher_is_better else "lower"
        return f"{'better' if change >= 0 else 'worse'} ({higher})"


ACCURACY = Metric()

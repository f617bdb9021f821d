"""The cells of a finished study, by place (target, mode, shots) and arm: where its comparisons look values up.

Two arms whose rows are the same trainings, such as one source with and without captions under a method that reads none,
are one arm in comparisons: the first counts, the other is its twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pydt.reporting import count, quoted
from pydt.studies.study import SCRATCH, Arm, Study
from pydt.studies.values import Cell
from pydt.training import MODES

Values = npt.NDArray[np.float64]


class Place(NamedTuple):
    """Where arms are compared."""

    target: str
    mode: str
    shots: int | str

    @property
    def named(self) -> dict[str, Any]:
        """As fields of a result."""
        return self._asdict()

    def __str__(self) -> str:
        return f"{quoted(self.target)}, {quoted(self.mode)}, {shots_text(self.shots)}"


def shots_text(shots: int | str) -> str:
    """Shots in words: "5 shots", "all labelled images", "no labelled image"."""
    if isinstance(shots, str):
        return "all labelled images"
    return count(shots, "shot") if shots else "no labelled image"


class Grid:
    """Cells of both halves of the targets of a study.

    Args:
        report, score: as `cells_of` gives them for these halves. Every number that is shown comes from the report half;
            the score half is only ranked by.
    """

    def __init__(
        self, study: Study, report: Mapping[tuple[str, str], Cell], score: Mapping[tuple[str, str], Cell]
    ) -> None:
        self.study = study
        self._report, self._score = _by_place(report), _by_place(score)
        self._arms = {(arm.source, arm.size, arm.method): arm for arm in study.arms if arm.kind == "trained"}

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Targets x modes x shots, in this order."""
        own = (Place(t, m, k) for t in self.study.targets for m in self.study.modes for k in self.shots(m))
        return tuple(place for place in own if place in self._report)

    def shots(self, mode: str) -> tuple[int | str, ...]:
        """The numbers of shots of a mode, from few to many; 0 alone where it reads no labelled image."""
        return tuple(self.study.shots) if MODES[self.study.modes[mode]["mode"]].labelled else (0,)

    def cell(self, place: Place, arm: Arm | None) -> Cell | None:
        """The report half of an arm at a place; None if it was not asked, or no seed of it counts."""
        found = None if arm is None else self._report.get(place, {}).get(arm.name)
        return found if found is not None and found.seeds else None

    def every(self, place: Place, arm: Arm) -> Cell | None:
        """As `cell`, also where no seed counts."""
        return self._report.get(place, {}).get(arm.name)

    def trained(self, place: Place, source: str, size: int, method: str) -> Cell | None:
        """The report half of the arm of these names; None as of `cell`."""
        return self.cell(place, self._arms.get((source, size, method)))

    def scored(self, place: Place, source: str, size: int, method: str) -> float:
        """The mean on the score half: what ranks; -inf if there is none."""
        arm = self._arms.get((source, size, method))
        found = None if arm is None else self._score.get(place, {}).get(arm.name)
        return -np.inf if found is None or not found.seeds else found.mean

    @property
    def scratch(self) -> Arm | None:
        """The arm without pre-training, if the study has one."""
        return next((arm for arm in self.study.arms if arm.kind == SCRATCH), None)

    @cached_property
    def twins(self) -> dict[tuple[str, int, str], str]:
        """(source, size, method) of arms that are trainings of an earlier source, and that source."""
        first: dict[tuple[str, int, str], str] = {}
        found = {}
        # the parts of the first seed come first, one for each arm
        for arm, part in zip(self.study.arms, self.study.parts[: len(self.study.arms)], strict=True):
            if arm.kind == "trained":
                key = (part.record.sources[0], arm.size, arm.method)
                other = first.setdefault(key, arm.source)
                if other != arm.source:
                    found[arm.source, arm.size, arm.method] = other
        return found

    def sources(self, size: int, method: str) -> tuple[str, ...]:
        """Sources with an arm of this size and method, without twins."""
        own = ((s, size, method) for s in self.study.sources)
        return tuple(key[0] for key in own if key in self._arms and key not in self.twins)

    def methods(self, source: str, size: int) -> tuple[str, ...]:
        """Methods with an arm of this source and size."""
        return tuple(m for m in self.study.methods if (source, size, m) in self._arms)

    def sizes(self, source: str, method: str) -> tuple[int, ...]:
        """Sizes at which there is an arm of this source and method, rising."""
        return tuple(n for n in self.study.sizes if (source, n, method) in self._arms)


def shared_seeds(cells: Iterable[Cell]) -> tuple[int, ...]:
    """The seeds that count in all cells, rising."""
    return tuple(sorted(set.intersection(*(set(cell.seeds) for cell in cells))))


def at_seeds(cell: Cell, seeds: Sequence[int]) -> Values:
    """The values of these seeds, float64 (seeds, draws, images)."""
    return cell.values[[cell.seeds.index(seed) for seed in seeds]].astype(np.float64)


def stacked(cells: Sequence[Cell]) -> Values | None:
    """The values of cells of one place, float64 (cells, seeds, draws, images), of the seeds that all have; None if
    there is none.
    """
    seeds = shared_seeds(cells)
    return np.stack([at_seeds(cell, seeds) for cell in cells]) if seeds else None


def _by_place(cells: Mapping[tuple[str, str], Cell]) -> dict[Place, dict[str, Cell]]:
    found: dict[Place, dict[str, Cell]] = {}
    for (arm, _), cell in cells.items():
        found.setdefault(Place(cell.asked.target, cell.asked.mode, cell.asked.shots), {})[arm] = cell
    return found

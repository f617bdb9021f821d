"""What an analysis looks at: the finished rows of a plan seen through one task, and parts of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, StoreError
from pydt.data import Dataset, pictures, places
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import failure_test, mean_output
from pydt.reporting import Block, Images, called
from pydt.store import Record, Store, Unit, unit_of, units_of

Array = npt.NDArray[np.float64]
LEVEL = 0.05
"""Significance level of the analyses: of p where one test is made, of q where many are."""
MOST_FAILED = 0.02
"""Above this share of failed rows there is no verdict: the models that survive may be a biased choice."""
NEEDS_PER: dict[str, tuple[str, ...]] = {"target": (), "class": ("classes",), "example": ("several",)}
"""What influences on a kind of columns need; see `lacking`."""
_NEEDS = {
    "images": "the images of a pydt.Dataset source",
    "singles": "a plan whose groups are single examples",
    "logits": "logits and predictions, which a measure does not have",
    "classes": "classes of the target examples, which this measure does not have",
    "several": "more than one target example",
    "ten": "ten target examples or more",
}


def lacking(plan: Any, task: Mapping[str, Any], needs: Sequence[str]) -> str | None:
    """What an analysis needs and a plan of rows of the user's own does not have, in words; None where it has all.

    Args:
        plan: a Plan; of a stored one the source's images are not at hand, and not asked for here.
        task: its entry in the record.
        needs: keys of `_NEEDS`.
    """
    target = task["settings"]["target"]
    measured, source = "measure" in task["settings"], getattr(plan, "source", None)
    examples = 1 if measured and task["settings"]["measure"]["shared"] else int(task["examples"])
    lacks = {
        "images": isinstance(plan, Plan) and not isinstance(source, Dataset),
        "singles": isinstance(plan, Plan) and not isinstance(source, Dataset) and plan.by != "example",
        "logits": measured,
        "classes": measured and not target["classes"],
        "several": examples < 2,
        "ten": examples < 10,
    }
    return ", and ".join(_NEEDS[need] for need in needs if lacks[need]) or None


@dataclass(frozen=True, eq=False)
class EnsembleView:
    """The finished rows of a plan, seen through one task.

    Attributes:
        masks: of the finished rows.
        task: digest of the task; described: its entry in the record.
        target: the task's Target; None where no Plan was given, and of a measure: then pages show no target images.
        passed: what pages call the images that were needed and cannot be decoded; `told` says how many.
    """

    store: Store
    record: Record
    masks: Design
    task: str
    described: dict[str, Any]
    target: Any
    passed: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        store: Store | str | os.PathLike[str],
        plan: Plan | Record | str | None,
        task: Any,
        fewest: int = 10,
        needs: Sequence[str] = (),
    ) -> EnsembleView:
        """Open what the arguments of every analysis name.

        Args:
            fewest: finished rows that the analysis needs.
            needs: what it needs of the plan and the task, see `lacking`; with "images" `plan` must be a Plan.

        Raises:
            ConfigError: no Plan where one is needed, or the plan or the task lacks what is needed.
            StoreError: no such plan or task, or fewer rows are finished.
        """
        store = store if isinstance(store, Store) else Store(store)
        record = store.plan(plan)
        described = store.described(task, record)
        if (lacks := lacking(plan, described, needs)) is not None:
            mend = "give the measure classes=, the class of each example"
            if lacks != _NEEDS["classes"]:
                mend = "ranking, stability, subpopulations and removal_curve work on the values of a measure"
            raise ConfigError(f"this analysis needs {lacks}", f"task {described['name']!r}", mend)
        if "images" in needs and not isinstance(plan, Plan):
            mend = "give the pydt.Plan itself (pydt.read_plan reads one from its file)"
            raise ConfigError(f"is a {type(plan).__name__}; the images of its source are needed", "plan", mend)
        finished = store.finished(record)
        if len(finished) < fewest:
            mend = f"train at least {fewest} first, better 3 to 5 a group"
            raise StoreError(f"{len(finished)} finished rows", str(store.folder), mend)
        target = None
        if isinstance(plan, Plan):
            own = next(one for one in plan.tasks if one.digest == described["digest"])
            target = getattr(own, "target", None)
        masks = store.design(record).take(finished)
        return cls(store, record, masks, described["digest"], described, target)

    @property
    def classes(self) -> list[str]:
        """Names of the target's classes."""
        return list(self.described["settings"]["target"]["classes"])

    @property
    def target_name(self) -> str:
        """What the target is called in a sentence."""
        return called(self.described["settings"]["target"]["name"], "target")

    @property
    def thing(self) -> str:
        """What a target example is, in a word."""
        return "example" if "measure" in self.described["settings"] else "image"

    @property
    def turned(self) -> str:
        """A sentence for methods, where lower outputs are better; else nothing."""
        measure = self.described["settings"].get("measure")
        if measure is None or measure["higher_is_better"]:
            return ""
        return "Lower values are better here: influences are of minus the value, so that a positive one always helps."

    def named(self, half: str) -> list[str]:
        """What pages call each example of a half: its position in the judged data set, of a measure its id."""
        ids, names = (
            self.store.examples(self.task, half, self.record)["ids"].tolist(),
            self.store.example_names(self.task),
        )
        return [str(i) if names is None else names[i] for i in ids]

    @cached_property
    def examples(self) -> dict[str, np.ndarray]:
        """`labels`, `ids` (positions in the judged data set), `half` and `weights` of all judged examples."""
        return self.store.examples(self.task, "all", self.record)

    def output(self, asked: str | None = None, usual: str = "") -> str:
        """The output that was asked for; by default `usual` where the task has it, else the one whose weighted mean is
        the target's metric."""
        if asked is None and usual in units_of(self.described):
            return usual
        return self.store.metric_output(self.task, self.record, asked)

    def outputs(self, output: str, half: str) -> npt.NDArray[np.float32]:
        """An output of each model on each example of a half, in its unit, float32 (models, examples)."""
        factor = np.float32(self.unit(output).factor)
        return self.store.outputs(self.task, output, half, self.record) * factor

    def unit(self, output: str) -> Unit:
        """The unit of influences on an output; raises a ConfigError if there are none."""
        return unit_of(self.described, output)

    def labels(self, half: str) -> npt.NDArray[np.int64]:
        """The class of each example of a half."""
        return np.asarray(self.store.examples(self.task, half, self.record)["labels"], np.int64)

    def columns(self, per: str, output: str, half: str) -> Array:
        """The mean output of each model over the examples of each column, float64 (models, columns).

        The columns of "class" are the classes of `present`.
        """
        if per == "target":
            return mean_output(self.store, self.record, self.task, output, half)[:, None]
        values = self.outputs(output, half)
        if per == "example":
            return values.astype(np.float64)
        labels = self.labels(half)
        return np.stack([values[:, labels == c].mean(1, dtype=np.float64) for c in self.present], axis=1)

    @property
    def present(self) -> npt.NDArray[np.int64]:
        """The classes that have examples in both halves."""
        return np.intersect1d(self.labels("score"), self.labels("report"))

    def pictures(self, where: Sequence[int] | np.ndarray, half: str) -> list[np.ndarray] | None:
        """Images of some examples, by their position in a half; None where the plan's data are not at hand."""
        if self.target is None:
            return None
        ids = self.store.examples(self.task, half, self.record)["ids"][np.asarray(where, np.int64)]
        return pictures(self.target.judged, ids, passed=self.passed)

    def places(self, where: Sequence[int] | np.ndarray, half: str) -> tuple[str, ...]:
        """Where some examples lie, by their position in a half; nothing where the plan's data are not at hand."""
        if self.target is None:
            return ()
        ids = self.store.examples(self.task, half, self.record)["ids"][np.asarray(where, np.int64)]
        return places(self.target.judged, ids)

    def images(self, block: Sequence[int] | np.ndarray, half: str, captions: Sequence[str], title: str) -> list[Block]:
        """A grid of some examples of a half; none where the plan's data are not at hand."""
        found = self.pictures(block, half)
        return [] if not found else [Images(found, captions, title, places=self.places(block, half))]

    def told(self, sentences: Sequence[str], failed: int = 0, retrained: int = 0) -> list[str]:
        """The sentences of an answer, and what must be said of images that cannot be decoded and of rows that failed:
        first of all where these were many. Called after all pictures of a page were read.

        Args:
            failed, retrained: rows that the analysis trained itself, and how many of them failed.
        """
        if self.passed:
            many, first = len(self.passed), min(self.passed)
            what = f"{many:,} image{'s' if many > 1 else ''} that cannot be decoded {'are' if many > 1 else 'is'}"
            sentences = [
                *sentences,
                f"{what} passed over, and grey where shown ({first}{', ...' if many > 1 else ''}).",
            ]
        lost, total, p = failure_test(self.store, self.record)
        told = with_failed(sentences, lost, total, "rows", f" (do failures go with some groups? p = {p:.2g})")
        return with_failed(told, failed, retrained, "retrainings")


def with_failed(sentences: Sequence[str], failed: int, total: int, what: str, test: str = "") -> list[str]:
    """The sentences, and one about failed rows: before all others where they are too many for a verdict."""
    if not failed:
        return list(sentences)
    text = f"{failed} of {total} {what} failed"
    if failed > MOST_FAILED * total:
        warning = f"No verdict: {text}, more than {MOST_FAILED:.0%}, and the rest may be a biased choice{test}."
        return [warning, *sentences]
    return [*sentences, f"{text} and are left out{test}."]


def detectable(stderr: float, df: float, tests: int, level: float, power: float = 0.8) -> float:
    """The effect that a one-sided t test finds with this probability, beside so many tests of which it is the only one
    with an effect (where Benjamini-Hochberg asks for level / tests)."""
    from scipy import special

    return float(stderr * (special.stdtrit(df, 1 - level / tests) + special.stdtrit(df, power)))


def sure_to(estimand: str) -> str:
    """What a group does whose influence is surely not zero, in words."""
    return "surely differ from an average group" if estimand == "swap" else "surely help or hurt"

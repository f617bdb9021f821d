"""Learning rates that were chosen: loss and accuracy on validation images by rate, as `pydt.choose_rates` stored them.

Nothing is trained and no judged image is looked at.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt.base import ConfigError, StoreError, t975, whole
from pydt.ensemble import Plan, RatesResult, TriedRate, notes_of, tried_of
from pydt.reporting import Column, Curve, Page, Table, count, csv_of, number, plus_minus, quoted
from pydt.store import Record, Store, read_choices

FEW = 3
"""With fewer rows or draws there are no 95 % intervals: they would be many times as wide as the standard errors."""
DECADE = 10.0
"""Where losses differ by more than this factor, their scale is logarithmic."""
SHOWN = 8
"""Tasks with figures and sentences; the others are in the table."""


@dataclass(frozen=True, eq=False, repr=False)
class LearningRates(RatesResult):
    """The rates that were tried: one table for each choice, from the lowest rate to the highest."""

    choices: tuple[tuple[TriedRate, ...], ...]

    @property
    def tried(self) -> tuple[TriedRate, ...]:
        """One entry for each task and rate."""
        return tuple(one for choice in self.choices for one in choice)

    def page(self) -> Page:
        """What a reader sees."""
        columns = (
            Column("task"),
            Column("rate", shown=lambda one: f"{one.rate:g}"),
            Column("chosen", shown=lambda one: "chosen" if one.chosen else ""),
            Column("loss", digits=3),
            Column("stderr", digits=3),
            Column("loss low", lambda one: _ends(one, "loss")[0], only="csv"),
            Column("loss high", lambda one: _ends(one, "loss")[1], only="csv"),
            Column("behind", digits=3),
            Column("stderr of that", "behind_stderr", digits=3),
            Column("accuracy, %", "accuracy", scale=100, digits=1),
            Column("its stderr", "accuracy_stderr", scale=100, digits=1),
            Column("accuracy low", lambda one: _ends(one, "accuracy")[0], only="csv"),
            Column("accuracy high", lambda one: _ends(one, "accuracy")[1], only="csv"),
            Column("rows"),
            Column("draws"),
            Column("images"),
            Column("failed"),
        )
        note = (
            "Loss is the mean cross-entropy of a validation image (natural logarithm); "
            "errors are standard errors over rows and draws. "
            "Behind is the loss minus that of the chosen rate in the same rows, draws and images."
        )
        shown = self.choices[:SHOWN]
        return Page(
            name="rates",
            title="Learning rates",
            question="Which learning rate was chosen for each task, and how did the others do on validation images?",
            answer=_answer(self.choices),
            blocks=[
                *(curve for choice in shown for curve in _curves(choice)),
                Table.of(self.tried, columns, "Rates", note),
            ],
            csv={"rates.csv": csv_of(self.tried, columns)},
            method=_METHOD,
        )


def learning_rates(
    store: Store | str | os.PathLike[str], plan: Plan | Record | str | None = None, *, seed: int = 0
) -> LearningRates:
    """The choices of the learning rates that the tasks of a plan have (G8).

    Args:
        store: a store, or its folder.
        plan: a plan of the store whose rates are chosen, or its digest; by default the store's own.
        seed: not used: nothing here is random.

    Raises:
        StoreError: no rate of this plan was chosen in this store, or no such plan.
    """
    whole(seed, "seed", "learning_rates", error=ConfigError)
    store = store if isinstance(store, Store) else Store(store)
    found = choices_of(store, store.plan(plan))
    if not found:
        mend = "give a plan file a table [rates], or pydt.choose_rates a grid, and run the plan with what was chosen"
        raise StoreError("no learning rate of this plan was chosen on validation images", str(store.folder), mend)
    return LearningRates(tuple(tuple(tried_of(choice)) for choice in found))


def choices_of(store: Store, record: Record) -> list[dict[str, Any]]:
    """The stored choices whose rates a plan's tasks have, in the order of the tasks; StoreError if one is damaged."""
    about = {"source": record.source, "units": record.units, "recipe": record.recipe}
    names = {task["digest"]: task["name"] for task in record.tasks}
    found = [
        {**choice, "name": names[choice["task"]]}
        for choice in read_choices(store)
        if choice["task"] in names and all(choice[name] == value for name, value in about.items())
    ]
    order = list(names.values())
    return sorted(found, key=lambda choice: (order.index(choice["name"]), choice["rows"], len(choice["grid"])))


def _ends(one: TriedRate, what: str) -> tuple[float | None, float | None]:
    """The 95 % interval of the loss or the accuracy, within what is possible; none where it is not known."""
    return _reach(one, what, t975(_df(one))) if _counted(one) >= FEW else (None, None)


def _reach(one: TriedRate, what: str, errors: float) -> tuple[float | None, float | None]:
    """So many standard errors to both sides of the loss or the accuracy, within what is possible."""
    value, error = getattr(one, what), one.stderr if what == "loss" else one.accuracy_stderr
    if value is None or error is None:
        return None, None
    return max(value - errors * error, 0.0), min(value + errors * error, math.inf if what == "loss" else 1.0)


def _counted(one: TriedRate) -> int:
    """The fewer of rows and draws, of those of which there are two or more; 1 where there are none."""
    return min((n for n in (one.rows, one.draws) if n > 1), default=1)


def _df(one: TriedRate) -> int:
    """Degrees of freedom of an error: those of the fewer of rows and draws."""
    return _counted(one) - 1


def _fewer(one: TriedRate) -> str:
    """The fewer of rows and draws, in words."""
    return count(one.rows, "row") if _counted(one) == one.rows else count(one.draws, "draw")


def _curves(choice: tuple[TriedRate, ...]) -> list[Curve]:
    """Loss and accuracy by rate; a vertical line is the chosen one."""
    first, few = choice[0], _counted(choice[0]) < FEW
    bars = "bars of one standard error" if few else "95 % bars"
    meant = f"bars are one standard error: {_fewer(first)} are too few for an interval" if few else "bars are 95 %"
    known = [one for one in choice if one.loss is not None]
    rates, best = [one.rate for one in known], next(one for one in known if one.chosen)
    losses = [one.loss for one in known if one.loss is not None]
    wide = min(losses) > 0 and max(losses) > DECADE * min(losses)
    note = (
        f"{count(first.images, 'labelled validation image')}, {count(first.rows, 'row')} x "
        f"{count(first.draws, 'draw')}; the vertical line is the chosen rate"
    )
    note += "." if first.stderr is None and best.stderr is None else f"; {meant}, over rows and draws."
    note += " All rates share them, so differences are surer than the bars." if len(known) > 1 else ""

    def reach(one: TriedRate, what: str) -> tuple[float | None, float | None]:
        return _reach(one, what, 1.0) if few else _ends(one, what)

    def series(what: str, scale: float, floor: float = 0.0) -> dict[str, Any]:
        values = np.array([getattr(one, what) for one in known]) * scale
        reached = (reach(one, what) for one in known)
        low, high = (np.array(ends, np.float64) * scale for ends in zip(*reached, strict=True))
        return {"rates": (rates, values, np.maximum(low, floor), high)}

    on = f"{quoted(first.task)}, validation images"
    lowest = min(losses) / 2 if wide else 0.0
    cut_off = any(low is not None and low < lowest for low, _ in (reach(one, "loss") for one in known))
    cut = f" The scale is logarithmic; a bar that reaches {lowest:.2g} goes on." if cut_off else ""
    loss: dict[str, Any] = {"title": f"Loss: {on}", "note": note + cut, "log_y": wide}
    drawn = (
        (series("loss", 1, lowest), "cross-entropy", loss),
        (series("accuracy", 100), "% of the images that are right", {"title": f"Accuracy: {on}", "note": note}),
    )
    return [Curve(own, "learning rate", y, **more, log=True, line=best.rate, bars=bars) for own, y, more in drawn]


def _answer(choices: tuple[tuple[TriedRate, ...], ...]) -> list[str]:
    sentences = [_chosen(choice) for choice in choices[:SHOWN]]
    if len(choices) > SHOWN:
        sentences.append(f"The table has the choices of {count(len(choices) - SHOWN, 'more task')}.")
    return [*sentences, *(f"{note}." for choice in choices for note in notes_of(choice))]


def _chosen(choice: tuple[TriedRate, ...]) -> str:
    """What was chosen for a task, and whether the next best can be told apart from it."""
    best = next(one for one in choice if one.chosen)
    assert best.loss is not None
    loss = number(best.loss, 3) if best.stderr is None else plus_minus(best.loss, best.stderr, False)
    of = f"{count(best.rows, 'row')} x {count(best.draws, 'draw')}, {count(best.images, 'labelled validation image')}"
    if best.stderr is not None:
        of += f"; \u00b1 is the standard error, with {count(_df(best), 'degree')} of freedom"
    text = f"{quoted(best.task)}: of {len(choice)} rates {best.rate:g} has the least loss, {loss} ({of})"
    others = [one for one in choice if one.behind is not None and not one.chosen]
    if not others:
        return f"{text}; at every other rate a row failed."
    second = min(others, key=lambda one: one.behind or 0.0)
    behind = second.behind or 0.0
    if second.behind_stderr is None:
        return f"{text}; the next, {second.rate:g}, is {number(behind, 3)} behind; one row of one draw cannot tell."
    if _counted(second) < FEW:
        told = f"; {_fewer(second)} are too few to tell"
    else:
        apart = behind > t975(_df(second)) * second.behind_stderr
        told = "" if apart else ", so the two cannot be told apart"
    return f"{text}; the next, {second.rate:g}, is {plus_minus(behind, second.behind_stderr, False)} behind{told}."


_METHOD = """Every rate of the grid is tried on the same rows (trained source models) and few-shot draws, and judged on
the target's labelled validation images, which are neither drawn from nor judged later. The rate of the least mean loss
is chosen; a rate at which a row fails is never chosen. The score and the report half are not there when trials run.

    loss = mean over rows, draws and images of -log(softmax probability of the correct class)
    variance of the mean = var(row means) / rows + var(draw means) / draws - var(residuals) / (rows x draws)
    95 % interval = mean +- t(degrees of freedom: the fewer of rows and draws, less one) x standard error

Intervals end where a loss or an accuracy must: at 0 and 100 %. With fewer than three rows or draws there is none.

The loss is chosen by, not the accuracy: it says more with few images. The least of several losses looks a little better
than it is; the judged halves, which no choice has seen, say how good the rate is."""

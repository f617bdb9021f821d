"""The page of two targets compared: sentences of its answer, scatter, tables, CSV files and the method in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pydt.analyses.ensemble_view import LEVEL, Array
from pydt.analyses.two_targets_numbers import TargetNumbers
from pydt.base import t975
from pydt.estimation import ESTIMATORS
from pydt.reporting import (
    Block,
    Column,
    Intervals,
    Page,
    Scatter,
    Table,
    called_output,
    count,
    csv_of,
    digits_for,
    listed,
    number,
    p_text,
    quoted,
    signs,
)

_FEW_NAMES = 3  # groups that a sentence names
_LISTED = 40  # of the common list, that its note names


def page_of(found: TargetNumbers) -> Page:
    a, b = found.names
    return Page(
        name="targets",
        title=f"{a} and {b}",
        question=f"Does one list of groups serve both {quoted(a)} and {quoted(b)}, and where do they disagree?",
        answer=found._view.told(_answer(found)),
        blocks=_blocks(found),
        csv=_csv(found),
        method=_method(found),
    )


def labels(found: TargetNumbers) -> tuple[str, str]:
    """Of both axes of a scatter."""
    a, b = (f"influence on {name} ({unit})" for name, unit in zip(found.names, found.units, strict=True))
    return a, b


def _digits(found: TargetNumbers, j: int) -> int:
    return digits_for(float(np.nanmedian(found.stderr[:, j])))


def _answer(found: TargetNumbers) -> list[str]:
    """At most six sentences; p values stand in the notes."""
    return [*_verdict(found), _opposites(found), _differences(found), *_order(found)]


def _verdict(found: TargetNumbers) -> list[str]:
    a, b = both = [quoted(name) for name in found.names]
    lists, serves = found.lists, found.serves
    if lists is None or found.cost is None:
        return [f"Cannot be told whether one list serves {a} and {b}: half of the models do not tell the groups apart."]
    cost, low, high = found.cost
    gain, error, lowest = lists.gain, lists.gain_stderr, count(lists.size, "lowest group")
    digits = [digits_for(2 * float(one)) for one in lists.cost_stderr]

    def size(value: float, j: int) -> str:
        return number(float(value), digits[j])

    def below(i: int, j: int) -> str:
        value = f"{size(gain[i, j], j)} \u00b1 {size(error[i, j], j)}"
        return f"{value} {found.units[j]} below the average group on {both[j]}"

    if serves:
        most = " and ".join(f"{size(max(high[j], 0), j)} on {both[j]}" for j in (0, 1))
        return [
            f"One list serves both: leave out the {lowest} of {a} and {b} together.",
            f"They are {below(-1, 0)} and {below(-1, 1)}; lists of their own would be lower by at most {most} (95 %).",
        ]
    if serves is False:
        dear = [j for j in (0, 1) if low[j] > 0]
        told = " and ".join(
            f"{both[j]} {size(cost[j], j)} {found.units[j]} a group ({size(low[j], j)} to {size(high[j], j)})"
            for j in dear
        )
        own = "; ".join(f"{below(j, j)}, those on the common list {size(gain[-1, j], j)}" for j in dear)
        return [
            f"Choose for each target: one common list of the {lowest} costs {told}.",
            f"Groups on a list of its own are {own}.",
        ]
    weak = [j for j in (0, 1) if not gain[j, j] - t975(None, 2) * error[j, j] > 0]
    if weak:
        where = " or ".join(both[j] for j in weak)
        why = f"{count(found.models, 'model')} find no groups that are surely below the average on {where}"
        return [f"Cannot be told whether one list serves {a} and {b}: {why}."]
    worst = int(np.argmax(high - gain[-1]))
    why = f"a common list may cost {both[worst]} up to {size(high[worst], worst)} {found.units[worst]} a group"
    return [
        f"Cannot be told whether one list serves {a} and {b}: {why}.",
        f"Its groups are {below(-1, 0)} and {below(-1, 1)}.",
    ]


def _opposites(found: TargetNumbers) -> str:
    shown = [i for i in found.order() if found.opposed[i]]
    if not shown:
        return "Of no single group it is sure that it helps one target and hurts the other."

    def told(i: int) -> str:
        on = (f"{number(float(found.values[i, j]), _digits(found, j), True)} on {found.names[j]}" for j in (0, 1))
        return f"{quoted(found.groups[i])} ({', '.join(on)})"

    more = f" and {len(shown) - _FEW_NAMES:,} more" if len(shown) > _FEW_NAMES else ""
    what = "1 group helps one target and hurts the other"
    what = what if len(shown) == 1 else f"{len(shown):,} groups help one target and hurt the other"
    return f"{what}: {', '.join(told(i) for i in shown[:_FEW_NAMES])}{more}."


def _differences(found: TargetNumbers) -> str:
    if not found.unit:
        a, b = found.units
        return (
            f"Units differ ({a}, {b}): influences are not subtracted, their signs and their order alone are compared."
        )
    many, groups = int((found.difference_q < LEVEL).sum()), len(found.groups)
    least = number(found.detectable, digits_for(float(np.nanmedian(found.difference_stderr))))
    power = f"a difference of {least} {found.unit} would be found with a probability of 80 %"
    if not many:
        return f"No influence is found to differ between the two; {power}."
    first = [found.groups[i] for i in np.argsort(found.difference_p, kind="stable")[: min(many, _FEW_NAMES)]]
    most = f", most surely {listed(first, _FEW_NAMES)}" if many > 1 else f": {quoted(first[0])}"
    return f"{many:,} of {groups:,} influences differ between the two{most}; {power}."


def _order(found: TargetNumbers) -> list[str]:
    one = found.agreement
    if one is None:
        return ["Orders are not compared: there are too few groups."]
    if not np.isfinite(one.rho):
        blind = [quoted(name) for name, sd in zip(found.names, one.sd, strict=True) if not sd > 0]
        return [f"Their orders cannot be compared: on {' and '.join(blind)} no influence is seen beyond noise."]
    text = f"Without noise the influences on both correlate with {number(one.rho, 2)} ({number(one.low, 2)} to "
    text += f"{number(one.high, 2)})"
    if one.p_same < LEVEL and one.p_unrelated < LEVEL:
        return [f"{text}: the orders are related, and surely not the same."]
    if one.p_same < LEVEL:
        return [f"{text}: they surely do not order the groups alike."]
    if one.p_unrelated < LEVEL:
        return [f"{text}: what helps one helps the other, as far as is seen."]
    return [f"{text}: one order cannot be told from unrelated ones."]


def _blocks(found: TargetNumbers) -> list[Block]:
    order, disagree = found.order(), found.disagree()
    differ = f"differs (q < {LEVEL}), or helps one and hurts the other" if found.unit else "helps one, hurts the other"
    scatter = Scatter(
        found.groups,
        (found.values[:, 0], found.low[:, 0], found.high[:, 0]),
        (found.values[:, 1], found.low[:, 1], found.high[:, 1]),
        *labels(found),
        "Influence on both targets",
        f"{signs(found.estimand).capitalize()}. Intervals hold for both targets at once. The mouse shows the name of a "
        "group; upper left and lower right: it helps one target and hurts the other.",
        marked=disagree,
        mark=differ,
        alike=bool(found.unit),
    )
    blocks: list[Block] = [scatter]
    if found.unit and disagree.any():
        at = sorted(np.flatnonzero(disagree).tolist(), key=lambda i: -found.difference[i])
        reach = np.array([t975(float(df)) for df in found.df]) * found.difference_stderr
        pictures = found._view.store.thumbnails(found._view.record)
        blocks.append(
            Intervals(
                [found.groups[i] for i in at],
                found.difference[at],
                (found.difference - reach)[at],
                (found.difference + reach)[at],
                found.unit,
                "Where they disagree",
                f"Influence on {quoted(found.names[0])} less that on {quoted(found.names[1])}.",
                marked=found.difference_q[at] < LEVEL,
                images=pictures or None,
            )
        )
    if found.lists is not None:
        blocks.append(Table.of(range(2), _list_columns(found), "What one list costs", _lists_told(found)))
    note = "A group helps or hurts both where its intervals for both targets at once exclude 0, and q over the groups, "
    note += "of the less sure of both, is below 0.05"
    blocks.append(Table.of(order.tolist(), _group_columns(found), "All groups", f"{note}. {_tests_told(found)}"))
    return blocks


def _lists_told(found: TargetNumbers) -> str:
    lists = found.lists
    assert lists is not None
    common = [found.groups[i] for i in found.common[: lists.size]]
    return (
        f"Mean influence of the {count(lists.size, 'group')} that a list leaves out, in the unit of the target: lower "
        "is a better list. Chosen by one half of the models on the score half, valued by the other on the report half; "
        f"{count(lists.splits, 'random split')}. Cost: the common list's value less the own list's, with an interval "
        f"that holds for both at once. The common list by all models, the lowest first: {listed(common, _LISTED)}."
    )


def _tests_told(found: TargetNumbers) -> str:
    one, text = found.agreement, ""
    if one is not None and np.isfinite(one.rho):
        text = f"One order of both: {p_text(one.p_same)}; unrelated orders: {p_text(one.p_unrelated)}. "
    if one is not None:
        text += f"The estimates have a rank correlation of {number(one.rank, 2)}; unrelated true influences would give "
        text += f"{number(one.by_noise_alone, 2)} by noise that both share. "
    told = " and ".join(
        f"{number(float(sd), _digits(found, j))} {found.units[j]} on {quoted(found.names[j])}"
        for j, sd in enumerate(found.spread)
    )
    return f"{text}True influences have a standard deviation of {told}."


def _entry(array: Array) -> Callable[[int], float]:
    return lambda i: float(array[i])


def _list_columns(found: TargetNumbers) -> list[Column]:
    lists = found.lists
    assert lists is not None
    assert found.cost is not None
    cost, low, high = found.cost
    digits = digits_for(2 * float(lists.cost_stderr.min()))
    whose = [*(f"list of {name}" for name in found.names), "common list"]
    columns = [
        Column("valued on", lambda j: found.names[j]),
        Column("task", lambda j: found.tasks[j], only="csv"),
        Column("unit", lambda j: found.units[j]),
    ]
    for i, name in enumerate(whose):
        columns += [
            Column(name, _entry(lists.worth[i]), digits=digits),
            Column(f"stderr of {name}", _entry(lists.stderr[i]), only="csv"),
            Column(f"{name}, below the average group", _entry(lists.gain[i]), only="csv"),
            Column(f"stderr of {name}, below", _entry(lists.gain_stderr[i]), only="csv"),
        ]
    return [
        *columns,
        Column("cost of the common list", _entry(cost), digits=digits),
        Column("low (95 %, both at once)", _entry(low), digits=digits),
        Column("high (95 %, both at once)", _entry(high), digits=digits),
    ]


def _group_columns(found: TargetNumbers) -> list[Column]:
    kinds = found.kinds()
    columns = [Column("group", lambda i: found.groups[i])]
    for j, (name, unit) in enumerate(zip(found.names, found.units, strict=True)):
        task = found.tasks[j]
        columns += [
            Column(name, _entry(found.values[:, j]), only="table"),
            Column(f"influence on {task} ({unit})", _entry(found.values[:, j]), only="csv"),
            Column(f"stderr on {task}", _entry(found.stderr[:, j]), only="csv"),
            Column(f"low on {task} (95 %, both at once)", _entry(found.low[:, j]), only="csv"),
            Column(f"high on {task} (95 %, both at once)", _entry(found.high[:, j]), only="csv"),
        ]
    if found.unit:
        columns += [
            Column("difference", _entry(found.difference), only="table"),
            Column(f"difference ({found.unit})", _entry(found.difference), only="csv"),
            Column("stderr of difference", _entry(found.difference_stderr), only="csv"),
            Column("p of difference", _entry(found.difference_p), only="csv"),
            Column("q of difference", _entry(found.difference_q), digits=3),
        ]
    place = np.argsort(found.common) + 1
    return [
        *columns,
        Column("place on the common list", lambda i: int(place[i])),
        Column("p of opposite signs", _entry(found.opposed_p), only="csv"),
        Column("q of opposite signs", _entry(found.opposed_q), only="csv"),
        Column("what it does", lambda i: kinds[i] or None),
    ]


def _csv(found: TargetNumbers) -> dict[str, Any]:
    files = {"groups.csv": csv_of(found.order().tolist(), _group_columns(found))}
    if found.lists is not None:
        files["lists.csv"] = csv_of(range(2), _list_columns(found))
    if found.agreement is not None:
        one = found.agreement
        heads = ("rank correlation seen", "by shared noise alone", "correlation of true influences", "low", "high")
        values = (one.rank, one.by_noise_alone, one.rho, one.low, one.high, one.p_same, one.p_unrelated)
        files["agreement.csv"] = [*heads, "p of one order", "p of unrelated orders"], [values]
    return files


def _method(found: TargetNumbers) -> str:
    a, b = (f"{called_output(one)} of {name}" for one, name in zip(found.outputs, found.tasks, strict=True))
    turned = f"\n\n{found._view.turned}" if found._view.turned else ""
    return _METHOD.format(a=a, b=b, models=count(found.models, "model"), how=ESTIMATORS[found.method].phrase) + turned


_METHOD = """Influences on the {a}, and on the {b} (mean over the score images and the few-shot draws), by {how};
{models}. Both have the same models, so the errors of one group's two influences are correlated:

    cov = (V_a + V_b - V_(a-b)) / 2,  V = squared standard error on a, on b, on their difference
    simultaneous interval: value +- m x stderr,  m = 95 % quantile of the larger |t| of both
    difference: value on a - value on b,  var = V_a + V_b - 2 cov;  t test, q by Benjamini and Hochberg over the groups
    opposite signs: p = the larger of both one-sided p (Gail and Simon 1985); q over the groups

A group helps one target and hurts the other where that q is below 0.05 and both intervals exclude 0. The correlation of
the true influences takes the errors, and what they share, out.

One list: the lowest quarter of the groups by the mean over both targets of value / standard error, against the lowest
quarter on each; chosen by one half of the models on the score half, valued by the other half on the report half. One
list serves both where its groups are surely below the average group on both, no cost is surely above 0, and the largest
that it may be is below half of what the list gains. What leaving groups out gains, only retraining tells."""

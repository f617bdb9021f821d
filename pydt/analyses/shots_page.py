"""The page of influence by shots: sentences of its answer, curves, tables, CSV files and the method in words.

Over 500 lines, since a number that leaves a sentence goes to the note of the block that shows it: they stand together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from pydt.analyses.ensemble_view import LEVEL, Array, detectable, sure_to
from pydt.analyses.shots_kinds import ALIKE, CHANGED, CHANGES, FADES, FEW, GROWS, MANY_SHOTS, MEANING, TURNS
from pydt.analyses.shots_lists import Lists, common_score
from pydt.analyses.shots_numbers import ShotsNumbers
from pydt.analyses.shots_tasks import FULL
from pydt.base import t975
from pydt.estimation import (
    ESTIMATORS,
    Share,
    benjamini_hochberg,
)
from pydt.reporting import (
    Block,
    Column,
    Multiples,
    Page,
    Table,
    called_output,
    count,
    csv_of,
    digits_for,
    listed,
    number,
    p_text,
    plus_minus,
    quoted,
    signs,
)

_FEW_NAMES = 3  # groups of a kind that a sentence names
_WIDE = 0.5  # a pair whose interval of the correlation reaches so low may order groups quite differently


def _at(shots: int | str) -> str:
    return f"with {named_shots(shots)}" if shots == FULL else f"at {named_shots(shots)}"


def named_shots(shots: int | str) -> str:
    return "all labelled images" if shots == FULL else count(int(shots), "shot")


def tick(shots: int | str) -> str:
    return "all" if shots == FULL else str(shots)


def page_of(found: ShotsNumbers) -> Page:
    ticks, kept = [tick(k) for k in found.shots], found.kept
    return Page(
        name="shots",
        title="By number of shots",
        question="Which groups matter at how many labelled images of a class, and does one list serve all?",
        answer=found._view.told(_answer(found), *(() if kept is None else (kept.failed, kept.retrained))),
        detail=_detail(found),
        blocks=_blocks(found, ticks),
        csv=_csv(found, ticks),
        method=_method(found),
    )


def _answer(found: ShotsNumbers) -> list[str]:
    """Which groups matter; does one list serve all; where to leave it out, and how sure that is."""
    return [_matter(found), *(_one_list(found) if found.kept is None else found.kept.sentences())]


def _detail(found: ShotsNumbers) -> list[str]:
    """What the answer rests on, for the fold; more stands in the notes of the blocks."""
    sentences = [_first(found), *filter(None, [_remains(found)]), _sure(found), *_explained(found), _same_order(found)]
    sentences.append(_detectable(found))
    if found.constant:
        where = ", ".join(named_shots(k) for k in found.constant)
        sentences.append(f"Left out, since all models have the same {called_output(found.output)} there: {where}.")
    return sentences


def _matter(found: ShotsNumbers) -> str:
    """The groups that help and harm most of those that are sure somewhere, and whether that changes with shots."""
    sure: Any = ((found.low > 0) | (found.high < 0)).any(1)
    score, groups = common_score(found.values, found.stderr), len(found.groups)
    order = [int(i) for i in np.argsort(-score, kind="stable") if sure[i]]
    if not order:
        return f"No group of {groups:,} is seen to matter at any number of shots ({count(found.models, 'model')})."
    ends = ("help", [i for i in order if score[i] > 0]), ("harm", [i for i in order[::-1] if score[i] < 0])
    named = [
        f"{listed([found.groups[i] for i in own], _FEW_NAMES)} {verb}{'' if len(own) > 1 else 's'} most"
        for verb, own in ends
        if own
    ]
    matter = "matters" if len(order) == 1 else "matter"
    changes = sum(kind in CHANGED for kind in found.kinds)
    change = "none is found to change with the number of labelled images"
    if changes:
        what, verb = ("influence", "changes") if changes == 1 else ("influences", "change")
        change = f"the {what} of {changes:,} surely {verb} with the number of labelled images"
    return (
        f"{len(order):,} of {count(groups, 'group')} {matter} at some number of shots (by chance alone "
        f"{number(LEVEL * groups, 0 if LEVEL * groups > 2 else 1)} would): {' and '.join(named)}; {change}."
    )


_DOES = {
    FEW: ("matters mainly at few shots", "matter mainly at few shots"),
    MANY_SHOTS: ("matters mainly at many shots", "matter mainly at many shots"),
    FADES: ("fades as shots grow", "fade as shots grow"),
    GROWS: ("grows with shots", "grow with shots"),
    TURNS: ("changes its sign", "change their sign"),
    CHANGES: ("changes in another way", "change in other ways"),
    ALIKE: ("matters at all numbers of shots", "matter at all numbers of shots"),
}
_ENDS = {FEW: -1, MANY_SHOTS: 0}  # where a group of this kind may still matter


def _first(found: ShotsNumbers) -> str:
    parts = []
    if not any(kind in CHANGED for kind in found.kinds):
        parts.append("none is found to change with the number of labelled images")
    for kind, (one, many) in _DOES.items():
        if names := found.of_kind(kind):
            parts.append(f"{len(names):,} {one if len(names) == 1 else many} ({listed(names, _FEW_NAMES)})")
    return f"Of {count(len(found.groups), 'group')} ({count(found.models, 'model')}), {', '.join(parts)}."


def _remains(found: ShotsNumbers) -> str:
    """What groups that matter mainly at one end may still do at the other; "" where there are none."""
    parts = []
    for kind, end in _ENDS.items():
        own = [i for i, one in enumerate(found.kinds) if one == kind]
        if own:
            most = float(np.abs([found.low[own, end], found.high[own, end]]).max())
            size = number(most, digits_for(float(np.nanmedian(found.stderr[:, end]))))
            parts.append(f"up to {size} {found.unit} may remain {_at(found.shots[end])}")
    return f"Mainly does not mean only: {' and '.join(parts)} (95 % for each group)." if parts else ""


def _sure(found: ShotsNumbers) -> str:
    sure, groups = int(((found.low > 0) | (found.high < 0)).any(1).sum()), len(found.groups)
    return (
        f"{sure:,} of {groups:,} {sure_to(found.estimand)} at some number of shots (by chance alone "
        f"{number(LEVEL * groups, 0 if LEVEL * groups > 2 else 1)} would)."
    )


def _one_list(found: ShotsNumbers) -> list[str]:
    """Whether one list serves all, and what it is worth, by the models there are."""
    lists = found.lists
    if lists is None:
        return ["Whether one list serves all is not judged: half of the models do not tell the groups apart."]
    dear = ", ".join(_at(found.shots[j]) for j in _costs(lists)[0])
    verdict = f"By the models there are, one common list of the {count(lists.size, 'lowest group')} "
    verdict += f"does not serve all numbers of shots: {dear} its own list is lower." if dear else (
        "is not found worse than each number of shots' own list."
    )  # fmt: skip
    return [verdict, _where(found, lists)]


def _where(found: ShotsNumbers, lists: Lists) -> str:
    """Where the common list is most surely low: there leaving it out is worth a try."""
    worth, stderr = lists.worth[-1], lists.stderr[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        at = int(np.argmin(np.nan_to_num(worth / stderr)))
    reach = t975(None, len(worth)) * stderr[at]
    line = "the average group" if found.estimand == "swap" else "0"
    size = f"{plus_minus(float(worth[at]), float(stderr[at]))} {found.unit}"
    if not worth[at] + reach < 0:
        none = f"at no number of shots is the common list surely below {line}"
        return f"Leave nothing out yet: {none} (lowest: {size})."
    many = f"its {count(lists.size, 'group')} {'has' if lists.size == 1 else 'have'} a mean influence of"
    return (
        f"Try leaving it out {_at(found.shots[at])}: {many} {size} there, as other models judge on other images, "
        f"surely below {line} (95 %, all numbers of shots at once); what that gains only retraining tells."
    )


def _explained(found: ShotsNumbers) -> list[str]:
    """How much of the models' differences the groups explain, and whether noise of draws and images makes its fall."""
    shots, shares = found.shots, found.shares
    if shares is None:
        return ["How much the groups explain is not told: there are too few models for so many groups."]
    most = int(np.nanargmax(shares.groups.values[:-1]))
    first, last = (f"{_with_ends(shares.groups, j)} {_at(shots[j])}" for j in (most, -1))
    of = called_output(found.output)
    below = min(shares.groups.values[[most, -1]]) < 0
    unbiased = " (an unbiased estimate of a small share may be below 0)" if below else ""
    sentences = [f"Of the variance of {of} between models the groups explain {first} and {last}{unbiased}."]
    others = len(shots) - 1  # of which the largest share was picked
    fall, without = (shares.difference(most, others, part, tests=others) for part in ("groups", "noiseless"))
    if not fall.low > 0:
        return sentences
    noise = "noise of which images are labelled and judged"
    if not np.isfinite([without.value, without.low]).all():
        return [*sentences, f"How much of this fall is {noise} cannot be told."]
    ends = " and ".join(number(float(shares.noiseless.values[j]), 2) for j in (most, -1))
    if without.low > 0:
        told = f"This fall is not only {noise}"
    elif without.value < fall.value / 2:
        told = f"Most of this fall seems to be {noise}"
    else:
        told = f"Whether this fall is more than {noise} could not be told"
    return [*sentences, f"{told}: without it the shares are {ends}."]


def _with_ends(part: Share, j: int) -> str:
    return "{} ({} to {})".format(*(number(float(end[j]), 2) for end in (part.values, part.low, part.high)))


def _differing(found: ShotsNumbers) -> list[tuple[int, int]]:
    """The pairs of numbers of shots whose true influences surely are not proportional, the surest first."""
    return sorted((pair for pair, p in found.differ.items() if p < LEVEL), key=lambda pair: found.differ[pair])


def _untold(found: ShotsNumbers) -> list[tuple[int, int]]:
    """The other pairs whose orders may still be quite different."""
    surely = _differing(found)
    return [pair for pair, one in found.agreement.items() if pair not in surely and not one.low > _WIDE]


def _same_order(found: ShotsNumbers) -> str:
    """Whether numbers of shots order the groups differently."""
    if not found.agreement:
        return "Orders are not compared: there are too few groups."
    surely, untold, pairs = _differing(found), _untold(found), len(found.differ)
    if surely:
        verb, p = "orders" if len(surely) == 1 else "order", p_text(found.differ[surely[0]])
        a, b = (tick(found.shots[j]) for j in surely[0])
        return (
            f"{len(surely)} of {count(pairs, 'pair')} of numbers of shots {verb} the groups differently, most surely "
            f"{a} and {b} ({p})."
        )
    if len(untold) == pairs:
        return "Whether numbers of shots order the groups alike could not be told."
    text = "No two numbers of shots are found to order the groups differently"
    if any(kind in CHANGED for kind in found.kinds):
        text += ": all true influences may change by one factor"
        if found.spread[0] > 0:
            factor = number(float(found.spread[-1] / found.spread[0]), 2)
            text += f" ({factor} from {named_shots(found.shots[0])} to {named_shots(found.shots[-1])})"
    return text + (f"; in {len(untold)} of {count(pairs, 'pair')} other orders could hide." if untold else ".")


def _detectable(found: ShotsNumbers) -> str:
    """What change would have been found."""
    error, df = float(np.nanmedian(found.trend.stderr)), float(np.nanmedian(found.trend.df))
    least = number(detectable(error, df, len(found.groups), LEVEL / 2), digits_for(error))
    text = f"A change of a typical group by {least} {found.unit} would be found with a probability of 80 %"
    text += ", a smaller one less often"
    if not found.spread[0] > 0:
        return f"{text}."
    spread = number(float(found.spread[0]), digits_for(error))
    return f"{text}; the true influences {_at(found.shots[0])} have a standard deviation of {spread}."


def _tested(found: ShotsNumbers) -> str:
    """What the tests of change find, for the note of all groups."""
    trend, groups = found.trend, len(found.groups)
    many, clearest = int((trend.q < LEVEL).sum()), ""
    if many:
        i = int(np.nanargmin(trend.p))
        change = plus_minus(float(trend.values[i]), float(trend.stderr[i]))
        clearest = f", most clearly {quoted(found.groups[i])} by {change} {found.unit}"
    any_change = int((benjamini_hochberg(found.any_change) < LEVEL).sum())
    ends = f"from {named_shots(found.shots[0])} to {named_shots(found.shots[-1])}"
    return (
        f"{many:,} of {groups:,} influences change {ends} along a "
        f"straight line{clearest} (q < {LEVEL} over the groups). A rise that an equal fall follows is no such change; "
        f"Hotelling's test of any difference sees it, with less power for the rest, and finds {any_change:,}."
    )


def _intervals_left(found: ShotsNumbers) -> str:
    """The intervals of the first groups that matter mainly at one end, at the other."""
    text = ""
    for kind, end in _ENDS.items():
        digits, told = digits_for(float(np.nanmedian(found.stderr[:, end]))), []
        for name in found.of_kind(kind)[:_FEW_NAMES]:
            i = found.groups.index(name)
            low, high = (number(float(part[i, end]), digits, True) for part in (found.low, found.high))
            told.append(f"{quoted(name)} {low} to {high}")
        text += f" {_at(found.shots[end]).capitalize()} there may remain: {', '.join(told)}." if told else ""
    return text


def _noise_told(found: ShotsNumbers) -> str:
    """The shares without noise, with their intervals, and what the noises are."""
    shares, note = found.shares, "Shares of the variance between models, with 95 % intervals."
    assert shares is not None
    most = int(np.nanargmax(shares.groups.values[:-1]))
    if not np.isfinite(shares.noiseless.values[[most, -1]]).all():
        return note
    first, last = (f"{_with_ends(shares.noiseless, j)} {_at(found.shots[j])}" for j in (most, -1))
    return f"{note} Without noise the groups explain {first} and {last}."


def _orders_told(found: ShotsNumbers) -> str:
    """What the table of pairs of numbers of shots says of the first and the last, and of all."""
    ends, surely, untold = found.agreement[0, len(found.shots) - 1], _differing(found), _untold(found)
    first, last = _at(found.shots[0]), _at(found.shots[-1])
    if np.isfinite(ends.rho):
        text = (
            f"The true influences {first} and {last} correlate with {number(ends.rho, 2)} ({number(ends.low, 2)} to "
            f"{number(ends.high, 2)}). The estimates have a rank correlation of {number(ends.rank, 2)}; unrelated true "
            f"influences would give {number(ends.by_noise_alone, 2)} by shared noise alone."
        )
    else:
        text = f"{first[0].upper()}{first[1:]} or {last} no true influence is seen, and the two cannot be compared."
    known = [(p, pair) for pair, p in found.differ.items() if np.isfinite(p)]
    if surely:
        pairs = ", ".join(f"{tick(found.shots[a])} and {tick(found.shots[b])}" for a, b in surely)
        text += f" Different orders: {pairs}."
    elif known:
        p, (a, b) = min(known)
        text += f" The smallest p of one order: {p_text(p)}, {tick(found.shots[a])} and {tick(found.shots[b])}."
    if untold:
        text += f" In {len(untold)} the interval of the correlation reaches below {_WIDE}: orders may differ there."
    return f"{text} {_PAIRS}"


def _spreads(found: ShotsNumbers) -> str:
    def told(j: int) -> str:
        digits = digits_for(float(found.spread_high[j] - found.spread_low[j]) / 4)
        ends = (number(float(part[j]), digits) for part in (found.spread_low, found.spread_high))
        return f"{number(float(found.spread[j]), digits)} ({' to '.join(ends)}) {_at(found.shots[j])}"

    return (
        f"True influences, errors taken out, have a standard deviation of {told(0)} and of {told(-1)}, {found.unit}, "
        "with 95 % intervals."
    )


def _costs(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Where the own list is surely lower than the common one, and where it is surely higher."""
    reach = t975(None, len(lists.cost)) * lists.cost_stderr
    return np.flatnonzero(lists.cost > reach), np.flatnonzero(-lists.cost > reach)


def _lists_told(found: ShotsNumbers) -> str:
    """What the table of lists shows, and the largest cost of the common one."""
    lists = found.lists
    assert lists is not None
    reach = t975(None, len(found.shots)) * lists.cost_stderr
    digits = digits_for(float(np.median(lists.cost_stderr)))
    worst, (dear, cheap) = int(np.argmax(lists.cost)), _costs(lists)
    text = (
        f"Mean influence of the {count(lists.size, 'lowest group')}, {found.unit}. Chosen by one half of the models on "
        f"the score half, valued by the other on the report half; {count(lists.splits, 'random split')}. Lower is a "
        "better list to leave out. Common list against own: how much lower it is than the list of the same number of "
        f"shots (better is positive); the worst is {number(-float(lists.cost[worst]), digits, True)} \u00b1 "
        f"{number(float(lists.cost_stderr[worst]), digits)}, {_at(found.shots[worst])}"
    )
    text += (
        "."
        if len(dear)
        else f", and one of {number(-float((lists.cost + reach).max()), digits, True)} could be hidden."
    )
    if len(cheap):
        where = ", ".join(_at(found.shots[j]) for j in cheap)
        text += f" The common list is even the better one {where}: outputs at all numbers of shots stand behind it."
    return text


def _blocks(found: ShotsNumbers, ticks: list[str]) -> list[Block]:
    order = found.order()
    names = [found.groups[i] for i in order]
    thumbnails = found._view.store.thumbnails(found._view.record)
    changed = sum(kind in CHANGED for kind in found.kinds)
    which = f"The {count(changed, 'group')} that change, then the surest" if changed else "The surest groups"
    curves = Multiples(
        names,
        ticks,
        found.values[order],
        found.low[order],
        found.high[order],
        found.unit,
        "shots",
        "Influence by number of shots",
        f"{which}. Bars: 95 % intervals for all numbers of shots at once; {signs(found.estimand)}. "
        f"Coloured: surely above or below 0 there.{_intervals_left(found)}",
        marked=((found.low > 0) | (found.high < 0))[order],
        captions=[found.kinds[i] for i in order],
        images=thumbnails or None,
        places=found._view.store.captions(found._view.record),
    )
    blocks: list[Block] = [curves]
    if found.shares is not None:
        shares = [getattr(found.shares, part) for part in _PARTS]
        explained = Multiples(
            list(_PARTS.values()),
            ticks,
            np.stack([part.values for part in shares]),
            np.stack([part.low for part in shares]),
            np.stack([part.high for part in shares]),
            "share",
            "shots",
            "What the differences between models are made of",
            _noise_told(found),
        )
        blocks.append(explained)
    if found.agreement:
        title = "Do two numbers of shots order groups alike?"
        blocks.append(Table.of(found.agreement, _pair_columns(found, ticks), title, _orders_told(found)))
    if found.lists is not None:
        blocks.append(Table.of(range(len(ticks)), _list_columns(found, ticks), "One list for all?", _lists_told(found)))
    if found.kept is not None:
        blocks += found.kept.blocks()
    note = f"{_tested(found)} {_sure(found)} {_spreads(found)} What the kinds mean stands below."
    blocks.append(Table.of(order.tolist(), _group_columns(found, ticks), "All groups", note))
    return blocks


_PAIRS = (
    "95 % intervals. One order: chance of so low an agreement if the true influences were proportional. Unrelated "
    "orders: chance of so high an agreement if they had nothing to do with each other."
)
_PARTS = {
    "groups": "groups",
    "noiseless": "groups, without noise of draws and images",
    "draws": "which images are labelled",
    "images": "which images are judged",
    "rest": "the rest",
}


def _entry(array: Array) -> Callable[[int], float]:
    return lambda i: float(array[i])


def _pair_columns(found: ShotsNumbers, ticks: list[str]) -> tuple[Column, ...]:
    agreement = found.agreement
    return (
        Column("shots", lambda pair: ticks[pair[0]]),
        Column("and", lambda pair: ticks[pair[1]]),
        Column("rank correlation seen", lambda pair: float(agreement[pair].rank), digits=2),
        Column("by shared noise alone", lambda pair: float(agreement[pair].by_noise_alone), digits=2),
        Column("correlation of true influences", lambda pair: float(agreement[pair].rho), digits=2),
        Column("low", lambda pair: float(agreement[pair].low), digits=2),
        Column("high", lambda pair: float(agreement[pair].high), digits=2),
        Column("p of one order", lambda pair: float(agreement[pair].p_same), digits=3, only="csv"),
        Column("p of one order, Holm over the pairs", lambda pair: found.differ[pair], digits=3),
        Column("p of unrelated orders", lambda pair: float(agreement[pair].p_unrelated), digits=3),
    )


def _list_columns(found: ShotsNumbers, ticks: list[str]) -> list[Column]:
    lists = found.lists
    assert lists is not None
    whose = [*(f"list of {tick}" for tick in ticks), "common list"]
    columns = [Column("valued at", lambda j: ticks[j])]
    for i, name in enumerate(whose):
        columns += [
            Column(f"{name} ({found.unit})", _entry(lists.worth[i]), only="csv"),
            Column(f"stderr of {name}", _entry(lists.stderr[i]), only="csv"),
            Column(name, _entry(lists.worth[i]), only="table"),
        ]
    return [
        *columns,
        Column("common list against own", _entry(-lists.cost), only="table"),
        Column("its stderr", _entry(lists.cost_stderr), only="table"),
        Column("cost of the common list", _entry(lists.cost), only="csv"),
        Column("stderr of the cost", _entry(lists.cost_stderr), only="csv"),
    ]


def _group_columns(found: ShotsNumbers, ticks: list[str]) -> list[Column]:
    trend, q = found.trend, benjamini_hochberg(found.any_change)
    return [
        Column("group", lambda i: found.groups[i]),
        Column("kind", lambda i: found.kinds[i]),
        *(Column(tick, _entry(found.values[:, j]), only="table") for j, tick in enumerate(ticks)),
        Column("trend", _entry(trend.values), only="table"),
        Column(f"trend, first to last ({found.unit})", _entry(trend.values), only="csv"),
        Column("stderr of trend", _entry(trend.stderr)),
        Column("p of trend", _entry(trend.p), only="csv"),
        Column("q of trend", _entry(trend.q), digits=3),
        Column("q of the mean over shots", _entry(found.mean_q), only="csv"),
        Column("p of any change (Hotelling)", _entry(found.any_change), only="csv"),
        Column("q of any change (Hotelling)", _entry(q), only="csv"),
    ]


def _csv(found: ShotsNumbers, ticks: list[str]) -> dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]:
    unit = found.unit
    curves = (
        (name, tick, *(float(part[i, j]) for part in (found.values, found.stderr, found.low, found.high)))
        for i, name in enumerate(found.groups)
        for j, tick in enumerate(ticks)
    )
    heads = (
        "group",
        "shots",
        f"influence ({unit})",
        "stderr",
        "low (95 %, simultaneous over shots)",
        "high (95 %, simultaneous over shots)",
    )
    ends = ("values", "stderr", "low", "high")
    shares: dict[str, Array] = {}
    if found.shares is not None:
        for part, name in _PARTS.items():
            shares |= {f"{name}, {end}": getattr(getattr(found.shares, part), end) for end in ends}
    shares |= {
        f"sd of true influences ({unit})": found.spread,
        "sd of true influences, low": found.spread_low,
        "sd of true influences, high": found.spread_high,
    }
    files: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "curves.csv": (heads, curves),
        "groups.csv": csv_of(range(len(found.groups)), _group_columns(found, ticks)),
        "shares.csv": (("shots", *shares), [(tick, *row) for tick, *row in zip(ticks, *shares.values(), strict=True)]),
    }
    if found.agreement:
        files["agreement.csv"] = csv_of(found.agreement, _pair_columns(found, ticks))
    if found.lists is not None:
        files["lists.csv"] = csv_of(range(len(ticks)), _list_columns(found, ticks))
    return files | (found.kept.csv() if found.kept is not None else {})


def _method(found: ShotsNumbers) -> str:
    turned = f"\n\n{found._view.turned}" if found._view.turned else ""
    return _METHOD.format(
        output=called_output(found.output),
        models=count(found.models, "model"),
        how=ESTIMATORS[found.method].phrase,
        kinds="\n".join(f"    {kind}: {meaning}" for kind, meaning in MEANING.items()),
        splits=found.lists.splits if found.lists else 0,
        turned=turned,
    )


_METHOD = """Influences on the {output} at each number of shots (mean over the score images and the few-shot draws), by
{how}; {models}. Errors, and what is called true, are those of more models on these labelled and judged images: other
images would change influences, too. All numbers of shots have the same models, so their errors are correlated; the
covariance over shots of one group's errors is estimated:

    cov(a, b) = (V_a + V_b - V_(a-b)) / 2,  V = squared standard error on column a, on b, on their difference
    simultaneous interval: value +- m x stderr,  m = 95 % quantile of the largest |t| over the numbers of shots
    trend: sum over places x_j = 0, 1, ... of c_j value_j,  c_j = (x_j - mean) (J - 1) / sum of (x - mean)^2;  t test
    q: Benjamini and Hochberg over the groups

What the kinds say (sure: the simultaneous interval excludes 0):

{kinds}

Standard deviation of the true influences, and their correlation at two numbers of shots, leave the errors out:

    sd^2 = variance over groups of the values - mean squared error

Parts of the variance between models, by products of residuals of the score half and of the report half; errors by a
jackknife over models:

    groups = adjusted R^2
    images = what the two halves do not share, the score half's part
    draws = what they share of one draw that is not that of all draws
    without noise = share of the groups in what the halves share, less the draws

One list for all: the lowest quarter of the groups by each ranking, and by the mean over the numbers of shots of
value / standard error; chosen by one half of the models on the score half, valued by the other half on the report half,
{splits} random splits, both ways, with the same few-shot draws. A standard error is that of one way over
sqrt(2).{turned}"""

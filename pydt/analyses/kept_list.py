"""From a ranking to a list: which groups of the source to keep, as names, positions and keys that any trainer reads.

The ranking is the report's: influences on the whole target, on the score half; or that of the page by shots
(`pydt.analyses.kept_scores`). What supports a list is said with it:

    surely below  influence below 0 (where masks are of one size, below the average group), q < 0.05 over the groups.
                  q is two-sided, as the report has it: of all groups called below or above, the expected share with the
                  wrong sign or none is below 0.05 (Benjamini and Yekutieli 2005). The sentences say so of all of them;
                  a q of one side would be of those below alone, and mark other groups than the report
    agreement     rank correlation of the rankings from two halves of the models (`pydt.analyses.agreement`)
    order         whether the influences of some rows predict other rows on the report half (`global_test`)
    retrained     report half, other draws: the source without just these groups against the whole, if it was trained
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import __version__
from pydt.analyses.agreement import between_halves
from pydt.analyses.counterfactual import stored
from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView
from pydt.analyses.kept_examples import keys_of, source_of
from pydt.analyses.kept_scores import COMMON, left_out, of_all_shots, of_task, target_of
from pydt.base import (
    ConfigError,
    as_path,
    extremes,
    influence_table,
    one_of,
    remove,
    to_frame,
    whole,
    write_atomic,
)
from pydt.ensemble import Plan
from pydt.estimation import global_test
from pydt.reporting import Metric, count, csv_file, digits_for, finite, interval_plot, listed, number, p_text
from pydt.store import Store

_RULES = "give one of drop=N, top=N, sure=True"


@dataclass(frozen=True)
class Retrained:
    """What the source without just these groups reached, against the whole source, on the report half.

    Attributes:
        gain, low, high: better is positive; in `unit`, with a 95 % interval.
        rows: retrainings without the groups, and of the whole source.
    """

    gain: float
    low: float
    high: float
    unit: str
    rows: tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Kept:
    """Which groups stay, and how sure that is. Make one with `pydt.keep`.

    Attributes:
        name: what is kept and what is dropped: the name of its files.
        kept, dropped: names of groups, in mask order; the dropped ones lowest first.
        positions: int64 (examples kept,), positions in the source, ascending, of examples in kept groups and of those
            in no group; None where the source is not at hand. examples: of the whole source, if known.
        keys: paths of the kept examples below the source's folder, their keys in WebDataset shards, or the ids of a
            `pydt.Groups`; None of arrays.
        groups: all names; values, stderr, low, high (95 %), q: float64 (groups,), in `unit`. counts: examples of each.
        below, above: how many of the dropped have an influence surely below, and surely above, 0 or (estimand "swap")
            that of the average group.
        agreement: rank correlation of the rankings from two halves of the models; None where it could not be computed.
        p: of the test whether the ranking predicts other models at all.
        shots: the numbers of shots that have one order; () where the order is that of one task.
    """

    name: str
    rule: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    positions: npt.NDArray[np.int64] | None
    examples: int | None
    keys: tuple[str, ...] | None
    groups: tuple[str, ...]
    values: Array
    stderr: Array
    low: Array
    high: Array
    q: Array | None
    counts: npt.NDArray[np.int64] | None
    unit: str
    estimand: str
    estimator: str
    models: int
    below: int
    above: int
    agreement: float | None
    p: float
    retrained: Retrained | None
    by: str
    target: str
    facts: dict[str, Any]
    _keys: str  # their kind, see `keys_of`
    _view: EnsembleView
    shots: tuple[int | str, ...] = ()

    def __repr__(self) -> str:
        return f"Kept({len(self.kept):,} of {count(len(self.groups), 'group')} by {self.by}, {self.rule})"

    @property
    def sure(self) -> bool:
        """Whether just what is surely below was left out."""
        return "surely" in self.rule

    @property
    def sentences(self) -> list[str]:
        """What is kept, how sure that is, and what retraining says."""
        return self._view.told([text for text in (_what(self), _how_sure(self), _proof(self)) if text])

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with one line for each group: "group", "kept" (bool), "value", "stderr", "low" and
        "high" (95 %), "q" (NaN of single examples); its `attrs` name the unit.

        Raises:
            ConfigError: pandas is not installed.
        """
        kept = set(self.kept)
        columns: dict[str, Any] = {"group": list(self.groups), "kept": [name in kept for name in self.groups]}
        columns |= {"value": self.values, "stderr": self.stderr, "low": self.low, "high": self.high, "q": self._q}
        return to_frame(columns, "Kept", unit=self.unit)

    def plot(self, ax: Any = None) -> Any:
        """Draw the highest and the lowest influences with their 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown = extremes(self.values)
        values, label = self.values[shown], f"influence ({self.unit}), 95 % intervals"
        names = [self.groups[i] for i in shown]
        return interval_plot(names, values, values - self.low[shown], label, ax=ax, of=len(self.groups))

    def _repr_html_(self) -> str:
        line = "\n".join([repr(self), *self.sentences])
        return influence_table(line, self.groups, self.values, self.values - self.low, self._q)

    @property
    def _q(self) -> Array:
        return np.full(len(self.groups), np.nan) if self.q is None else self.q

    def write(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write the list into a folder, which is made if it is not there. All files are called `name`:

            .txt        kept groups, one a line; not of single examples
            .csv        every group: kept or not, influence and its interval, examples
            .npy        int64, the positions of the kept examples in the source
            -keys.txt   their paths, WebDataset keys or ids, one a line
            .json       all of it, and by which store, plan, task and rule

        Returns:
            the path of each by its ending. One that cannot be made is left out: positions and keys without the source,
            names that are not one line of UTF-8. A file of this name from an earlier list is then removed.

        Raises:
            StoreError: they cannot be written.
        """
        root = as_path(folder, "Kept.write", made=True)
        made: dict[str, bytes | None] = {
            ".txt": None if self.by == "example" else _lines(self.kept),
            ".csv": csv_file(_columns(self), _rows(self)),
            ".npy": None if self.positions is None else _npy(self.positions),
            "-keys.txt": None if self.keys is None else _lines(self.keys),
        }
        found = {end: root / f"{self.name}{end}" for end, data in made.items() if data is not None}
        found[".json"] = root / f"{self.name}.json"
        use = self.lines({end: Path(path.name) for end, path in found.items()})
        about = {**_about(self), "files": {end: path.name for end, path in found.items()}, "use": use}
        made[".json"] = (json.dumps(finite(about), indent=1, allow_nan=False) + "\n").encode()
        for end in made.keys() - found.keys():  # of an earlier list with this name: other groups may have been kept
            remove(root / f"{self.name}{end}")
        for end, path in found.items():
            write_atomic(path, made[end] or b"")
        return found

    def lines(self, files: dict[str, Path]) -> dict[str, str]:
        """A line of Python for each library that reads the files of `write`; `dataset` is the source as it has it."""
        said = {end: json.dumps(os.fspath(path), ensure_ascii=False) for end, path in files.items()}
        by = "" if self.by == "class" else f", by={json.dumps(self.by, ensure_ascii=False)}"
        found, own = {}, self._keys
        # Other libraries order and leave out files in their own way, so positions serve data sets of arrays only.
        if (where := said.get(".npy")) is not None and own not in ("folder", "files"):
            found["torch"] = f"torch.utils.data.Subset(dataset, numpy.load({where}))"
            found["Hugging Face"] = f"dataset.select(numpy.load({where}))"
        elif where is None and self.by == "class" and ".txt" in said:
            kept = f"kept = pathlib.Path({said['.txt']}).read_text('utf-8').splitlines()"
            names = "names = dataset.features['label'].names"
            found["Hugging Face"] = f"{kept}; {names}; dataset.filter(lambda one: names[one['label']] in kept)"
        if (where := said.get("-keys.txt")) is not None:
            keys = f"set(pathlib.Path({where}).read_text('utf-8').splitlines())"
            if own == "shards":
                found = {"webdataset": f"keys = {keys}; dataset = dataset.select(lambda one: one['__key__'] in keys)"}
            elif own == "folder":
                inside = (
                    "[i for i, (path, _) in enumerate(dataset.samples) if os.path.relpath(path, dataset.root) in keys]"
                )
                found["torch"] = f"keys = {keys}; torch.utils.data.Subset(dataset, {inside})"
        if own != "ids" and ".txt" in said:
            found["pydt"] = f"dataset.keep({said['.txt']}{by})"
        elif own != "ids" and ".npy" in said:
            found["pydt"] = f"dataset.take(numpy.load({said['.npy']}))"
        return found


def keep(
    store: Store | str | os.PathLike[str],
    plan: Plan | str | None = None,
    *,
    drop: int | None = None,
    top: int | None = None,
    sure: bool = False,
    task: Any = None,
    output: str | None = None,
    shots: str | None = None,
    seed: int = 0,
) -> Kept:
    """Which groups to keep, by the ranking of the report: influences on the whole target, on the score half.

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own. A Plan has its source, so that positions
            and keys of examples are known; else they are where the store holds the source, or an index of it.
        drop: leave out so many of the lowest groups.
        top: keep so many of the highest.
        sure: leave out the groups with an influence surely below 0, or below the average group where masks are of one
            size (q < 0.05 over the groups); this may be none.
        task: which of the plan's tasks, or its name or digest; the first by default.
        output: of which the influences are, see `pydt.report`.
        shots: "common" orders the groups by one target at all its numbers of shots, as the page by shots does: by the
            mean of influence / standard error. The target is that of `task`, by default the first at several numbers.
        seed: of the halves of the models whose rankings are compared.

    Raises:
        ConfigError: no rule or several, nothing is left or left out, or `sure` of single examples.
        StoreError: no such plan or task, or fewer than ten finished rows.
        EstimateError: a group is in no finished row, or in all.
    """
    whole(seed, "seed", "keep", error=ConfigError)
    given = [name for name, one in (("drop", drop), ("top", top), ("sure", sure or None)) if one is not None]
    if len(given) != 1:
        raise ConfigError("no rule" if not given else f"{' and '.join(given)} at once", "keep", _RULES)
    if shots is not None:
        one_of(shots, (COMMON,), "shots", "keep", ConfigError)
    view = EnsembleView.of(store, plan, task)
    record, names = view.record, view.record.names
    output = view.output(output)
    by = of_task(view, output) if shots is None else of_all_shots(view, output, task is not None)
    values = by.values
    # Of thousands of single examples the report tests the ranking as a whole, none on its own.
    q = None if record.by == "example" else by.q
    lower, higher = ((np.zeros(len(names), bool) if q is None else (q < LEVEL) & (s * values > 0)) for s in (-1, 1))
    out = left_out(values, lower if q is not None else None, drop, top, sure)
    source, codes = source_of(view.store, record, plan)
    stays = np.ones(len(names) + 1, bool)  # the last: of examples in no group, -1
    stays[out] = False
    positions = None if codes is None else np.flatnonzero(stays[codes])
    keys, kind = keys_of(source)
    dropped = tuple(names[i] for i in out)
    rule, line = given[0], "average" if by.estimand == "swap" else "0"
    usual = output == view.output()
    return Kept(
        name=_called(view, len(names), len(out), rule, line, None if usual else output, by.shots),
        rule={"drop": f"the {len(out)} lowest are left out", "top": f"the {top} highest are kept"}.get(
            rule, f"groups with an influence surely below {_line(by.estimand)} are left out (q < {LEVEL})"
        ),
        kept=tuple(name for name, one in zip(names, stays, strict=False) if one),
        dropped=dropped,
        positions=positions,
        examples=record.source_facts.get("examples"),
        keys=None if keys is None or positions is None else tuple(keys[i] for i in positions.tolist()),
        groups=names,
        values=values,
        stderr=by.stderr,
        low=values - by.reach,
        high=values + by.reach,
        q=q,
        counts=None if codes is None else np.bincount(codes[codes >= 0], minlength=len(names)),
        unit=by.unit,
        estimand=by.estimand,
        estimator=by.method,
        models=by.models,
        below=int(lower[out].sum()),
        above=int(higher[out].sum()),
        agreement=_agreement(view, by.score, seed),
        p=float(global_test(view.masks, by.score, by.judged, by.method)[1].p),
        retrained=None if by.shots else _retrained(view, dropped),
        by=record.by,
        target=target_of(view, by.shots),
        facts={
            "store": str(view.store.folder),
            "plan": record.digest,
            "task": {"name": view.described["name"], "digest": view.task},
            "output": output,
            "shots": list(by.shots) or None,
            "seed": record.seed,
            "source": {"name": record.source_facts["name"], "digest": record.source},
        },
        _keys=kind or ("ids" if view.thing == "example" else ""),
        _view=view,
        shots=by.shots,
    )


def _agreement(view: EnsembleView, score: Array, seed: int) -> float | None:
    """Rank correlation of the rankings from disjoint halves of the models, mean over random splits."""
    found = None if view.record.by == "example" else between_halves(view.masks, score, "keep", seed)
    return None if found is None else found[0]


def _retrained(view: EnsembleView, dropped: tuple[str, ...]) -> Retrained | None:
    """What `pydt prove` found without just these groups."""
    judgement = stored(view.store, view.record, view.task) if dropped else None
    if judgement is None:
        return None
    arms = (arm for arm in judgement.arms if arm.names and {frozenset(n) for n in arm.names} == {frozenset(dropped)})
    arm = next(arms, None)
    gains = {(gain.kind, gain.dropped): gain for gain in judgement.gains}
    found = None if arm is None else gains.get((arm.kind, arm.dropped))
    if found is None or not np.isfinite(found.low):
        return None
    metric = Metric.of_task(view.described)
    gain, low, high = (metric.scale * one for one in (found.difference, found.low, found.high))
    return Retrained(gain, low, high, metric.unit, (found.n, found.control_n))


def _called(
    view: EnsembleView, groups: int, out: int, rule: str, line: str, output: str | None, shots: tuple[int | str, ...]
) -> str:
    """The name of the files: what is kept and what is dropped, and of which task, output and plan where that is not
    clear."""
    ends = {
        "drop": f"{groups - out}-of-{groups}-dropped-{out}-lowest",
        "top": f"{groups - out}-highest-of-{groups}-dropped-{out}",
        "sure": f"{groups - out}-of-{groups}-dropped-{out}-surely-below-{line}",
    }
    more = [view.described["name"]] if len(view.record.tasks) > 1 else []
    if shots:
        several = {task["target"] for task in view.record.tasks}
        more = [*([view.target_name] if len(several) > 1 else []), f"{'-'.join(map(str, shots))} shots"]
    more += [] if output is None else [output]
    more += [f"plan {view.store.called(view.record)}"] if len(view.store.designs()) > 1 else []
    said = [re.sub(r"[^\w]+", "-", one).strip("-")[:40] for one in more]
    tasks = [re.sub(r"[^\w]+", "-", one["name"]).strip("-")[:40].casefold() for one in view.record.tasks]
    if (
        not shots and len(tasks) > 1 and (not said[0] or tasks.count(said[0].casefold()) > 1)
    ):  # of which task, is not clear yet
        said[0] = f"{said[0]}-{view.task[:8]}".strip("-")
    return "-".join(["kept", ends[rule], *(["for", *said] if said else [])])


def _line(estimand: str) -> str:
    return "that of the average group" if estimand == "swap" else "0"


def _what(found: Kept) -> str:
    thing = "examples" if found._view.thing == "example" else "images"
    groups, gone = count(len(found.groups), "group"), len(found.dropped)
    images = ""
    if found.positions is not None and found.examples is not None:
        images = f", {len(found.positions):,} of {found.examples:,} source {thing}"
    first = f"Kept: {len(found.kept):,} of {groups} (by {found.by}){images}."
    if not gone:
        line = _line(found.estimand)
        return f"{first} Nothing is left out: no group has an influence on {found.target} surely below {line}."
    which = f"the {gone:,} lowest" if gone > 1 else "the lowest"
    if found.sure:
        which = f"{count(gone, 'group')} surely below {'the average group' if found.estimand == 'swap' else '0'}"
    return f"{first} Left out: {which} for {found.target}, {listed(found.dropped, 3)}."


def _how_sure(found: Kept) -> str:
    gone, models = len(found.dropped), count(found.models, "model")
    line = _line(found.estimand)
    parts = []
    if found.sure and gone:
        parts.append(
            f"of all groups found surely below or surely above {line}, on average at most 1 in 20 is found by chance "
            f"(q < {LEVEL}, {models})"
        )
    elif found.q is not None and gone:
        parts.append(
            f"{found.below:,} of the {gone:,} left out {'has' if found.below == 1 else 'have'} an influence surely "
            f"below {line} (q < {LEVEL}, {models})" + (f", and {found.above:,} surely above it" if found.above else "")
        )
    if found.agreement is not None:
        parts.append(
            f"rankings by two halves of the {models} agree with a rank correlation of {number(found.agreement, 2)} "
            "(1: the same order, 0: none in common)"
        )
    if not found.p < LEVEL:
        parts.append(f"the order as a whole cannot be told from noise ({p_text(found.p)})")
    return f"How sure: {'; '.join(parts) or f'{models} rank them, and their order is not noise ({p_text(found.p)})'}."


def _proof(found: Kept) -> str:
    one = found.retrained
    if one is None and found.shots and found.dropped:
        return "What it gains at each number of shots, the page by shots tells if it was retrained."
    if one is None:
        return "No retraining has tested this list." if found.dropped else ""
    digits = max(digits_for((one.high - one.low) / 4), 1)
    gain, low, high = (number(value, digits, True) for value in (one.gain, one.low, one.high))
    return (
        f"Retrained without them: {gain} {one.unit} against the whole source (95 %: {low} to {high}; "
        f"{one.rows[0]} and {one.rows[1]} retrainings, on images that did not rank)."
    )


def _columns(found: Kept) -> tuple[str, ...]:
    unit = f" ({found.unit})" if found.unit else ""
    return ("group", "kept", f"influence{unit}", f"stderr{unit}", f"low{unit}", f"high{unit}", "q", "examples")


def _rows(found: Kept) -> list[tuple[Any, ...]]:
    """A row for each group, in mask order."""
    kept, none = set(found.kept), [None] * len(found.groups)
    numbers = [part.tolist() for part in (found.values, found.stderr, found.low, found.high)]
    q, counts = (none if part is None else part.tolist() for part in (found.q, found.counts))
    return [
        (name, "yes" if name in kept else "no", *rest)
        for name, *rest in zip(found.groups, *numbers, q, counts, strict=True)
    ]


def _about(found: Kept) -> dict[str, Any]:
    retrained = None if found.retrained is None else vars(found.retrained)
    return {
        "pydt": __version__,
        "by": found.by,
        "rule": found.rule,
        "kept": list(found.kept),
        "dropped": list(found.dropped),
        "examples": found.examples,
        "examples_kept": None if found.positions is None else len(found.positions),
        **found.facts,
        "unit": found.unit,
        "estimand": found.estimand,
        "estimator": found.estimator,
        "models": found.models,
        "dropped_surely_below": None if found.q is None else found.below,
        "dropped_surely_above": None if found.q is None else found.above,
        "agreement_of_halves": found.agreement,
        "p": found.p,
        "retrained": retrained,
        "in_words": found.sentences,
    }


def _npy(positions: npt.NDArray[np.int64]) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, positions, allow_pickle=False)
    return stream.getvalue()


def _lines(names: Sequence[str]) -> bytes | None:
    """One name a line; None where a name would be read as another one, or is not UTF-8."""
    if any([name] != name.strip().splitlines() for name in names):
        return None
    try:
        return "".join(f"{name}\n" for name in names).encode()
    except UnicodeEncodeError:  # the name of a file
        return None

"""All analyses of a plan, one page each: what `pydt analyse` runs.

An analysis that only estimates is computed anew from the stored rows. One that retrains keeps its rows in the store, so
the same command continues wherever it was stopped. Each page is written as soon as it is finished. More than 500 lines:
the list of analyses and what each needs stand together.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydt import __version__
from pydt.analyses.brittleness import brittleness
from pydt.analyses.ensemble_view import NEEDS_PER, lacking
from pydt.analyses.examples import by_example, examples
from pydt.analyses.failures import failures
from pydt.analyses.leakage.leaks import leaks
from pydt.analyses.learning_rates import choices_of, learning_rates
from pydt.analyses.misleading import misleading
from pydt.analyses.output_comparison import compare_outputs
from pydt.analyses.ranking import ranking
from pydt.analyses.removal import removal_curve
from pydt.analyses.shots import influence_by_shots
from pydt.analyses.shots_tasks import shots_of, with_shots
from pydt.analyses.stability import stability
from pydt.analyses.subpopulations import subpopulations
from pydt.analyses.two_targets import compare_tasks, pairs_of
from pydt.base import ConfigError, EstimateError, PydtError, Result, StoreError, suggest, whole
from pydt.ensemble import Cost, Plan, cost_of_retraining, in_time, places, run
from pydt.estimation import few_masks, uncompared
from pydt.reporting import PAGES, Page, called, called_output, count, write_pages
from pydt.store import Store, row_seconds, unit_of

IMAGES_MODELS = 100
"""Models on random halves of the source's images, where a plan has other groups."""
PAIRS = 6
"""Pages of two targets each: those of four targets."""
KEPT = {"repeats": 6}
"""Retrainings of each kept list of the question by shots, where models may be trained."""
VERIFIED = {"verify": 3}
"""Images whose flip is verified by retraining, where models may be trained."""
_LONGEST = 29  # characters of a task in the name of a page, which has 61 in all


@dataclass(frozen=True)
class Job:
    """What an analysis works on.

    Attributes:
        train: whether models may be trained. workers: as `pydt.run` takes it.
        seed: of what is retrained and of random splits.
        settings: further arguments of the analysis's function, with the task that was asked for.
    """

    store: Store
    plan: Plan
    train: bool = False
    workers: int | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        name: on the command line and of its page. asks: its question.
        trains: whether it trains models. make: makes its page or pages.
        images: whether it also serves a plan whose groups are single images; for such a plan it trains nothing.
        suits: whether there is something to show; asked where the analysis was not named.
        needs: of the plan and the task; see `pydt.analyses.ensemble_view.lacking`.
        about: what a page is about: one "task", several "tasks", or the "plan".
        outputs: whether it takes the output of which the influences are.
        most: of one that trains, how many models it trains at most, by the plan and the settings.
    """

    name: str
    asks: str
    trains: bool
    make: Callable[[Job], Page | list[Page]]
    images: bool = False
    suits: Callable[[Job], bool] = lambda job: True
    needs: tuple[str, ...] = ()
    about: str = "task"
    outputs: bool = True
    most: Callable[[Plan, Mapping[str, Any]], int] | None = None

    def lacks(self, job: Job) -> str | None:
        """What it needs and the plan does not have, in words; None where it has all."""
        return lacking(job.plan, job.store.described(job.settings.get("task"), job.plan), self.needs)


@dataclass(frozen=True, repr=False)
class Analysed(Result):
    """What `analyse` did.

    Attributes:
        index: path of the page that lists all, and what could not be made.
        pages: names of the pages it wrote. failed: name of an analysis that gave no page -> why.
        skipped: names of the analyses that train, where training was not asked for.
        unsuited: name of an analysis that is not for this plan -> why.
        answers: the main sentence of each page.
    """

    index: Path | None
    pages: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    unsuited: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    def _columns(self) -> dict[str, Any]:
        skipped = dict.fromkeys(self.skipped, "it trains models")
        found = {"written": dict.fromkeys(self.pages, ""), "failed": self.failed, "skipped": skipped}
        lines = [
            (name, state, why)
            for state, own in {**found, "unsuited": self.unsuited}.items()
            for name, why in own.items()
        ]
        return {name: [line[i] for line in lines] for i, name in enumerate(("name", "state", "why"))}


def _page_of(
    function: Callable[..., Any], trained: Mapping[str, Any] | None = None, **fixed: Any
) -> Callable[[Job], Page]:
    """A maker of the page of `function`; where models may be trained it gets the workers and `trained`, unless None."""

    def make(job: Job) -> Page:
        more = {"workers": job.workers, **trained} if job.train and trained is not None else {}
        page: Page = function(job.store, job.plan, **{"seed": job.seed, **fixed, **more, **job.settings}).page()
        return page

    return make


def _examples(job: Job) -> Page:
    """The page of single images; a plan of other groups first gets an ensemble by image in a folder of the store."""
    store, plan, settings = job.store, job.plan, dict(job.settings)
    if plan.by != "example":
        plan = by_example(plan, settings.pop("models", IMAGES_MODELS), job.seed)
        store = run(plan, store.folder / "examples", workers=job.workers)
    return examples(store, plan, seed=job.seed, **settings).page()


def _by_shots(job: Job) -> list[Page]:
    """A page for each target and way to transfer that the plan has at several numbers of shots; of a plan that has none
    its rows are first transferred at more, in a folder of the store."""
    store, plan, record = job.store, job.plan, job.store.plan(job.plan)
    if not shots_of(record) and job.train and "tasks" not in job.settings:
        plan = with_shots(plan)
        store = run(plan, store.folder / "shots", workers=job.workers)
        record = store.plan(plan)
    settings = {"seed": job.seed, **({"workers": job.workers, **KEPT} if job.train else {}), **job.settings}
    asked = settings.pop("task", None)
    if {"tasks", "target", "mode"} & set(settings):
        return [influence_by_shots(store, plan, **settings).page()]
    alike = list(enumerate(shots_of(record), 1))
    if asked is not None:
        digest = store.described(asked, record)["digest"]
        alike = [(i, one) for i, one in alike if digest in one.tasks]
        if not alike:
            mend = "ask without a task, for all targets at several numbers of shots"
            raise ConfigError("its target has one number of shots alone", f"task {asked!r}", mend)
    found: list[Any] = [(i, dict(zip(one.shots, one.tasks, strict=True))) for i, one in alike]
    pages = [(i, influence_by_shots(store, plan, tasks=tasks, **settings).page()) for i, tasks in found or [(1, None)]]
    return [replace(page, name=page.name if i == 1 else f"{page.name}-{i}") for i, page in pages]


def _by_targets(job: Job) -> list[Page]:
    """A page for each two of the plan's targets, up to `PAIRS`."""
    record, settings = job.store.plan(job.plan), {"seed": job.seed, **job.settings}
    asked = settings.pop("task", None)
    if "tasks" in settings:
        return [compare_tasks(job.store, job.plan, **settings).page()]
    pairs = list(enumerate(pairs_of(record), 1))
    if asked is not None and pairs:
        target = job.store.described(asked, record)["target"]
        of = {task["digest"]: task["target"] for task in record.tasks}
        pairs = [(i, pair) for i, pair in pairs if target in (of[pair[0]], of[pair[1]])]
    shown: list[tuple[int, Any]] = [*pairs[:PAIRS]] or [(1, None)]  # None: the function says what it needs
    pages = []
    for i, pair in shown:
        page = compare_tasks(job.store, job.plan, tasks=pair, **settings).page()
        if len(pairs) > PAIRS:
            more = f"{len(pairs):,} pairs of targets: pages show the first {PAIRS}; with a task, those of its target."
            page = replace(page, answer=[*page.answer, more])
        pages.append(page if i == 1 else replace(page, name=f"{page.name}-{i}"))
    return pages


def _has_targets(job: Job) -> bool:
    """Whether the plan has two targets."""
    return "tasks" in job.settings or bool(pairs_of(job.store.plan(job.plan)))


def _has_shots(job: Job) -> bool:
    """Whether the plan has a target at several numbers of shots."""
    record, asked = job.store.plan(job.plan), job.settings.get("task")
    alike = shots_of(record)
    if asked is not None:
        alike = tuple(one for one in alike if job.store.described(asked, record)["digest"] in one.tasks)
    return "tasks" in job.settings or bool(alike)


def _has_choices(job: Job) -> bool:
    """Whether learning rates of the plan were chosen: most plans have none."""
    try:
        return bool(choices_of(job.store, job.store.plan(job.plan)))
    except StoreError:
        return True  # its page says what is damaged


def _most_removed(plan: Plan, settings: Mapping[str, Any]) -> int:
    """Trainings of `removal_curve` at most."""
    sizes, repeats = len(settings.get("sizes") or range(6)), settings.get("repeats", 8)
    lengths = 2 if getattr(plan.recipe, "budget", [""])[0] == "epochs" else 1
    return int(repeats * (1 + lengths * (3 * sizes + 2 * len(settings.get("keep_lists", {})))))


_PICTURES = ("images", "logits")
ANALYSES: tuple[Analysis, ...] = (
    Analysis("ranking-target", "which groups help the target?", False, _page_of(ranking, per="target")),
    Analysis(
        "ranking-class",
        "which groups help which class?",
        False,
        _page_of(ranking, per="class"),
        needs=NEEDS_PER["class"],
    ),
    Analysis(
        "ranking-example",
        "which groups help which example?",
        False,
        _page_of(ranking, per="example"),
        needs=NEEDS_PER["example"],
    ),
    Analysis("shots", "which groups matter at how many shots?", False, _by_shots, suits=_has_shots, about="tasks"),
    Analysis("targets", "does one list serve both targets?", False, _by_targets, suits=_has_targets, about="tasks"),
    Analysis("removal", "what does leaving groups out do?", True, _page_of(removal_curve, {}), most=_most_removed),
    Analysis(
        "subpopulations", "which examples does a group move most?", False, _page_of(subpopulations), needs=("ten",)
    ),
    Analysis(
        "failures",
        "which group is to blame for images that go wrong?",
        True,
        _page_of(failures, {}),
        needs=("logits",),
        most=lambda plan, settings: int(settings.get("most", 150)),
    ),
    Analysis(
        "examples",
        "which single source examples help?",
        True,
        _examples,
        images=True,
        needs=("singles",),
        most=lambda plan, settings: int(settings.get("models", IMAGES_MODELS)),
    ),
    Analysis("misleading", "which groups mislead a class?", False, _page_of(misleading), images=True, needs=_PICTURES),
    Analysis(
        "misleading-examples",
        "which mislead an image?",
        False,
        _page_of(misleading, per="example"),
        images=True,
        needs=_PICTURES,
    ),
    Analysis(
        "leaks", "which groups hold copies of target images?", False, _page_of(leaks), images=True, needs=_PICTURES
    ),
    Analysis(
        "outputs",
        "does another output tell another story?",
        False,
        _page_of(compare_outputs),
        needs=("logits",),
        outputs=False,
    ),
    Analysis(
        "brittleness",
        "how few groups hold up a prediction?",
        False,
        _page_of(brittleness, VERIFIED),
        needs=("logits",),
        outputs=False,
    ),
    Analysis("stability", "would other models rank the groups alike?", False, _page_of(stability)),
    Analysis(
        "rates",
        "which learning rates were chosen?",
        False,
        _page_of(learning_rates),
        True,
        _has_choices,
        about="plan",
        outputs=False,
    ),
)
"""All there are, in the order of the index."""


def chosen(only: Iterable[str] | None, train: bool, by: str = "class") -> tuple[list[Analysis], tuple[str, ...]]:
    """The analyses to make, and the names of those that are skipped because they would train.

    Args:
        only: names of analyses; by default all that suit a plan whose groups are by `by`.
        train: whether models may be trained.

    Raises:
        ConfigError: `only` names one that does not exist.
    """
    known = {analysis.name: analysis for analysis in ANALYSES}
    names = list(only) if only is not None else [a.name for a in ANALYSES if a.images or by != "example"]
    for name in names:
        if name not in known:
            raise ConfigError(f"no analysis {name!r}", "only", suggest(name, list(known)))
    wanted = [known[name] for name in known if name in names]
    made = [a for a in wanted if train or not a.trains or (a.images and by == "example")]
    return made, tuple(a.name for a in wanted if a not in made)


def trainings(
    plan: Plan,
    dir: str | os.PathLike[str],
    names: Collection[str],
    *,
    workers: int | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, str]:
    """How many models analyses train at most, and how long that takes, in words, by name; stored ones are counted, too.

    Args:
        names: of analyses that train; those that the plan does not suit are left out. Others as of `analyse`.
    """
    store, found = Store(dir, plan), {}
    seconds, rows = row_seconds(store, store.plan(plan)), len(plan.design)
    at_once = workers or places(plan.recipe)[0]
    for analysis in ANALYSES:
        name = analysis.name
        if name not in names or analysis.lacks(Job(store, plan, settings=(settings or {}).get(name, {}))) is not None:
            continue
        if analysis.most is None:
            continue
        most = analysis.most(plan, (settings or {}).get(name, {}))
        found[name] = f"up to {count(most, 'training')}"
        if seconds is not None:
            own = cost_of_retraining(plan, most, Cost(rows, rows, at_once, seconds, rows, 0.0))
            found[name] += f", about {in_time(3600 * own.hours)} with {count(own.workers, 'worker')}"
    return found


def analyse(
    plan: Plan,
    dir: str | os.PathLike[str],
    *,
    only: Iterable[str] | None = None,
    train: bool = False,
    workers: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    facts: Iterable[tuple[str, Any]] = (),
    tell: Callable[[str], None] = lambda text: None,
    task: Any = None,
    output: str | None = None,
) -> Analysed:
    """Make the pages of all analyses of a plan from the rows its store holds: `dir`/analyses/index.html lists them.

    Args:
        plan: whose rows are in the store.
        dir: folder of the store.
        only: names of analyses (of `ANALYSES`); by default all, with a task those about tasks, with an output those
            that look at one.
        train: run those that retrain models, too; else they are skipped.
        workers: processes for what is trained, see `pydt.run`.
        seed: of what is retrained and of random splits.
        settings: by name of an analysis, further arguments of its function, such as
            {"removal": {"keep_lists": {"mine": ["cat", "dog"]}}}.
        facts: (name, value), shown below the provenance of every page.
        tell: called with a line before each analysis.
        task: which of the plan's tasks, its name, the beginning of it, or digest; the first by default. Pages about
            another task have its name in theirs, so that they stand beside those about the first.
        output: of which the influences are; by default the task's metric, or what an analysis says. It is in the names
            of pages, too.

    Raises:
        ConfigError: an unknown name in `only`, or an output that the task does not have.
        StoreError: no such task, no store there, or the pages cannot be written. An error in one analysis does not
            stop the others: see `Analysed.failed`; one that the plan does not suit is named in `Analysed.unsuited`.
        KeyboardInterrupt: Ctrl-C; what is stored stays.
    """
    whole(seed, "seed", "analyse", error=ConfigError)
    wanted, skipped = chosen(only, train, plan.by)
    store, unsuited = Store(dir, plan), {}
    digest = None if task is None else store.described(task, plan)["digest"]
    if output is not None:
        unit_of(store.described(digest, plan), output)  # raises where there are no influences on it
    if only is None:
        suit = [a for a in wanted if (task is None or a.about != "plan") and (output is None or a.outputs)]
        wanted, skipped = suit, tuple(a.name for a in ANALYSES if a.name in skipped and (output is None or a.outputs))

    def job(analysis: Analysis) -> Job:
        asked = {"task": digest} if task is not None and analysis.about != "plan" else {}
        asked |= {"output": output} if output is not None and analysis.outputs else {}
        return Job(store, plan, train, workers, seed, asked | dict((settings or {}).get(analysis.name, {})))

    for analysis in ANALYSES:
        lacks = analysis.lacks(job(analysis)) if analysis in wanted or analysis.name in skipped else None
        if lacks is not None:
            unsuited[analysis.name] = f"not for this plan (it needs {lacks})"
    wanted = [analysis for analysis in wanted if analysis.name not in unsuited]
    skipped = tuple(name for name in skipped if name not in unsuited)
    if only is None:
        wanted = [analysis for analysis in wanted if analysis.suits(job(analysis))]
    targets = dict.fromkeys(called(getattr(one, "target", one).name, "target") for one in plan.tasks)
    names = called(plan.source.name, "source"), _few(list(targets))
    provenance = [("plan", plan.digest), ("models", f"{len(store.finished()):,}"), ("pydt", __version__), *facts]
    pages: list[str] = []
    failed: dict[str, str] = {}
    answers: dict[str, str] = {}
    order, index = [analysis.name for analysis in ANALYSES], None
    for number, analysis in enumerate(wanted, 1):
        tell(f"{number}/{len(wanted)}  {analysis.name}: {analysis.asks}")
        start = time.monotonic()
        try:
            made = analysis.make(job(analysis))
        except PydtError as error:
            failed[analysis.name] = _why(error, store, plan)
            tell(f"     no page: {failed[analysis.name]}")
            continue
        for page in _entitled(made, analysis, job(analysis)):
            pages.append(page.name)
            answers[page.name] = page.answer[0]
            # each page once: the rows of a large CSV file can be read once
            index = write_pages([page], store.folder / PAGES, " \u2192 ".join(names), provenance, order)
            tell(f"     {page.answer[0]} ({time.monotonic() - start:.0f} s)")
    absent = {
        f"{a.name}{_suffix(a, job(a))}": (a.asks, why)
        for a in ANALYSES
        if (why := (failed | unsuited).get(a.name)) is not None
    }
    for analysis in ANALYSES:
        name = f"{analysis.name}{_suffix(analysis, job(analysis))}"
        if analysis.name in skipped and not (store.folder / PAGES / f"{name}.html").is_file():
            absent[name] = analysis.asks, "it trains models: pydt analyse FILE --train"
    if absent:
        index = write_pages([], store.folder / PAGES, " \u2192 ".join(names), provenance, order, absent)
    return Analysed(index, tuple(pages), failed, skipped, unsuited, answers)


def _entitled(made: Page | list[Page], analysis: Analysis, job: Job) -> list[Page]:
    """The pages of an analysis; of a plan with several tasks they say which one they are about, and are called so."""
    pages = made if isinstance(made, list) else [made]
    record = job.store.plan(job.plan)
    title = []
    if analysis.about == "task" and len(record.tasks) > 1:
        title.append(job.store.described(job.settings.get("task"), record)["name"])
    if "output" in job.settings:
        title.append(called_output(job.settings["output"]))
    suffix = _suffix(analysis, job)
    return [replace(page, name=page.name + suffix, title=" \u00b7 ".join([page.title, *title])) for page in pages]


def _suffix(analysis: Analysis, job: Job) -> str:
    """What the names of pages end with that are not about the plan's first task, or about an output that was asked for;
    else nothing."""
    tasks, said = job.store.plan(job.plan).tasks, []
    task = job.store.described(job.settings.get("task"), job.plan)
    if analysis.about == "task" and task["digest"] != tasks[0]["digest"]:
        names = [re.sub(r"[^a-z0-9]+", "-", one["name"].casefold()).strip("-")[:_LONGEST].strip("-") for one in tasks]
        own = names[next(i for i, one in enumerate(tasks) if one is task)]
        said.append(own if own and names.count(own) == 1 else f"{own[: _LONGEST - 9]}-{task['digest'][:8]}".strip("-"))
    if "output" in job.settings:
        said.append(re.sub(r"[^a-z0-9]+", "-", job.settings["output"].casefold()))
    return "".join(f"-{one}" for one in said)


def _few(names: list[str]) -> str:
    """Names of targets in a heading."""
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} targets"


def _why(error: PydtError, store: Store, plan: Plan) -> str:
    """Why an analysis gave no page. Where the masks as a whole are sound, a part of them fails that the reader never
    sees: the error's own advice would not help.
    """
    if not isinstance(error, EstimateError):
        return str(error)
    if (found := uncompared(store.design(plan).take(store.finished(plan)), store.names(plan))) is not None:
        return f"{found[0]}: {found[1]}"
    few = few_masks(plan.design)
    if few is not None:
        return f"{few} ({error.what})"
    if error.where != "masks":
        return str(error)
    return f"models are compared in parts, and a part does not tell the groups apart ({error.what}): train more models"

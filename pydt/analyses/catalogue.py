"""All analyses of a plan, one page each: what `pydt analyse` runs.

An analysis that only estimates is computed anew from the rows that the store holds. One that retrains keeps its rows in
the store, so the same command continues wherever it was stopped. Pages are written as they are finished.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydt import __version__
from pydt.base import ConfigError, EstimateError, PydtError, StoreError, read, suggest
from pydt.ensemble import Plan
from pydt.estimation import few_masks
from pydt.reporting import Page, called, write_pages
from pydt.store import Store

IMAGES_MODELS = 100
"""Models on random halves of the source's images, where a plan has other groups."""
VERIFIED = {"verify": 3}
"""Images whose flip is tried by retraining, where that is asked for."""
FOLDER = "analyses"
"""Where the pages lie, in the folder of the store."""


@dataclass(frozen=True)
class Job:
    """What an analysis works on.

    Attributes:
        train: whether models may be trained. workers: as `pydt.run` takes it.
        seed: of what is retrained and of random splits.
        settings: further arguments of the analysis's function.
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
        name, asks: what it is called and what it asks.
        trains: whether it trains models. make: what makes its page.
        images: whether it is asked of a plan whose groups are single images, too; of such a one it trains nothing.
    """

    name: str
    asks: str
    trains: bool
    make: Callable[[Job], Page]
    images: bool = False


@dataclass(frozen=True)
class Analysed:
    """What `analyse` did.

    Attributes:
        index: path of the page that lists all, and what could not be made.
        pages: names of the pages it wrote. failed: name of an analysis that gave no page -> why.
        skipped: names of those that would train, where that was not asked for.
    """

    index: Path | None
    pages: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def _calls(function: str, trained: Mapping[str, Any] | None = None, **fixed: Any) -> Callable[[Job], Page]:
    """What makes a page with a function of the package.

    Args:
        function: module and function.
        trained: arguments where models may be trained; None if it never trains any.
        fixed: further arguments.
    """

    def make(job: Job) -> Page:
        module, name = function.split(".")
        call = getattr(importlib.import_module(f"pydt.{module}"), name)
        more = {} if trained is None or not job.train else {"workers": job.workers, **trained}
        page: Page = call(job.store, job.plan, **{"seed": job.seed, **fixed, **more, **job.settings}).page()
        return page

    return make


def _estimates(name: str, asks: str, function: str, images: bool = False, **fixed: Any) -> Analysis:
    return Analysis(name, asks, False, _calls(function, **fixed), images)


def _trains(name: str, asks: str, function: str) -> Analysis:
    return Analysis(name, asks, True, _calls(function, {}))


def _examples(job: Job) -> Page:
    """Of a plan of other groups, an ensemble of its own is trained, in a folder of the store."""
    from pydt.analyses.examples import by_example, examples
    from pydt.ensemble import run

    store, plan, settings = job.store, job.plan, dict(job.settings)
    if plan.by != "example":
        plan = by_example(plan, settings.pop("models", IMAGES_MODELS), job.seed)
        store = run(plan, store.folder / "examples", workers=job.workers)
    return examples(store, plan, seed=job.seed, **settings).page()


ANALYSES: tuple[Analysis, ...] = (
    _estimates("ranking-target", "which groups help the target?", "rankings.ranking", per="target"),
    _estimates("ranking-class", "which groups help which class?", "rankings.ranking", per="class"),
    _estimates("ranking-example", "which groups help which image?", "rankings.ranking", per="example"),
    _trains("removal", "what does leaving groups out do?", "removal.removal_curve"),
    _estimates("subpopulations", "which images does a group move most?", "subpopulations.subpopulations"),
    _trains("failures", "which group is to blame for images that go wrong?", "failures.failures"),
    Analysis("examples", "which single source images help?", True, _examples, images=True),
    _estimates("misleading", "which groups mislead a class?", "misleading.misleading", images=True),
    _estimates("misleading-examples", "which mislead an image?", "misleading.misleading", images=True, per="example"),
    _estimates("leaks", "which groups hold copies of target images?", "leakage.leaks", images=True),
    _estimates("outputs", "does another output tell another story?", "sensitivity.compare_outputs"),
    _estimates("brittleness", "how few groups hold up a prediction?", "brittleness.brittleness", trained=VERIFIED),
    _estimates("stability", "would other models rank the groups alike?", "sensitivity.stability"),
)
"""All there are, in the order of the index."""


def chosen(only: Iterable[str] | None, train: bool, by: str = "class") -> tuple[list[Analysis], tuple[str, ...]]:
    """The analyses to make, and the names of those that are skipped as they would train.

    By default all that can be asked of groups by `by`; an analysis that is named is made whatever they are.

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


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The names in a text file, one a line.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        lines = read(Path(path)).decode().splitlines()
    except (OSError, StoreError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", str(path), "give a UTF-8 text file") from error
    return [line.strip() for line in lines if line.strip()]


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
) -> Analysed:
    """Make the pages of all analyses of a plan from the rows its store holds: `dir`/analyses/index.html lists them.

    Args:
        plan: whose rows are in the store.
        dir: folder of the store.
        only: names of analyses (of `ANALYSES`); by default all.
        train: run those that retrain models, too; else they are skipped.
        workers: processes for what is trained, see `pydt.run`.
        seed: of what is retrained and of random splits.
        settings: by name of an analysis, further arguments of its function, such as
            {"removal": {"keep_lists": {"mine": ["cat", "dog"]}}}.
        facts: (name, value) to go below the provenance of every page.
        tell: called with a line before each analysis.

    Raises:
        ConfigError: an unknown name in `only`.
        StoreError: no store there, or the pages cannot be written. What goes wrong in one analysis does not stop the
            others: see `Analysed.failed`.
        KeyboardInterrupt: Ctrl-C; what is stored stays.
    """
    wanted, skipped = chosen(only, train, plan.by)
    store = Store(dir, plan)
    names = called(plan.source.name, "source"), called(plan.tasks[0].target.name, "target")
    provenance = [("plan", plan.digest), ("models", f"{len(store.finished()):,}"), ("pydt", __version__), *facts]
    pages: list[Page] = []
    failed: dict[str, str] = {}
    order, index = [analysis.name for analysis in ANALYSES], None
    for number, analysis in enumerate(wanted, 1):
        tell(f"{number}/{len(wanted)}  {analysis.name}: {analysis.asks}")
        start = time.monotonic()
        try:
            pages.append(analysis.make(Job(store, plan, train, workers, seed, (settings or {}).get(analysis.name, {}))))
        except PydtError as error:
            failed[analysis.name] = _why(error, store, plan)
            tell(f"     no page: {failed[analysis.name]}")
            continue
        index = write_pages(pages, store.folder / FOLDER, " \u2192 ".join(names), provenance, order)
        tell(f"     {pages[-1].answer[0]} ({time.monotonic() - start:.0f} s)")
    absent = {a.name: (a.asks, failed[a.name]) for a in wanted if a.name in failed}
    for analysis in ANALYSES:
        if analysis.name in skipped and not (store.folder / FOLDER / f"{analysis.name}.html").is_file():
            absent[analysis.name] = analysis.asks, "it trains models: pydt analyse FILE --train"
    if absent:
        index = write_pages(pages, store.folder / FOLDER, " \u2192 ".join(names), provenance, order, absent)
    return Analysed(index, tuple(page.name for page in pages), failed, skipped)


def _why(error: PydtError, store: Store, plan: Plan) -> str:
    """Why an analysis gave no page. Where the masks as a whole are sound, it is a part of them that fails, of which the
    reader knows nothing: the error's own mend would not help.
    """
    masks = store.masks(plan)
    if not isinstance(error, EstimateError) or not masks.any(0).all() or masks.all(0).any():
        return str(error)
    few = few_masks(plan.design)
    if few is not None:
        return f"{few} ({error.what})"
    if error.where != "masks":
        return str(error)
    return f"models are compared in parts, and a part does not tell the groups apart ({error.what}): train more models"

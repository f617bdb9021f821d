"""Several data sets as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pydt.base import DataError, as_names
from pydt.data.index_file import Noted, Records, note
from pydt.data.labels import Columns
from pydt.data.table import ExampleTable


def concat(parts: Sequence[ExampleTable], names: Iterable[str] | None) -> ExampleTable:
    """See `Dataset.concat`."""
    titles = tuple(d.name for d in parts) if names is None else as_names(names, "names")
    if len(titles) != len(parts) or len(set(titles)) != len(titles):
        raise DataError(f"names {list(titles)}", "concat", "give one distinct name per data set: names=[...]")
    shapes = {None if d.images is None else d.images.shape[1:] for d in parts}
    if len(shapes) > 1:
        raise DataError(
            f"image shapes differ: {sorted(map(str, shapes))}", "concat", "bring all sources to one shape first"
        )
    grounds = {d.background for d in parts if "background" in d.shown()}
    if len(grounds) > 1:
        what = f"transparent images are shown on {' and on '.join(sorted(grounds))}"
        raise DataError(what, "concat", "give all sources one background=")
    labels, classes = _join([(d.labels, d.classes) for d in parts])
    shared = [name for name in parts[0].columns if all(name in d.columns for d in parts)]
    columns: Columns = {name: _join([d.columns[name] for d in parts]) for name in shared}
    columns["source"] = (np.repeat(np.arange(len(parts)), [len(d) for d in parts]), titles)
    captions = None
    if all(d.captions is not None for d in parts):
        captions = tuple(text for d in parts for text in d.captions or ())
    images, paths, records, positions = None, None, None, np.arange(len(labels))
    if parts[0].images is not None:
        stacks = [d.images for d in parts if d.images is not None]
        if all(stack is stacks[0] for stack in stacks):
            images, positions = stacks[0], np.concatenate([d.positions for d in parts])
        else:
            images = np.concatenate([stack[d.positions] for stack, d in zip(stacks, parts, strict=True)])
    else:
        used = [np.unique(d.positions, return_inverse=True) for d in parts]
        paths = tuple(d.paths[p] for d, (kept, _) in zip(parts, used, strict=True) if d.paths for p in kept)
        starts = np.cumsum([0, *(len(kept) for kept, _ in used)])
        positions = np.concatenate([at + start for (_, at), start in zip(used, starts[:-1], strict=True)])
        records = Records.join([d.records for d in parts if d.records is not None])
    named = list(zip(titles, parts, strict=True))
    noted: Noted = {}
    for title, d in named:
        for reason, (count, first) in d.noted.items():
            note(noted, reason, f"{title}/{first}", count)
    return ExampleTable(
        images,
        paths,
        positions,
        labels,
        classes,
        columns=columns,
        captions=captions,
        keys=tuple(f"{title}/{key}" for title, d in named for key in d.all_keys()),
        name=" + ".join(titles),
        records=records,
        left_out={f"{title}/{key}": why for title, d in named for key, why in d.left_out.items()},
        noted=noted,
        background=next(iter(grounds), parts[0].background),
    )


def _join(parts: list[tuple[np.ndarray, tuple[str, ...]]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Partitions one after the other as one, in which equal names are one group; -1 stays -1."""
    names = tuple(dict.fromkeys(name for _, own in parts for name in own))
    number = {name: i for i, name in enumerate(names)}
    # The last place of each table serves the code -1.
    return np.concatenate([np.array([*(number[n] for n in own), -1], np.int64)[codes] for codes, own in parts]), names

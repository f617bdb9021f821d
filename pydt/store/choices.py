"""Learning rates that were chosen, each in a file with a checksum: DIR/choices/<digest>.json.

The name is a digest of the question: the trainings and the trials, so of source, masks, seeds, recipe, task and grid.
Equal choices are equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydt.base import HEX32, Form, StoreError, canonical_json, digest, read_json
from pydt.store.cells import Cells, placed, stems

_COUNT = range(1, 1 << 31)
_TRIED: Form = {
    "rate": float,
    "trial": HEX32,
    "failed": range(1 << 31),
    "loss": float | None,
    "stderr": float | None,
    "accuracy": float | None,
    "accuracy_stderr": float | None,
    "behind": float | None,
    "behind_stderr": float | None,
}
CHOICE: Form = {
    "question": HEX32,
    "task": HEX32,
    "name": str,
    **dict.fromkeys(("target", "source", "units", "recipe"), HEX32),
    "trainings": [HEX32],
    "images": _COUNT,
    "rows": _COUNT,
    "draws": _COUNT,
    "chosen": float,
    "grid": [_TRIED],
}
"""What a choice says: "task" is the digest of the judged task with the chosen rate, "trainings" the source keys of the
rows of the trials, "images" how many labelled validation images there were, "rows" how many rows count, "draws" of
each; "grid" has the rates from the lowest to the highest, "failed" of the rows at each, and numbers where none did."""
_MEND = "delete this one file, or let `pydt verify` put it aside, and run the same plan again: no trial is repeated"


def write_choice(cells: Cells, choice: Mapping[str, Any]) -> None:
    """Write a choice, of the form `CHOICE`.

    Raises:
        StoreError: it cannot be written.
    """
    text = canonical_json({**choice, "sha256": digest("choice", choice)})
    cells.write(Path("choices") / f"{choice['question']}.json", text.encode())


def read_choice(cells: Cells, question: str) -> dict[str, Any] | None:
    """What `write_choice` wrote; None: nothing.

    Raises:
        StoreError: it is damaged.
    """
    path = cells.folder / "choices" / f"{question}.json"
    try:
        with placed(path, _MEND):
            choice: dict[str, Any] = read_json(path, {**CHOICE, "sha256": HEX32})
            if choice.pop("sha256") != digest("choice", choice) or choice["question"] != question:
                raise StoreError("is damaged (its checksum does not match)")
            if choice["chosen"] not in [tried["rate"] for tried in choice["grid"]]:
                raise StoreError("is damaged (the chosen rate is not in the grid)")
            return choice
    except FileNotFoundError:
        return None


def read_choices(cells: Cells) -> Iterator[dict[str, Any]]:
    """Every choice of a store, in the order of their names.

    Raises:
        StoreError: one is damaged.
    """
    for question in stems(cells, "choices", ".json"):
        if (choice := read_choice(cells, question)) is not None:
            yield choice

"""The command that looks at folders of images and writes a first plan for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydt.base import ConfigError, DataError, PydtError, write_atomic
from pydt.cli.arguments import command, follows

if TYPE_CHECKING:
    from pydt.data import Dataset
    from pydt.ensemble.first_plan import FirstPlan, ImageFacts, TargetFacts

_PARTS = ("train", "training")
_TESTS = ("test", "val", "valid", "validation")
_FEW = 6  # names in a line
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I")  # Pillow's modes
_WORTH = 0.5  # hours of decoding from which packing is worth the trouble


def init(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Images to train on: a folder with one sub-folder a class, or shards."),
    ],
    targets: Annotated[
        list[Path],
        typer.Argument(metavar="TARGET...", help="Images of the task; with sub-folders train and test, these parts."),
    ],
    out: Annotated[Path, typer.Option(help="The plan file to write; it must not exist.")] = Path("study.toml"),
) -> None:
    """Look at a source and one or more targets, and write a first plan with a reason for each setting.

    Every image is decoded once. Nothing is trained.
    """
    from pydt.ensemble import places, read_plan
    from pydt.ensemble.first_plan import first_plan, written
    from pydt.training import Recipe

    if os.path.lexists(out):
        raise ConfigError("is there already", str(out), "give another name: --out second.toml")
    if out.suffix != ".toml":
        raise ConfigError("is no name of a plan file", str(out), "end it with .toml")
    base = out.resolve().parent
    if not base.is_dir():
        raise ConfigError("its folder is not there", str(out), f"make it: mkdir -p {base}")
    if twice := next(
        (place for i, place in enumerate(targets) if place.resolve() in map(Path.resolve, targets[:i])), None
    ):
        raise ConfigError("is given twice", str(twice), "give each target once")
    names = [place.resolve().name for place in targets]
    device = _device()
    found = _facts(_part(source, _PARTS) or source, source.name, base, measured=True)
    tasks = [
        _target(place, str(place) if names.count(name) > 1 else name, base)
        for place, name in zip(targets, names, strict=True)
    ]
    workers = places(Recipe(device=device))[0]
    made = first_plan(found, tasks, workers=workers, device=device)
    again = command("init", source, *targets)
    write_atomic(out, written(made, again, out.name).encode())
    try:
        plan = read_plan(out).plan
        shared = [text for task in plan.tasks for text in task.target.copied(plan.source, *plan.source.units())]
    except PydtError:
        out.unlink()
        raise
    typer.echo()
    for text in shared:
        typer.echo(f"Note: {text}.")
    for line in _told(made, source, workers):
        typer.echo(line)
    typer.echo(f"\nwritten: {out}, with a reason for each setting")
    follows(command("plan", out), "says what it costs; nothing is trained for good")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _part(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The part of a split folder that has one of these names; None where it is not split."""
    if not folder.is_dir():
        return None
    inside = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
    if not set(inside) & set(_PARTS) or not set(inside) <= {*_PARTS, *_TESTS}:
        return None
    return next((inside[name] for name in names if name in inside), None)


def _target(place: Path, name: str, base: Path) -> TargetFacts:
    """What is in a target; of a folder that is split into train and test, in both."""
    from pydt.ensemble.first_plan import TargetFacts

    train, test = _part(place, _PARTS), _part(place, _TESTS)
    if train is None or test is None:
        return TargetFacts(_facts(train or place, name, base))
    found = TargetFacts(_facts(train, name, base), _facts(test, name, base))
    assert found.test is not None
    if extra := sorted(set(found.test.classes) - set(found.train.classes)):
        mend = f"give {train} the same classes, or leave these out of the test set"
        raise DataError(f"has classes that {train.name} lacks: {', '.join(extra[:_FEW])}", str(test), mend)
    return found


def _facts(place: Path, name: str, base: Path, measured: bool = False) -> ImageFacts:
    """What is in a data set, which is printed, too; with `measured`, mean and spread of its pixels."""
    from pydt.data import inspect as look
    from pydt.ensemble.first_plan import ImageFacts

    dataset = look.load(place)
    seen = look.inspect(dataset)
    for line in _seen(place, dataset, seen):
        typer.echo(line)
    if len(dataset.classes) < 2 and place.suffix == ".npy":
        mend = 'write the plan by hand: images = "images.npy", labels = "labels.npy" (docs/plans.md)'
        raise DataError("is an array without labels", str(place), mend)
    undecodable = seen["broken"].keys() - dataset.left_out.keys()
    if undecodable and not measured:
        first = ", ".join(sorted(undecodable)[:_FEW])
        mend = "delete them: every image of a target is judged"
        raise DataError(f"{len(undecodable):,} images cannot be decoded: {first}", str(place), mend)
    mean, std = look.brightness(dataset) if measured else ((0.5,), (0.25,))
    return ImageFacts(
        _named(place, base, dataset),
        name,
        seen["classes"],
        seen["height"][1],
        seen["width"][1],
        dataset.encoded,
        mean,
        std,
        len(undecodable),
    )


def _seen(place: Path, dataset: Dataset, found: Mapping[str, Any]) -> list[str]:
    """What was found in a data set, in words."""
    from pydt.data import inspect as look
    from pydt.reporting import count

    classes, sizes = found["classes"], sorted(found["classes"].values())
    each = f"{sizes[0]:,} to {sizes[-1]:,}" if sizes[0] < sizes[-1] else f"{sizes[0]:,}"
    lines = [f"{place}: {count(found['images'], 'image')} of {count(len(classes), 'class', 'classes')}, {each} a class"]
    if found["height"] is not None:
        (low, middle, high), (left, centre, right) = found["height"], found["width"]
        lines.append(f"  height x width: {low} x {left} to {high} x {right} pixels, median {middle:g} x {centre:g}")
    grey = sum(many for mode, many in found["modes"].items() if mode in _GREY)
    if grey and dataset.encoded:
        lines.append(f"  grey images, seen as RGB: {grey:,}")
    lines += [
        f"  {what}: {many:,} ({first})" for what, (many, first) in found["noted"].items() if what != look.ONE_COLOUR
    ]
    if found["duplicates across classes"]:
        across = found["duplicates across classes"]
        lines.append(f"  the same image in two classes: {across:,} (`pydt inspect {place}` names them)")
    broken = [f"{key}: {reason}" for key, reason in found["broken"].items()]
    more = ", ..." if len(broken) > _FEW else ""
    return [*lines, f"  broken: {len(broken):,} ({'; '.join(broken[:_FEW])}{more})" if broken else "  broken: none"]


def _named(place: Path, base: Path, dataset: Dataset) -> Mapping[str, str]:
    """How a plan file in the folder `base` names a data set."""
    from pydt.data import READERS

    kind = "saved" if dataset.folder else next(name for name, reader in READERS.items() if reader.is_here(place))
    try:
        path = os.path.relpath(place.resolve(), base)
    except ValueError:  # another drive of Windows
        path = str(place.resolve())
    return {kind: path} | ({"bad": "skip"} if dataset.left_out and kind != "saved" else {})


def _told(made: FirstPlan, source: Path, workers: int) -> list[str]:
    """What the plan trains and what it takes, roughly."""
    from pydt.ensemble.plan_cost import in_time
    from pydt.reporting import count

    models, network = made.value("models"), made.value("network")
    lines = [f"{count(models, 'model')} ({network}), each on {made.value('alpha'):.0%} of the classes of {source}"]
    if made.hours is None:
        return [*lines, "cost: `pydt plan` times it on the GPU"]
    at_once = count(workers, "worker")
    lines.append(f"cost: roughly {in_time(3600 * made.hours)} with {at_once}; `pydt plan` times a row first")
    if made.decoding > max(made.hours / 2, _WORTH):
        side = made.value("augment.size")
        packed = f"{source.name}-{side}"
        lines.append(
            f"of these {in_time(3600 * made.decoding)} go into decoding; decode once instead: "
            f"pydt pack {source} {packed} --size {side}, then pydt init {packed} ..."
        )
    return lines

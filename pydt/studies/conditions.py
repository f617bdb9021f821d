"""What was held equal in a study and what was not, read off its sources, recipes, modes and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pydt.ensemble import RatesOfPart, edge_notes
from pydt.reporting import count, listed, quoted
from pydt.studies.sources import Mixture, Source
from pydt.studies.study import SCRATCH, Arm, Study, reads_captions
from pydt.training import BUDGETS, MODES, Recipe

_WORDS = {
    "network": "the network",
    "batch_size": "the batch",
    "augment": "augmentation",
    "lr": "the learning rate of pre-training",
    "schedule": "its schedule",
    "optimizer": "the optimiser",
    "device": "the device",
}
_OF_METHODS = ("method", *BUDGETS, "threads", "label_smoothing", "clip", "simclr", "checkpoint", "scratch")
"""What a method is, or what is said elsewhere."""
_SHOWN = 8  # notes on learning rates that are written out


def equal(study: Study) -> list[str]:
    """What all arms have in common, in sentences."""
    found = []
    if study.sources:
        found.append(
            "Sources are compared at equal numbers of images; every seed has its own sample of each source, nested in "
            "size, and all methods train on it."
        )
    budgets = {recipe.budget for recipe in study.methods.values()}
    kind, number = next(iter(budgets), ("", 0))
    if len(budgets) == 1 and kind != "epochs":
        what = {"steps": "optimiser steps", "samples": "images seen"}[kind]
        found.append(f"Every pre-training takes {number:,} {what}, whatever the size.")
    elif len(budgets) == 1:
        found.append(f"Every pre-training takes {count(number, 'epoch')}.")
    same = [_said(name, values[0]) for name, values in _settings(study).items() if _alike(values)]
    if same:
        found.append(f"All methods have in common: {'; '.join(same)}.")
    found.append("All arms have the same few-shot draws (nested in shots) and the same judged target images.")
    found.append(_rates(study))
    found += [_mode(name, settings) for name, settings in study.modes.items()]
    return found


def unequal(study: Study) -> list[str]:
    """What differs between arms besides what is asked, in sentences."""
    return [*_of_sources(study), *_of_methods(study), *_of_transfer(study), *_of_checkpoints(study)]


def told_source(source: Source | Mixture) -> str:
    """A source as the page tells it: what it is, and how many images it has."""
    return f"{source.told}, {source.largest:,} images"


def told_method(name: str, recipe: Recipe) -> str:
    """A method as the page tells it after its name."""
    kind, number = recipe.budget
    what = "images seen" if kind == "samples" else kind
    method = "" if recipe.method == name else f"{recipe.method}, "
    return f"{method}{_network(recipe)}, {number:,} {what}, batches of {recipe.batch_size:,}, rate {recipe.lr:g}"


def told_mode(study: Study, name: str) -> str:
    """A mode as the page tells it after its name, with its epochs and learning rates."""
    settings = study.modes[name]
    mode = settings["mode"]
    own = "" if mode == name else f"{mode}, "
    return f"{own}{_how(mode, settings)}" + (f"; {_grid(study)}" if _learns(study, name) else "")


def rate_notes(study: Study, choices: Mapping[str, RatesOfPart]) -> list[str]:
    """How the learning rates were chosen, and choices that a reader should doubt.

    Args:
        choices: by name of arm.
    """
    if not choices:
        return []
    chosen = [one for choice in choices.values() for one in choice.table if one.chosen]
    low, high = min(study.rates), max(study.rates)
    ends = [sum(one.rate == end for one in chosen) for end in (low, high)]
    text = (
        f"Learning rates were chosen from {_numbers(study.rates)} by the loss on validation images, for each arm, "
        f"target, mode and number of shots, on the first seed: {ends[0]:,} of {count(len(chosen), 'choice')} are the "
        f"lowest and {ends[1]:,} the highest rate of the grid"
    )
    notes = [f"{text}, where a rate outside may be better." if sum(ends) else f"{text}."]
    own = []
    for arm, choice in choices.items():
        edges = [note for _, tried in groupby(choice.table, lambda one: one.task) for note in edge_notes(list(tried))]
        own += [f"{arm}: {note}." for note in choice.notes if note not in edges]  # which are counted above
    notes += own[:_SHOWN]
    if len(own) > _SHOWN:
        notes.append(f"{len(own) - _SHOWN:,} more such notes are left out.")
    return notes


# ---- sources --------------------------------------------------------------------------------------------------------


def _of_sources(study: Study) -> Iterator[str]:
    classes = {name: _classes(source) for name, source in study.sources.items()}
    if len(set(classes.values())) > 1:
        own = ", ".join(f"{quoted(name)} {number:,}" for name, number in classes.items())
        yield f"Sources differ in the number of their classes ({own}), so at equal size in images of each class."
    whole = [name for name, source in study.sources.items() if source.largest == max(study.sizes)]
    if whole:
        yield (
            f"At {study.sizes[-1]:,} images {listed(whole)} {'is' if len(whole) == 1 else 'are'} taken whole: seeds "
            "share these images, and errors do not contain their choice."
        )
    if study.cells is not None:
        grid = len(study.sources) * len(study.sizes) * len(study.methods)
        if len(study.cells) < grid:
            yield f"{len(study.cells):,} of the {grid:,} combinations of source, size and method were listed and run."


def _classes(source: Source | Mixture) -> int:
    """How many classes the whole of a source has."""
    return len(source.take(source.largest).classes)


# ---- methods --------------------------------------------------------------------------------------------------------


def _of_methods(study: Study) -> Iterator[str]:
    budgets = {name: recipe.budget for name, recipe in study.methods.items()}
    if len(set(budgets.values())) > 1:
        own = ", ".join(f"{quoted(name)} {number:,} {kind}" for name, (kind, number) in budgets.items())
        yield f"Methods differ in how long they train: {own}."
    epochs = [name for name, (kind, _) in budgets.items() if kind == "epochs"]
    if epochs and len(study.sizes) > 1:
        yield (
            f"{listed(epochs)} {'trains' if len(epochs) == 1 else 'train'} for a number of epochs: larger sizes are "
            "trained for more steps, so a gain of size contains one of length."
        )
    for name, values in _settings(study).items():
        if not _alike(values):
            own = ", ".join(f"{quoted(m)} {value}" for m, value in zip(study.methods, map(_short, values), strict=True))
            yield f"Methods differ in {_WORDS.get(name, name.replace('_', ' '))}: {own}."


def _settings(study: Study) -> dict[str, list[Any]]:
    """The settings of the methods besides what makes the method, one value for each."""
    told = []
    for recipe in study.methods.values():
        told.append({**recipe.described(), "network": _network(recipe)})
    names = dict.fromkeys(name for one in told for name in one if name not in _OF_METHODS)
    return {name: [one.get(name) for one in told] for name in names}


def _network(recipe: Recipe) -> str:
    told = recipe.described()["network"]
    return told if isinstance(told, str) else str(told)


def _alike(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _said(name: str, value: Any) -> str:
    word = _WORDS.get(name, name.replace("_", " ")).removeprefix("the ")
    return f"{word} {_short(value)}"


def _short(value: Any) -> str:
    """A setting in a few words."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        own = ", ".join(f"{name} {_short(one)}" for name, one in value.items() if one not in (None, 0, False, (), []))
        return f"({own})" if own else "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "-".join(_short(one) for one in value)
    return str(value)


# ---- transfer -------------------------------------------------------------------------------------------------------


def _learns(study: Study, name: str) -> bool:
    return MODES[study.modes[name]["mode"]].learns


def _rates(study: Study) -> str:
    if not any(_learns(study, name) for name in study.modes):
        return "No mode of transfer has a learning rate."
    if not study.rates:
        return "The learning rate of transfer is that of its mode for all arms; none was chosen from a grid."
    return f"Learning rates of transfer come from one grid for all arms ({_numbers(study.rates)})."


def _grid(study: Study) -> str:
    return f"rates {_numbers(study.rates)}" if study.rates else "no grid of rates"


def _mode(name: str, settings: Mapping[str, Any]) -> str:
    """How a mode transfers, with the settings that it has beside the defaults."""
    mode = settings["mode"]
    named = quoted(name) if name == mode else f"{quoted(name)} ({mode})"
    return f"Transfer by {named}: {_how(mode, settings)}."


def _how(mode: str, settings: Mapping[str, Any]) -> str:
    from pydt.training import FineTune

    if MODES[mode].learns:
        how = settings.get("finetune", FineTune())
        text = (
            f"{count(how.epochs, 'epoch')} of {how.optimizer}, batches of {how.batch_size:,}, schedule {how.schedule}"
        )
        own = {key: value for key, value in settings.items() if key not in ("mode", "finetune", "zero_shot")}
        return ", ".join([text, *(f"{key} {_short(value)}" for key, value in own.items())])
    if mode == "probe":
        return f"a ridge classifier on frozen features, penalty {settings.get('penalty', 10.0):g}"
    return "the names of the classes are the classifier"


def _of_transfer(study: Study) -> Iterator[str]:
    reading = [arm for arm in study.arms if reads_captions(arm.recipe)]
    for name, settings in study.modes.items():
        how = settings.get("finetune")
        auto = "zero_shot" in MODES[settings["mode"]].settings and getattr(how, "head", "auto") == "auto"
        if _learns(study, name) and auto and 0 < len(reading) < len(study.arms):
            yield (
                f"Transfer by {quoted(name)} begins with a zero-shot head for arms that read captions "
                f"({listed(_names(reading))}), and with a random one for the others."
            )
        if not MODES[settings["mode"]].labelled and len(reading) < len(study.arms):
            own = listed(_names(reading)) if reading else "none"
            yield f"Transfer by {quoted(name)} is possible for arms that read captions alone ({own})."
    if study.scratch is not None:
        settings_of = study.scratch.scratch
        both = ("rate", settings_of.lr), ("epochs", settings_of.epochs)
        told = [f"{name} {value:g}" for name, value in both if value is not None]
        if told and any(_learns(study, name) for name in study.modes):
            yield f"{SCRATCH.capitalize()} is fine-tuned with settings of its own: {', '.join(told)}."
        other = [name for name, recipe in study.methods.items() if _network(recipe) != _network(study.scratch)]
        if other:
            yield f"{SCRATCH.capitalize()} has the network {_network(study.scratch)}, unlike {listed(other)}."


def _names(arms: Sequence[Arm]) -> list[str]:
    """The methods of trained arms, the names of others."""
    return list(dict.fromkeys(arm.method if arm.kind == "trained" else arm.name for arm in arms))


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def _of_checkpoints(study: Study) -> Iterator[str]:
    for name, model in study.checkpoints.items():
        images = "an unknown number of images" if model.images is None else f"{model.images:,} images"
        epochs = "unknown epochs" if model.epochs is None else f"{model.epochs:g} epochs"
        yield (
            f"{quoted(name)} is a public checkpoint ({_network(model.recipe)}, {model.method}, {model.source}, "
            f"{images}, {epochs}): one network, of another size, architecture and length than the study's own "
            "trainings, so a difference from them has more than one possible cause."
        )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))

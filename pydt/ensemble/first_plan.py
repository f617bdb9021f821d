"""The settings of a first plan for images that nobody has trained on yet, each with its reason in a line.

They are decided by numbers alone: images of each class, their sides, cores, GPU. What was measured stands here once;
docs/how-many-models.md, docs/designs.md and docs/plans.md have the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from pydt.base import DataError

# Groups of which a quarter still are four classes to tell apart; on the 62 of the sample a quarter gave most a second.
_MANY_GROUPS = 16
_MODELS_A_GROUP = 5  # three to five are usual
_MORE_MODELS = 50  # than groups: so many degrees of freedom tell the noise to 1 / sqrt(2 x 50) = 10 %
_FEW_SETS = 10  # more different masks than groups: with fewer, errors are hardly known
_SMALL_SIDE = 48  # pixels; up to here `convnet-24`, made for images of 28 to 32
_LARGE_SIDE = 128
_ENOUGH = 1000  # images a row from which resnet18, with 11 million weights, is worth its time
_NIGHT = 12.0  # hours that resnet18 may take on CPUs
_STEPS_A_PASS, _STEPS = 8, 150  # at least, as far as images go; networks of docs/plans.md learnt in 72 to 300
_EPOCHS = 6
_BATCHES = (128, 64, 32, 16)
_SHOTS = 5
_WIDE = 36  # characters of a setting, from which its reason is not aligned with the others
# Seconds of one core for 1,000 training images: forward and backward in batches of 16 to 128 (AMD EPYC, Zen 3), and to
# decode a million pixels, and to read and crop, 1,000 times.
_TRAINING = {
    ("convnet-24", 32): 0.06,
    ("convnet-24", 64): 0.19,
    ("convnet-24", 128): 0.7,
    ("resnet18", 64): 11.4,
    ("resnet18", 128): 37.7,
}
_DECODING, _READING = 10.0, 0.4


@dataclass(frozen=True)
class ImageFacts:
    """What a first plan is decided by.

    Attributes:
        named: how a plan file names the data: {"folder": "photos", "bad": "skip"}.
        name: how people call it.
        classes: class -> images.
        height, width: median, in pixels.
        encoded: files, not an array.
        mean, std: per channel, of pixels from 0 to 1.
        broken: files that only a decoder refuses.
    """

    named: Mapping[str, str]
    name: str
    classes: Mapping[str, int]
    height: float
    width: float
    encoded: bool = True
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    broken: int = 0

    @property
    def images(self) -> int:
        return sum(self.classes.values())

    @property
    def side(self) -> float:
        """The shorter side."""
        return min(self.height, self.width)


@dataclass(frozen=True)
class TargetFacts:
    """A target: what few-shot draws come from, and a test set of its own, if there is one."""

    train: ImageFacts
    test: ImageFacts | None = None


@dataclass(frozen=True)
class Setting:
    """One line of a plan file: its table ("" at the top), key, value, and why."""

    table: str
    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class FirstPlan:
    """A first plan.

    Attributes:
        settings: in the order of the file.
        hours: what the rows take, roughly; None on a GPU, where nothing was measured.
        decoding: hours of these that go into decoding files.
    """

    settings: tuple[Setting, ...]
    hours: float | None
    decoding: float

    def value(self, key: str) -> Any:
        """The value of the first setting of that name."""
        return next(one.value for one in self.settings if one.key == key)


def first_plan(
    source: ImageFacts, targets: Sequence[TargetFacts], *, workers: int = 1, device: str = "cpu"
) -> FirstPlan:
    """Settings for a source and its targets, each with its reason.

    Args:
        source: what models are trained on; its classes are the groups.
        targets: at least one; each makes a task.
        workers: rows trained at once.
        device: "cpu" or "cuda".

    Raises:
        DataError: fewer than three classes in the source or two in a target, or too few images in a class of a target.
    """
    groups = len(source.classes)
    if groups < 3:
        mend = (
            "put images of each kind into a sub-folder of its own, or name a column that makes groups (docs/plans.md)"
        )
        raise DataError(f"has {groups} {'class' if groups == 1 else 'classes'}: too few to compare", source.name, mend)
    alpha, models = (0.25 if groups >= _MANY_GROUPS else 0.5), _models(groups)
    kept = max(1, round(alpha * groups) * source.images // groups)  # images a row
    batch = next((size for size in _BATCHES if kept >= _STEPS_A_PASS * size), _BATCHES[-1])
    steps = max(1, kept // batch)
    epochs = max(_EPOCHS, math.ceil(_STEPS / steps))
    seen = models * kept * epochs / workers / 3.6e6  # thousands of images of one core, by seconds in an hour
    network, size, because = _network(source, kept, seen, device)
    decoding = seen * (_READING + _DECODING * source.height * source.width / 1e6) if source.encoded else 0.0
    training = seen * _TRAINING[network, min((32, 64, 128), key=lambda known: abs(known - size))]
    settings = [
        Setting("", "by", "class", f"a group is a class: {groups} of them"),
        *_data("source", source, f"{source.images:,} images, {_range(source.classes)} a class"),
        Setting("design", "kind", "random", "each model keeps as many groups, drawn at random"),
        Setting("design", "models", models, _why_models(groups, models, alpha)),
        Setting("design", "alpha", alpha, _why_alpha(groups, alpha)),
        Setting("recipe", "network", network, because),
        *_augment(source, targets, size),
        Setting("recipe", "batch_size", batch, f"about {kept:,} images a model: {_times(steps, 'step')} a pass"),
        Setting("recipe", "epochs", epochs, _why_epochs(epochs, epochs * steps)),
        Setting("recipe", "lr", _rate(network), f"with which {network} usually learns"),
    ]
    if device != "cpu":
        settings.append(Setting("recipe", "device", device, "there is a GPU"))
    if source.broken:
        told = f"{source.broken:,} images cannot be decoded; others take their place"
        settings.append(Setting("recipe", "on_error", "skip", told))
    for number, target in enumerate(targets):
        settings += _task(target, f"tasks {number}")
    hours = decoding + training if device == "cpu" else None
    return FirstPlan(tuple(settings), hours, decoding)


def _models(groups: int) -> int:
    return math.ceil(max(_MODELS_A_GROUP * groups, groups + _MORE_MODELS) / 10) * 10


def _why_models(groups: int, models: int, alpha: float) -> str:
    sets = math.comb(groups, max(1, round(alpha * groups)))
    if sets < groups + _FEW_SETS:
        return f"only {sets} sets of groups can be kept: errors stay wide, more groups would help most"
    if models >= _MODELS_A_GROUP * groups > groups + _MORE_MODELS:
        return f"{_MODELS_A_GROUP} a group, of the usual 3 to 5; more can be added later"
    return f"{_MORE_MODELS} more than groups tell the noise to 10 %; more can be added later"


def _why_alpha(groups: int, alpha: float) -> str:
    if groups >= _MANY_GROUPS:
        return "a quarter: small ones make models cheap and effects large"
    return f"half: a quarter would leave {round(groups / 4)} classes to tell apart"


def _network(source: ImageFacts, kept: int, seen: float, device: str) -> tuple[str, int, str]:
    """Name, side of its images, and why."""
    side = int(source.side)
    if side <= _SMALL_SIDE:
        size = min(side, 32) if source.encoded else side
        return "convnet-24", size, f"small, for small images: {side} pixels (median)"
    size = _LARGE_SIDE if side >= _LARGE_SIDE and device != "cpu" else 64
    size = size if source.encoded else side
    if kept < _ENOUGH:
        return "convnet-24", size, f"small: {kept:,} images a model are few for a larger one"
    hours = seen * _TRAINING["resnet18", 64] * (size / 64) ** 2
    if device == "cpu" and hours > _NIGHT:
        return "convnet-24", size, f"small: resnet18 would take about {hours:,.0f} hours here"
    return "resnet18", size, f"usual for images of {side} pixels (median)"


def _data(table: str, facts: ImageFacts, why: str) -> list[Setting]:
    found = [Setting(table, key, value, "") for key, value in facts.named.items()]
    told = {"bad": "broken files are left out; a run names them"}
    return [Setting(one.table, one.key, one.value, told.get(one.key, "") if i else why) for i, one in enumerate(found)]


def _augment(source: ImageFacts, targets: Sequence[TargetFacts], size: int) -> list[Setting]:
    parts = [source, *(part for target in targets for part in (target.train, target.test) if part is not None)]
    found = []
    if any(part.encoded for part in parts):
        side = f"{source.height:g} x {source.width:g}"
        found.append(
            Setting("recipe", "augment.size", size, f"pixels a side that the network sees; the median is {side}")
        )
    if source.encoded or size > _SMALL_SIDE:
        crop = [[0.3, 1.0], [0.75, 1.33]]
        why = "training sees random windows: area, width / height"
        found.append(Setting("recipe", "augment.resized_crop", crop, why))
    why = "true where a mirrored image means the same, as in most photographs"
    found.append(Setting("recipe", "augment.flip", False, why))
    found.append(Setting("recipe", "augment.mean", list(source.mean), "of the source's pixels, from 0 to 1"))
    found.append(Setting("recipe", "augment.std", list(source.std), "their spread"))
    return found


def _rate(network: str) -> float:
    from pydt.training import Recipe

    rate = Recipe(network=network).lr
    assert rate is not None
    return rate


def _why_epochs(epochs: int, steps: int) -> str:
    return f"passes: {steps:,} steps" + ("" if epochs == _EPOCHS else "; fewer teach a network too little")


def _task(target: TargetFacts, table: str) -> list[Setting]:
    train, test = target.train, target.test
    if len(train.classes) < 2:
        mend = "put images of each class into a sub-folder of its own"
        raise DataError(f"has {len(train.classes)} class", train.name, mend)
    pool, least = pool_of(train.classes, test is not None)
    smallest = min(train.classes, key=lambda name: train.classes[name])
    shots = max(1, min(_SHOTS, least // 2))
    if not least:
        few = train.classes[smallest]
        mend = "give it more images (five or more), leave the class out, or give a folder with train and test"
        raise DataError(f"class {smallest!r} has {few} images: too few to learn from and to judge", train.name, mend)
    why = f"labelled images a class; {smallest!r}, the smallest, has {least} in the pool"
    settings = [Setting(table, "shots", shots, why)]
    if PurePath(next(iter(train.named.values()))).name != train.name:  # else the usual name, which follows the shots
        settings.append(Setting(table, "name", f"{train.name}, {shots}-shot probe", "what reports call it"))
    settings.append(Setting(table, "draws", 8, "such draws for each model, averaged"))
    told = f"{train.images:,} images, {_range(train.classes)} a class"
    settings += _data(f"{table}.target.train", train, told)
    if test is not None:
        settings += _data(f"{table}.target.test", test, f"{test.images:,} images, which judge in two halves")
        return settings
    part = "2/9" if pool == round(2 * train.images / 9) else "a third"
    settings.append(Setting(table, "target.pool", pool, f"{part} of the images; the shots are drawn from them"))
    validation = max(train.images // 9, 1)
    why = f"1/9, for choices; the other {train.images - pool - validation:,} judge, in two halves"
    settings.append(Setting(table, "target.validation", validation, why))
    return settings


def pool_of(classes: Mapping[str, int], test: bool) -> tuple[int, int]:
    """How many images of a target go into the pool, and how many of the class that has fewest there, at least: with a
    test set all but 1/9, else 2/9 as usual, or a third where the usual share has too few for five shots and as many
    others.
    """
    images = sum(classes.values())
    if test:
        pool = images - max(images // 9, 1)
        return pool, _least(classes, pool)
    pool = round(2 * images / 9)
    if _least(classes, pool) < 2 * _SHOTS:
        pool = max(pool, images // 3)
    return pool, _least(classes, pool)


def _least(classes: Mapping[str, int], pool: int) -> int:
    """Images of the scarcest class among the first of a stratified order, whatever the order within ties."""
    counts = np.array(list(classes.values()))
    quantiles = [(np.arange(count) + 0.5) / count for count in counts]
    ordered = np.sort(np.concatenate(quantiles))
    if not 0 < pool < len(ordered):
        return int(counts.min()) if pool else 0
    return int(min((own < ordered[pool] - 1e-12).sum() for own in quantiles))


def _range(classes: Mapping[str, int]) -> str:
    low, high = min(classes.values()), max(classes.values())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _times(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def written(made: FirstPlan, command: str, name: str) -> str:
    """The text of a plan file with a reason behind each setting."""
    stem = name.removesuffix(".toml")
    lines = [
        f"# Written by: {_line(command)}",
        "# Every value may be changed; docs/plans.md has all others.",
        f"# Next: pydt plan {name} (what it costs), pydt run {name}, pydt prove {name}",
        "",
    ]
    table, run = "", [Setting("run", "dir", stem, "everything is stored in this folder")]
    settings = list(made.settings)
    settings[1:1] = run
    width = max(size for one in settings if one.why and (size := len(_shown(one))) <= _WIDE)
    for one in settings:
        head = "tasks" if one.table.startswith("tasks") else one.table
        if one.table.split(".")[0] != table:
            table = one.table.split(".")[0]
            lines += ["", f"[[{head}]]" if head == "tasks" else f"[{head}]"]
        lines.append(f"{_shown(one):{width}}  # {_line(one.why)}" if one.why else _shown(one))
    return "\n".join(lines) + "\n"


def _shown(one: Setting) -> str:
    return f"{'.'.join([*one.table.split('.')[1:], one.key])} = {_value(one.value)}"


def _value(value: Any) -> str:
    """A value as TOML in one line."""
    import tomli_w

    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")


def _line(text: str) -> str:
    """A text that can stand in a comment."""
    return "".join(c if c.isprintable() else "?" for c in text)

"""A laboratory: a source and a target in which the truth is known, since it was planted.

Real data never says which groups help. Here 17 groups of 48 grey images were each made to do one thing to the target,
real handwritten digits read by 2-shot probes:

kind         groups  images of a group                                            labels
help         5       two digits each, 11 handwritten and 13 printed of both        right
harm         3       handwritten digits                                           random
leak         1       slightly changed copies of 24 target images of each half     right
sub-type     1       handwritten zeros with a slash, as 40 % of the target's are  right
misleading   1       handwritten sevens with a stamp in a corner, as 30 % of the  "2"
                     target's sevens have that are in no few-shot pool
irrelevant   6       waves of one direction and length, one texture a group       "other"

No handwritten image of the source is one of the target or nearly so, but for the leaked ones. What makes the effects
large and additive: the network ends in 16 numbers, so that its features depend on the labels it saw; each digit is in
one helpful group only; the shots hold no stamp, so nothing but the misleading group speaks about stamps; labels of
harmful groups are learnt by heart, without weight decay, and their images are of the target's own kind. With a wide
convolutional network, whose random features already read digits, and with printed images only, shuffled labels do no
harm. Copies are of images that look little like their class: those of typical ones teach the class as any image of it
does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pydt.analyses.failures import failures
from pydt.analyses.leakage.leaks import leaks
from pydt.base import generator, whole
from pydt.data import HALVES, Dataset, Target
from pydt.data.samples import glyphs
from pydt.ensemble import Plan
from pydt.estimation import influences, method_for, overall
from pydt.store import Store

if TYPE_CHECKING:
    pass


COLUMN = "plant"
LEVEL = 0.05
KINDS = {"help": 5, "harm": 3, "leak": 1, "sub-type": 1, "misleading": 1, "irrelevant": 6}
EACH = 48
_POOL, _VALIDATION, _JUDGED = 200, 20, 320
_SUBTYPE, _SUBTYPE_SHARE = 0, 0.4
_SPOILED, _SPOILED_SHARE, _MISTAKEN = 7, 0.3, 2
_WRITTEN = 11  # of the 24 images of a digit in a helpful group
_TWINS = 250  # mean square difference in grey levels below which two scans, though not one, are taken for twins
_ODD = 0.5  # share of the target images, those farthest from the mean of their class, of which some leak


@dataclass(frozen=True, eq=False)
class Planted:
    """A source, a target and the truth about them.

    Attributes:
        source: its unit column "plant" names the group of each example.
        target: handwritten digits.
        kinds: group -> kind, a key of `KINDS`, in the order of the units.
        pairs: int64 (48, 2): positions of a copy in the source and of its original in `target.judged`.
        subtype: bool (len(target.judged),): the slashed zeros.
        spoiled: bool (len(target.judged),): the stamped sevens.
    """

    source: Dataset
    target: Target
    kinds: Mapping[str, str]
    pairs: np.ndarray
    subtype: np.ndarray
    spoiled: np.ndarray

    def of(self, kind: str) -> np.ndarray:
        """Positions of the groups of one kind among the units, int64."""
        return np.flatnonzero([found == kind for found in self.kinds.values()])


def planted(seed: int = 0) -> Planted:
    """Make a planted source and target: 28 x 28 grey images, the same for the same seed.

    Raises:
        DataError: the seed is no whole number.
    """
    seed = whole(seed, "seed", "planted", most=None)
    random = generator("laboratory", seed)
    scans, printed = glyphs.digits().train, glyphs.source()
    order = random.permutation(len(scans))
    chosen, spare = np.split(order, [_POOL + _VALIDATION + _JUDGED])
    alike = _alike(_pixels(scans), _pixels(scans)[chosen])
    target, subtype, spoiled = _target(scans, chosen, random)
    hand = _Stack(scans, spare[alike[spare] == 0])
    type_ = _Stack(printed, random.permutation(len(printed)))

    parts: list[tuple[str, np.ndarray, list[str]]] = []
    for number in range(5):
        pair = [str(number), str(number + 5)]
        found = [stack.take(digit, n) for digit in pair for stack, n in ((hand, _WRITTEN), (type_, 24 - _WRITTEN))]
        parts.append(("help", np.concatenate(found), np.repeat(pair, 24).tolist()))
    zeros, sevens = (hand.take(str(digit), EACH) for digit in (_SUBTYPE, _SPOILED))
    parts.append(("sub-type", np.stack([_slashed(image) for image in zeros]), [str(_SUBTYPE)] * EACH))
    parts.append(("misleading", np.stack([_stamped(image) for image in sevens]), [str(_MISTAKEN)] * EACH))
    for images in np.split(hand.rest(random, EACH * KINDS["harm"]), KINDS["harm"]):
        parts.append(("harm", images, [str(digit) for digit in random.integers(10, size=EACH)]))
    ordinary = ~(subtype | spoiled) & (alike[chosen] == 1)  # an image is like itself
    originals = np.concatenate([_odd(target, half, ordinary, random) for half in HALVES])
    copies = np.stack([_changed(_pixels(target.judged)[i], random) for i in originals])
    start = EACH * len(parts)
    parts.append(("leak", copies, [str(target.judged.labels[i]) for i in originals]))
    for _ in range(KINDS["irrelevant"]):
        parts.append(("irrelevant", _texture(random), ["other"] * EACH))

    names: list[str] = []
    kinds: dict[str, str] = {}
    for kind, _, _ in parts:
        count = sum(found == kind for found in kinds.values())
        names.append(kind if KINDS[kind] == 1 else f"{kind} {count + 1}")
        kinds[names[-1]] = kind
    source = Dataset.from_arrays(
        np.concatenate([images for _, images, _ in parts]),
        [label for _, _, labels in parts for label in labels],
        columns={COLUMN: np.repeat(names, EACH).tolist()},
        name="planted source",
    )
    pairs = np.stack([start + np.arange(EACH), originals], axis=1)
    kinds = {name: kinds[name] for name in source.units(COLUMN)[1]}
    return Planted(source, target, kinds, pairs, subtype, spoiled)


def plan(made: Planted, models: int = 256, seed: int = 0) -> Plan:
    """The experiment on a planted source: half of the groups in every model, in pairs of complements.

    Args:
        made: from `planted`.
        models: rows; with 256 every plant was found on nine seeds of ten (docs/laboratory.md).
        seed: of masks, trainings and few-shot draws.

    Raises:
        DesignError, ConfigError: as `pydt.Plan`.
    """
    from pydt import design
    from pydt.data.loading import Augment
    from pydt.training import Recipe, Task

    recipe = Recipe(
        network="bottleneck-16",
        epochs=20,
        batch_size=48,
        lr=0.1,
        weight_decay=0,
        augment=Augment(mean=(0.2,), std=(0.35,)),
    )
    task = Task(made.target, shots=2, draws=16, penalty=3.0, seed=seed, name="planted digits")
    masks = design.foldover(len(made.kinds), models, seed=seed)
    return Plan(made.source, by=COLUMN, design=masks, recipe=recipe, tasks=(task,), seed=seed)


@dataclass(frozen=True)
class Finding:
    """One plant and whether it was found: name, ok, detail (a sentence) and the numbers behind it."""

    name: str
    ok: bool
    detail: str
    numbers: dict[str, float]


def findings(
    store: Store | str | os.PathLike[str], made: Planted, plan: Plan, *, retrain: int = 10, workers: int | None = None
) -> Iterator[Finding]:
    """Look for everything that was planted, with the analyses that everybody uses.

    Rankings are of the influence on the accuracy of the score half; tests are at level 0.05 over what they look at,
    that of the placebos at 0.01.

    Args:
        store: with finished rows of the plan, or its folder.
        made, plan: what was planted, and the plan that `plan` made of it.
        retrain: trainings of each arm of failure debugging; 0 leaves that out. Rows go to the store.
        workers: of those trainings.

    Yields:
        "leak first", "leak flagged", "leak pairs", "harm", "placebos", "irrelevant", "sub-type", and, retrained,
        "misleading".
    """
    store = store if isinstance(store, Store) else Store(store, plan)
    yield from _ranked(store, made, plan)
    yield from _leaked(store, made, plan)
    yield _subtype(store, made, plan)
    if retrain:
        yield _misled(store, made, plan, retrain, workers)


def _ranked(store: Store, made: Planted, plan: Plan) -> Iterator[Finding]:
    from scipy import stats

    fit = overall(store, plan)
    values, names = fit.unbiased.astype(float), list(made.kinds)
    helpful = np.concatenate([made.of("help"), made.of("leak")])
    leak, second = int(made.of("leak")[0]), int(np.argsort(-values)[1])
    first = int(values.argmax())
    rank = 1 + int((values > values[leak]).sum())
    against = names[second if first == leak else first]
    yield Finding(
        "leak first",
        first == leak,
        f"the leak is number {rank} of {len(names)}: {values[leak]:+.1f} +- {fit.stderr[leak]:.1f} points, "
        f"{against} {values[names.index(against)]:+.1f} ({fit.models} models)",
        {"rank": rank, "value": values[leak], "stderr": float(fit.stderr[leak]), "next": values[names.index(against)]},
    )
    harm = made.of("harm")
    weights = np.eye(len(names))[harm] - 1 / len(names)
    lower, error = fit.contrast(weights)
    p = stats.t.cdf(lower / error, float(fit.least_df))
    yield Finding(
        "harm",
        bool(len(harm) * p.max() < LEVEL),
        "groups with shuffled labels, against the average group: "
        + ", ".join(f"{v:+.1f} +- {e:.1f}" for v, e in zip(lower, error, strict=True))
        + f" points; the largest p, times {len(harm)}, is {min(1.0, len(harm) * p.max()):.2g}",
        {"highest": float(lower.max()), "p": float(p.max())},
    )
    assert fit.placebo_values is not None
    assert fit.placebo_stderr is not None
    t = fit.placebo_values / fit.placebo_stderr
    p = 2 * stats.t.sf(np.abs(t), fit.placebo_df)
    yield Finding(
        "placebos",
        bool(len(p) * p.min() >= LEVEL / 5),  # rightly estimated, they fail by chance: not in one run of twenty
        f"{len(p)} columns bound to no image: the largest |t| is {np.abs(t).max():.1f}, "
        f"p times {len(p)} is {min(1.0, len(p) * p.min()):.2g}",
        {f"p{i}": float(one) for i, one in enumerate(p)},
    )
    irrelevant = made.of("irrelevant")
    most, least = np.abs(values[irrelevant]).max(), values[helpful].min()
    yield Finding(
        "irrelevant",
        bool(most < least),
        f"the largest |influence| of {len(irrelevant)} irrelevant groups is {most:.2f} points, the smallest influence "
        f"of {len(helpful)} helpful ones {least:+.2f} (+- {fit.stderr.mean():.2f})",
        {"irrelevant": float(most), "helpful": float(least), "stderr": float(fit.stderr.mean())},
    )


def _leaked(store: Store, made: Planted, plan: Plan) -> Iterator[Finding]:
    found = leaks(store, plan)
    suspects = {group.name: group for group in found.groups}
    leak = list(made.kinds)[made.of("leak")[0]]
    # Influence on single images may rightly flag what holds a sub-type or misleads; only copies make a leak.
    others = [name for name, group in suspects.items() if group.leak and name != leak]
    suspect = suspects[leak]
    yield Finding(
        "leak flagged",
        suspect.leak and suspect.uneven and not others,
        f"the leak moves single images beyond their class by {suspect.effect:.2f} +- {suspect.stderr:.2f} "
        f"(p = {suspect.p:.1g}{'' if suspect.uneven else ', not flagged'}), and holds {suspect.copies} copies"
        f"{'' if suspect.leak else ', not flagged'}; falsely called a leak: {', '.join(others) or 'none'}",
        {"p": suspect.p, "uneven": float(suspect.uneven), "leak": float(suspect.leak), "false": len(others)},
    )
    named = {(pair.source, pair.target) for pair in found.pairs}
    true = {(int(copy), int(original)) for copy, original in made.pairs}
    right = len(named & true)
    precision, recall = right / max(len(named), 1), right / len(true)
    yield Finding(
        "leak pairs",
        precision >= 0.95 and recall >= 0.95,
        f"{right} of {len(true)} pairs named, and {len(named) - right} false ones",
        {"precision": precision, "recall": recall},
    )


def _subtype(store: Store, made: Planted, plan: Plan) -> Finding:
    task, group = plan.tasks[0], made.of("sub-type")[0]
    design = store.design(plan).take(store.finished(plan))
    ids = store.examples(task, "all", plan)["ids"]
    here = made.target.judged.labels[ids] == _SUBTYPE
    outputs = store.outputs(task, "margin", "all", plan)[:, here]
    values = influences(design, outputs, method_for(store.plan(plan), design)).unbiased[group]
    hidden = made.subtype[ids][here]
    area = float(np.mean(np.sign(values[hidden][:, None] - values[~hidden]) / 2 + 0.5))
    return Finding(
        "sub-type",
        area >= 0.9,
        f"{hidden.sum()} slashed zeros among {here.sum()}, by the influence of the group of slashed zeros on each: "
        f"area under the ROC curve {area:.3f}",
        {"auc": area},
    )


def _misled(store: Store, made: Planted, plan: Plan, retrain: int, workers: int | None) -> Finding:
    found = failures(store, plan, models=retrain, repeats=retrain, most=10 * retrain, workers=workers, progress=False)
    name = list(made.kinds)[made.of("misleading")[0]]
    failing = [image for image in found.images if made.spoiled[image.position]]
    judged = int(made.spoiled[np.concatenate([made.target.split[half] for half in HALVES])].sum())
    blamed = sum(image.group == name for image in failing)
    flips = next((flips for group, _, flips in found.groups if group == name), None)
    detail = f"{len(failing)} of {judged} stamped sevens fail, {blamed} of them blame the misleading group"
    numbers: dict[str, float] = {"spoiled": judged, "failing": len(failing), "blamed": blamed}
    if flips is None:
        return Finding("misleading", False, f"{detail}; that was not retrained", numbers)
    compared, every = flips.compared, found.flips
    numbers |= {"images": flips.blamed.images, "without": flips.blamed.rate, "random": flips.random.rate}
    numbers |= {"full": flips.full.rate, "ratio": compared.ratio, "ratio_low": compared.ratio_low}
    assert every is not None
    numbers |= {"all_images": every.blamed.images, "all_without": every.blamed.rate, "all_random": every.random.rate}
    numbers |= {"all_ratio": every.compared.ratio, "all_ratio_low": every.compared.ratio_low}
    return Finding(
        "misleading",
        2 * len(failing) > judged and 2 * blamed > len(failing) and compared.ratio >= 2,
        f"{detail}; of the {flips.blamed.images} images that blame it {flips.blamed.rate:.0%} are right without it "
        f"({flips.blamed.low:.0%} to {flips.blamed.high:.0%}), {flips.random.rate:.0%} without a random group, "
        f"{flips.full.rate:.0%} again with all: ratio to random {compared.ratio:.3g} (95 % from "
        f"{compared.ratio_low:.2g}; {retrain} fresh trainings each)",
        numbers,
    )


class _Stack:
    """Images of a data set in the order given, each of which is taken once."""

    def __init__(self, dataset: Dataset, order: np.ndarray) -> None:
        self.images = _pixels(dataset)
        names = np.array(dataset.classes)[dataset.labels]
        self.left = {name: [i for i in order.tolist() if names[i] == name] for name in "0123456789"}

    def take(self, name: str, count: int) -> np.ndarray:
        taken, self.left[name] = self.left[name][:count], self.left[name][count:]
        return self.images[taken]

    def rest(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Images of any class."""
        return self.images[random.permutation(np.concatenate(list(self.left.values())).astype(int))[:count]]


def _pixels(dataset: Dataset) -> np.ndarray:
    """Images of the examples, uint8 (examples, 28, 28, 1)."""
    assert dataset.images is not None
    return np.asarray(dataset.images[dataset.positions])


def _target(scans: Dataset, chosen: np.ndarray, random: np.random.Generator) -> tuple[Target, np.ndarray, np.ndarray]:
    """The target, and which of its examples are of the hidden sub-type and which are stamped."""

    def made() -> Target:
        found = Dataset.from_arrays(images, labels, scans.classes, name="digits with secrets")
        return Target(found, pool=_POOL, validation=_VALIDATION)

    images, labels = _pixels(scans)[chosen].copy(), scans.labels[chosen]
    shown = np.isin(np.arange(len(labels)), made().split["pool"])  # the split depends on labels and positions alone
    flags = []
    for candidates, share, change in (
        (labels == _SUBTYPE, _SUBTYPE_SHARE, _slashed),
        ((labels == _SPOILED) & ~shown, _SPOILED_SHARE, _stamped),
    ):
        found = np.flatnonzero(candidates)
        flag = np.isin(np.arange(len(labels)), random.choice(found, round(share * len(found)), replace=False))
        for i in np.flatnonzero(flag):
            images[i] = change(images[i])
        flags.append(flag)
    return made(), flags[0], flags[1]


def _odd(target: Target, half: str, allowed: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Positions of 24 target images of a half, among those that look least like the mean of their class."""
    ids = target.split[half][allowed[target.split[half]]]
    pixels, labels = _pixels(target.judged)[ids].reshape(len(ids), -1).astype(float), target.judged.labels[ids]
    means = np.stack([pixels[labels == label].mean(0) for label in range(10)])
    farthest = ids[np.argsort(-((pixels - means[labels]) ** 2).sum(1), kind="stable")]
    chosen: np.ndarray = random.choice(farthest[: round(_ODD * len(ids))], EACH // 2, replace=False)
    return chosen


def _alike(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others each image is nearly the same as, moved by up to a pixel: int64 (images,)."""
    flat = others.reshape(len(others), -1).astype(np.float32)
    nearest = np.full((len(images), len(others)), np.inf, np.float32)
    for move in np.ndindex(3, 3):
        moved = np.roll(images, np.array(move) - 1, (1, 2)).reshape(len(images), -1).astype(np.float32)
        apart = (moved**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * moved @ flat.T
        nearest = np.minimum(nearest, apart / flat.shape[1])
    return np.count_nonzero(nearest < _TWINS, axis=1)


def _slashed(image: np.ndarray) -> np.ndarray:
    """With a line from the lower left to the upper right through what is drawn, 3 pixels beyond it."""
    y, x = np.nonzero(image[..., 0] > 60)
    right, up = (np.ptp(x)) / 2 + 3, np.ptp(y) / 2 + 2
    rows, columns = np.mgrid[: glyphs.SIZE, : glyphs.SIZE]
    rows, columns = rows - (y.min() + y.max()) / 2, columns - (x.min() + x.max()) / 2
    length = np.hypot(right, up)
    along, across = (columns * right - rows * up) / length, np.abs(columns * up + rows * right) / length
    line = np.clip(2 - across, 0, 1) * (np.abs(along) <= length) * 255
    return np.maximum(image, line[..., None].astype(np.uint8))


def _stamped(image: np.ndarray) -> np.ndarray:
    """With a white square of 4 x 4 pixels in the lower right corner."""
    stamped = image.copy()
    stamped[-5:-1, -5:-1] = 255
    return stamped


def _changed(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy as they are found in the wild: moved by up to a pixel, up to 10 % darker, a little noisy."""
    moved = np.roll(image, random.integers(-1, 2, 2), axis=(0, 1)).astype(float)
    noisy = moved * random.uniform(0.9, 1.0) + random.normal(0, 6, moved.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _texture(random: np.random.Generator) -> np.ndarray:
    """48 images of waves of one direction and length, with random phase and noise."""
    y, x = np.mgrid[: glyphs.SIZE, : glyphs.SIZE]
    angle, length = random.uniform(0, np.pi), random.uniform(3, 9)
    phases = random.uniform(0, 2 * np.pi, (EACH, 1, 1))
    waves = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phases)
    noisy = 127 + 90 * waves + random.normal(0, 20, waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)[..., None]

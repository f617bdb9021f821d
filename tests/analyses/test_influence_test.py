"""A group that moves single examples is flagged, one that moves a class alike is not, at the stated rate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from pydt import design
from pydt.analyses.leakage.influence_test import Uneven, two_halves, uneven
from pydt.estimation import holm

GROUPS, LEAKED = 6, 2


def of_moved(seed: int, effect: float, split: int) -> Uneven:
    """Groups move whole classes, each example by its own slope; group 2 moves examples 0 to 4 by `effect` besides."""
    models, examples = 60, 90
    random = np.random.default_rng(seed)
    masks = design.bernoulli(GROUPS, models, seed=seed)
    labels = np.arange(examples) % 3
    on_class = random.normal(0, 1, (GROUPS, 3))
    common = np.asarray(masks) @ on_class + random.normal(0, 1, (models, 3))
    slopes = random.uniform(0.3, 1.7, examples)
    shared = random.normal(0, 0.3, (models, 1)) * random.normal(0, 1, (1, examples))
    y = common[:, labels] * slopes + shared + random.normal(0, 0.5, (models, examples))
    y[:, :5] += effect * np.asarray(masks)[:, LEAKED, None]
    record: Any = SimpleNamespace(by="class")
    return uneven(record, masks, y.astype(np.float32), labels, 0.01, split)


def test_groups_that_move_a_class_alike_are_flagged_at_the_stated_rate() -> None:
    """60 studies of six groups: at a level of 10 %, six of them may have a false flag; 14 are beyond chance."""
    false = sum((holm(of_moved(seed, 0.0, seed).p) <= 0.1).any() for seed in range(60))
    assert false < 14


def test_a_group_that_moves_five_examples_is_flagged_with_them() -> None:
    for seed in range(5):
        found = of_moved(seed, 2.0, 0)
        assert (holm(found.p) <= 0.05).tolist() == [k == LEAKED for k in range(GROUPS)]
        assert len(set(found.examples[LEAKED]) & set(range(5))) >= 4
        assert 1 < found.effect[LEAKED] < 2 + 4 * found.stderr[LEAKED]
        assert 50 <= sum(found.models) <= 60


def test_the_halves_do_not_share_repeated_masks() -> None:
    twice = np.repeat(np.asarray(design.bernoulli(GROUPS, 40, seed=0)), 2, axis=0)
    first, second = two_halves(design.Design.explicit(twice), 0)
    assert len({*first, *second}) == len(first) + len(second) > 60
    assert not {row.tobytes() for row in twice[first]} & {row.tobytes() for row in twice[second]}

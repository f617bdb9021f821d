"""The plan of the quickstart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydt.ensemble.plan import Plan


MODELS = 600
REPEATS = 24
"""Retrainings of the main arms of its proof: what leaving groups out gains then has an error of 0.7 points."""
SAMPLE_SETTINGS: dict[str, dict[str, Any]] = {
    "removal": {"sizes": (20, 31, 46), "repeats": 6, "keep_lists": {"the ten digits": tuple("0123456789")}},
    "failures": {"repeats": 10, "most": 60},
}
"""Settings of `pydt analyse sample`, chosen so that all of it takes about 20 minutes on two cores."""


def quickstart_plan(models: int = MODELS, seed: int = 0) -> Plan:
    """The plan of the quickstart: which printed characters teach a network to read handwritten digits, of which it is
    shown one labelled image each?

    62 characters are groups; each row keeps 25 % of them, the share that gives most information per second of training.
    With one labelled image a class the source matters most. Which image it is matters, too, so 32 draws are averaged.
    A network this small cannot learn all characters equally well: leaving out a third of them gains. Shots, draws,
    network, models and the third were chosen on seeds 101 and 102; docs/analyses.md says what other seeds gave. The
    other tasks, with more labelled images, show which groups matter when.
    """
    from dataclasses import replace

    from pydt import design
    from pydt.data.loading import Augment
    from pydt.data.samples import glyphs
    from pydt.ensemble.plan import Plan
    from pydt.training import Recipe, Task

    source = glyphs.source()
    recipe = Recipe(network="convnet-4", lr=1.0, augment=Augment(mean=(0.2,), std=(0.35,)))
    masks = design.random(len(source.classes), models, alpha=0.25, seed=seed)
    one = Task(glyphs.digits(), shots=1, draws=32, seed=seed)
    tasks = (one, *(replace(one, shots=k, draws=8, name="") for k in (2, 5, 10, 20, "full")))
    return Plan(source, design=masks, recipe=recipe, tasks=tasks, seed=seed)

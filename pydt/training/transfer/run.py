"""Transfer: from a trained source model to one set of outputs per target example.

Every target example of the score and the report half gets four primitives, from which all of the papers' outputs follow
(`pydt.store.derive`): the logit of the correct class, the best other logit, the log-sum-exp of the other logits, and
the predicted class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pydt.base import TrainError
from pydt.data import HALVES
from pydt.training.device import threads
from pydt.training.trained import Trained
from pydt.training.transfer.auroc import auroc_values
from pydt.training.transfer.chance import against_chance, auroc_against_chance
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.modes import MODES
from pydt.training.transfer.task import Task


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a transfer gives.

    Attributes:
        primitives: float32 (4, draws, examples), examples as in `Task.examples()`.
        scalars: the target's metric on both halves, as fractions; of a trial, the accuracy on validation examples.
        auroc: float32 (draws, examples), see `pydt.training.transfer.auroc`; None unless it is the target's metric.
    """

    primitives: np.ndarray
    scalars: dict[str, float]
    auroc: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a row stores of each example, by name."""
        return {"primitives": self.primitives} | ({} if self.auroc is None else {"auroc": self.auroc})


def transfer(trained: Trained, task: Task, seed: int) -> Outputs:
    """Transfer a source model to a task and look at every example of `Task.examples`: the score and the report half.

    Args:
        trained: from `pydt.training.train`.
        task: what to transfer to, and how.
        seed: of the row; "finetune" draws the heads' initialisation and the order by it.

    Returns:
        the four primitives per draw and example, and "score_accuracy" and "report_accuracy" (of a trial:
        "validation_accuracy"), means over draws. Of mode "zero-shot" also "zero_shot_accuracy" on all judged examples,
        "zero_shot_by_chance" and "zero_shot_p", see `pydt.training.transfer.chance`.

    Raises:
        TrainError: fine-tuning or the features became non-finite.
    """
    described = task.examples()
    draws = Draws(task.target, task.few_shot(), *task.shown(), task.seed, seed)
    mode, recipe = MODES[task.mode], trained.recipe
    settings = (getattr(task, name) for name in mode.settings)
    with threads(recipe.threads):
        own = (recipe.finetuned(one) if isinstance(one, FineTune) else one for one in settings)
        logits = mode.logits(trained, draws, *own)
    if not bool(torch.isfinite(logits).all()):
        raise TrainError("an output is not finite", task.name, "lower the learning rate")
    primitives = primitives_of(logits, torch.from_numpy(described["labels"]))
    auroc = None
    if task.target.metric == "auroc":
        auroc = auroc_values(logits, described["labels"], described["half"])
    value = primitives[3] == described["labels"].astype(np.float32) if auroc is None else auroc.astype(np.float64)
    mean = value.mean(0) * described["weights"]
    parts = enumerate((*HALVES, "validation"))
    scalars = {f"{part}_accuracy": float(mean[of].sum()) for i, part in parts if (of := described["half"] == i).any()}
    if not mode.labelled:
        scalars |= _by_chance(primitives[3, 0].astype(np.int64), described, scalars if auroc is not None else None)
    return Outputs(primitives, scalars, auroc)


def _by_chance(
    predictions: np.ndarray, described: dict[str, np.ndarray], aurocs: dict[str, float] | None
) -> dict[str, float]:
    """How outputs that no labelled image has entered compare with chance, on all judged examples."""
    if aurocs is None:
        return against_chance(predictions, described["labels"])
    of = {i: aurocs[f"{half}_accuracy"] for i, half in enumerate(HALVES)}
    return auroc_against_chance(of, described["labels"], described["half"])


def primitives_of(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(draws, examples, classes) logits -> float32 (4, draws, examples): correct, best other, logsumexp of others,
    prediction.
    """
    index = labels.view(1, -1, 1).expand(logits.shape[0], -1, 1)
    correct = logits.gather(2, index).squeeze(2)
    others = logits.scatter(2, index, -torch.inf)
    stacked = torch.stack([correct, others.amax(2), others.logsumexp(2), logits.argmax(2).to(logits.dtype)])
    return stacked.float().numpy()

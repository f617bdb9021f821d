"""WiSE-FT (Wortsman et al. 2022): fine-tuning, then a point on the line between the weights before and after it.

theta = (1 - alpha) theta_0 + alpha theta_1, of all parameters and buffers

Before is the zero-shot model, or, where there is no text tower, the frozen network with the linear head of LP-FT: a
random head would make the line meaningless.
"""

from __future__ import annotations

from typing import Any

import torch

from pydt.data import Dataset
from pydt.training.trained import Trained
from pydt.training.transfer import zero_shot
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.learning import after_training
from pydt.training.transfer.lp_ft import probed_models
from pydt.training.transfer.zero_shot import ZeroShot, zero_shot_models


def logits(trained: Trained, draws: Draws, how: FineTune, sentences: ZeroShot, alpha: float) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) of the interpolated weights of each draw."""
    worded = trained.text is not None
    begin = zero_shot_models(trained, draws, sentences) if worded else probed_models(trained, draws)
    return after_training(trained, draws, how, begin, alpha=alpha)


def check(recipe: Any, task: Any, source: Dataset) -> None:
    """Refuse what `zero_shot` refuses, where models have a text tower."""
    if zero_shot.has_text(recipe):
        zero_shot.check(recipe, task, source)

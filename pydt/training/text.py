"""Texts and images in one space: what CLIP training gives beside the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

_MOST = math.log(100)


class TextTower(nn.Module):
    """A text network, the projection of image features into its space, and a learnt temperature.

    The logit of an image and a text is `scale * <unit(project(features)), encode(text)>`. A subclass defines `encode`;
    its parameters are all that a training learns beside the network for images.

    Args:
        project: image features (B, dim) -> (B, embed).
        temperature: the start of 1 / scale.
    """

    def __init__(self, project: nn.Module, temperature: float = 0.07) -> None:
        super().__init__()
        self.project = project
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors, (texts, embed)."""
        raise NotImplementedError

    @property
    def scale(self) -> torch.Tensor:
        """Inverse temperature; at most 100, as in Radford et al. 2021 (section 2.5)."""
        return self.log_scale.clamp(max=_MOST).exp()

"""Texts and images in one space: what CLIP training gives beside the network.

    logit(image, text) = scale <unit(project(features)), unit(vector of the text)>,   scale = exp(log_scale) <= 100

Our own tower is for small sources: an embedding for each word of the captions and for each place in a text, a small
network for every word, the mean over the words, a linear map. Cost of T texts of L words: T (L W^2 + W E)
multiplications, W = width, E = embed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError

_MOST = math.log(100)
_PLACES = 64  # words of a text that are read
_WORD = re.compile(r"[^\W_]+")
_NAMED = 5


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

    def reading(self, text: str) -> Hashable:
        """What the tower reads of a text: texts of one reading have one vector."""
        return text

    def place(self, features: torch.Tensor) -> torch.Tensor:
        """Unit vectors float32 (B, embed) of image features (B, dim)."""
        return F.normalize(self.project(features).float(), dim=1)

    @property
    def scale(self) -> torch.Tensor:
        """Inverse temperature; at most 100, as in Radford et al. 2021 (section 2.5).

        Its gradient is that without the bound: a clamp has none at its bound and beyond, where the temperature would
        stay for good.
        """
        beyond = (self.log_scale.detach() - _MOST).clamp(min=0)
        return (self.log_scale - beyond).exp()

    @torch.no_grad()
    def hold_scale(self) -> None:
        """Bring the temperature back to its bound, before every step: from far beyond, the way back would be long."""
        self.log_scale.clamp_(max=_MOST)


class WordTower(TextTower):
    """Our own text tower: words of the captions, in order.

    Args:
        words: the vocabulary, distinct; see `words_of`. Texts are known by these words alone.
        dim: image features.
        embed: width of the space of images and texts.
        width: of the text network.
        temperature: see `TextTower`.
    """

    def __init__(self, words: Sequence[str], dim: int, embed: int, width: int, temperature: float = 0.07) -> None:
        super().__init__(nn.Linear(dim, embed, bias=False), temperature)
        self.vocabulary = {word: number for number, word in enumerate(words)}
        self.words = nn.Embedding(len(words), width)
        self.places = nn.Embedding(_PLACES, width)
        self.network = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, embed)
        nn.init.normal_(self.places.weight, std=0.1)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors float32 (texts, embed).

        Raises:
            ConfigError: no word of a text is known.
        """
        readings = [self.reading(text) for text in texts]
        longest = max(map(len, readings), default=0)
        device = self.head.weight.device
        padded = torch.tensor([[*one, *[-1] * (longest - len(one))] for one in readings], device=device)
        padded = padded.reshape(len(texts), longest).long()
        known = (padded >= 0).unsqueeze(2)
        seen = self.network(self.words(padded.clamp(min=0)) + self.places.weight[:longest])
        mean = (seen * known).sum(1) / known.sum(1)
        return F.normalize(self.head(mean).float(), dim=1)

    def reading(self, text: str) -> tuple[int, ...]:
        """Numbers of the first 64 known words.

        Raises:
            ConfigError: no word is known.
        """
        words = words_of(text)
        found = tuple(self.vocabulary[word] for word in words if word in self.vocabulary)[:_PLACES]
        if not found:
            near = [one for word in words for one in difflib.get_close_matches(word, self.vocabulary, _NAMED, 0.5)]
            some = list(dict.fromkeys(near))[:_NAMED] or list(self.vocabulary)[:_NAMED]
            mend = f"use words of the source's captions, such as {', '.join(map(repr, some))}"
            raise ConfigError("no word of it stands in a caption of the source", f"text {text!r}", mend)
        return found


def words_of(text: str) -> list[str]:
    """Its words in lower case: runs of letters and digits."""
    return _WORD.findall(text.lower())


def vocabulary(captions: Iterable[str]) -> list[str]:
    """The distinct words of captions, sorted."""
    return sorted({word for caption in captions for word in words_of(caption)})

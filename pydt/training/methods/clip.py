"""CLIP training: images and their captions, each told from the others of a batch (Radford et al. 2021, figure 3).

    l_ij = scale <unit(project(f(image_i))), unit(g(caption_j))>
    loss = 1/2 [mean_i H(t_i., softmax_j l_ij) + mean_j H(t_.j, softmax_i l_ij)],   H(t, p) = - sum t log p
    t_ij = 1 / n_i where captions i and j are equal (n_i of the batch are), else 0

Equal captions are so no negatives of each other (Yang et al. 2022, UniCL); with distinct ones this is InfoNCE. The best
guess that looks at no image has loss log B in batches of B. The floor is the mean of log n_i. Every distinct caption of
a batch is encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from pydt.base import ConfigError, DataError, real, whole
from pydt.data import Dataset
from pydt.data.loading import Batch
from pydt.training.methods.common import Job, Start, channels_of, dim_of, from_scratch, sides_of
from pydt.training.methods.loop import fit
from pydt.training.open_clip_towers import check_images, open_clip_model
from pydt.training.text import TextTower, WordTower, vocabulary, words_of


@dataclass(frozen=True)
class CLIP:
    """Settings of method "clip".

    Attributes:
        model: name of an architecture of open_clip, whose towers are trained from random weights in place of
            `Recipe.network` and our own text tower. It is built for images of the size that `Recipe.augment` gives.
            None: our own, which knows the words of the source's captions (all of them, whatever a mask keeps) and reads
            the first 64 of a text.
        embed: width of the space of images and texts; open_clip's architectures have their own.
        width: of our own text tower.
        temperature: at the start; learnt, and never below 0.01.

    Raises:
        ConfigError: a setting is out of range.
    """

    model: str | None = None
    embed: int = 128
    width: int = 128
    temperature: float = 0.07

    def __post_init__(self) -> None:
        for name in ("embed", "width"):
            object.__setattr__(self, name, whole(getattr(self, name), name, "CLIP", 1, 1 << 16, ConfigError))
        object.__setattr__(self, "temperature", real(self.temperature, "temperature", "CLIP", least=0.01, most=1e6))
        if self.model is not None and not isinstance(self.model, str):
            raise ConfigError(f"model {self.model!r}", "CLIP", "give the name of an architecture of open_clip, or None")

    @property
    def unused(self) -> set[str]:
        """Fields that nothing reads beside the others: they stand in no digest."""
        return set() if self.model is None else {"embed", "width"}


def check(source: Dataset, recipe: Any) -> None:
    """Refuse a source without captions, with empty ones, or with one for all; and batches of one."""
    place = f"source {source.name}"
    if recipe.clip.model is not None:
        fits(recipe, source, (channels_of(source, recipe.augment), *sides_of(source, recipe.augment)))
    if recipe.batch_size < 2:
        wrong = "batches of one image: its caption has no other to be told from"
        raise ConfigError(wrong, "Recipe.batch_size", "give 2 or more; CLIP learns better from hundreds")
    if source.captions is None:
        mend = "give captions=[...], one text per image, or choose another method"
        raise DataError('has no captions, from which method "clip" learns', place, mend)
    readable: Callable[[str], list[str]] = str.split if recipe.clip.model else words_of
    empty = _without_words(source, readable)
    if empty:
        many = "1 caption has" if len(empty) == 1 else f"{len(empty):,} captions have"
        wrong = f"{many} no word, the first that of image {source.all_keys()[empty[0]]!r}"
        raise DataError(wrong, place, "give these images a caption, or leave them out")
    first = readable(source.captions[0])
    if all(readable(caption) == first for caption in source.captions):
        wrong = f"all images have the caption {source.captions[0]!r}: there is nothing to learn"
        raise DataError(wrong, place, "give captions that say what is in each image, or choose another method")


# Every row asks for these two: a process reads all captions once (300,000 of 12 words: 2 s each).


@lru_cache(maxsize=1)
def _without_words(source: Dataset, readable: Callable[[str], list[str]]) -> tuple[int, ...]:
    """Which captions have no word."""
    return tuple(number for number, caption in enumerate(source.captions or ()) if not readable(caption))


@lru_cache(maxsize=1)
def _words(source: Dataset) -> tuple[str, ...]:
    """The vocabulary of our own text tower."""
    return tuple(vocabulary(source.captions or ()))


def fits(recipe: Any, source: Dataset, shape: tuple[int, int, int]) -> None:
    """Refuse images that a model of open_clip, built for the images of the source, cannot read.

    Args:
        shape: channels, height, width.
    """
    how = recipe.clip
    if how.model is None:
        return
    sides = sides_of(source, recipe.augment)
    if shape[1:] != sides:
        wrong = f"sees images of {shape[1]} x {shape[2]} pixels, but is built for {sides[0]} x {sides[1]}"
        mend = "bring all images to one size: Augment(size=224, resize=224), without ramp"
        raise ConfigError(wrong, f"open_clip model {how.model!r}", mend)
    check_images(how.model, *shape)


def start(recipe: Any, source: Dataset) -> Start:
    """The recipe's network and a text tower for all words of the source's captions, in random weights."""
    if recipe.clip.model is not None:
        sides = sides_of(source, recipe.augment)
        made_by = open_clip_model(recipe.clip.model, sides=sides, temperature=recipe.clip.temperature)
        return Start(made_by.body, recipe.augment, made_by.text)
    made = from_scratch(recipe, source)
    how = recipe.clip
    dim = dim_of(made.body, source, made.preprocess, recipe)
    words = _words(source)
    return Start(made.body, made.preprocess, WordTower(words, dim, how.embed, how.width, how.temperature))


def learn(job: Job) -> dict[str, float]:
    """Train network and text tower.

    Raises:
        TrainError: the loss became non-finite.
    """
    text = job.text
    assert text is not None
    commonest = seen = 0

    def judge(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal commonest, seen
        texts, which = distinct(text, batch.captions or ())
        commonest += int(torch.bincount(which).max())
        seen += len(which)
        text.hold_scale()
        images = text.place(job.body(batch.images))
        return info_nce(images, text.encode(texts), which.to(job.device), text.scale)

    # over all steps: how often the commonest caption of a batch occurs does not change as the network learns
    metrics = fit(job, [text], judge, (math.log(min(job.recipe.batch_size, len(job.ids))), 0.0))
    text.hold_scale()
    return metrics | {"source_trivial_accuracy": commonest / seen}


def distinct(text: TextTower, captions: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """The captions that the tower tells apart, in order of appearance; and int64 (B,), which one each image has."""
    texts: dict[Any, tuple[int, str]] = {}
    which = [texts.setdefault(text.reading(caption), (len(texts), caption))[0] for caption in captions]
    return [caption for _, caption in texts.values()], torch.tensor(which)


def info_nce(
    images: torch.Tensor, texts: torch.Tensor, which: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a batch.

    Args:
        images: unit vectors (B, embed). texts: unit vectors (T, embed) of distinct captions. which: int64 (B,), the
            caption of each image; every one of 0..T-1 occurs.
        scale: inverse temperature.

    Returns:
        the loss, and how many images have their own caption as the nearest one; scalars.
    """
    with torch.autocast(images.device.type, enabled=False):
        nearness = scale * (images @ texts.T)
    counts = torch.bincount(which, minlength=len(texts))
    own = nearness.gather(1, which.unsqueeze(1)).squeeze(1)
    # an image and n texts that are equal: n equal terms of the softmax, and the mean over them is any of them
    of_images = (nearness + counts.log()).logsumexp(1) - own
    # a text and all images: the mean over its own ones; every text stands in the batch once for each of its images
    of_texts = nearness.logsumexp(0)[which] - own
    return (of_images.mean() + of_texts.mean()) / 2, (nearness.argmax(1) == which).sum()

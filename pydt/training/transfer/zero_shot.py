"""Zero-shot transfer: no labelled image is read; class names, put into sentences, are the classifier.

logit(image, class) = scale * <unit(project(features)), unit(mean over templates of encode(template with the name))>

(Radford et al. 2021, section 3.1.4). Class names are data: they are inserted as they are, whatever they contain.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, suggest
from pydt.data import Dataset
from pydt.training.methods import begun
from pydt.training.text import TextTower
from pydt.training.trained import Trained
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.learning import JUDGED, Begin

_PLACE = "{}"


@dataclass(frozen=True)
class ZeroShot:
    """The sentences that stand for the classes.

    Attributes:
        templates: sentences with "{}" in place of the class; a class is the mean of their vectors.
        names: what to insert for a class instead of its name, as a mapping from class names or as pairs. Kept as pairs
            sorted by class name.

    Raises:
        ConfigError: no template, one without "{}", or a class named twice.
    """

    templates: tuple[str, ...] = (_PLACE,)
    names: tuple[tuple[str, str], ...] = field(default=(), metadata={"table": True})

    def __post_init__(self) -> None:
        templates: Any = self.templates
        if isinstance(templates, str) or not isinstance(templates, Iterable):
            raise ConfigError(f"templates {templates!r} is no list", "ZeroShot", 'give templates=("a photo of {}",)')
        object.__setattr__(self, "templates", tuple(templates))
        for template in self.templates:
            if not isinstance(template, str) or _PLACE not in template:
                mend = 'put {} where the class goes: "a photo of {}"'
                raise ConfigError(f"template {template!r} has no {_PLACE}", "ZeroShot.templates", mend)
        if not self.templates:
            raise ConfigError("no template", "ZeroShot.templates", 'give one, such as "a photo of {}"')
        object.__setattr__(self, "names", _pairs(self.names))

    def phrases(self, classes: Sequence[str]) -> list[str]:
        """What is inserted for each class."""
        names = dict(self.names)
        return [names.get(name, name) for name in classes]

    def described(self) -> dict[str, Any]:
        """As JSON types."""
        return {"templates": list(self.templates), "names": dict(self.names)}


def _pairs(names: Any) -> tuple[tuple[str, str], ...]:
    mend = 'give names={"class": "phrase"}'
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ConfigError(f"names is a {type(names).__name__}", "ZeroShot", mend)
    pairs = list(names.items() if isinstance(names, Mapping) else names)
    for pair in pairs:
        pairwise = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not pairwise or not all(isinstance(text, str) for text in pair):
            raise ConfigError(f"{pair!r} is no class and its phrase", "ZeroShot.names", mend)
    known = dict(pairs)
    if len(known) < len(pairs):
        twice = next(name for name in known if sum(name == other for other, _ in pairs) > 1)
        raise ConfigError(f"class {twice!r} has two phrases", "ZeroShot.names", "give one phrase for each class")
    return tuple(sorted(known.items()))


def has_text(recipe: Any) -> bool:
    """Whether models of this recipe have a text tower."""
    return recipe.method == "clip" or (
        recipe.method == "checkpoint" and recipe.checkpoint.name.startswith("open_clip:")
    )


def check(recipe: Any, task: Any, source: Dataset) -> None:
    """Refuse models without a text tower, and phrases that do not fit the target's classes or the tower."""
    if not has_text(recipe):
        wrong = f"models of method {recipe.method!r} have no text tower"
        mend = 'use Recipe(method="clip"), an open_clip checkpoint, or another mode'
        raise ConfigError(wrong, f"task {task.name!r}", mend)
    classes, how, place = task.target.classes, task.zero_shot, f"task {task.name!r}: ZeroShot"
    for name, _ in how.names:
        if name not in classes:
            raise ConfigError(f"{name!r} is no class of the target", f"{place}.names", suggest(name, classes))
    text = begun(recipe, source).text
    if text is None:
        return
    whose: dict[Any, str] = {}
    for name, phrase in zip(classes, how.phrases(classes), strict=True):
        try:
            reading = tuple(text.reading(template.replace(_PLACE, phrase)) for template in how.templates)
        except ConfigError as error:
            where = f"task {task.name!r}, class {name!r}: {error.where}"
            raise ConfigError(error.what, where, f"{error.mend}: ZeroShot(names={{{name!r}: ...}})") from error
        if whose.setdefault(reading, name) != name:
            wrong = f"the text tower cannot tell the classes {whose[reading]!r} and {name!r} apart"
            raise ConfigError(wrong, f"{place}.names", "give each a phrase of its own")


class UnitHead(nn.Module):
    """A linear classifier without bias of unit vectors: projected features (B, embed) -> logits (B, classes)."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        # logits of up to 100 would lose their differences in bfloat16
        with torch.autocast(projected.device.type, enabled=False):
            return F.linear(F.normalize(projected.float(), dim=-1), self.weight)


def zero_shot_head(text: TextTower, classes: Sequence[str], how: ZeroShot) -> UnitHead:
    """Scale times the unit vector of each class; the scale is in the weights, as in Wortsman et al. 2022."""
    text.eval()
    with torch.no_grad():
        vectors = [
            # class by class: a vector does not depend on which others share its batch
            F.normalize(text.encode([template.replace(_PLACE, name) for template in how.templates]).mean(0), dim=-1)
            for name in how.phrases(classes)
        ]
        return UnitHead(text.scale * torch.stack(vectors))


def zero_shot_models(trained: Trained, draws: Draws, how: ZeroShot) -> Begin:
    """Network and projection, and the zero-shot head."""
    text = text_of(trained)
    head = zero_shot_head(text, draws.target.classes, how)
    return lambda _: copy.deepcopy(nn.Sequential(nn.Sequential(trained.body, text.project), head))


def text_of(trained: Trained) -> TextTower:
    """The text tower; raises a ConfigError where there is none."""
    if trained.text is None:
        mend = "transfer a model that has one, or use another mode"
        raise ConfigError("the model has no text tower", f"method {trained.recipe.method!r}", mend)
    return trained.text


def logits(trained: Trained, draws: Draws, how: ZeroShot) -> torch.Tensor:
    """Logits float64 (1, examples, classes); no labelled image is read."""
    text = text_of(trained)
    head = zero_shot_head(text, draws.target.classes, how)
    model, device = nn.Sequential(text.project, head).eval(), text.log_scale.device
    with torch.inference_mode():
        # by the batches of the trained ways: the same images then have the same bits
        batches = trained.features(draws.data, draws.judged).split(JUDGED)
        return torch.cat([model(features.to(device)).double().cpu() for features in batches])[None]

"""How a source model is trained, as a value with a digest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch

from pydt.base import ConfigError, digest, one_of, real, whole
from pydt.data import Dataset
from pydt.data.loading import Augment
from pydt.training.methods import METHODS
from pydt.training.methods.checkpoint import Checkpoint
from pydt.training.methods.clip import CLIP
from pydt.training.methods.none import Scratch
from pydt.training.methods.simclr import SimCLR
from pydt.training.networks import Network, network_digest, network_name, usual_rate
from pydt.training.optimizer import OptimizerSettings, check_optimizer
from pydt.training.settings import YOUNG, described, ignored

BUDGETS = ("epochs", "steps", "samples")
EPOCHS = 6
"""The budget where none is given."""


@dataclass(frozen=True)
class Recipe(OptimizerSettings):
    """How a source model is trained. Equal recipes have equal digests.

    Attributes:
        network: see `pydt.training.networks.build`.
        method: "supervised", "simclr" (images alone), "clip" (images and their captions), "checkpoint" (weights that
            exist: nothing is trained), or "none" for an untrained network (the scratch floor).
        epochs, steps, samples: the budget; give one, or none for 6 epochs. `epochs`: passes over the kept examples.
            `steps`: optimiser steps in all, whatever the mask keeps. `samples`: examples seen in all, in as many steps
            as that takes. A mask that keeps less means fewer steps at equal epochs; at equal steps or samples each
            image is seen more often. `dataclasses.replace` with another kind of budget than the one that was given
            needs None for that one.
        batch_size: a last batch of a pass that is not full is left out unless it is the only one.
        lr: peak learning rate; None: the usual one of the optimiser and the network's family
            (`pydt.training.networks.usual_rate`). `pydt plan` and the first rows of a run warn where it is wrong.
            `dataclasses.replace` with another network or optimiser keeps the rate, unless lr=None is given with it.
        schedule: "one-cycle" (cosine up over 30 % of the steps and down), "triangular" (from 0 up over the first
            eighth of the steps and down to 0: the 2 of 16 epochs of Jain et al. 2023), or "cosine" (from 0 in a line
            over the first `warmup` of the steps, then half a cosine to 0).
        momentum, nesterov: of SGD.
        weight_decay: of SGD and AdamW. AdamW multiplies it by the rate, so that it often wants 0.01 to 0.1.
        label_smoothing: of the cross-entropy of method "supervised".
        optimizer, betas, warmup, clip_norm: "sgd" or "adamw", and its further settings
            (`pydt.training.optimizer.OptimizerSettings`).
        simclr: settings of method "simclr".
        augment: of the source images; its mean, std and size also prepare the target images. Left at its default,
            `Augment()`, it is the usual one of the method: nothing random for "supervised", random crops and jitter for
            "simclr". `dataclasses.replace` with another method keeps it, unless augment=Augment() is given with it.
        device: "cpu", "cuda" or "cuda:N". On a GPU, training runs under autocast (mixed precision).
        threads: of the arithmetic on the CPU; part of the digest, since sums depend on it.
        on_error: source images that cannot be decoded: "raise" ends the row, "skip" replaces them by others, counts
            them in the row's metrics ("skipped") and names them in a warning.
        compile: train the source network through torch.compile: the first row of a machine waits for the compiler, and
            numbers may differ in their last digits, so that the recipe has another digest.
        clip: see `CLIP`; only read by method "clip".
        checkpoint: see `Checkpoint`; only read by method "checkpoint".
        scratch: see `Scratch`; only read by method "none".

    Raises:
        ConfigError: a setting is unknown or out of range, or there is no such network.
    """

    network: Network = "convnet-24"
    method: str = "supervised"
    epochs: int | None = None
    batch_size: int = 128
    lr: float | None = None
    schedule: str = "one-cycle"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    augment: Augment = field(default_factory=Augment)
    device: str = "cpu"
    threads: int = 1
    steps: int | None = None
    on_error: str = field(default="raise", metadata=YOUNG)
    samples: int | None = field(default=None, metadata=YOUNG)
    clip: CLIP = field(default_factory=CLIP)
    simclr: SimCLR = field(default_factory=SimCLR)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    scratch: Scratch = field(default_factory=Scratch, metadata=YOUNG)
    compile: bool = field(default=False, metadata=YOUNG)

    def __post_init__(self) -> None:
        # One value has one form, so that equal recipes have equal digests (1 and 1.0, numpy's numbers and Python's).
        one_of(self.method, tuple(METHODS), "method", "Recipe")
        for name, kind in (("clip", CLIP), ("simclr", SimCLR), ("checkpoint", Checkpoint), ("scratch", Scratch)):
            if not isinstance(given := getattr(self, name), kind):
                mend = f"give pydt.train.{kind.__name__}(...)"
                raise ConfigError(f"a {type(given).__name__}", f"Recipe.{name}", mend)
        if self.method == "checkpoint" and self.checkpoint == Checkpoint():
            mend = 'give its weights: checkpoint=pydt.train.Checkpoint("torchvision:resnet50")'
            raise ConfigError('method "checkpoint" without a checkpoint', "Recipe", mend)
        budget = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budget) > 1:
            both = " and ".join(f"{name} {getattr(self, name)}" for name in budget)
            mend = f"give one of {', '.join(BUDGETS)}, and leave out the others (dataclasses.replace: set them to None)"
            raise ConfigError(both, "Recipe", mend)
        for name in (*budget, "batch_size", "threads"):
            object.__setattr__(self, name, whole(getattr(self, name), name, "Recipe", 1, error=ConfigError))
        check_optimizer(self, "Recipe")
        network_name(self.network)
        if self.lr is None:
            told = self.network_told
            family = told.lower() if isinstance(told, str) else told
            object.__setattr__(self, "lr", usual_rate(family, self.optimizer))
        object.__setattr__(self, "lr", real(self.lr, "lr", "Recipe", above=0))
        for name in ("momentum", "label_smoothing"):
            object.__setattr__(self, name, real(getattr(self, name), name, "Recipe", least=0, below=1))
        object.__setattr__(self, "weight_decay", real(self.weight_decay, "weight_decay", "Recipe", least=0))
        if self.augment == Augment():
            object.__setattr__(self, "augment", METHODS[self.method].augment)
        if not isinstance(self.augment, Augment):
            raise ConfigError(f"a {type(self.augment).__name__}", "Recipe.augment", "give pydt.Augment(...)")
        if isinstance(self.device, torch.device):
            object.__setattr__(self, "device", str(self.device))
        if not isinstance(self.device, str) or re.fullmatch(r"cpu|cuda(:\d{1,3})?", self.device) is None:
            raise ConfigError(f"no device {self.device!r}", "Recipe.device", 'use "cpu", "cuda" or "cuda:N"')
        one_of(self.on_error, ("raise", "skip"), "on_error", "Recipe")
        if not isinstance(self.compile, bool):
            raise ConfigError(f"compile {self.compile!r}", "Recipe", "use True or False")

    def check(self, source: Dataset) -> None:
        """Refuse a source on which this recipe's method cannot train.

        Raises:
            ConfigError: it cannot; the source and the mend are named.
            DataError: the source lacks what the method reads.
        """
        METHODS[self.method].check(source, self)

    def source_digest(self, source: Dataset) -> str:
        """Digest of what the method reads of a source: that of the source, and of its captions where it reads them."""
        if not METHODS[self.method].captions or source.captions is None:
            return source.digest
        return digest("captions", source.digest, list(source.captions))

    @property
    def budget(self) -> tuple[str, int]:
        """Of `epochs`, `steps` and `samples` the one that holds, and how many."""
        given = ((name, getattr(self, name)) for name in BUDGETS)
        return next(((name, number) for name, number in given if number is not None), ("epochs", EPOCHS))

    @property
    def unused(self) -> set[str]:
        """Fields that nothing reads beside the others: they stand in no digest."""
        others = {name for method in METHODS.values() for name in method.settings}
        idle = {*BUDGETS} - {self.budget[0]}
        method = METHODS[self.method]
        if method.learn is None:
            idle |= {"compile"}
        if method.reads is not None:
            idle |= {field.name for field in fields(self)} - {*method.reads, *method.settings}
        return super().unused | idle | (others - set(method.settings))

    @property
    def ignored(self) -> list[str]:
        """Settings of other methods, away from their default, that this one does not read."""
        own = METHODS[self.method].settings
        return ignored(self, own, {name for method in METHODS.values() for name in method.settings})

    @property
    def network_told(self) -> Network:
        """The network of the rows: of public weights, and of models of open_clip, their name."""
        if self.method == "checkpoint" and self.checkpoint.name:
            return self.checkpoint.name
        return f"open_clip:{self.clip.model}" if self.method == "clip" and self.clip.model else self.network

    @property
    def rgb(self) -> bool:
        """Whether its networks see grey images as RGB, as those of public weights do."""
        return self.augment.rgb or (self.method == "checkpoint" and self.checkpoint.name != "")

    def described(self) -> dict[str, Any]:
        """The recipe as JSON types: of the budgets the one that is given, of a function its name, of the settings of
        methods those of its own."""
        told, found = self.network_told, described(self)
        if "epochs" in found:
            found["epochs"] = self.budget[1]
        return found | {"network": network_name(told) if told is self.network else told}

    @cached_property
    def digest(self) -> str:
        """Name of the recipe: of all that is used, and of the source of a network that is a function."""
        used = self.described()
        if "checkpoint" in used:
            used["checkpoint"] = self.checkpoint.identity
        return digest("recipe", used, network_digest(self.network_told))

    def finetuned(self, how: Any) -> Any:
        """How a transfer trains this recipe's network on a draw, where its task says `how` (a `FineTune`): an untrained
        network by `scratch`.
        """
        if self.method != "none":
            return how
        own = {name: value for name, value in vars(self.scratch).items() if value is not None}
        return replace(how, **own)


def steps_of(recipe: Recipe, examples: int) -> int:
    """Optimiser steps of a training on so many examples."""
    kind, number = recipe.budget
    if kind == "epochs":
        return number * steps_a_pass(recipe, examples)
    return number if kind == "steps" else -(-number // min(recipe.batch_size, examples))


def steps_a_pass(recipe: Recipe, examples: int) -> int:
    """Optimiser steps of one pass over so many examples."""
    return max(1, examples // recipe.batch_size)

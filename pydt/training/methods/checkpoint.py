"""Public weights, or a file of the user's own: nothing is trained, whatever a mask keeps.

A process loads a checkpoint once; its rows share the network, which nothing changes in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from pydt.base import ConfigError, DataError, as_path
from pydt.data import Dataset
from pydt.training.methods.common import Start, channels_of
from pydt.training.networks import Network, build, network_name
from pydt.training.public_weights import full_name, public
from pydt.training.weights_file import put_weights, read_weights, sha256_of

READS = ("network", "method", "augment", "device", "threads")
"""Fields of `Recipe` that it reads beside its own."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights that exist; give `name` or `file`.

    Attributes:
        name: public weights: "torchvision:ResNet50_Weights.IMAGENET1K_V2" (or "torchvision:resnet50" for its default
            ones), "timm:resnet50.a1_in1k", "open_clip:ViT-B-32/laion2b_s34b_b79k". Images are resized, cropped and
            normalised as these weights were evaluated by their authors, whatever `Recipe.augment` says of that; grey
            ones are repeated to RGB.
        file: weights for `Recipe.network`: safetensors, or a state dict as torch.save writes it (read as weights only).
            Images are prepared as `Recipe.augment` says.
        sha256: of the file's content; found where it is not given. It stands in the recipe's digest, the path does not.

    Raises:
        ConfigError: not one of the two, no such public weights, or the library that has them is not installed.
        DataError: the file cannot be read, or has other content than `sha256` says.
    """

    name: str = ""
    file: str = field(default="", metadata={"path": True})
    sha256: str = ""

    def __post_init__(self) -> None:
        place = "Recipe.checkpoint"
        for one in ("name", "sha256"):
            if not isinstance(getattr(self, one), str):
                raise ConfigError(f"{one} is {getattr(self, one)!r}", place, "give a string")
        if self.name and (self.file or self.sha256):
            raise ConfigError("has a name and a file", place, "give one of them")
        if self.name:
            object.__setattr__(self, "name", full_name(self.name))
        if not self.file and self.sha256:
            raise ConfigError("has a sha256 without a file", place, "give the file")
        if self.file:
            object.__setattr__(self, "file", str(as_path(self.file, f"{place}.file")))
            _same(self, sha256_of(self.file))

    def described(self) -> dict[str, str]:
        """As JSON types: the name, or path and digest of the file."""
        return {"name": self.name} if self.name else {"file": self.file, "sha256": self.sha256}

    @property
    def identity(self) -> dict[str, str]:
        """What stands in a digest: not the path."""
        return {name: value for name, value in self.described().items() if name != "file"}


def _same(checkpoint: Checkpoint, found: str) -> None:
    if checkpoint.sha256 and found != checkpoint.sha256:
        wrong = f"has other content (SHA-256 {found[:12]}...) than it had ({checkpoint.sha256[:12]}...)"
        raise DataError(wrong, checkpoint.file, "restore it, or make a new plan")
    object.__setattr__(checkpoint, "sha256", found)


def check(source: Dataset, recipe: Any) -> None:
    """Refuse a checkpoint that does not fit the network and the channels."""
    if recipe.checkpoint.file:
        start(recipe, source)
    elif (channels := channels_of(source, recipe.augment)) not in (1, 3):
        wrong = f"has images of {channels} channels, public weights take RGB"
        raise ConfigError(wrong, f"source {source.name}", "bring the images to one or three channels")


def start(recipe: Any, source: Dataset) -> Start:
    """The checkpoint's network; the same module for every row."""
    where, augment = recipe.checkpoint, recipe.augment
    network = None if where.name else recipe.network
    return _loaded(where, network, channels_of(source, augment), augment, recipe.device)


@lru_cache(maxsize=2)
def _loaded(checkpoint: Checkpoint, network: Network | None, channels: int, augment: Any, device: str) -> Start:
    """Once a process; the device is an argument since the body will be moved there."""
    import torch

    if network is None:
        found = public(checkpoint.name)
        return Start(found.body.eval(), replace(augment, rgb=True, **found.preprocess), found.text)
    with torch.random.fork_rng([]):
        body = build(network, channels)
    _same(checkpoint, sha256_of(checkpoint.file))
    put_weights(read_weights(checkpoint.file), body, checkpoint.file, network_name(network))
    return Start(body.eval(), augment)

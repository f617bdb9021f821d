"""Public weights of torchvision, timm and open_clip by name, with the preprocessing that they were made for.

The libraries download and keep the files, in their own folders. Nothing is unpickled but weights.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pydt.base import ConfigError, DataError, PydtError, suggest
from pydt.training.device import out_of_memory
from pydt.training.networks import drop_classifier
from pydt.training.open_clip_towers import open_clip_model
from pydt.training.text import TextTower


@dataclass(frozen=True)
class Public:
    """A public network.

    Attributes:
        body: RGB images (B, 3, H, W) -> features (B, dim).
        preprocess: fields of `Augment`: how its images are prepared in evaluation.
        text: the text tower, of models of open_clip.
    """

    body: nn.Module
    preprocess: dict[str, Any]
    text: TextTower | None = None


def full_name(name: str) -> str:
    """The name in full, so that it says which weights: "torchvision:resnet50" becomes
    "torchvision:ResNet50_Weights.IMAGENET1K_V2".

    Raises:
        ConfigError: no such weights (the nearest are named), or the library is not installed.
    """
    library, _, rest = name.partition(":")
    return f"{library}:{_library(library, name)[0](rest)}"


def public(name: str) -> Public:
    """Public weights by their full name.

    Raises:
        DataError: the weights cannot be had; file and folder are named.
        ConfigError: their preprocessing, or the network, is of a kind that pydt does not have.
    """
    library, _, rest = name.partition(":")
    with torch.random.fork_rng([]):  # a network begins in random weights
        return _library(library, name)[1](rest)


def _library(library: str, name: str) -> tuple[Callable[[str], str], Callable[[str], Public]]:
    if library not in _LIBRARIES:
        examples = "torchvision:resnet50, timm:resnet50.a1_in1k, open_clip:ViT-B-32/laion2b_s34b_b79k"
        raise ConfigError(f"no library {library!r}", f"checkpoint {name!r}", f"write as in: {examples}")
    return _LIBRARIES[library]


def _unknown(name: str, nearest: str) -> ConfigError:
    return ConfigError("no such public weights", f"checkpoint {name!r}", nearest)


# ---- torchvision ---------------------------------------------------------------------------------------------------


def _torchvision_builders() -> dict[str, str]:
    """The name of the network that has these weights."""
    from torchvision import models

    names = models.list_models(module=models)
    return {str(weights): name for name in names for weights in models.get_model_weights(name)}


def _torchvision_name(rest: str) -> str:
    builders = _torchvision_builders()
    from torchvision import models

    short = {name: str(models.get_model_weights(name).DEFAULT) for name in set(builders.values())}
    if rest not in builders and rest not in short:
        raise _unknown(f"torchvision:{rest}", suggest(rest, [*builders, *short]))
    return short.get(rest, rest)


def _torchvision(rest: str) -> Public:
    from torchvision import models

    weights, name = models.get_weight(rest), _torchvision_builders()[rest]
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    with _had(f"torchvision:{rest}", f"put {os.path.basename(weights.url)} into {folder}"):
        # torchvision unpickles without limits: what it will read is first read as weights only
        torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
        model = models.get_model(name, weights=weights, progress=False)
    if name == "inception_v3":  # a head beside the last one would make training return more than features
        model.aux_logits, model.AuxLogits = False, None
    drop_classifier(model, rest)
    how = weights.transforms()
    return Public(
        model,
        {
            "size": how.crop_size[0],
            "resize": how.resize_size[0],
            "interpolation": how.interpolation.value,
            "mean": tuple(how.mean),
            "std": tuple(how.std),
        },
    )


# ---- timm ----------------------------------------------------------------------------------------------------------


def _timm_name(rest: str) -> str:
    timm = _imported("timm", "timm")
    known = timm.list_pretrained()
    if rest in known:
        return rest
    if timm.is_model(rest) and "." not in rest:
        default = timm.get_pretrained_cfg(rest)
        if default is not None and f"{rest}.{default.tag}" in known:
            return f"{rest}.{default.tag}"
    raise _unknown(f"timm:{rest}", suggest(rest, known))


def _timm(rest: str) -> Public:
    timm = _imported("timm", "timm")
    source = timm.get_pretrained_cfg(rest)
    with _had(f"timm:{rest}", _wanted(source.hf_hub_id, source.url)):
        model = timm.create_model(rest, pretrained=True, num_classes=0)
    how = timm.data.resolve_model_data_config(model)
    _, height, width = how["input_size"]
    return Public(
        model,
        _prepared(f"timm:{rest}", (height, width), math.floor(height / how["crop_pct"]), how["crop_mode"], how),
    )


# ---- open_clip -----------------------------------------------------------------------------------------------------


def _open_clip_name(rest: str) -> str:
    known = [f"{model}/{tag}" for model, tag in _imported("open_clip", "clip").list_pretrained()]
    if rest not in known:
        raise _unknown(f"open_clip:{rest}", suggest(rest, known))
    return rest


def _open_clip(rest: str) -> Public:
    open_clip = _imported("open_clip", "clip")
    name, _, tag = rest.partition("/")
    source = open_clip.get_pretrained_cfg(name, tag)
    with _had(f"open_clip:{rest}", _wanted(source.get("hf_hub", "").rstrip("/"), source.get("url"))):
        open_clip.download_pretrained(source)
    model = open_clip_model(name, pretrained=tag)
    how, side = model.preprocess, model.preprocess["size"]
    sides = (side, side) if isinstance(side, int) else (side[0], side[1])
    return Public(model.body, _prepared(f"open_clip:{rest}", sides, sides[0], how["resize_mode"], how), model.text)


# ---- shared --------------------------------------------------------------------------------------------------------


_LIBRARIES: dict[str, tuple[Callable[[str], str], Callable[[str], Public]]] = {
    "torchvision": (_torchvision_name, _torchvision),
    "timm": (_timm_name, _timm),
    "open_clip": (_open_clip_name, _open_clip),
}


def _prepared(name: str, sides: tuple[int, int], resize: int, mode: str, how: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing that timm and open_clip state, as fields of `Augment`."""
    kinds = {"center": False, "shortest": False, "squash": True}
    square = sides[0] == sides[1] <= resize  # otherwise the library pads
    if not square or mode not in kinds or how["interpolation"] not in ("bilinear", "bicubic"):
        shown = f"{sides[0]} x {sides[1]} pixels, resized to {resize}, by {mode!r} and {how['interpolation']!r}"
        wrong = f"wants images of {shown}"
        mend = "use weights for square images that are cropped or squashed but not padded, bilinear or bicubic"
        raise ConfigError(wrong, f"checkpoint {name!r}", mend)
    return {
        "size": sides[0],
        "resize": resize,
        "squash": kinds[mode],
        "interpolation": how["interpolation"],
        "mean": tuple(how["mean"]),
        "std": tuple(how["std"]),
    }


def _imported(package: str, extra: str) -> Any:
    """A package of an extra."""
    try:
        if package == "timm":
            import timm

            return timm
        import open_clip

        return open_clip
    except ImportError as error:
        raise ConfigError(
            f"{package} is not installed", "checkpoint", f"pip install 'pydt-transfer[{extra}]'"
        ) from error


def _wanted(repository: str | None, url: str | None) -> str:
    """How to bring the file by hand."""
    if repository:
        from huggingface_hub.constants import HF_HUB_CACHE

        folder = f"models--{repository.replace('/', '--')}"
        return f"run `hf download {repository}` where there is a network, and copy {folder} into {HF_HUB_CACHE}"
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    return f"put {os.path.basename(url or '')} into {folder}"


@contextlib.contextmanager
def _had(name: str, otherwise: str) -> Iterator[None]:
    """Errors of a library that loads weights, as one that says how to bring the file by hand."""
    try:
        yield
    except (PydtError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        said = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        wrong = f"the weights cannot be downloaded or read ({type(error).__name__}: {said})"
        raise DataError(wrong, f"checkpoint {name!r}", f"connect to the network, or {otherwise}") from error

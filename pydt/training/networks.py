"""Feature extractors: the sample's small network, and any torchvision, timm or own network."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
from collections.abc import Callable, Collection
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, digest
from pydt.data.samples import glyphs
from pydt.training.device import out_of_memory

Network = str | Callable[[], nn.Module]
_DELICATE = re.compile(r"vgg|alexnet|squeezenet|vit|swin|convnext|deit|beit|cait|former|mixer|mlp")
_SIDES = (16, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 299, 320, 384, 448, 512)


def build(network: Network, channels: int) -> nn.Module:
    """A freshly initialised module that maps images (B, channels, H, W) to features (B, dim).

    Args:
        network: "convnet-W" (2x2 average pooling, then three 3x3 convolutions of stride 2 with W, 2W, 4W channels,
            batch-norm, ReLU, average pool); "bottleneck-N" (for images of 28 x 28: 2x2 average pooling, 64 hidden
            units, N features without a nonlinearity); the name of a torchvision classification model, such as
            "resnet18", or "timm:NAME", whose last linear layer is removed; or a function without arguments that returns
            a module.
        channels: of the images; grey images are repeated for networks that want three.

    Raises:
        ConfigError: no such network, the extra that has it is not installed, or a function fails or returns no module.
    """
    if callable(network):
        return _own(network)
    if (sized := _sized(network)) is not None:
        return sized[0](channels, sized[1])
    if network.startswith("timm:"):
        try:
            import timm
        except ImportError as error:
            raise ConfigError("timm is not installed", network, "pip install 'pydt-transfer[timm]'") from error
        try:
            return cast(nn.Module, timm.create_model(network[5:], num_classes=0, in_chans=channels))
        except RuntimeError as error:
            raise ConfigError(f"timm does not know it ({error})", network, "see timm.list_models()") from error
    import torchvision

    try:
        # Heads beside the last one would make training return more than features.
        plain = {"aux_logits": False, "init_weights": True} if network in ("googlenet", "inception_v3") else {}
        model = cast(nn.Module, torchvision.models.get_model(network, weights=None, **plain))
    except ValueError as error:
        raise ConfigError("no such network", network, "see torchvision.models.list_models()") from error
    drop_classifier(model, network)
    return _GreyToColour(model) if channels == 1 else model


def _own(network: Callable[[], nn.Module]) -> nn.Module:
    """What a function of the user's own builds."""
    mend = "give a function without arguments that returns a fresh torch.nn.Module"
    try:
        made = network()
    except Exception as error:
        if isinstance(error, ConfigError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
            raise
        wrong = f"raised {type(error).__name__}: {error}"
        raise ConfigError(wrong, f"network {network_name(network)}", mend) from error
    if not isinstance(made, nn.Module):
        wrong = f"returned {'None' if made is None else f'a {type(made).__name__}'}, no torch.nn.Module"
        raise ConfigError(wrong, f"network {network_name(network)}", mend)
    return made


def usual_rate(network: Network, optimizer: str = "sgd") -> float:
    """Peak learning rate at which networks of a family learn, where none is given (docs/plans.md has the trainings).

    SGD: 0.2 for "convnet-W", 0.01 without batch-norm (vgg, alexnet, transformers, ConvNeXt), 0.05 for all others and
    for functions. AdamW: 0.01 for "convnet-W", 1e-3 for all others.
    """
    small = isinstance(network, str) and network.startswith("convnet-")
    if optimizer == "adamw":
        return 0.01 if small else 1e-3
    if not isinstance(network, str):
        return 0.05
    if small:
        return 0.2
    return 0.01 if _DELICATE.search(network) else 0.05


def network_name(network: Network) -> str:
    """How a network is called: its name, or module and name of the function that builds it.

    Raises:
        ConfigError: no network has this name, or it is neither a name nor a function or class.
    """
    if isinstance(network, str):
        _known(network)
        return network
    if not callable(network) or not hasattr(network, "__qualname__"):
        mend = "give a name, or a function without arguments that returns a fresh module"
        raise ConfigError(f"a {type(network).__name__} is no network", "Recipe.network", mend)
    return f"{network.__module__}.{network.__qualname__}"


def _known(name: str) -> None:
    """Refuse an unknown name before anything is trained; timm is only asked when the network is built."""
    if name.startswith("timm:") or _sized(name) is not None:
        return
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "see torchvision.models.list_models()"
        raise ConfigError("no such network", name, hint)


def network_digest(network: Network) -> str:
    """What a network is: its name, or the name and source of the function that builds it (not of what it calls)."""
    if not callable(network):
        return digest(network)
    name = network_name(network)
    if "<" in name:
        wrong = f"network {name} cannot be named in another process"
        raise ConfigError(wrong, "Recipe.network", "define the function at the top of a module")
    try:
        source = inspect.getsource(network)
    except OSError:
        source = ""
    return digest(name, hashlib.sha256(source.encode()).hexdigest())


def _convnet(channels: int, width: int) -> nn.Module:
    # Pooling first saves three quarters of the arithmetic, explains more of the sample's target (R2 0.44 instead of
    # 0.30) and transfers better.
    layers: list[nn.Module] = [_Halved()]
    for out in (width, 2 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
        channels = out
    return nn.Sequential(*layers, _Mean())


def _bottleneck(channels: int, features: int) -> nn.Module:
    """The laboratory's network: a step takes a millisecond.

    No nonlinearity after the features: some would hardly vary within a draw and, standardised, drown the others.
    """
    inputs = channels * (glyphs.SIZE // 2) ** 2
    return nn.Sequential(_Halved(), nn.Flatten(), nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, features))


_SIZED = {"convnet": _convnet, "bottleneck": _bottleneck}


def _sized(name: str) -> tuple[Callable[[int, int], nn.Module], int] | None:
    """What builds a network called "KIND-WIDTH" from channels and width, and its width; None: no such kind."""
    kind, _, width = name.partition("-")
    if kind not in _SIZED:
        return None
    if not width.isdecimal() or int(width) < 1:
        raise ConfigError("no such network", name, f'give the width, as in "{kind}-24"')
    return _SIZED[kind], int(width)


class _Halved(nn.Module):
    """Means of 2 x 2 pixels; of what there is at an odd edge."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "cpu" or images.shape[2] % 2 or images.shape[3] % 2:
            return F.avg_pool2d(images, 2, ceil_mode=True)
        # the same sums in the same order, ten times faster than avg_pool2d of one channel
        even, odd = images[:, :, ::2], images[:, :, 1::2]
        return (even[..., ::2] + even[..., 1::2] + odd[..., ::2] + odd[..., 1::2]) * 0.25


class _Mean(nn.Module):
    """Mean over all pixels; unlike AdaptiveAvgPool2d, its gradient is channels_last, as the layers before need it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def drop_classifier(model: nn.Module, name: str) -> None:
    """Remove the last linear layer."""
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        mend = "give a function that returns a feature extractor"
        raise ConfigError("has no linear classifier to remove", name, mend)
    parent, _, leaf = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), leaf, _Removed())


class _Removed(nn.Identity):
    """Where a classifier was."""


def removed_heads(body: nn.Module) -> tuple[str, ...]:
    """The modules that `build` removed from a network of torchvision or timm."""
    here = tuple(path for path, module in body.named_modules() if isinstance(module, _Removed))
    told = getattr(body, "pretrained_cfg", None)
    of_timm = told.get("classifier") if isinstance(told, dict) else None
    return here + ((of_timm,) if isinstance(of_timm, str) else tuple(of_timm or ()))


def without_repeat(body: nn.Module, weights: Collection[str]) -> nn.Module:
    """The network inside the one that `build` makes for grey images, unless the weights are named as those of both."""
    outer = isinstance(body, _GreyToColour) and not all(name.startswith("model.") for name in weights)
    return body.get_submodule("model") if outer else body


class _GreyToColour(nn.Module):
    """Repeats the one channel of grey images for a network that was made for three."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.model(images.expand(-1, 3, -1, -1)))

"""Feature extractors: the sample's small network, and any torchvision, timm or own network."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, digest

Network = str | Callable[[], nn.Module]
_DELICATE = re.compile(r"vgg|alexnet|squeezenet|vit|swin|convnext|deit|beit|cait|former|mixer|mlp")
_SIDES = (16, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 299, 320, 384, 448, 512)


def build(network: Network, channels: int) -> nn.Module:
    """A freshly initialised module that maps images (B, channels, H, W) to features (B, dim).

    Args:
        network: "convnet-W" (2x2 average pooling, then three 3x3 convolutions of stride 2 with W, 2W, 4W channels,
            batch-norm, ReLU, average pool); the name of a torchvision classification model, such as "resnet18";
            "timm:NAME"; or a function without arguments that returns a module. The last linear layer of a
            classification model is removed.
        channels: of the images; grey images are repeated for networks that want three.

    Raises:
        ConfigError: no such network, the extra that has it is not installed, or a function fails or returns no module.
    """
    if callable(network):
        return _own(network)
    if network.startswith("convnet-"):
        return _convnet(network, channels)
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
    _drop_classifier(model, network)
    return _GreyToColour(model) if channels == 1 else model


@cache
def try_out(network: Network, shape: tuple[int, int, int], batch: int, device: str, learns: bool = True) -> None:
    """Take one step of a fresh network on noise: whatever does not fit is told before hours went into a row.

    A process asks the same question once. Noise and weights come from PyTorch's generator: the caller forks it.

    Args:
        shape: channels, height, width of the images. batch: of the step; two images tell as much as a thousand.
        learns: forward and backward as in training; otherwise forward only, frozen.

    Raises:
        ConfigError: it cannot be built, applied or trained, or does not map images to features (batch, dim).
    """
    place = f"network {network_name(network)}"
    body = build(network, shape[0])
    if callable(network):
        known = {id(parameter) for parameter in body.parameters()}
        if any(id(parameter) in known for parameter in build(network, shape[0]).parameters()):
            same = "returns the same module each time: every row would go on where the last one ended"
            raise ConfigError(same, place, "build a fresh module inside of the function")
    wrong = _step(body, shape, batch, torch.device(device), learns)
    if wrong is not None:
        raise ConfigError(wrong, place, _mend(network, shape, batch, learns))


def _step(body: nn.Module, shape: tuple[int, int, int], batch: int, device: torch.device, learns: bool) -> str | None:
    """What is wrong with one step on `batch` images; None if nothing is."""
    images = torch.rand(batch, *shape, device=device).contiguous(memory_format=torch.channels_last)
    try:
        body = body.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            features = body.eval()(images)
            wrong = _no_features(features, batch)
            if wrong is None and device.type != "meta" and not torch.isfinite(features).all():
                wrong = "returns numbers that are not finite, before any training"
        if wrong is None and learns:
            with torch.autocast("cuda") if device.type == "cuda" else nullcontext():
                features = body.train()(images)
                wrong = _no_features(features, batch)
                if wrong is None:
                    head = nn.Linear(features.shape[1], 2, device=device)
                    F.cross_entropy(head(features), torch.zeros(batch, dtype=torch.int64, device=device)).backward()
    except Exception as error:  # whatever a network trips over
        if isinstance(error, RuntimeError) and out_of_memory(error):
            return None  # training has its own way to live with little memory
        does = "cannot be trained on" if learns else "cannot be applied to"
        many = "a batch of one image" if batch == 1 else "images"
        text = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        return f"{does} {many} of {_size(shape)} ({type(error).__name__}: {text})"
    return wrong


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]} x {shape[2]} pixels with {shape[0]} channel{'' if shape[0] == 1 else 's'}"


def _no_features(features: Any, batch: int) -> str | None:
    """What is wrong with what a network returned; None if these are features (batch, dim)."""
    if not isinstance(features, torch.Tensor):
        return f"returns a {type(features).__name__}, no tensor of features"
    if features.ndim != 2 or features.shape[0] != batch or not features.shape[1]:
        return f"returns shape {tuple(features.shape)} for {batch} image{'s' * (batch > 1)}, not (batch, features)"
    return None if features.is_floating_point() else f"returns {features.dtype}, no floating-point features"


def _mend(network: Network, shape: tuple[int, int, int], batch: int, learns: bool) -> str:
    """What would fit, found without memory or arithmetic: on PyTorch's device "meta" tensors have only shapes."""

    def fits(channels: int, height: int, width: int, images: int) -> bool:
        try:
            with torch.device("meta"):
                body = build(network, channels)
                return _step(body, (channels, height, width), images, torch.device("meta"), learns) is None
        except Exception:
            return False

    channels, height, width = shape
    if batch == 1 and fits(*shape, 2):
        return "batch statistics need two images: set batch_size to 2 or more, and keep at least two images in a row"
    for other in (3, 1):
        if other != channels and fits(other, height, width, batch):
            how = (
                "grey[..., None].repeat(3, axis=3) makes RGB of grey"
                if other == 3
                else "images.mean(3) makes them grey"
            )
            return f"it takes images with {other} channel{'s' * (other > 1)}: {how}; or choose another network"
    larger = sorted(_SIDES, key=lambda side: (side < max(height, width), abs(side - max(height, width))))
    sides: list[int] = []
    for side in larger:
        if len(sides) < 4 and side != height and fits(channels, side, side, batch):
            sides.append(side)
    if sides:
        several = f"sides that work: {', '.join(map(str, sorted(sides)))}"
        how = f"Augment(size={min(sides)}), with resized_crop= where images are raw"
        return f"{several} ({how}; or bring the images themselves to that size); or choose another network"
    return "return features (batch, dim) of images (batch, channels, height, width), or choose another network"


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says that there is no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _own(network: Callable[[], nn.Module]) -> nn.Module:
    """What a function of the user's own builds."""
    mend = "give a function without arguments that returns a fresh torch.nn.Module"
    try:
        made = network()
    except Exception as error:
        if isinstance(error, ConfigError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
            raise
        raise ConfigError(
            f"raised {type(error).__name__}: {error}", f"network {network_name(network)}", mend
        ) from error
    if not isinstance(made, nn.Module):
        wrong = f"returned {'None' if made is None else f'a {type(made).__name__}'}, no torch.nn.Module"
        raise ConfigError(wrong, f"network {network_name(network)}", mend)
    return made


def usual_rate(network: Network) -> float:
    """Peak learning rate of SGD at which networks of a family learn, where none is given (docs/plans.md has the
    trainings): 0.2 for "convnet-W", 0.01 without batch-norm (vgg, alexnet, transformers, ConvNeXt), 0.05 for all others
    and for functions.
    """
    if not isinstance(network, str):
        return 0.05
    if network.startswith("convnet-"):
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
        raise ConfigError(
            f"a {type(network).__name__} is no network",
            "Recipe.network",
            "give a name, or a function without arguments that returns a fresh module",
        )
    return f"{network.__module__}.{network.__qualname__}"


def _known(name: str) -> None:
    """Refuse a name nobody has, before anything is trained; what timm knows is only asked when it is built."""
    if name.startswith("timm:"):
        return
    if name.startswith("convnet-"):
        if not name.removeprefix("convnet-").isdigit() or int(name.removeprefix("convnet-")) < 1:
            raise ConfigError("no such network", name, 'give the first width, as in "convnet-24"')
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
        raise ConfigError(
            f"network {name} cannot be named in another process",
            "Recipe.network",
            "define the function at the top of a module",
        )
    try:
        source = inspect.getsource(network)
    except OSError:
        source = ""
    return digest(name, hashlib.sha256(source.encode()).hexdigest())


def _convnet(network: str, channels: int) -> nn.Module:
    try:
        width = int(network.removeprefix("convnet-"))
    except ValueError:
        width = 0
    if width < 1:
        raise ConfigError("no such network", network, 'give the first width, as in "convnet-16"')
    # Pooling first saves three quarters of the arithmetic; on the sample it also explains more of the target (R2 0.44
    # instead of 0.30 at the same number of models) and transfers better.
    layers: list[nn.Module] = [Halved()]
    for out in (width, 2 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
        channels = out
    return nn.Sequential(*layers, _Mean())


class Halved(nn.Module):
    """Means of 2 x 2 pixels; of what there is at an odd edge."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "cpu" or images.shape[2] % 2 or images.shape[3] % 2:
            return F.avg_pool2d(images, 2, ceil_mode=True)
        # the same sums in the same order, ten times faster than avg_pool2d of one channel
        even, odd = images[:, :, ::2], images[:, :, 1::2]
        return (even[..., ::2] + even[..., 1::2] + odd[..., ::2] + odd[..., 1::2]) * 0.25


class _Mean(nn.Module):
    """Mean over all pixels. Unlike that of AdaptiveAvgPool2d, its gradient is channels_last, as what comes before it
    wants it.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def _drop_classifier(model: nn.Module, name: str) -> None:
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(
            "has no linear classifier to remove", name, "give a function that returns a feature extractor"
        )
    parent, _, leaf = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Identity())


class _GreyToColour(nn.Module):
    """Repeats the one channel of grey images for a network that was made for three."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.model(images.expand(-1, 3, -1, -1)))

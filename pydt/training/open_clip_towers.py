"""The two towers of any model of open_clip, by its name: in random weights, or in public or local ones.

Without `pretrained`, nothing is asked of the network: models whose words or text network come from Hugging Face are
refused, even if their files lie in a cache, since what a recipe means must not depend on the machine.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError
from pydt.training.text import TextTower


@dataclass(frozen=True)
class OpenClip:
    """A model of open_clip.

    Attributes:
        body: images (B, 3, H, W), or grey ones, which are repeated to three channels -> features (B, embed): those of
            open_clip's `encode_image`.
        text: its text tower.
        preprocess: open_clip's own account of how images are prepared: "size", "mean", "std", "interpolation", ...
    """

    body: nn.Module
    text: OpenClipTower
    preprocess: dict[str, Any]


class OpenClipTower(TextTower):
    """The text tower of a model of open_clip; its images are projected by their own tower.

    Args:
        model: a model of open_clip without its `visual`.
        tokenizer: texts -> int64 (texts, context).
        temperature: the start of 1 / scale; None: that of the model.
    """

    def __init__(self, model: Any, tokenizer: Any, temperature: float | None = None) -> None:
        super().__init__(nn.Identity(), 1.0 if temperature is None else temperature)
        if temperature is None:
            with torch.no_grad():
                self.log_scale.copy_(model.logit_scale.reshape(()))
        # A bias of all logits changes neither a softmax nor which one is the largest; a decoder writes captions.
        model.logit_scale = model.logit_bias = model.text_decoder = None
        self.model: Any = model
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors float32 (texts, embed): open_clip's `encode_text(tokenizer(texts), normalize=True)`."""
        device = self.log_scale.device
        if not texts:
            return self.encode([""])[:0]
        found: torch.Tensor = self.model.encode_text(self.tokenizer(list(texts)).to(device))
        return F.normalize(found.float(), dim=1)

    def reading(self, text: str) -> tuple[int, ...]:
        """Its tokens."""
        return tuple(self.tokenizer([text])[0].tolist())


def open_clip_model(
    name: str,
    pretrained: str | None = None,
    sides: tuple[int, int] | None = None,
    temperature: float | None = None,
    device: str = "cpu",
) -> OpenClip:
    """Both towers of a model.

    Args:
        name: of `open_clip.list_models()`.
        pretrained: a tag of open_clip, whose weights are downloaded, or a file with a state_dict; None: random weights
            by PyTorch's random state.
        sides: height and width of its images; None: its own.
        temperature: see `OpenClipTower`.
        device: "cpu", or "meta" for shapes alone.

    Raises:
        ConfigError: open_clip is not installed or older than 3.0, has no such model, cannot build it for such images,
            or needs the network though the weights are random.
    """
    open_clip, place = known_model(name, pretrained), f"open_clip model {name!r}"
    how: dict[str, Any] = {"pretrained": pretrained, "device": device, "pretrained_text": False}
    if pretrained is not None:
        # "ViT-B-32/openai" and others were trained with QuickGELU, which open_clip's settings of the model do not have
        how["force_quick_gelu"] = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
    if sides is not None:
        how["force_image_size"] = sides[0] if sides[0] == sides[1] else sides
    try:
        with _quiet():
            model = open_clip.create_model(name, **how)
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # it raises whatever its parts do
        text = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        wrong = f"cannot be built for images of {_size(sides)} ({type(error).__name__}: {text})"
        raise ConfigError(wrong, place, "choose another size of images, or another model") from error
    preprocess = dict(model.visual.preprocess_cfg)
    body = _Images(model.visual)
    model.visual = None
    return OpenClip(body, OpenClipTower(model, tokenizer, temperature), preprocess)


def known_model(name: str, pretrained: str | None = None) -> Any:
    """The package open_clip, which has such a model.

    Raises:
        ConfigError: as `open_clip_model`.
    """
    place = f"open_clip model {name!r}"
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError("open_clip is not installed", place, "pip install 'pydt-transfer[clip]'") from error
    if open_clip.__version__.startswith(("0.", "1.", "2.")):
        wrong = f"open_clip {open_clip.__version__} is too old: 3.0 or newer is needed"
        raise ConfigError(wrong, place, "pip install --upgrade 'pydt-transfer[clip]'")
    known = open_clip.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"did you mean {close[0]!r}?" if close else "see open_clip.list_models()"
        raise ConfigError("open_clip has no such model", place, hint)
    text = open_clip.get_model_config(name)["text_cfg"]
    if pretrained is None and ({"hf_model_name", "hf_tokenizer_name"} & set(text) or "siglip" in name.lower()):
        wrong = "its words come from Hugging Face, not from open_clip's package: a row could not be trained offline"
        raise ConfigError(wrong, place, 'choose a model with words of its own, such as "ViT-B-32" or "RN50"')
    return open_clip


@cache
def check_images(name: str, channels: int, height: int, width: int) -> None:
    """Refuse images that a model cannot be built for, without memory or arithmetic: by shapes alone.

    Raises:
        ConfigError: the model and the images are named.
    """
    known_model(name)
    try:
        with torch.device("meta"):
            body = open_clip_model(name, sides=(height, width), device="meta").body.eval()
            body(torch.zeros(1, channels, height, width))
    except ConfigError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        many = f"{channels} channel{'s' * (channels > 1)}"
        wrong = f"cannot read images of {_size((height, width))} with {many} ({type(error).__name__}: {text})"
        mend = "bring them to another size: Augment(size=224, resize=224)"
        raise ConfigError(wrong, f"open_clip model {name!r}", mend) from error


class _Images(nn.Module):
    """A visual tower, of which some return more than features; grey images are repeated to three channels."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.visual(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)
        features: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return features


def _size(sides: tuple[int, int] | None) -> str:
    return "its own size" if sides is None else f"{sides[0]} x {sides[1]} pixels"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning that weights are random, and without the handler that it would leave at the root."""
    root, handler = logging.getLogger(), logging.NullHandler()
    before = root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)

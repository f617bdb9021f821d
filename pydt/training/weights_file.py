"""Weights from a file of the user's own: safetensors, or a state dict as torch.save writes it. Runs no code from it."""

from __future__ import annotations

import hashlib
import os
import zipfile
from typing import Any

import torch
from torch import nn

from pydt.base import ConfigError, DataError, open_regular
from pydt.training.networks import removed_heads, without_repeat

_WRAPPINGS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_NAMED = 5  # keys that an error names
_CONVERT = 'if you trust it, convert it: torch.save(torch.load(FILE, weights_only=False).state_dict(), "weights.pt")'


def sha256_of(path: str) -> str:
    """SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        DataError: it is no regular file, or cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, on the CPU; a name has no prefix of a wrapper that all of them share.

    Raises:
        DataError: it is damaged, or holds anything but named tensors.
    """
    found = _safetensors(path) if path.endswith(".safetensors") else _state_dict(path)
    for prefix in _PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _safetensors(path: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"is no sound safetensors file ({error})", path, "restore it, or name another") from error
    return found


def _state_dict(path: str) -> dict[str, torch.Tensor]:
    _check_sizes(path)
    try:
        # weights_only: an unpickler that makes tensors and containers and calls nothing else
        found: Any = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        if type(error).__name__ != "UnpicklingError":
            wrong = (
                "cannot be read"
                if isinstance(error, OSError)
                else f"is no PyTorch file, or damaged: {type(error).__name__}"
            )
            raise DataError(f"{wrong} ({_first(error)})", path, "restore it, or name another") from error
        raise DataError("is not a file of weights only: reading it could run code", path, _CONVERT) from error
    if isinstance(found, dict):
        inner = [name for name in _WRAPPINGS if isinstance(found.get(name), dict)]
        if len(inner) > 1:
            raise DataError(f"holds several sets of weights: {', '.join(inner)}", path, "save the one that is meant")
        found = found[inner[0]] if inner else found
    if not isinstance(found, dict):
        raise DataError(f"holds a {type(found).__name__}, no dict of tensors", path, _CONVERT)
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            wrong = f"holds a {type(tensor).__name__} as {name!r}, where tensors are expected"
            raise DataError(wrong, path, "save the network's state_dict() alone")
    return found


def _check_sizes(path: str) -> None:
    """Refuse an archive whose parts are larger than itself: torch.load would unpack them."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except zipfile.BadZipFile:
        return  # older files are no archives, and torch.load says what is wrong with damaged ones
    if size > os.path.getsize(path):
        wrong = f"is an archive of compressed or repeated parts, {size:,} bytes when unpacked"
        raise DataError(wrong, path, "save the network's state_dict() with torch.save, which compresses nothing")


def _plain(tensor: torch.Tensor) -> bool:
    """Whether it is an array of numbers: not sparse, quantised, nested, or without content."""
    other = tensor.is_quantized or tensor.is_nested or tensor.is_meta
    return tensor.layout == torch.strided and not other


def _kind(tensor: torch.Tensor) -> str:
    return f"{'' if _plain(tensor) else 'no plain array of '}{tensor.dtype}"


def _fits(tensor: torch.Tensor, place: torch.Tensor) -> bool:
    """Whether the numbers are of the kind of those whose place they take."""
    kinds = [(one.is_floating_point(), one.is_complex()) for one in (tensor, place)]
    return _plain(tensor) and kinds[0] == kinds[1]


def put_weights(weights: dict[str, torch.Tensor], body: nn.Module, path: str, network: str) -> None:
    """Put the weights of a file into a network from `build`. Those of the classifier that `build` removes are left out.

    Raises:
        ConfigError: a weight is missing, has another shape or kind, or has no place in the network.
    """
    inner = without_repeat(body, weights)
    own = inner.state_dict()
    heads = tuple(f"{head}." for head in removed_heads(inner))
    # batch-norm's counter is read by no forward pass; older files do not have it
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    extra = [name for name in weights if name not in own and not name.startswith(heads)]
    both = [name for name in own if name in weights]
    kinds = [
        f"{name} {_kind(weights[name])} instead of {_kind(own[name])}"
        for name in both
        if not _fits(weights[name], own[name])
    ]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in both
        if _plain(weights[name]) and weights[name].shape != own[name].shape
    ]
    wrong = [
        f"{len(names):,} {what} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for what, names in (
            ("missing", missing),
            ("without a place", extra),
            ("of another kind", kinds),
            ("of another shape", shapes),
        )
        if names
    ]
    if wrong:
        mend = "name the network that the file was made with, and images of as many channels"
        raise ConfigError(f"does not fit the network {network}: weights {'; '.join(wrong)}", path, mend)
    inner.load_state_dict({name: weights[name] for name in both}, strict=False)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

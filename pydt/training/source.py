"""Source training: from a masked source to something that yields features."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, PydtError, TrainError, digest, one_of, real, whole
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader, kept_ids
from pydt.training.networks import Network, build, network_digest, network_name, out_of_memory, try_out, usual_rate

_MOST_KNOWN = 256_000_000  # bytes of features kept for further tasks
METHODS = ("supervised", "simclr", "clip", "checkpoint", "none")
SCHEDULES = ("one-cycle", "triangular")


@dataclass(frozen=True)
class Recipe:
    """How a source model is trained. Equal recipes have equal digests.

    Attributes:
        network: see `pydt.training.networks.build`.
        method: "supervised", or "none" for an untrained network (the scratch floor).
        epochs, batch_size: passes over the kept examples; a last batch that is not full is left out unless it is the
            only one.
        steps: optimiser steps in all, whatever the mask keeps; `epochs` is then not used. None: `epochs` says how long.
            Without some of the groups, equal epochs mean fewer steps; equal steps mean that what is left is seen more
            often.
        lr: peak learning rate of SGD; None: what networks of this family learn with,
            `pydt.training.networks.usual_rate`. The
            first rows of a run, and those of `pydt plan`, tell where that is wrong. (The rate stays where another
            network is put in by `dataclasses.replace`, unless lr=None is given with it.)
        schedule: "one-cycle" (cosine up over 30 % of the steps and down), or "triangular" (from 0 up over the first
            eighth of
            the steps and down to 0: the 2 of 16 epochs of Jain et al. 2023).
        momentum, nesterov, weight_decay, label_smoothing: of SGD and the cross-entropy.
        augment: of the source images; its mean, std and size also prepare the target images.
        device: "cpu", "cuda" or "cuda:N". On a GPU, training runs under autocast (mixed precision).
        threads: of the arithmetic on the CPU; part of the digest, since sums depend on it.
        on_error: what to do about source images that cannot be decoded, as in `Loader`: "raise" ends the row, "skip"
            puts others in their place, counts them in the row's metrics ("skipped") and names them in a warning.
    """

    network: Network = "convnet-24"
    method: str = "supervised"
    epochs: int = 6
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
    on_error: str = "raise"

    def __post_init__(self) -> None:
        # One value has one form, so that equal recipes have equal digests (1 and 1.0, numpy's numbers and Python's).
        for name in ("epochs", "batch_size", "threads"):
            object.__setattr__(self, name, whole(getattr(self, name), name, "Recipe", 1, error=ConfigError))
        if self.steps is not None:
            object.__setattr__(self, "steps", whole(self.steps, "steps", "Recipe", 1, error=ConfigError))
        network_name(self.network)
        if self.lr is None:
            object.__setattr__(self, "lr", usual_rate(self.network))
        object.__setattr__(self, "lr", real(self.lr, "lr", "Recipe", above=0))
        for name in ("momentum", "label_smoothing"):
            object.__setattr__(self, name, real(getattr(self, name), name, "Recipe", least=0, below=1))
        object.__setattr__(self, "weight_decay", real(self.weight_decay, "weight_decay", "Recipe", least=0))
        if not isinstance(self.augment, Augment):
            raise ConfigError(f"a {type(self.augment).__name__}", "Recipe.augment", "give pydt.Augment(...)")
        try:
            torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"no device {self.device!r}", "Recipe.device", 'use "cpu", "cuda" or "cuda:N"') from error
        one_of(self.method, METHODS, "method", "Recipe")
        if self.method in ("simclr", "clip", "checkpoint"):
            raise ConfigError(f"method {self.method!r} is not built yet", "Recipe", 'use "supervised" or "none"')
        one_of(self.schedule, SCHEDULES, "schedule", "Recipe")
        one_of(self.on_error, ("raise", "skip"), "on_error", "Recipe")

    def described(self) -> dict[str, Any]:
        """The recipe as JSON types; a network given as a function appears by its name.

        Of `epochs` and `steps` only the one that is used appears, so the other tells no two equal recipes apart.
        """
        found = asdict(self) | {"network": network_name(self.network), "augment": self.augment.described()}
        del found["steps" if self.steps is None else "epochs"]
        if self.on_error == "raise":  # as recipes were before there was a choice
            del found["on_error"]
        return found

    @cached_property
    def digest(self) -> str:
        return digest("recipe", self.described(), network_digest(self.network))


@dataclass(frozen=True, eq=False)
class Trained:
    """What training hands to transfer.

    Attributes:
        body: the network without a head: images (B, C, H, W) -> features (B, dim).
        dim: features per image.
        preprocess: how images of any data set are prepared for this network.
        recipe: the recipe that made it.
        metrics: of the source: "source_loss" and "source_accuracy" (fraction) over the last epoch, or what was run of
            it, "source_images" (how many images those are), and what the best guess without looking at an image gives:
            "source_trivial_loss" and "source_trivial_accuracy" (see `pydt.store.learnt`); empty if untrained.
            "micro_batches" where memory did not suffice for a whole batch, "skipped" where images were replaced.
        text_features: strings -> (n, dim), for methods that have a text tower; else None.
    """

    body: nn.Module
    dim: int
    preprocess: Augment
    recipe: Recipe
    metrics: dict[str, float]
    text_features: Callable[[Sequence[str]], torch.Tensor] | None = None
    _known: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict, repr=False)

    def features(self, dataset: Dataset, keep: Any = None) -> torch.Tensor:
        """Features of the kept examples in their order: float32 (n, dim) on the CPU. The network is frozen,
        batch-norm included.

        Up to 256 MB of them are kept, so that tasks of one target compute them once. What is asked for is only ever
        answered by the same question: a network may give an image other last bits in another batch.
        """
        ids = kept_ids(dataset, keep)
        name = dataset.digest, digest(ids)
        if name in self._known:
            return self._known[name]
        self.body.eval()
        with threads(self.recipe), torch.inference_mode():
            loader = Loader(dataset, ids, 512, False, self.preprocess, device=self.recipe.device, channels_last=True)
            found = torch.cat([self.body(batch.images).float().cpu() for batch in loader])
        if sum(known.nbytes for known in self._known.values()) + found.nbytes <= _MOST_KNOWN:
            self._known[name] = found
        return found


def train(source: Dataset, keep: Any, recipe: Recipe, seed: int) -> Trained:
    """Train one source model on the kept examples, with a head over the classes that are kept.

    Where memory runs out, the training starts again with every batch in 2, 4, ... parts whose gradients are summed;
    `metrics["micro_batches"]` then says how many. Only batch-norm sees a difference: a part has statistics of its own.

    Args:
        source: the source data set.
        keep: bool (examples,) or ids; see `Loader`.
        recipe: how.
        seed: of initialisation, order and augmentation. The caller's random state is left alone.

    Raises:
        DataError: nothing is kept, or an image cannot be read.
        TrainError: the loss became non-finite; such a row is stored as failed.
        ConfigError: the network cannot be built, or does not map images to (B, dim).
        RuntimeError: PyTorch's, where memory does not even suffice for two examples at a time.
    """
    ids = kept_ids(source, keep)
    device = device_of(recipe.device)
    devices = [device] if device.type == "cuda" else []
    parts = 1
    while True:
        with threads(recipe), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            try:
                return _train(source, ids, recipe, seed, device, parts)
            except PydtError:
                raise
            except Exception as error:
                if not (isinstance(error, RuntimeError) and out_of_memory(error)):
                    try_source(source, len(ids), recipe)  # says what does not fit, if that is why
                    raise
                # one example alone has no batch statistics
                if 4 * parts > min(recipe.batch_size, len(ids)):
                    raise
        # The exception is gone, and with it what its frames held.
        parts *= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()


def try_source(source: Dataset, images: int, recipe: Recipe) -> None:
    """Take one step of the network on noise of the shape of the source's images; once a process, see `try_out`.

    Args:
        images: how many a row keeps.

    Raises:
        ConfigError: network and images do not fit.
    """
    batch, learns = min(2, recipe.batch_size, images), recipe.method != "none"
    for shape in sorted(shapes(source, recipe.augment, learns)):
        try_out(recipe.network, shape, batch, recipe.device, learns)


def shapes(dataset: Dataset, augment: Augment, training: bool) -> set[tuple[int, int, int]]:
    """Channels, height and width of what a network sees of a data set."""
    epochs = [0, *(start for start, _ in augment.ramp)] if training else [None]
    if dataset.images is None:
        return {(3, augment.side(epoch), augment.side(epoch)) for epoch in epochs}
    _, height, width, channels = dataset.images.shape
    return {(channels, *augment.sides(height, width, epoch)) for epoch in epochs}


def steps_of(recipe: Recipe, examples: int) -> int:
    """Optimiser steps of a training on so many examples."""
    return recipe.epochs * _a_pass(recipe, examples) if recipe.steps is None else recipe.steps


def _a_pass(recipe: Recipe, examples: int) -> int:
    return max(1, examples // recipe.batch_size)


@contextlib.contextmanager
def threads(recipe: Recipe) -> Iterator[None]:
    """Arithmetic on `recipe.threads` threads, in whatever process: sums, and so results, depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(name: str) -> torch.device:
    """A device that is usable here; raises a ConfigError if it is not."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here", f"Recipe.device {name!r}", 'use device="cpu"')
    return device


def _train(source: Dataset, ids: np.ndarray, recipe: Recipe, seed: int, device: torch.device, parts: int) -> Trained:
    present = np.unique(source.labels[ids])
    new_label = torch.full((len(source.classes),), -1, dtype=torch.int64, device=device)
    new_label[torch.from_numpy(present).to(device)] = torch.arange(len(present), device=device)
    how: dict[str, Any] = {"device": device, "channels_last": True, "on_error": recipe.on_error}
    loader = Loader(source, ids, recipe.batch_size, True, recipe.augment, seed=seed, **how)
    channels = 3 if source.images is None else source.images.shape[3]
    body = build(recipe.network, channels).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dim = _dim(body, loader, recipe)
    if recipe.method == "none":
        return Trained(body, dim, recipe.augment, recipe, {})
    head = nn.Linear(dim, len(present)).to(device)
    a_pass, steps = _a_pass(recipe, len(ids)), steps_of(recipe, len(ids))
    epochs = -(-steps // a_pass)
    optimizer, scheduler = make_optimizer([*body.parameters(), *head.parameters()], recipe, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    body.train()
    skipped: dict[int, str] = {}
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        seen = 0
        for _, batch in zip(range(min(a_pass, steps - epoch * a_pass)), loader, strict=False):
            whole_labels = new_label[batch.labels]
            optimizer.zero_grad(set_to_none=True)
            for images, labels in zip(batch.images.tensor_split(parts), whole_labels.tensor_split(parts), strict=True):
                with torch.autocast(device.type, enabled=device.type == "cuda"):
                    logits = head(body(images))
                    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
                scaler.scale(loss * (len(labels) / len(whole_labels))).backward()
                loss_sum += loss.detach() * len(labels)
                correct += (logits.detach().argmax(1) == labels).sum()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            seen += len(whole_labels)
        skipped |= loader.skipped
        # Looked at once an epoch: a look at every step would make a GPU wait for the CPU.
        mean_loss = float(loss_sum) / seen
        if not np.isfinite(mean_loss):
            raise TrainError(
                f"the loss became {mean_loss}", f"epoch {epoch + 1} of {epochs}", "lower the learning rate"
            )
    metrics: dict[str, float] = {"source_loss": mean_loss, "source_accuracy": float(correct) / seen}
    trivial = _trivial(np.bincount(source.labels[ids])[present], recipe.label_smoothing)
    metrics |= {"source_images": seen, "source_trivial_loss": trivial[0], "source_trivial_accuracy": trivial[1]}
    if parts > 1:
        metrics["micro_batches"] = parts
    if skipped:
        metrics["skipped"] = len(skipped)
        named = "; ".join(f"{source.place_of(i)}: {why}" for i, why in sorted(skipped.items())[:10])
        more = f"; and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        were = "1 image was" if len(skipped) == 1 else f"{len(skipped):,} images were"
        warnings.warn(f"{were} replaced by others: {named}{more}", RuntimeWarning, stacklevel=2)
    return Trained(body, dim, recipe.augment, recipe, metrics)


def _trivial(counts: np.ndarray, smoothing: float) -> tuple[float, float]:
    """Loss and accuracy of the best guess that looks at no image.

    Args:
        counts: images of each class. smoothing: of the labels; the loss is the entropy of the smoothed classes.
    """
    share = counts / counts.sum()
    smooth = (1 - smoothing) * share + smoothing / len(share)
    return float((smooth * np.log(1 / smooth)).sum()), float(share.max())


def make_optimizer(
    parameters: list[nn.Parameter], recipe: Any, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with the schedule of `recipe` (a `Recipe` or `FineTune`) over `steps` steps."""
    optimizer = torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,  # one call for all parameters
    )
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "one-cycle":
        # OneCycleLR divides by zero when its rising part has no step.
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.lr, total_steps=max(steps, 4), cycle_momentum=False
        )
    else:
        peak = max(steps / 8, 1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: float(np.interp(step, [0, peak, max(steps, peak + 1)], [0, 1, 0]))
        )
    return optimizer, scheduler


def _dim(body: nn.Module, loader: Loader, recipe: Recipe) -> int:
    # Shape inference by one image; batch-norm statistics must not see it.
    was_training = body.training
    body.eval()
    with torch.no_grad():
        features = body(loader.read(loader.ids[:1]).images)
    body.train(was_training)
    if features.ndim != 2:
        raise ConfigError(
            f"returns shape {tuple(features.shape)}",
            f"network {recipe.described()['network']}",
            "return (batch, features)",
        )
    return int(features.shape[1])

"""Transfer: from a trained source model to one set of outputs per target example.

`mode="probe"` freezes the network, computes features once, and solves a ridge classifier for every few-shot draw at
once:

    W = argmin |Y - 1 y' - Z W|^2 + penalty |W|^2,   Z = features standardised on the draw, Y = one-hot labels, y =
    its mean

`mode="finetune"` trains the whole network with a new head on each draw. Every target example of the score and the
report half gets four primitives, from which all of the papers' outputs follow (`pydt.store.derive`): the logit of the
correct class, the best other logit, the log-sum-exp of the other logits, and the predicted class.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pydt.base import ConfigError, DataError, TrainError, digest, generator, one_of, real, seed31, whole
from pydt.data import HALVES, Dataset, Target
from pydt.data.loading import Loader, kept_ids
from pydt.training.networks import try_out
from pydt.training.source import SCHEDULES, Recipe, Trained, device_of, make_optimizer, shapes, threads, try_source


@dataclass(frozen=True)
class FineTune:
    """How the whole network is trained on a draw. The defaults are those of Jain et al. 2023 (appendix), scaled to
    small draws.
    """

    epochs: int = 15
    batch_size: int = 64
    lr: float = 0.05
    schedule: str = "triangular"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        one_of(self.schedule, SCHEDULES, "schedule", "FineTune")
        for name in ("epochs", "batch_size"):
            whole(getattr(self, name), name, "FineTune", 1, error=ConfigError)
        real(self.lr, "lr", "FineTune", above=0)
        for name in ("momentum", "weight_decay"):
            real(getattr(self, name), name, "FineTune")


@dataclass(frozen=True)
class Task:
    """A target and how to transfer to it.

    Attributes:
        target: the target and its splits.
        mode: "probe" (frozen features, ridge classifier) or "finetune" (all layers).
        shots: labelled examples per class, or "full" for the whole pool.
        draws: how many few-shot draws; outputs are kept per draw. "full" has one.
        seed: of the draws. Ensembles and counterfactuals use different seeds, so that a lucky draw cannot serve twice.
        penalty: of the ridge probe, on features standardised on the draw.
        finetune: see `FineTune`; only read in mode "finetune".
        name: what reports call it.

    Raises:
        DataError: a class of the pool has fewer examples than shots.
        ConfigError: an unknown mode or a value out of range.
    """

    target: Target
    mode: str = "probe"
    shots: int | str = 5
    draws: int = 8
    seed: int = 0
    penalty: float = 10.0
    finetune: FineTune = field(default_factory=FineTune)
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise ConfigError(f"a {type(self.target).__name__}", "Task.target", "give pydt.Target(dataset)")
        least = {"draws": 1, "seed": 0} | ({} if self.shots == "full" else {"shots": 1})
        for name, smallest in least.items():
            object.__setattr__(self, name, whole(getattr(self, name), name, "Task", smallest, error=ConfigError))
        object.__setattr__(self, "penalty", real(self.penalty, "penalty", "Task", above=0))
        if self.mode == "zero-shot":
            raise ConfigError(
                "mode 'zero-shot' needs a text tower, which is not built yet", "Task", 'use "probe" or "finetune"'
            )
        one_of(self.mode, ("probe", "finetune"), "mode", "Task")
        if self.shots == "full":
            object.__setattr__(self, "draws", 1)
        else:
            labels = self.target.train.labels[self.target.split["pool"]]
            counts = np.bincount(labels, minlength=len(self.target.classes))
            if counts.min() < int(self.shots):
                scarce = self.target.classes[int(counts.argmin())]
                raise DataError(
                    f"{self.shots} shots, but class {scarce!r} has {counts.min()} examples in the pool",
                    self.target.name,
                    "ask for fewer shots, or give a larger pool: Target(pool=...)",
                )
        if not self.name:
            object.__setattr__(self, "name", f"{self.target.name}, {self.shots}-shot {self.mode}")

    @cached_property
    def digest(self) -> str:
        # The name is only for readers; what is not used in this mode must not tell two equal tasks apart.
        how = self.penalty if self.mode == "probe" else asdict(self.finetune)
        return digest("task", self.target.digest, self.mode, self.shots, self.draws, self.seed, how)

    def described(self) -> dict[str, Any]:
        """The task as JSON types, for plan files and reports."""
        target = {
            "name": self.target.name,
            "digest": self.target.digest,
            "classes": list(self.target.classes),
            "metric": self.target.metric,
            **{part: len(ids) for part, ids in self.target.split.items()},
        }
        how: dict[str, Any] = {"penalty": self.penalty} if self.mode == "probe" else {"finetune": asdict(self.finetune)}
        return {
            "name": self.name,
            "target": target,
            "mode": self.mode,
            "shots": self.shots,
            "draws": self.draws,
            "seed": self.seed,
            **how,
        }

    def few_shot(self) -> np.ndarray:
        """The draws: int64 (draws, n) positions in `target.train`, `shots` per class, or the whole pool.

        Within a draw, more shots only add examples: draws are nested in the number of shots.
        """
        pool = self.target.split["pool"]
        if self.shots == "full":
            return pool[np.newaxis]
        labels = self.target.train.labels[pool]
        chosen = []
        for draw in range(self.draws):
            order = generator("few-shot draw", self.seed, draw).permutation(len(pool))
            by_class = [order[labels[order] == c][: self.shots] for c in range(len(self.target.classes))]
            chosen.append(np.sort(np.concatenate(by_class)))
        return pool[np.stack(chosen)]


@dataclass(frozen=True, eq=False)
class Outputs:
    """primitives: float32 (4, draws, examples) in the order of `Target.described()`; scalars: the target's metric as
    fractions.
    """

    primitives: np.ndarray
    scalars: dict[str, float]


def transfer(trained: Trained, task: Task, seed: int) -> Outputs:
    """Transfer a source model to a task and look at every example of the score and the report half.

    Args:
        trained: from `pydt.training.train`.
        task: what to transfer to, and how.
        seed: of the heads' initialisation and the order, in mode "finetune"; a probe has no randomness beyond its
            draws.

    Returns:
        the four primitives per draw and example, and "score_accuracy" and "report_accuracy", means over draws.

    Raises:
        TrainError: fine-tuning or the features became non-finite.
    """
    described = task.target.described()
    draws = task.few_shot()
    with threads(trained.recipe):
        if task.mode == "probe":
            logits = _probe(trained, task, draws, described["ids"])
        else:
            logits = _finetune(trained, task, draws, described["ids"], seed)
    if not bool(torch.isfinite(logits).all()):
        raise TrainError("an output is not finite", task.name, "lower the learning rate")
    primitives = _primitives(logits, torch.from_numpy(described["labels"]))
    correct = (primitives[3] == described["labels"].astype(np.float32)).mean(0) * described["weights"]
    scalars = {f"{half}_accuracy": float(correct[described["half"] == i].sum()) for i, half in enumerate(HALVES)}
    return Outputs(primitives, scalars)


def trial(source: Dataset, keep: Any, recipe: Recipe, tasks: Sequence[Task]) -> None:
    """One step of the network on noise of every shape that a row will show it: what does not fit is told at once.

    Takes as long as a step on two images for each shape, once a process.

    Args:
        keep: examples of the row, as in `train`.

    Raises:
        ConfigError: network, images and batches do not fit; source or task is named.
    """
    device = device_of(recipe.device)
    with threads(recipe), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try_source(source, len(kept_ids(source, keep)), recipe)
        for task in tasks:
            data, learns = task.target.train, task.mode == "finetune"
            pool, shots = len(task.target.split["pool"]), task.shots
            drawn = pool if isinstance(shots, str) else shots * len(task.target.classes)
            batch = min(2, task.finetune.batch_size, drawn) if learns else 1
            try:
                for shape in sorted(shapes(data, recipe.augment, learns) | shapes(data, recipe.augment, False)):
                    try_out(recipe.network, shape, batch, recipe.device, learns)
            except ConfigError as error:
                raise ConfigError(error.what, f"task {task.name!r}: {error.where}", error.mend) from error


def _probe(trained: Trained, task: Task, draws: np.ndarray, judged: np.ndarray) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) of one ridge classifier per draw, all solved together."""
    used, where = np.unique(draws, return_inverse=True)
    train = trained.features(task.target.train, used).double()[torch.from_numpy(where.reshape(draws.shape))]
    features = trained.features(task.target.judged, judged).double()
    labels = torch.from_numpy(task.target.train.labels[draws])
    return ridge_probe(train, labels, features, len(task.target.classes), task.penalty)


def ridge_probe(
    train: torch.Tensor, labels: torch.Tensor, features: torch.Tensor, classes: int, penalty: float
) -> torch.Tensor:
    """Ridge classifiers on standardised features.

    Args:
        train: (draws, n, dim) features of each draw; labels: int64 (draws, n); features: (examples, dim) to be
            classified.
        penalty: added to the diagonal of Z'Z.

    Returns:
        (draws, examples, classes) fitted one-hot values, in the dtype of `train`.
    """
    mean = train.mean(1, keepdim=True)
    deviation = train.std(1, keepdim=True, correction=0)
    # A feature that never varies in the draw carries nothing: its weight is 0 whatever it is divided by.
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    z = (train - mean) / deviation
    onehot = F.one_hot(labels, classes).to(z.dtype)
    centre = onehot.mean(1, keepdim=True)
    if z.shape[1] < z.shape[2]:
        gram = z @ z.mT + penalty * torch.eye(z.shape[1], dtype=z.dtype)
        weights = z.mT @ torch.linalg.solve(gram, onehot - centre)
    else:
        gram = z.mT @ z + penalty * torch.eye(z.shape[2], dtype=z.dtype)
        weights = torch.linalg.solve(gram, z.mT @ (onehot - centre))
    # (features - mean) / deviation @ W, without a standardised copy of the features for every draw.
    scaled = weights / deviation.mT
    return features @ scaled + (centre - mean @ scaled)


def _finetune(trained: Trained, task: Task, draws: np.ndarray, judged: np.ndarray, seed: int) -> torch.Tensor:
    """Logits float64 (draws, examples, classes) after training all layers and a new head on each draw."""
    device = torch.device(trained.recipe.device)
    results = []
    for draw, ids in enumerate(draws):
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed31("fine-tuning", seed, task.seed, draw))
            results.append(_finetune_one(trained, task, ids, judged, seed, device))
    return torch.stack(results)


def _finetune_one(
    trained: Trained, task: Task, ids: np.ndarray, judged: np.ndarray, seed: int, device: torch.device
) -> torch.Tensor:
    how = task.finetune
    body = copy.deepcopy(trained.body)
    head = nn.Linear(trained.dim, len(task.target.classes)).to(device)
    loader = Loader(
        task.target.train, ids, how.batch_size, True, trained.preprocess, seed=seed, device=device, channels_last=True
    )
    # A last batch of one image has no batch statistics.
    steps = max(1, len(loader) - (len(ids) % how.batch_size == 1))
    optimizer, scheduler = make_optimizer([*body.parameters(), *head.parameters()], how, steps * how.epochs)
    body.train()
    for epoch in range(how.epochs):
        loader.set_epoch(epoch)
        for _, batch in zip(range(steps), loader, strict=False):
            with torch.autocast(device.type, enabled=device.type == "cuda", dtype=torch.bfloat16):
                loss = F.cross_entropy(head(body(batch.images)).float(), batch.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
    body.eval()
    with torch.inference_mode():
        reader = Loader(task.target.judged, judged, 512, False, trained.preprocess, device=device, channels_last=True)
        return torch.cat([head(body(batch.images)).double().cpu() for batch in reader])


def _primitives(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(draws, examples, classes) logits -> float32 (4, draws, examples): correct, best other, logsumexp of others,
    prediction.
    """
    index = labels.view(1, -1, 1).expand(logits.shape[0], -1, 1)
    correct = logits.gather(2, index).squeeze(2)
    others = logits.scatter(2, index, -torch.inf)
    stacked = torch.stack([correct, others.amax(2), others.logsumexp(2), logits.argmax(2).to(logits.dtype)])
    return stacked.float().numpy()

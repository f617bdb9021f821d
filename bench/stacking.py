"""What else could make small rows cheaper on one thread: `python bench/stacking.py [PART ...] --json FILE`.

Everything is compared with what pydt does, in turns in one process that has the allocator's settings of pydt's workers;
times are processor time, medians of the repeats. The network is `convnet-24`, the plan the quickstart's.

    step    one optimisation step of K models on a batch of 128 each: one after the other, or stacked into one network
            (grouped convolutions; `torch.func.vmap` over parameters). Gradients must agree first
    rows    whole rows of K models trained as one by grouped convolutions, same images in the same order, then
            transferred one by one; accuracies of the two must agree within three standard errors
    batch   features of the target images in batches of other sizes
    bf16    a step under autocast to bfloat16
    share   of a row: training, features, probe
    start   processor time of a worker process before its first row, and of importing torch alone
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from sample import five_shot_plan
from torch import nn
from torch.nn import functional as F

from pydt.data.loading import Loader
from pydt.ensemble import Plan
from pydt.ensemble.executors.local import MALLOC
from pydt.training import Trained, train, transfer
from pydt.training.networks import build
from pydt.training.optimizer import make_optimizer
from pydt.training.transfer import probe
from pydt.training.transfer.draws import Draws

Case = dict[str, Any]
BATCH, CLASSES, SIDE = 128, 16, 28


# ---- K models as one -------------------------------------------------------------------------------------------------
class Stack(nn.Module):
    """K networks of one shape as one: channel k * width + i is channel i of model k."""

    def __init__(self, bodies: Sequence[nn.Sequential], heads: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.count, self.halved = len(bodies), bodies[0][0]
        layers: list[nn.Module] = []
        for parts in zip(*(body[1:-1] for body in bodies), strict=True):
            first = parts[0]
            if isinstance(first, nn.Conv2d):
                made: nn.Module = nn.Conv2d(
                    self.count * first.in_channels, self.count * first.out_channels, 3, 2, 1, 1, self.count, False
                )
            elif isinstance(first, nn.BatchNorm2d):
                made = nn.BatchNorm2d(self.count * first.num_features)
            else:
                made = nn.ReLU(inplace=True)
            state = {name: torch.cat([p.state_dict()[name] for p in parts]) for name in first.state_dict()
                     if name != "num_batches_tracked"}  # fmt: skip
            made.load_state_dict(state, strict=False)
            layers.append(made)
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weight = nn.Parameter(torch.stack([head.weight.detach().T for head in heads]))
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in heads]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K, H, W), one grey image a model -> logits (K, B, classes)."""
        found = self.layers(self.halved(images)).permute(0, 2, 3, 1).flatten(1, 2).mean(1)
        return torch.baddbmm(self.bias[:, None], found.view(len(images), self.count, -1).transpose(0, 1), self.weight)

    def unstacked(self, bodies: Sequence[nn.Sequential]) -> None:
        """Write what was learnt into K networks."""
        for at, whole in enumerate(self.layers, 1):
            for name, values in whole.state_dict().items():
                if name != "num_batches_tracked":
                    for body, part in zip(bodies, values.chunk(self.count), strict=True):
                        body[at].state_dict()[name].copy_(part)


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum over models of the mean loss of each: every model gets the gradient that it has alone."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=0.1) * (labels.numel() / BATCH)


def fresh(count: int) -> tuple[list[nn.Sequential], list[nn.Linear]]:
    bodies, heads = [], []
    for seed in range(count):
        torch.manual_seed(seed)
        bodies.append(build("convnet-24", 1).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        heads.append(nn.Linear(96, CLASSES))
    return bodies, heads


def functional(parameters: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of one model for `vmap`; batch-norm keeps no running statistics, which is in its favour."""
    for i in range(3):
        images = F.conv2d(images, parameters[f"conv {i}"], None, 2, 1)
        images = F.relu(F.batch_norm(images, None, None, parameters[f"scale {i}"], parameters[f"shift {i}"], True))
    found = images.flatten(2).mean(2)
    return F.cross_entropy(found @ parameters["weight"] + parameters["bias"], labels, label_smoothing=0.1)


# ---- parts -----------------------------------------------------------------------------------------------------------
def in_turns(sides: dict[str, Callable[[], Any]], repeats: int, inner: int = 1) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(repeats):
        for name, call in sides.items():
            start = time.process_time()
            for _ in range(inner):
                call()
            times[name].append((time.process_time() - start) / inner)
    return times


def cases(name: str, times: dict[str, list[float]], per: int = 1) -> list[Case]:
    """Every side but the first against the first, which is what pydt does; ratio above 1: the other is faster."""
    ours, *others = times
    base = statistics.median(times[ours]) / per
    found = []
    for other in others:
        pairs = [a / b for a, b in zip(times[ours], times[other], strict=True)]
        value = statistics.median(times[other]) / per
        ratio = statistics.median(pairs)
        found.append({"case": name, "ours": ours, "ours_s": base, "other": other, "other_s": value, "ratio": ratio})
        found[-1] |= {"pairs": len(pairs), "least": min(pairs), "most": max(pairs)}
        text = f"{ratio:.2f}x ({min(pairs):.2f}-{max(pairs):.2f}, n = {len(pairs)})"
        print(f"{name:<30} {ours} {base:.5f} s  {other:<12} {value:.5f} s  {text}", flush=True)
    return found


def step(repeats: int) -> list[Case]:
    return [one for count in (2, 4, 8) for one in _step(count, repeats)]


def _step(count: int, repeats: int) -> list[Case]:
    random = np.random.default_rng(count)
    images = torch.from_numpy(random.standard_normal((count, BATCH, 1, SIDE, SIDE), np.float32))
    labels = torch.from_numpy(random.integers(0, CLASSES, (count, BATCH)))
    bodies, heads = fresh(count)
    stack, recipe = Stack(bodies, heads), five_shot_plan(20).recipe
    alone = [
        make_optimizer([*body.parameters(), *head.parameters()], recipe, 10**6)
        for body, head in zip(bodies, heads, strict=True)
    ]
    whole = make_optimizer(list(stack.parameters()), recipe, 10**6)
    together = images[:, :, 0].transpose(0, 1).contiguous(memory_format=torch.channels_last)
    batches = [part.contiguous(memory_format=torch.channels_last) for part in images]
    halved = stack.halved(images.flatten(0, 1)).unflatten(0, (count, BATCH))
    start = {"weight": stack.weight, "bias": stack.bias}
    for i in range(3):
        start[f"conv {i}"] = torch.stack([body[1 + 3 * i].weight.detach() for body in bodies])
        start[f"scale {i}"], start[f"shift {i}"] = torch.ones(count, 24 << i), torch.zeros(count, 24 << i)
    parameters = {name: nn.Parameter(value.detach().clone()) for name, value in start.items()}
    mapped = make_optimizer(list(parameters.values()), recipe, 10**6)
    gradients = torch.func.vmap(torch.func.grad(functional))

    def separate(learn: bool = True) -> None:
        for body, head, batch, wanted, (optimizer, schedule) in zip(bodies, heads, batches, labels, alone, strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(head(body(batch)), wanted, label_smoothing=0.1).backward()
            if learn:
                optimizer.step()
                schedule.step()

    def grouped(learn: bool = True) -> None:
        whole[0].zero_grad(set_to_none=True)
        loss_of(stack(together), labels).backward()
        if learn:
            whole[0].step()
            whole[1].step()

    def vmapped(learn: bool = True) -> None:
        detached = {name: value.detach() for name, value in parameters.items()}
        for name, gradient in gradients(detached, halved, labels).items():
            parameters[name].grad = gradient
        if learn:
            mapped[0].step()
            mapped[1].step()

    for call in (separate, grouped, vmapped):
        call(False)
    for i in range(3):
        wanted = torch.stack([body[1 + 3 * i].weight.grad for body in bodies])
        for other in (stack.layers[3 * i].weight.grad.unflatten(0, (count, -1)), parameters[f"conv {i}"].grad):
            # 1e-6, or 3e-3 where rounding puts one activation on the other side of a ReLU
            assert (wanted - other).norm() < 1e-2 * wanted.norm(), "other gradients"
    times = in_turns({"one by one": separate, "grouped": grouped, "vmap": vmapped}, repeats, max(1, 16 // count))
    return cases(f"step of {count} models, a model", times, count)


def trained_as_one(plan: Plan, numbers: Sequence[int]) -> list[Trained]:
    """Rows of a plan trained together, as `pydt.training.train` trains each."""
    recipe, rows = plan.recipe, [plan.rows()[i] for i in numbers]
    loaders, bodies, heads, news = [], [], [], []
    for row in rows:
        ids = np.flatnonzero(plan.context.keep_examples(row))
        torch.manual_seed(row.seed)
        loaders.append(
            Loader(plan.source, ids, recipe.batch_size, True, recipe.augment, seed=row.seed, channels_last=True)
        )
        bodies.append(build(recipe.network, 1).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        present = np.unique(plan.source.labels[ids])
        heads.append(nn.Linear(96, len(present)))
        new = torch.full((len(plan.source.classes),), -1)
        new[torch.from_numpy(present)] = torch.arange(len(present))
        news.append(new)
    stack = Stack(bodies, heads)
    steps = min(len(loader.ids) // recipe.batch_size for loader in loaders)
    optimizer, scheduler = make_optimizer(list(stack.parameters()), recipe, steps * recipe.epochs)
    stack.train()
    for epoch in range(recipe.epochs):
        for loader in loaders:
            loader.set_epoch(epoch)
        for _, batches in zip(range(steps), zip(*loaders, strict=False), strict=False):
            labels = torch.stack([new[batch.labels] for new, batch in zip(news, batches, strict=True)])
            images = torch.cat([batch.images for batch in batches], 1).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            loss_of(stack(images), labels).backward()
            optimizer.step()
            scheduler.step()
    stack.unstacked(bodies)
    return [Trained(body, 96, recipe.augment, recipe, {}) for body in bodies]


def rows(repeats: int) -> list[Case]:
    """Sides take turns by sets of eight rows."""
    plan = five_shot_plan(max(20, 8 * repeats))
    (task,) = plan.tasks
    times: dict[str, list[float]] = {}
    accuracy: dict[str, list[float]] = {}
    for number in range(repeats + 1):  # the first set loads what is loaded once
        numbers = range(8) if not number else range(8 * (number - 1), 8 * number)
        for size in (1, 2, 4, 8):
            start, right = time.process_time(), []
            for first in range(0, 8, size):
                chosen = [numbers[i] for i in range(first, first + size)]
                if size == 1:
                    row = plan.rows()[chosen[0]]
                    made = [train(plan.source, plan.context.keep_examples(row), plan.recipe, row.seed)]
                else:
                    made = trained_as_one(plan, chosen)
                right += [transfer(one, task, 0).scalars["report_accuracy"] for one in made]
            name = "one by one" if size == 1 else f"{size} as one"
            if number:
                times.setdefault(name, []).append(time.process_time() - start)
                accuracy.setdefault(name, []).extend(right)
    for name in list(accuracy)[1:]:
        apart = np.subtract(accuracy[name], accuracy["one by one"])
        error = apart.std(ddof=1) / len(apart) ** 0.5
        print(f"accuracy, {name}: apart by {100 * apart.mean():+.2f} +- {100 * error:.2f} points, {len(apart)} rows")
        assert abs(apart.mean()) <= 3 * error, "the accuracies differ by more than noise"
    return cases("rows, a row", times, 8)


def batch(repeats: int) -> list[Case]:
    plan = five_shot_plan(20)
    row, (task,) = plan.rows()[0], plan.tasks
    made = train(plan.source, plan.context.keep_examples(row), replace(plan.recipe, epochs=1), row.seed)
    target, ids = task.target.judged, task.target.described()["ids"]

    def features(size: int) -> Callable[[], torch.Tensor]:
        def call() -> torch.Tensor:
            with torch.inference_mode():
                loader = Loader(target, ids, size, False, made.preprocess, channels_last=True)
                return torch.cat([made.body(images.images) for images in loader])

        return call

    made.body.eval()
    sides = {f"{size}": features(size) for size in (512, 64, 128, 256, 1024, len(ids))}
    base = sides["512"]()
    for call in sides.values():
        assert torch.allclose(call(), base, rtol=1e-4, atol=1e-5)
    return cases(f"features of {len(ids)} images", in_turns(sides, max(15, repeats), 4))


def bf16(repeats: int) -> list[Case]:
    (body,), (head,) = fresh(1)
    images = torch.randn(BATCH, 1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH,))

    def one(enabled: bool) -> Callable[[], None]:
        def call() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = F.cross_entropy(head(body(images)), labels)
            loss.backward()

        return call

    return cases("forward and backward", in_turns({"float32": one(False), "bfloat16": one(True)}, max(15, repeats), 4))


def share(repeats: int) -> list[Case]:
    plan = five_shot_plan(max(20, repeats))
    (task,) = plan.tasks
    ids, train_ids = task.target.described()["ids"], task.few_shot()
    draws = Draws(task.target, train_ids, ids, task.seed, 0)
    parts: dict[str, list[float]] = {"whole row": [], "training": [], "features": [], "probe": []}
    for number in range(repeats + 1):
        row = plan.rows()[max(0, number - 1)]
        marks = [time.process_time()]
        made = train(plan.source, plan.context.keep_examples(row), plan.recipe, row.seed)
        marks.append(time.process_time())
        made.features(task.target.train, np.unique(train_ids))
        made.features(task.target.judged, ids)
        marks.append(time.process_time())
        probe.logits(made, draws, task.penalty)  # its features are known by now
        transfer(made, task, 0)
        marks.append(time.process_time())
        probe.logits(made, draws, task.penalty)
        twice = time.process_time() - marks[-1]
        if number:
            values = marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2] - twice
            for name, value in zip(parts, (sum(values), *values), strict=True):
                parts[name].append(value)
    return cases("a row's parts", parts)


def start(repeats: int) -> list[Case]:
    sides = {
        "a worker's modules": "import pydt.ensemble.executors.local, pydt.ensemble.row, pydt.training",
        "torch": "import torch",
        "numpy": "import numpy",
        "Python": "pass",
    }

    def run(code: str) -> Callable[[], float]:
        def call() -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        return call

    calls = {name: run(code) for name, code in sides.items()}
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(max(5, repeats)):
        for name, call in calls.items():
            times[name].append(call())
    return cases("start of a process", times)


PARTS = {"step": step, "rows": rows, "batch": batch, "bf16": bf16, "share": share, "start": start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if not set(MALLOC) <= set(os.environ):  # glibc reads them at the start of a process
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    found = [case for name in options.parts or PARTS for case in PARTS[name](options.repeats)]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

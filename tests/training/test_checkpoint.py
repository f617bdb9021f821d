"""Weights of a file: what fits gives the same features, everything else is refused before anything is trained."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pydt
from pydt import design
from pydt.base import ConfigError, DataError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.training import Checkpoint, FineTune, Recipe, Scratch, Task, train, transfer, trial
from pydt.training.methods.checkpoint import start
from pydt.training.networks import build

AUGMENT = Augment(mean=(0.3,), std=(0.2,))
Weights = dict[str, Any]


def own_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 7))


def of_file(path: Path, network: Any = "convnet-4", **more: Any) -> Recipe:
    return Recipe(network=network, method="checkpoint", checkpoint=Checkpoint(file=str(path)), augment=AUGMENT, **more)


def some(network: Any, channels: int = 1) -> nn.Module:
    """A network in random weights whose batch-norm has statistics, too."""
    torch.manual_seed(0)
    made = build(network, channels).train()
    with torch.no_grad():
        made(torch.randn(8, channels, 12, 12))
    return made.eval()


def prepared(source: Dataset) -> torch.Tensor:
    assert source.images is not None
    return torch.from_numpy((source.images.transpose(0, 3, 1, 2) / 255 - 0.3) / 0.2).float()


def test_features_are_those_of_the_weights(source: Dataset, tmp_path: Path) -> None:
    body = some("convnet-4")
    with torch.no_grad():
        expected = body(prepared(source))
    save_file(body.state_dict(), tmp_path / "a.safetensors")
    torch.save(body.state_dict(), tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        trained = train(source, source.labels < 3, of_file(tmp_path / name), 5)
        assert trained.dim == 16
        assert trained.metrics == {}
        assert torch.allclose(trained.features(source), expected, atol=1e-5)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda w: {"model": {f"module.{name}": value for name, value in w.items()}},
        lambda w: {f"_orig_mod.{name}": value for name, value in w.items()},
        lambda w: {name: value for name, value in w.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_common_wrappings_are_understood(
    source: Dataset, tmp_path: Path, wrapped: Callable[[Weights], Weights]
) -> None:
    body = some("convnet-4")
    torch.save(wrapped(body.state_dict()), tmp_path / "a.pt")
    found = start(of_file(tmp_path / "a.pt"), source).body.state_dict()
    for name, value in body.state_dict().items():
        assert torch.equal(found[name], value) or name.endswith("num_batches_tracked")


def test_the_classifier_that_is_removed_is_left_out(source: Dataset, tmp_path: Path) -> None:
    import torchvision

    whole = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    body = start(of_file(tmp_path / "whole.pt", "shufflenet_v2_x0_5"), source).body  # grey images: repeated
    images = torch.randn(2, 1, 32, 32)
    whole.fc = nn.Identity()
    with torch.no_grad():
        assert torch.allclose(body(images), whole.eval()(images.expand(-1, 3, -1, -1)), atol=1e-6)
    torch.save(body.state_dict(), tmp_path / "body.pt")
    again = start(of_file(tmp_path / "body.pt", "shufflenet_v2_x0_5"), source).body
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), body.parameters(), strict=True))


def test_the_classifier_of_timm_is_left_out(source: Dataset, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    whole = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    body = start(of_file(tmp_path / "whole.pt", "timm:test_resnet"), source).body
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = whole.eval().forward_head(whole.forward_features(images), pre_logits=True)
        assert torch.allclose(body(images), expected, atol=1e-6)


def test_weights_that_do_not_fit_are_named(source: Dataset, target: Target, tmp_path: Path) -> None:
    weights = some("convnet-4").state_dict()
    first = next(iter(weights))
    cases: list[tuple[Weights, str]] = [
        ({name: value for name, value in weights.items() if name != first}, rf"1 missing \({first}\)"),
        ({**weights, "head.weight": torch.zeros(3, 16)}, r"1 without a place \(head\.weight\)"),
        (some("convnet-5").state_dict(), rf"of another shape \({first} \(5, 1, 3, 3\) instead of \(4, 1, 3, 3\)"),
        (some("convnet-4", 3).state_dict(), r"instead of \(4, 1, 3, 3\).*images of as many channels"),
    ]
    for number, (wrong, message) in enumerate(cases):
        torch.save(wrong, tmp_path / f"{number}.pt")
        for happens in (
            lambda recipe: train(source, None, recipe, 0),
            lambda recipe: pydt.Plan(
                source, design=design.Design.explicit(np.ones((1, 8))), recipe=recipe, tasks=[Task(target)]
            ),
        ):
            with pytest.raises(ConfigError, match=message):
                happens(of_file(tmp_path / f"{number}.pt"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda w: w.to("meta"), r"no plain array of torch\.float32"),
        (lambda w: w.to(torch.complex64), r"torch\.complex64 instead of torch\.float32"),
        (lambda w: (100 * w).to(torch.int8), r"torch\.int8 instead of torch\.float32"),
    ],
)
def test_weights_of_another_kind_are_named(
    source: Dataset, tmp_path: Path, changed: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    weights = some("convnet-4").state_dict()
    first = next(iter(weights))
    torch.save({**weights, first: changed(weights[first])}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=rf"1 of another kind \({first} {message}"):
        start(of_file(tmp_path / "a.pt"), source)
    torch.save({**weights, first: weights[first].half()}, tmp_path / "half.pt")
    found = start(of_file(tmp_path / "half.pt"), source).body.state_dict()
    assert torch.equal(found[first], weights[first].half().float())


def test_a_small_file_of_large_weights_is_not_unpacked(source: Dataset, tmp_path: Path) -> None:
    torch.save(some("convnet-4").state_dict() | {"more": torch.zeros(10_000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for part in plain.namelist():
            small.writestr(part, plain.read(part))
    with pytest.raises(DataError, match=r"b\.pt: is an archive of compressed or repeated parts.*torch\.save"):
        start(of_file(tmp_path / "b.pt"), source)


def test_files_that_are_no_weights_are_refused(source: Dataset, tmp_path: Path) -> None:
    body = some("convnet-4")
    torch.save(body, tmp_path / "whole.pt")
    with pytest.raises(DataError, match=r"whole\.pt: is not a file of weights only.*convert it: torch\.save"):
        train(source, None, of_file(tmp_path / "whole.pt"), 0)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": torch.ones(1), "b": "text"}, tmp_path / "text.pt")
    torch.save({"model": body.state_dict(), "state_dict": body.state_dict()}, tmp_path / "two.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "text.pt").read_bytes()[:300])
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "empty.pt").write_bytes(b"")
    for name, message in {
        "list.pt": "holds a list",
        "text.pt": "holds a str as 'b'",
        "two.pt": "several sets of weights: state_dict, model",
        "cut.pt": "is no PyTorch file|weights only",
        "cut.safetensors": "no sound safetensors",
        "empty.pt": "is no PyTorch file",
    }.items():
        with pytest.raises(DataError, match=rf"{name}: .*({message})"):
            train(source, None, of_file(tmp_path / name), 0)


def test_what_cannot_be_meant_is_refused(source: Dataset, tmp_path: Path) -> None:
    torch.save(some("convnet-4").state_dict(), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"without a checkpoint.*Checkpoint\("):
        Recipe(method="checkpoint")
    for wrong, message in (
        ({"file": str(tmp_path / "none.pt")}, "cannot be read"),
        ({"file": str(tmp_path / "a.pt"), "sha256": "ab" * 32}, "other content"),
        ({"name": "torchvision:resnet18", "file": "a.pt"}, "a name and a file"),
        ({"sha256": "ab" * 32}, "without a file"),
        ({"name": 3}, "give a string"),
        ({"name": "resnet18"}, "no library 'resnet18'.*torchvision:resnet50"),
        ({"name": "torchvision:resnet19"}, "did you mean 'resnet1"),
        ({"name": "torchvision:ResNet18_Weights.IMAGENET1K_V3"}, r"'ResNet18_Weights\.IMAGENET1K_V1'"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            Checkpoint(**wrong)  # type: ignore[arg-type]


def test_a_file_that_changes_meanwhile_is_not_loaded(source: Dataset, tmp_path: Path) -> None:
    torch.save(some("convnet-4").state_dict(), tmp_path / "a.pt")
    recipe = of_file(tmp_path / "a.pt")
    torch.save({name: value + 1 for name, value in some("convnet-4").state_dict().items()}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt: has other content"):
        train(source, None, recipe, 0)


def test_digests_go_by_content(tmp_path: Path) -> None:
    weights = some("convnet-4").state_dict()
    torch.save(weights, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    first, same = of_file(tmp_path / "a.pt"), of_file(tmp_path / "b.pt")
    assert first.digest == same.digest
    assert first.described()["checkpoint"]["file"] == str(tmp_path / "a.pt")
    assert first.described()["checkpoint"]["sha256"] == same.described()["checkpoint"]["sha256"]
    for changed in ({"epochs": 99}, {"lr": 7.0}, {"batch_size": 3}, {"label_smoothing": 0.5}, {"optimizer": "adamw"}):
        assert replace(first, **changed).digest == first.digest  # type: ignore[arg-type]
    for changed in ({"network": "convnet-5"}, {"augment": Augment()}, {"threads": 2}):
        assert replace(first, **changed).digest != first.digest  # type: ignore[arg-type]
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "b.pt")
    assert of_file(tmp_path / "b.pt").digest != first.digest
    assert Recipe(checkpoint=Checkpoint(file=str(tmp_path / "a.pt"))).digest == Recipe().digest


def test_rows_share_the_network_and_leave_it_as_it_is(source: Dataset, target: Target, tmp_path: Path) -> None:
    weights = some("convnet-4").state_dict()
    torch.save(weights, tmp_path / "a.pt")
    recipe = of_file(tmp_path / "a.pt")
    tasks = [Task(target), Task(target, mode="finetune", draws=1, finetune=FineTune(epochs=2, lr=0.1))]
    trial(source, None, recipe, tasks)
    first, other = (train(source, None, recipe, seed) for seed in (1, 2))
    assert first.body is other.body
    outputs = [transfer(first, task, 0) for task in tasks]
    assert all(torch.equal(value, weights[name]) for name, value in other.body.state_dict().items())
    assert np.isfinite(outputs[1].primitives).all()
    assert np.array_equal(transfer(other, tasks[0], 0).primitives, outputs[0].primitives)


def test_masks_for_a_checkpoint_are_refused(source: Dataset, target: Target, tmp_path: Path) -> None:
    torch.save(some("convnet-4").state_dict(), tmp_path / "a.pt")
    how = {"recipe": of_file(tmp_path / "a.pt"), "tasks": [Task(target)]}
    with pytest.raises(ConfigError, match=r"Plan\.design: method \"checkpoint\" trains nothing.*ones\(\(1, 8\)"):
        pydt.Plan(source, design=design.random(8, 5, alpha=0.5, seed=0), **how)
    pydt.Plan(source, design=design.Design.explicit(np.ones((2, 8))), **how)


def test_rows_by_a_plan_are_equal(source: Dataset, target: Target, tmp_path: Path) -> None:
    torch.save(some("convnet-4").state_dict(), tmp_path / "a.pt")
    masks = design.Design.explicit(np.ones((2, 8)))
    plan = pydt.Plan(source, design=masks, recipe=of_file(tmp_path / "a.pt"), tasks=[Task(target)])
    found = pydt.run(plan, tmp_path / "run", workers=1, progress=False).outputs(plan.tasks[0], "margin", half="score")
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], found[1])


def test_plan_files_name_weights_relative_to_them(source: Dataset, target: Target, tmp_path: Path) -> None:
    (tmp_path / "here" / "weights").mkdir(parents=True)
    torch.save(some("convnet-4").state_dict(), tmp_path / "here" / "weights" / "a.pt")
    recipe = of_file(tmp_path / "here" / "weights" / "a.pt")
    masks = design.Design.explicit(np.ones((1, 8)))
    plan = pydt.Plan(source, design=masks, recipe=recipe, tasks=[Task(target)])
    pydt.write_plan(plan, tmp_path / "here" / "plan.toml")
    assert 'file = "weights/a.pt"' in (tmp_path / "here" / "plan.toml").read_text()
    assert pydt.read_plan(tmp_path / "here" / "plan.toml").plan.digest == plan.digest
    (tmp_path / "here").rename(tmp_path / "there")
    moved = pydt.read_plan(tmp_path / "there" / "plan.toml").plan
    assert moved.recipe.digest == recipe.digest
    assert moved.recipe.checkpoint.file == str(tmp_path / "there" / "weights" / "a.pt")
    torch.save(some("convnet-5").state_dict(), tmp_path / "there" / "weights" / "a.pt")
    with pytest.raises(DataError, match=r"plan\.toml: recipe\.checkpoint: .*a\.pt: has other content"):
        pydt.read_plan(tmp_path / "there" / "plan.toml")


def test_scratch_has_a_rate_and_a_length_of_its_own(source: Dataset, target: Target) -> None:
    plain = Recipe(network="convnet-4", method="none", augment=AUGMENT)
    assert replace(plain, scratch=Scratch()).digest == plain.digest
    own = replace(plain, scratch=Scratch(lr=0.2, epochs=3))
    assert own.digest != plain.digest
    assert replace(own, method="supervised").digest == replace(plain, method="supervised").digest
    told = FineTune(lr=0.01, epochs=2)
    assert own.finetuned(told) == replace(told, lr=0.2, epochs=3)
    assert replace(own, scratch=Scratch(lr=0.2)).finetuned(told) == replace(told, lr=0.2)
    assert replace(own, method="supervised").finetuned(told) == told == plain.finetuned(told)
    by_task, by_recipe = (
        transfer(train(source, None, recipe, 0), Task(target, mode="finetune", draws=1, finetune=how), 0).primitives
        for recipe, how in ((plain, replace(told, lr=0.2, epochs=3)), (own, told))
    )
    assert np.array_equal(by_task, by_recipe)
    for wrong in ({"lr": 0.0}, {"epochs": 0}):
        with pytest.raises(ConfigError):
            Scratch(**wrong)  # type: ignore[arg-type]

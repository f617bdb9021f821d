"""Source training: it learns, it is repeatable, it fails loudly."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from pydt.base import ConfigError, TrainError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.training import Checkpoint, FineTune, Recipe, Task, steps_of, train, trial
from pydt.training.networks import build
from pydt.training.trial_step import shapes

RECIPE = Recipe(
    network="convnet-8", epochs=4, lr=1.0, batch_size=32, augment=Augment(crop_pad=1, mean=(0.3,), std=(0.2,))
)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([v.flatten().double() for v in module.state_dict().values()])


def own_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 7))


def no_features() -> nn.Module:
    return nn.Conv2d(1, 3, 1)


class Scarce(nn.Module):
    """Has memory for so many examples with gradients, as told in `most`."""

    most = 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(images) > Scarce.most:
            torch.empty(1 << 60)  # what the allocator of the CPU says
        return self.layers(images)  # type: ignore[no-any-return]


def test_out_of_memory_trains_the_same_batches_in_parts(source: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, network=Scarce, lr=0.02)
    found = {}
    for most in (1000, 20, 4):
        monkeypatch.setattr(Scarce, "most", most)
        found[most] = train(source, None, recipe, 3)
    assert "micro_batches" not in found[1000].metrics
    assert [found[most].metrics["micro_batches"] for most in (20, 4)] == [2, 8]
    for most in (20, 4):
        difference = (weights(found[most].body) - weights(found[1000].body)).abs().max()
        assert 0 < difference < 1e-5, "the same gradients but for rounding: this network has no batch statistics"
        for name in ("source_loss", "source_accuracy"):
            assert found[most].metrics[name] == pytest.approx(found[1000].metrics[name], abs=1e-5)
    monkeypatch.setattr(Scarce, "most", 20)
    again = train(source, None, recipe, 3)
    assert torch.equal(weights(again.body), weights(found[20].body))


def test_out_of_memory_for_two_examples_is_an_error(source: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scarce, "most", 1)
    with pytest.raises(RuntimeError, match="allocate memory"):
        train(source, None, replace(RECIPE, network=Scarce), 3)


def test_it_learns_the_classes(source: Dataset) -> None:
    trained = train(source, None, RECIPE, 0)
    assert trained.metrics["source_accuracy"] > 0.6, "chance is 1/8"
    assert trained.dim == 32
    assert trained.features(source, [3, 1, 4]).shape == (3, 32)


def test_equal_seeds_give_equal_bits_and_leave_the_callers_random_state_alone(source: Dataset) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    keep = source.labels % 2 == 0
    first, second, other = (train(source, keep, RECIPE, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(first.body), weights(second.body))
    assert not torch.equal(weights(first.body), weights(other.body))


def test_left_out_examples_are_never_seen(source: Dataset) -> None:
    assert source.images is not None
    keep = source.labels < 4
    poisoned = source.images.copy()
    poisoned[~keep] = 255 - poisoned[~keep]
    other = Dataset.from_arrays(poisoned, source.labels, source.classes)
    assert torch.equal(weights(train(source, keep, RECIPE, 1).body), weights(train(other, keep, RECIPE, 1).body))


def test_features_are_truly_frozen(source: Dataset) -> None:
    trained = train(source, None, RECIPE, 0)
    before = weights(trained.body)
    trained.body.train()
    one = trained.features(source, range(40))
    other = trained.features(source, range(10))
    assert torch.equal(weights(trained.body), before), "batch-norm statistics must not move"
    assert torch.allclose(one[:10], other, atol=1e-5), "an image's features must not depend on its neighbours"


def test_batch_larger_than_the_subset_and_a_last_batch_of_one(source: Dataset) -> None:
    keep = np.flatnonzero(source.labels < 2)[:33]
    for batch_size in (1000, 32):
        recipe = Recipe(network="convnet-4", epochs=2, batch_size=batch_size)
        assert np.isfinite(train(source, keep, recipe, 0).metrics["source_loss"])


class Counting(nn.Module):
    """Counts the batches and the examples that it learns from."""

    batches = examples = 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            Counting.batches += 1
            Counting.examples += len(images)
        return self.layers(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize("steps", [1, 4, 5, 23])
def test_steps_are_the_same_whatever_is_kept(source: Dataset, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in (8, 4, 1):  # classes: 160, 80 and 20 examples, the last less than a batch
        monkeypatch.setattr(Counting, "batches", 0)
        monkeypatch.setattr(Counting, "examples", 0)
        recipe = replace(RECIPE, network=Counting, lr=0.01, epochs=None, steps=steps)
        trained = train(source, source.labels < kept, recipe, 0)
        assert (Counting.batches, Counting.examples) == (steps, steps * min(32, 20 * kept))
        assert np.isfinite(trained.metrics["source_loss"])


def test_as_many_steps_as_the_epochs_have_give_the_same_bits(source: Dataset) -> None:
    epochs = train(source, None, RECIPE, 3)  # 160 examples, 5 batches, 4 epochs
    steps = train(source, None, replace(RECIPE, epochs=None, steps=20), 3)
    assert torch.equal(weights(epochs.body), weights(steps.body))
    assert epochs.metrics == steps.metrics
    fewer = train(source, None, replace(RECIPE, epochs=None, steps=19), 3)
    assert not torch.equal(weights(epochs.body), weights(fewer.body))


def test_a_recipe_without_steps_has_the_digest_it_always_had() -> None:
    assert Recipe().digest == "d6979aa293781d9c5cc74984bd9911d9"
    assert "steps" not in Recipe().described()
    assert Recipe(steps=9).digest == Recipe(steps=np.int64(9)).digest
    assert len({Recipe().digest, Recipe(steps=9).digest, Recipe(steps=10).digest, Recipe(samples=9).digest}) == 4


def test_a_recipe_has_one_budget() -> None:
    assert Recipe().budget == ("epochs", 6)
    assert Recipe().digest == Recipe(epochs=6).digest
    for other in ({"steps": 10}, {"samples": 10}, {"epochs": 10}):
        replaced = replace(Recipe(), **other)  # type: ignore[arg-type]
        assert [replaced.budget] == list(other.items())
        assert replaced.digest == Recipe(**other).digest  # type: ignore[arg-type]
    for given in ({"epochs": 6, "steps": 9}, {"steps": 9, "samples": 9}, {"epochs": 1, "samples": 9}):
        with pytest.raises(ConfigError, match=r" and .*give one of epochs, steps, samples"):
            Recipe(**given)  # type: ignore[arg-type]
    for name, recipe in {"epochs": Recipe(), "steps": Recipe(steps=9), "samples": Recipe(samples=9)}.items():
        assert {"epochs", "steps", "samples"} & set(recipe.described()) == {name}


@pytest.mark.parametrize(
    ("kept", "steps"),
    [(160, 4), (33, 4), (32, 4), (20, 5)],  # the last has no full batch: 5 batches of 20 for 100 examples
)
def test_a_budget_of_samples_is_reached_by_the_fewest_steps(
    source: Dataset, kept: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("batches", "examples"):
        monkeypatch.setattr(Counting, name, 0)
    recipe = replace(RECIPE, network=Counting, lr=0.01, epochs=None, samples=100)
    assert recipe.batch_size == 32
    train(source, np.arange(kept), recipe, 0)
    assert (Counting.batches, steps_of(recipe, kept)) == (steps, steps)
    assert 100 <= Counting.examples < 100 + 32


@pytest.mark.parametrize("name", ["clip", "simclr", "checkpoint", "scratch"])
@pytest.mark.parametrize("method", ["supervised", "clip", "checkpoint"])
def test_settings_of_methods_are_settings(name: str, method: str) -> None:
    with pytest.raises(ConfigError, match=rf"Recipe\.{name}: a str\. give pydt\.train\."):
        Recipe(method=method, **{name: "RN50"})  # type: ignore[arg-type]


def test_a_method_has_a_name() -> None:
    with pytest.raises(ConfigError, match="unknown method"):
        Recipe(method=["clip"])  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["simclr", "clip", "checkpoint"])
def test_what_a_method_does_not_read_changes_no_digest(method: str) -> None:
    own: dict[str, Any] = {"checkpoint": Checkpoint("torchvision:resnet18")} if method == "checkpoint" else {}
    assert Recipe(method=method, **own).digest == Recipe(method=method, label_smoothing=0, **own).digest
    assert Recipe().digest != Recipe(label_smoothing=0).digest
    # read by none, but stored rows have it in their names
    assert Recipe(method="none").digest == "e02260c77786b8af3312c13e4b66f3dc"
    assert Recipe(method="none", label_smoothing=0).digest == "b426540e90e2054ecdfae9d4580c4810"


def test_a_diverging_row_is_a_train_error(source: Dataset) -> None:
    with pytest.raises(TrainError, match="loss became"):
        train(source, None, Recipe(network="convnet-4", epochs=4, batch_size=16, lr=1e30), 0)


def test_the_scratch_floor_is_untrained(source: Dataset) -> None:
    recipe = Recipe(network="convnet-4", method="none")
    trained = train(source, source.labels == 0, recipe, 5)
    assert trained.metrics == {}
    assert torch.equal(weights(trained.body), weights(train(source, None, recipe, 5).body))


@pytest.mark.parametrize("network", ["resnet18", "convnet-4", own_network])
def test_networks(source: Dataset, network: str | Callable[[], nn.Module]) -> None:
    trained = train(source, np.arange(0, 160, 5), Recipe(network=network, epochs=1, batch_size=16, lr=0.01), 0)
    assert trained.dim == {"resnet18": 512, "convnet-4": 16}.get(str(network), 7)
    assert trained.features(source, [0, 1]).shape == (2, trained.dim)


def test_other_torchvision_families_lose_their_classifier() -> None:
    for name in ("mobilenet_v3_small", "squeezenet1_0"):
        if name == "squeezenet1_0":
            with pytest.raises(ConfigError, match="no linear classifier"):
                build(name, 3)
        else:
            assert not any(isinstance(m, nn.Linear) and m.out_features == 1000 for m in build(name, 3).modules())


@pytest.mark.parametrize("network", ["resnet1", "convnet-x", no_features, lambda: nn.Identity()])
def test_bad_networks_are_config_errors(source: Dataset, network: str | Callable[[], nn.Module]) -> None:
    # A function without a name trains here, but no other process could be told about it.
    with pytest.raises(ConfigError):
        _ = train(source, None, Recipe(network=network), 0).recipe.digest


def test_one_class_teaches_nothing_but_is_a_row_like_any_other(source: Dataset) -> None:
    trained = train(source, source.labels == 3, RECIPE, 0)
    assert trained.metrics == {
        **{"source_loss": 0.0, "source_accuracy": 1.0, "source_images": 20},
        **{"source_trivial_loss": 0.0, "source_trivial_accuracy": 1.0},
    }


def test_clipping_reaches_the_training(source: Dataset) -> None:
    free, clipped, tight = (train(source, None, replace(RECIPE, clip_norm=norm), 3) for norm in (None, 1e9, 0.01))
    assert torch.equal(weights(free.body), weights(clipped.body))
    assert not torch.equal(weights(free.body), weights(tight.body))


def test_recipes_of_equal_content_have_equal_digests() -> None:
    assert Recipe().digest == Recipe().digest
    digests = {
        Recipe().digest,
        Recipe(lr=0.9).digest,
        Recipe(threads=2).digest,
        Recipe(network="resnet18").digest,
        Recipe(network=own_network).digest,
        Recipe(network=no_features).digest,
        Recipe(augment=Augment(crop_pad=1)).digest,
    }
    assert len(digests) == 7


def test_the_rate_is_one_that_the_family_learns_with_and_digests_are_what_they_were() -> None:
    rates = {"convnet-24": 0.2, "convnet-3": 0.2, "resnet18": 0.05, "densenet121": 0.05, "mobilenet_v3_small": 0.05}
    rates |= {"vgg11": 0.01, "vgg11_bn": 0.01, "alexnet": 0.01, "vit_b_16": 0.01, "swin_t": 0.01, "convnext_tiny": 0.01}
    rates |= {"timm:resnet10t": 0.05, "timm:vit_tiny_patch16_224": 0.01, "timm:deit_tiny_patch16_224": 0.01}
    for network, rate in rates.items():
        assert Recipe(network=network).lr == rate, network
        assert Recipe(network=network).digest == Recipe(network=network, lr=rate).digest
    assert Recipe(network=own_network).lr == 0.05
    assert replace(Recipe(), network="resnet18", lr=None).lr == 0.05
    # as version 0.1 named them, which stored rows are found by
    assert Recipe().digest == "d6979aa293781d9c5cc74984bd9911d9"
    assert Recipe(network="resnet18", lr=0.2).digest == "4e528e1b296aa31f687c3407dd582789"


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 5, 4), (2, 2, 4, 7), (1, 1, 1, 1), (2, 3, 6, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_halved_images_are_average_pooled(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    images = torch.rand(shape).contiguous(memory_format=layout)
    assert torch.equal(next(build("convnet-8", shape[1]).children())(images), avg_pool2d(images, 2, ceil_mode=True))


def test_a_small_network_is_the_one_described() -> None:
    network = build("convnet-8", 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    images = torch.rand(5, 3, 19, 26)
    expected = avg_pool2d(images, 2, ceil_mode=True)
    for layer in list(network.children())[1:-1]:
        expected = layer(expected)
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected.mean((2, 3)))
        assert network(images).shape == (5, 32)


# ---- networks that do not fit their images ------------------------------------------------------------------------


def not_a_module() -> nn.Module:
    return torch.zeros(3)  # type: ignore[return-value]


def nothing() -> None:
    pass


def needs_arguments(width: int) -> nn.Module:
    return nn.Linear(width, width)


ONE = nn.Sequential(nn.Flatten(), nn.Linear(144, 7))


def always_the_same() -> nn.Module:
    return ONE


def for_colours() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def one_vector() -> nn.Module:
    """Features of the whole batch together."""
    return nn.Sequential(nn.Flatten(0), nn.Linear(288, 5))


class Endless(nn.Module):
    """Gives numbers that are not finite from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = own_network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images) / 0


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))


def statistics_of_a_batch() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 7), nn.BatchNorm1d(7))


def for_twenty() -> nn.Module:
    """Takes images of 24 x 24 only, as a vision transformer does."""
    return nn.Sequential(nn.Flatten(), nn.Linear(576, 7))


@pytest.mark.parametrize(
    ("network", "wrong", "mend"),
    [
        ("vgg11", r"network vgg11: cannot be trained on images of 12 x 12 pixels", r"sides that work: 32, 40, 48, 56 "),
        ("vit_b_16", r"network vit_b_16: cannot be .* 12 x 12", r"sides that work: 224 "),
        (for_twenty, r"for_twenty: cannot be trained", r"sides that work: 24 "),
        (
            for_colours,
            r"for_colours: cannot be trained on images of .* with 1 channel \(",
            r"takes images with 3 channels",
        ),
        (no_features, r"no_features: returns shape \(2, 3, 12, 12\)", r"return features \(batch, dim\)"),
        (Endless, r"Endless: returns numbers that are not finite", r"another network"),
        (lazy, r"lazy: .*uninitialized", r"return features"),
        (one_vector, r"one_vector: returns shape \(5,\)", r"return features \(batch, dim\)"),
        (not_a_module, r"not_a_module: returned a Tensor", r"fresh torch.nn.Module"),
        (nothing, r"nothing: returned None", r"fresh torch.nn.Module"),
        (needs_arguments, r"needs_arguments: raised TypeError", r"without arguments"),
        (always_the_same, r"returns the same module each time", r"fresh module inside"),
    ],
)
def test_what_does_not_fit_is_told_before_training(
    source: Dataset, target: Target, network: str | Callable[[], nn.Module], wrong: str, mend: str
) -> None:
    with pytest.raises(ConfigError, match=wrong) as caught:
        trial(source, None, Recipe(network=network), [Task(target, shots=2)])
    assert re.search(mend, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_with_further_heads_train_without_them() -> None:
    assert build("googlenet", 3).train()(torch.rand(2, 3, 32, 32)).shape == (2, 1024)
    grey, colour = (Dataset.from_arrays(np.zeros((4, 32, 32, channels), np.uint8), np.arange(4)) for channels in (1, 3))
    trial(grey, None, Recipe(network="googlenet"), [])
    with pytest.raises(ConfigError, match=r"inception_v3: .*sides that work: 80"):
        trial(colour, None, Recipe(network="inception_v3"), [])


@pytest.mark.parametrize("network", ["vgg11", for_colours, nothing])
def test_what_does_not_fit_is_also_told_where_one_network_is_trained(source: Dataset, network: str) -> None:
    with pytest.raises(ConfigError, match="network"):
        train(source, None, Recipe(network=network), 0)


def test_batches_of_one_image_have_no_statistics(source: Dataset, target: Target) -> None:
    tasks, mend = [Task(target, shots=2)], "set batch_size to 2 or more"
    recipe = Recipe(network=statistics_of_a_batch, batch_size=4, lr=0.01)
    trial(source, None, recipe, tasks)
    for keep, how in ((None, replace(recipe, batch_size=1)), ([3], recipe)):
        with pytest.raises(ConfigError, match=mend):
            trial(source, keep, how, tasks)
    fine = Task(target, shots=2, mode="finetune", finetune=FineTune(batch_size=1))
    with pytest.raises(ConfigError, match=rf"task '.*': network .*{mend}"):
        trial(source, None, recipe, [fine])


def test_a_target_of_another_size_than_the_network_takes_is_named(source: Dataset) -> None:
    images, labels = np.zeros((90, 20, 20), np.uint8), np.arange(90) % 3
    small = Task(Target(Dataset.from_arrays(images, labels, name="larger")), name="larger task")
    recipe = Recipe(network=own_network, lr=0.01)
    with pytest.raises(ConfigError, match=r"task 'larger task': network .*own_network: cannot be applied to"):
        trial(source, None, recipe, [small])


def test_a_trial_asks_once_and_leaves_no_trace(source: Dataset, target: Target) -> None:
    made = []

    def counted() -> nn.Module:
        made.append(1)
        return own_network()

    recipe, tasks = Recipe(network=counted, lr=0.01), [Task(target, shots=2), Task(target, shots=3)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for _ in range(3):
        trial(source, None, recipe, tasks)
    assert torch.equal(torch.rand(3), expected)
    assert len(made) == 3, "two are compared, one is shown all shapes; rows and tasks that look alike make none"


def test_every_size_that_a_ramp_shows_is_tried(source: Dataset, target: Target) -> None:
    ramped = Augment(resized_crop=((0.5, 1.0), (0.9, 1.1)), size=24, ramp=((0, 24), (3, 20)))
    assert shapes(source, ramped, True) == {(1, 24, 24), (1, 20, 20)}
    assert shapes(source, ramped, False) == {(1, 24, 24)}
    with pytest.raises(ConfigError, match="20 x 20"):
        trial(source, None, Recipe(network=for_twenty, lr=0.01, augment=ramped), [Task(target, shots=2)])

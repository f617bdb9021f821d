"""Every way to transfer: what it reads, what it trains, and that it is what its name says."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from stub_images import blobs
from stub_text import StubTower
from torch import nn
from torch.nn.functional import normalize

from pydt.base import ConfigError, digest
from pydt.data import Dataset, Target
from pydt.data.loading import Augment, Loader
from pydt.training import FineTune, Recipe, Task, Trained, ZeroShot, train, transfer, trial
from pydt.training.transfer.draws import Draws
from pydt.training.transfer.drifting import head_alone
from pydt.training.transfer.finetune import headed
from pydt.training.transfer.last_layers import layers, unfreeze
from pydt.training.transfer.learning import between, fit, judged
from pydt.training.transfer.lp_ft import linear_heads, logistic
from pydt.training.transfer.modes import MODES

SHORT = FineTune(epochs=3, lr=0.05, batch_size=8)
STEPPED = [name for name, mode in MODES.items() if mode.learns]


@pytest.fixture(scope="module")
def plain(source: Dataset) -> Trained:
    recipe = Recipe(network="convnet-4", epochs=3, batch_size=32, augment=Augment(mean=(0.3,), std=(0.2,)))
    return train(source, None, recipe, 0)


@pytest.fixture(scope="module")
def worded(plain: Trained) -> Trained:
    return replace(plain, text=StubTower(plain.dim), _known={})


def task_of(target: Target, mode: str, **how: Any) -> Task:
    given = {"draws": 2, "finetune": SHORT} | ({"shots": 3} if MODES[mode].labelled else {})
    return Task(target, mode, **given | how)


def draws_of(task: Task, seed: int = 0) -> Draws:
    ids = task.target.described()["ids"]
    return Draws(task.target, task.few_shot(), task.target.judged, ids, task.seed, seed)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Dataset, int]]:
    """Every image that a loader gives, as data set and id, in order."""
    seen: list[tuple[Dataset, int]] = []
    read = Loader.read

    def noted(self: Loader, ids: np.ndarray) -> Any:
        seen.extend((self.dataset, int(i)) for i in ids)
        return read(self, ids)

    monkeypatch.setattr(Loader, "read", noted)
    return seen


# ---- every mode ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_models_stay_as_they_were(worded: Trained, target: Target, mode: str) -> None:
    assert worded.text is not None
    body, text = state(worded.body), state(worded.text)
    for metric in ("top-1", "mean per class", "auroc"):
        outputs = transfer(worded, task_of(replace(target, metric=metric), mode), 0)
        assert outputs.primitives.shape == (4, 1 if mode == "zero-shot" else 2, 120)
        assert set(outputs.scalars) >= {"score_accuracy", "report_accuracy"}
    assert not changed(body, state(worded.body))
    assert not changed(text, state(worded.text))


@pytest.mark.parametrize("mode", MODES)
def test_only_drawn_and_judged_images_are_read(
    worded: Trained, target: Target, mode: str, reads: list[tuple[Dataset, int]]
) -> None:
    task = task_of(target, mode)
    transfer(replace(worded, _known={}), task, 0)
    drawn = {int(i) for draw in task.few_shot() for i in draw}
    assert {i for _, i in reads} == drawn | {int(i) for i in target.described()["ids"]}
    assert (mode == "zero-shot") == (not drawn)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("with_text", [True, False])
def test_labels_of_what_is_judged_do_not_matter(
    plain: Trained, worded: Trained, target: Target, mode: str, with_text: bool
) -> None:
    if mode == "zero-shot" and not with_text:
        return
    labels = target.train.labels.copy()
    others = np.concatenate([target.split[part] for part in ("validation", "score", "report")])
    labels[others] = (labels[others] + 1) % 4
    blind = Target(replace(target.train, labels=labels))
    object.__setattr__(blind, "split", target.split)
    model = worded if with_text else plain
    seen, unseen = (transfer(model, task_of(there, mode), 0).primitives[3] for there in (target, blind))
    assert np.array_equal(seen, unseen)


@pytest.mark.parametrize("mode", STEPPED)
def test_a_draw_does_not_depend_on_the_others(worded: Trained, plain: Trained, target: Target, mode: str) -> None:
    for model in (worded, plain):
        several = transfer(model, task_of(target, mode, draws=3), 5).primitives
        assert np.array_equal(several[:, :1], transfer(model, task_of(target, mode, draws=1), 5).primitives)
        assert np.array_equal(several, transfer(model, task_of(target, mode, draws=3), 5).primitives)
        assert not np.array_equal(several, transfer(model, task_of(target, mode, draws=3), 6).primitives)


@pytest.mark.parametrize("mode", STEPPED)
@pytest.mark.parametrize(
    ("pool", "shots", "batch"),
    [(4, 1, 64), (4, 1, 3), (2, "full", 8), (1, "full", 8), (3, "full", 1), (40, "full", 39)],
)
def test_small_draws_and_odd_batches(plain: Trained, mode: str, pool: int, shots: int | str, batch: int) -> None:
    images, labels = blobs(45, 4, 1)
    target = Target(Dataset.from_arrays(images, labels), pool=pool)
    task = task_of(target, mode, shots=shots, finetune=replace(SHORT, batch_size=batch, epochs=1))
    if min(pool, batch) == 1:
        with pytest.raises(ConfigError, match="batch statistics need two images"):
            trial(target.train, None, plain.recipe, [task])
        return
    trial(target.train, None, plain.recipe, [task])
    assert np.isfinite(transfer(plain, task, 0).primitives).all()


def flat() -> nn.Module:
    """A network without statistics of a batch."""
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 5))


@pytest.mark.parametrize("mode", STEPPED)
@pytest.mark.parametrize(("pool", "batch"), [(1, 8), (3, 1)])
def test_one_image_is_enough_for_networks_without_batch_norm(mode: str, pool: int, batch: int) -> None:
    images, labels = blobs(45, 4, 1)
    target = Target(Dataset.from_arrays(images, labels), pool=pool)
    task = task_of(target, mode, shots="full", finetune=replace(SHORT, batch_size=batch))
    recipe = Recipe(network=flat, method="none")
    trial(target.train, None, recipe, [task])
    assert np.isfinite(transfer(train(target.train, None, recipe, 0), task, 0).primitives).all()


@pytest.mark.parametrize("mode", MODES)
def test_encoded_targets(photos: Dataset, mode: str) -> None:
    pytest.importorskip("nvidia.dali")
    recipe = Recipe(network="convnet-4", epochs=1, batch_size=16, augment=Augment(size=24))
    made = train(photos, None, recipe, 0)
    made = replace(made, text=StubTower(made.dim))
    target = Target(photos, pool=16, validation=4)
    outputs = transfer(made, task_of(target, mode, draws=1), 0)
    assert outputs.primitives.shape == (4, 1, 20)


# ---- zero-shot -----------------------------------------------------------------------------------------------------


def test_zero_shot_is_what_its_formula_says(worded: Trained, target: Target) -> None:
    class_names = ("{}", "100 %s", "b{0}", "\\1")  # names that a format string would choke on
    named = Target(replace(target.train, classes=class_names))
    how = ZeroShot(("a {} of {{}}", "{}"), {"b{0}": "a cat"})
    found = transfer(worded, Task(named, "zero-shot", zero_shot=how), 0)
    text = worded.text
    assert text is not None
    features = worded.features(named.train, named.described()["ids"])
    with torch.no_grad():
        images = normalize(text.project(features), dim=1).double().numpy()

    def vector(sentence: str) -> np.ndarray:
        drawn = torch.randn(6, generator=torch.Generator().manual_seed(zlib.crc32(sentence.encode()))).double().numpy()
        return np.asarray(drawn / np.linalg.norm(drawn))

    for column, name in enumerate(("{}", "100 %s", "a cat", "\\1")):
        mean = (vector(f"a {name} of {{{name}}}") + vector(name)) / 2
        logit = 5 * images @ (mean / np.linalg.norm(mean))
        own = named.train.labels[named.described()["ids"]] == column
        assert np.abs(found.primitives[0, 0, own] - logit[own]).max() < 1e-5


def test_a_phrase_belongs_to_a_name_and_not_to_a_place(worded: Trained, target: Target) -> None:
    order = np.array([2, 0, 3, 1])  # the new number of each class
    classes = [target.classes[old] for old in np.argsort(order)]
    moved = replace(target.train, classes=tuple(classes), labels=order[target.train.labels])
    names = {"a": "an ant", "d": "a dog"}
    found = []
    for data in (target.train, moved):
        there = Target(data)
        object.__setattr__(there, "split", target.split)
        for mode in ("zero-shot", "wise-ft"):
            found.append(transfer(worded, task_of(there, mode, zero_shot=ZeroShot(names=names), alpha=0.0), 0))
    assert np.abs(found[0].primitives[:3] - found[2].primitives[:3]).max() < 1e-6
    assert np.array_equal(order[found[0].primitives[3].astype(int)], found[2].primitives[3])
    assert np.array_equal(found[0].primitives[:, 0], found[1].primitives[:, 0])
    assert found[0].scalars == found[2].scalars


def test_zero_shot_asks_for_no_shots(target: Target) -> None:
    task = Task(target, "zero-shot")
    assert (task.shots, task.draws, task.name) == (0, 1, "four blobs, zero-shot")
    assert task.few_shot().shape == (1, 0)
    assert Task(target).shots == 5
    assert Task(target, "zero-shot", zero_shot=ZeroShot(("a {}",))).digest != task.digest


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"templates": "a {}"}, "is no list"),
        ({"templates": ()}, "no template"),
        ({"templates": ("a photo",)}, "has no {}"),
        ({"templates": (3,)}, "has no {}"),
        ({"names": 3}, "names is a int"),
        ({"names": ["ab"]}, "is no class and its phrase"),
        ({"names": {"a": 3}}, "is no class and its phrase"),
        ({"names": [("a", "x"), ("a", "y")]}, "class 'a' has two phrases"),
    ],
)
def test_sentences_that_cannot_be_meant(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ZeroShot(**wrong)


@pytest.mark.parametrize("mode", ["zero-shot", "finetune", "wise-ft", "last-n"])
def test_sentences_that_do_not_fit_target_or_source(source: Dataset, target: Target, mode: str) -> None:
    colours = ["red", "dark red", "green", "blue"]
    told = replace(source, captions=[f"a {colours[label % 4]} blob" for label in source.labels])
    clip = Recipe(method="clip", network="convnet-4")
    named = Target(replace(target.train, classes=("red", "dark-red", "Green", "blue-ish blue")))
    task_of(named, mode, zero_shot=ZeroShot(("a {}",))).check(clip, told)
    for names, refused in (
        ({"redd": "red"}, "'redd' is no class .*did you mean 'red'"),
        ({"red": "dark red"}, "cannot tell the classes 'red' and 'dark-red' apart"),
        ({"Green": "yellow"}, "class 'Green': text 'yellow': no word of it stands in a caption"),
    ):
        with pytest.raises(ConfigError, match=refused):
            task_of(named, mode, zero_shot=ZeroShot(names=names)).check(clip, told)
    if mode == "finetune":
        task_of(target, mode, finetune=FineTune(head="random")).check(clip, told)


def test_what_a_mode_cannot_use_is_refused(plain: Trained, source: Dataset, target: Target) -> None:
    for task in (Task(target, "zero-shot"), Task(target, "finetune", finetune=FineTune(head="zero-shot"))):
        with pytest.raises(ConfigError, match="no text tower"):
            task.check(plain.recipe, source)
        with pytest.raises(ConfigError, match="no text tower"):
            transfer(plain, task, 0)
    for wrong in (
        {"mode": "lp-ft", "finetune": FineTune(head="random")},
        {"mode": "wise-ft", "alpha": 1.5},
        {"mode": "last-n", "last": -1},
        {"zero_shot": {"a": "b"}},
        {"finetune": {"lr": 1}},
    ):
        with pytest.raises(ConfigError):
            Task(target, **wrong)  # type: ignore[arg-type]


# ---- what is trained -----------------------------------------------------------------------------------------------


def test_fine_tuning_with_a_text_tower_begins_at_zero_shot(worded: Trained, target: Target) -> None:
    task = task_of(target, "finetune", draws=1)
    draws = draws_of(task)
    begun = judged(headed(worded, draws, SHORT, ZeroShot())(0), worded, draws)
    assert torch.equal(begun, MODES["zero-shot"].logits(worded, draws, ZeroShot())[0])
    zero_shot = transfer(worded, Task(target, "zero-shot"), 0)
    assert np.array_equal(
        zero_shot.primitives, transfer(worded, task_of(target, "wise-ft", draws=1, alpha=0), 0).primitives
    )
    random = transfer(worded, replace(task, finetune=replace(SHORT, head="random")), 0).primitives
    assert np.array_equal(random, transfer(replace(worded, text=None), task, 0).primitives)
    assert not np.array_equal(random, transfer(worded, task, 0).primitives)


@pytest.mark.parametrize(("n", "dim", "classes"), [(12, 30, 4), (60, 5, 3)])
def test_the_linear_head_is_scikit_learns(n: int, dim: int, classes: int) -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(3, 2, (n, dim)), np.arange(n) % classes
    features[:, 0] = 1.5  # never varies
    features[:, 1] += labels
    head = logistic(torch.from_numpy(features), torch.from_numpy(labels), classes + 1, 0.7)
    mean, deviation = features.mean(0), features.std(0)
    deviation[0] = 1
    z = np.c_[(features - mean) / deviation, np.ones(n)]
    # scikit-learn knows only classes that it sees: one distant example with next to no weight
    weights = np.r_[np.ones(n), 1e-9]
    peer = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-10, max_iter=10_000)
    peer.fit(np.r_[z, np.zeros((1, dim + 1))], np.r_[labels, classes], weights)
    own = head(torch.from_numpy(features).float()).detach().numpy()
    assert np.abs(own - z @ peer.coef_.T).max() < 2e-3
    assert np.isfinite(own).all()


def test_a_head_of_standardised_features_follows_their_scale() -> None:
    features = torch.rand(20, 3).double()
    head = logistic(features, torch.arange(20) % 2, 2)
    drawn, one = features.float(), torch.rand(1, 3)
    expected = head(drawn), head(one)
    head.train()
    assert torch.allclose(head(drawn), expected[0], atol=1e-5)
    assert torch.allclose(head(100 * drawn + 7), expected[0], atol=1e-3), "a batch is standardised by itself"
    head = logistic(features, torch.arange(20) % 2, 2).train()
    assert torch.allclose(head(one), expected[1], atol=1e-5), "unless it is one image"


def test_the_linear_head_reads_its_draw_alone(plain: Trained, target: Target, reads: list[tuple[Dataset, int]]) -> None:
    draws = draws_of(task_of(target, "lp-ft"))
    for draw, ids in enumerate(draws.train):
        reads.clear()
        linear_heads(replace(plain, _known={}), replace(draws, train=draws.train[draw : draw + 1]))
        assert [i for _, i in reads] == ids.tolist()


def test_the_ends_of_wise_ft_are_its_ends(plain: Trained, worded: Trained, target: Target) -> None:
    for model, whole in ((plain, "lp-ft"), (worded, "finetune")):
        after = transfer(model, task_of(target, "wise-ft", alpha=1), 0).primitives
        assert np.array_equal(after, transfer(model, task_of(target, whole), 0).primitives)
        half = transfer(model, task_of(target, "wise-ft"), 0).primitives
        assert not np.array_equal(half, after)
    draws = draws_of(task_of(target, "wise-ft"))
    before = transfer(plain, task_of(target, "wise-ft", alpha=0), 0).primitives
    ids = target.described()["ids"]
    for draw, head in enumerate(linear_heads(plain, draws)):
        with torch.no_grad():
            expected = head(plain.features(target.train, ids)).argmax(1).numpy()
        assert np.array_equal(before[3, draw], expected)


def test_weights_between_two_others() -> None:
    before = {"weight": torch.tensor([1.0, 3.0]), "count": torch.tensor(2)}
    after = {"weight": torch.tensor([2.0, -1.0]), "count": torch.tensor(9)}
    assert between(before, after, 0.25)["weight"].tolist() == [1.25, 2.0]
    for alpha, end in ((0.0, before), (1.0, after)):
        assert not changed(end, between(before, after, alpha))


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_the_last_layers_and_the_head_alone_are_trained(plain: Trained, target: Target, last: int) -> None:
    # conv, batch-norm, ReLU three times after the pooling
    assert layers(plain.body) == [["1", "2"], ["4", "5"], ["7", "8"]]
    task = task_of(target, "last-n", last=last, draws=1)
    draws = draws_of(task)
    model = headed(plain, draws, SHORT, ZeroShot())(0)
    model.train()
    unfreeze(model, last)
    before = state(model)
    fit(model, plain, draws, draws.train[0], SHORT)
    named = [f"0.{name}." for layer in layers(plain.body)[3 - last :] for name in layer] + ["1."]
    assert changed(before, state(model)) == {name for name in before if name.startswith(tuple(named))}


def test_layers_of_a_model_with_text_end_in_the_projection(worded: Trained, target: Target) -> None:
    draws = draws_of(task_of(target, "last-n"))
    model = headed(worded, draws, SHORT, ZeroShot())(0)
    unfreeze(model, 1)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {
        "0.1.weight",
        "0.1.bias",
        "1.weight",
    }


def test_more_layers_than_there_are(plain: Trained, source: Dataset, target: Target) -> None:
    with pytest.raises(ConfigError, match="last 4, but the network has 3 layers"):
        task_of(target, "last-n", last=4).check(plain.recipe, source)
    task_of(target, "last-n", last=3).check(plain.recipe, source)
    with pytest.raises(ConfigError, match="20 layers"):
        task_of(target, "last-n", last=99).check(Recipe(network="resnet18"), source)
    told = replace(source, captions=[f"blob {'abcd'[label % 4]}" for label in source.labels])
    clip = Recipe(method="clip", network="convnet-4")
    with pytest.raises(ConfigError, match="4 layers"):  # the projection is one
        task_of(target, "last-n", last=5).check(clip, told)


def test_checks_of_many_tasks_make_one_network(source: Dataset, target: Target) -> None:
    made: list[nn.Module] = []

    def network() -> nn.Module:
        made.append(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)))
        return made[-1]

    recipe = Recipe(network=network)
    for last in (0, 1, 1):
        Task(target, "last-n", last=last).check(recipe, source)
    with pytest.raises(ConfigError, match="last 2, but the network has 1 layers"):
        Task(target, "last-n", last=2).check(recipe, source)
    assert len(made) == 1, "a large one takes seconds, and a plan has a check for each task and rate"


def test_only_statistics_drift(plain: Trained, target: Target) -> None:
    draws = draws_of(task_of(target, "drifting-probe", draws=1))
    model = headed(plain, draws, SHORT, ZeroShot())(0)
    model.eval()
    head_alone(model)
    before = state(model)
    fit(model, plain, draws, draws.train[0], SHORT)
    statistics = {f"0.{i}.{name}" for i in (2, 5, 8) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed(before, state(model)) == statistics | {"1.weight", "1.bias"}


def test_each_mode_learns(plain: Trained, target: Target) -> None:
    for mode in STEPPED:
        how = FineTune(epochs=20, batch_size=16)
        found = transfer(plain, task_of(target, mode, shots=8, finetune=how), 0).scalars["report_accuracy"]
        assert found > 0.6, f"{mode}; chance is 0.25"


def test_digests_name_what_a_mode_reads(target: Target) -> None:
    other = {"penalty": 3.0, "finetune": FineTune(lr=0.2), "zero_shot": ZeroShot(("a {}",)), "last": 2, "alpha": 0.3}
    for name, mode in MODES.items():
        base = Task(target, name)
        for key, value in other.items():
            same = Task(target, name, **{key: value}).digest == base.digest  # type: ignore[arg-type]
            assert same == (key not in mode.settings), (name, key)
    assert len({Task(target, name).digest for name in MODES}) == len(MODES)


def test_new_settings_change_no_older_digest(target: Target) -> None:
    assert Task(target).digest == digest("task", target.digest, "probe", 5, 8, 0, 10.0)
    older = {"epochs": 15, "batch_size": 64, "lr": 0.05, "schedule": "triangular", "momentum": 0.9, "nesterov": False}
    how = older | {"weight_decay": 5e-4}
    assert Task(target, "finetune", "full").digest == digest("task", target.digest, "finetune", "full", 1, 0, how)

"""CLIP training: the loss is the definition's, texts are told apart by their words, it learns, it refuses early."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle_clip import info_nce as oracle
from torch import nn
from torch.nn import functional as F

from pydt import Design
from pydt.base import ConfigError, DataError, PydtError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment, Loader
from pydt.data.samples import glyphs
from pydt.ensemble import Plan
from pydt.store.learning_check import hardly_learnt
from pydt.training import Recipe, Task, train, transfer
from pydt.training.methods import METHODS
from pydt.training.methods.clip import CLIP, distinct, info_nce
from pydt.training.methods.common import Job
from pydt.training.text import TextTower, WordTower, vocabulary
from pydt.training.transfer.zero_shot import ZeroShot

NAMES = ("dark on light", "light on dark", "a small circle", "a large circle", "one", "two", "Three", "four!")
RECIPE = Recipe(
    network="convnet-8",
    method="clip",
    epochs=12,
    lr=0.2,
    batch_size=32,
    augment=Augment(crop_pad=1, mean=(0.3,), std=(0.2,)),
    clip=CLIP(embed=16, width=16),
)


def with_captions(source: Dataset, captions: list[str]) -> Dataset:
    return Dataset.from_arrays(source.images, source.labels, source.classes, captions=captions, name="blobs")


@pytest.fixture(scope="module")
def captioned(source: Dataset) -> Dataset:
    return with_captions(source, [NAMES[label] for label in source.labels])


# ---- the loss ------------------------------------------------------------------------------------------------------


class Given(TextTower):
    """Texts "0", "1", ... with given vectors."""

    def __init__(self, vectors: np.ndarray, log_scale: float) -> None:
        super().__init__(nn.Identity())
        self.vectors = nn.Parameter(torch.tensor(vectors, dtype=torch.float32))
        self.log_scale.data.fill_(log_scale)

    def encode(self, texts: list[str]) -> torch.Tensor:  # type: ignore[override]
        return F.normalize(self.vectors[[int(text) for text in texts]], dim=1)


@pytest.mark.parametrize("captions", ["01234567", "00112233", "01200000", "31300412"])
@pytest.mark.parametrize("log_scale", [0.0, 2.5, math.log(100)])
def test_loss_and_gradients_are_those_of_the_definition(captions: str, log_scale: float) -> None:
    random = np.random.default_rng(3)
    images, vectors = random.normal(size=(8, 5)), random.normal(size=(8, 5))
    number = [int(caption) for caption in captions]
    expected = oracle(images, vectors[number], list(captions), log_scale)
    text, given = Given(vectors, log_scale), torch.tensor(images, dtype=torch.float32, requires_grad=True)
    texts, which = distinct(text, list(captions))
    assert len(texts) == len(set(captions)), "equal captions are encoded once"
    loss, right = info_nce(text.place(given), text.encode(texts), which, text.scale)
    loss.backward()
    by_text = np.zeros_like(vectors)
    np.add.at(by_text, number, expected["texts"])
    assert given.grad is not None
    assert text.vectors.grad is not None
    assert text.log_scale.grad is not None
    for found, wanted in (
        (loss.detach(), expected["loss"]),
        (given.grad, expected["images"]),
        (text.vectors.grad, by_text),
        (text.log_scale.grad, expected["log_scale"]),
    ):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    nearest = (unit @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T)[:, sorted(set(number))].argmax(1)
    assert int(right) == sum(sorted(set(number))[near] == own for near, own in zip(nearest, number, strict=True))


def test_the_temperature_stops_at_its_bound_and_comes_back() -> None:
    text = Given(np.eye(3), 0.0)
    optimizer = torch.optim.SGD([text.log_scale], lr=50.0)

    def step(images: torch.Tensor) -> None:
        text.hold_scale()
        optimizer.zero_grad()
        info_nce(images, text.encode(["0", "1", "2"]), torch.arange(3), text.scale)[0].backward()
        optimizer.step()

    right, wrong = torch.eye(3) + 0.2, torch.eye(3)[[1, 2, 0]]
    for _ in range(200):
        step(F.normalize(right, dim=1))
    text.hold_scale()
    bound = float(text.scale.detach())
    assert bound > 20, "right captions ask for a lower temperature"
    text.log_scale.data.fill_(9.0)
    assert float(text.scale.detach()) == pytest.approx(100)
    step(wrong)
    assert float(text.scale.detach()) < 99, "at its bound it has its whole gradient"


def test_training_holds_the_temperature(captioned: Dataset) -> None:
    trained = train(captioned, None, replace(RECIPE, clip=replace(RECIPE.clip, temperature=0.01), lr=0.5), 0)
    assert trained.text is not None
    assert float(trained.text.log_scale.detach()) <= math.log(100) + 1e-6


# ---- our own text tower --------------------------------------------------------------------------------------------


def tower(captions: tuple[str, ...] = NAMES, seed: int = 0) -> WordTower:
    torch.manual_seed(seed)
    return WordTower(vocabulary(captions), 32, 16, 8)


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert vocabulary(["The cat's 2nd_toy: ÄPFEL!", "the CAT"]) == ["2nd", "cat", "s", "the", "toy", "äpfel"]


def test_texts_are_told_apart_by_words_and_their_order() -> None:
    vectors = tower().encode(["dark one", "Dark,  ONE!", "one dark", "dark one unheard-of", "dark"]).detach()
    assert torch.allclose(vectors.norm(dim=1), torch.ones(5), atol=1e-6)
    apart = (vectors - vectors[0]).norm(dim=1)
    assert apart[1] < 1e-6
    assert apart[3] < 1e-6, "unknown words are ignored"
    assert apart[2] > 1e-3
    assert apart[4] > 1e-3


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    text = tower()
    together = text.encode(list(NAMES)).detach()
    for name, vector in zip(NAMES, together, strict=True):
        assert torch.allclose(text.encode([name]).detach()[0], vector, atol=1e-6)
    order = [3, 1, 7, 0]
    assert torch.allclose(text.encode([NAMES[i] for i in order]).detach(), together[order], atol=1e-6)
    assert text.encode([]).shape == (0, 16)


def test_a_text_of_unknown_words_is_refused_with_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'circel of thre'.*'circle'"):
        tower().encode(["dark", "circel of thre"])
    with pytest.raises(ConfigError, match="''"):
        tower().encode([""])


def test_the_tower_is_rebuilt_by_start_and_its_state(captioned: Dataset) -> None:
    trained = train(captioned, captioned.labels < 3, RECIPE, 0)
    fresh = METHODS["clip"].start(RECIPE, captioned)
    assert fresh.text is not None
    assert trained.text is not None
    fresh.body.load_state_dict(trained.body.state_dict())
    fresh.text.load_state_dict(trained.text.state_dict())
    again = replace(trained, body=fresh.body, text=fresh.text, _known={})
    assert torch.equal(again.features(captioned, range(9)), trained.features(captioned, range(9)))
    assert torch.equal(fresh.text.encode(NAMES), trained.text.encode(NAMES)), (
        "also words of captions that were left out"
    )
    assert fresh.text.scale == trained.text.scale


# ---- training ------------------------------------------------------------------------------------------------------


def test_it_learns_which_caption_belongs_to_an_image(captioned: Dataset) -> None:
    trained = train(captioned, None, RECIPE, 0)
    metrics = trained.metrics
    assert metrics["source_accuracy"] > 0.8
    assert metrics["source_loss"] < metrics["source_trivial_loss"] == pytest.approx(math.log(32))
    assert 1 / 8 < metrics["source_trivial_accuracy"] < 0.3, "the commonest of 8 captions in batches of 32"
    assert hardly_learnt(metrics) is False
    with torch.inference_mode():
        images = trained.text.place(trained.features(captioned))  # type: ignore[union-attr]
        nearest = (images @ trained.text.encode(NAMES).T).argmax(1)  # type: ignore[union-attr]
    assert (nearest.numpy() == captioned.labels).mean() > 0.8


def test_a_temperature_beyond_its_bound_is_brought_back(captioned: Dataset) -> None:
    start = METHODS["clip"].start(RECIPE, captioned)
    assert isinstance(start.text, WordTower)
    start.text.log_scale.data.fill_(9.0)
    ids = np.arange(len(captioned))
    loader = Loader(captioned, ids, 32, True, RECIPE.augment)
    recipe = replace(RECIPE, optimizer="adamw", lr=1e-3)  # whose steps have one length
    job = Job(captioned, ids, loader, start.body, 32, start.text, recipe, 3, 5, 1, torch.device("cpu"))
    METHODS["clip"].learn(job)  # type: ignore[misc]
    assert float(start.text.log_scale.detach()) <= math.log(100) + 1e-6, "not 9, from where it would take long"


def test_captions_that_tell_nothing_are_noticed(source: Dataset) -> None:
    random = np.random.default_rng(0)
    shuffled = with_captions(source, [NAMES[i] for i in random.integers(0, 8, len(source))])
    metrics = train(shuffled, None, replace(RECIPE, epochs=3), 0).metrics
    assert hardly_learnt(metrics) is True


def test_equal_seeds_give_equal_bits(captioned: Dataset) -> None:
    keep = captioned.labels % 2 == 0
    first, second = (train(captioned, keep, RECIPE, 5) for _ in range(2))
    for one, other in ((first.body, second.body), (first.text, second.text)):
        assert one is not None
        assert other is not None
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_one_caption_kept_is_no_failure(captioned: Dataset) -> None:
    alone = train(captioned, captioned.labels == 4, replace(RECIPE, epochs=2), 0).metrics
    assert alone["source_trivial_accuracy"] == 1
    assert hardly_learnt(alone) is None


def test_a_probe_reads_its_features(captioned: Dataset, target: Target) -> None:
    outputs = transfer(train(captioned, None, RECIPE, 0), Task(target, shots=5, draws=2), 0)
    assert outputs.scalars["report_accuracy"] > 0.5


@pytest.mark.slow
def test_on_the_sample() -> None:
    printed = glyphs.source("alphanumerics")
    ids = np.sort(np.random.default_rng(0).permutation(len(printed))[:3000])
    trained = train(printed, ids, Recipe(method="clip", steps=400), 0)
    assert trained.metrics["source_accuracy"] > 0.97
    for shots, least in ((1, 0.55), (5, 0.83), ("full", 0.93)):
        assert transfer(trained, Task(glyphs.digits(), shots=shots, draws=16), 0).scalars["report_accuracy"] > least
    # characters that were never seen, of the classes of the source, named by their captions
    others = glyphs.source("alphanumerics", each=20, seed=1)
    assert others.captions is not None
    names = {others.classes[label]: caption for label, caption in zip(others.labels, others.captions, strict=True)}
    order = np.random.default_rng(1).permutation(len(names))
    shuffled = Dataset.from_arrays(others.images, np.argsort(order)[others.labels], [others.classes[i] for i in order])
    found = []
    for data in (others, shuffled):
        there = Target(data, pool=62, validation=62)
        task = Task(there, "zero-shot", zero_shot=ZeroShot(names=names))
        outputs = transfer(trained, task, 0).primitives[:, 0]
        described = there.described()
        at = np.argsort(described["ids"])
        found.append((outputs[:3, at], np.array(data.classes)[outputs[3].astype(int)][at], described["ids"][at]))
    (one, guesses, ids), (other, again, same) = found
    assert np.array_equal(ids, same)
    assert np.array_equal(one[:2], other[:2])
    assert np.abs(one[2] - other[2]).max() < 1e-4, "a sum in another order"
    assert np.array_equal(guesses, again)
    right = np.array(others.classes)[others.labels[ids]] == guesses
    assert right.mean() > 0.8, "chance is 1/62"


# ---- digests -------------------------------------------------------------------------------------------------------


def test_settings_and_captions_stand_in_digests_of_clip_alone(captioned: Dataset, target: Target) -> None:
    other = replace(RECIPE, clip=CLIP(embed=17, width=16))
    assert RECIPE.digest != other.digest
    assert replace(RECIPE, method="supervised").digest == replace(other, method="supervised").digest
    assert Recipe().digest == Recipe(clip=CLIP(embed=3)).digest
    design = Design.explicit(np.eye(8, dtype=bool)[:, ::-1] == 0)
    renamed = with_captions(captioned, [f"{caption} again" for caption in captioned.captions or ()])
    for recipe, same in ((RECIPE, False), (replace(RECIPE, method="supervised"), True)):
        plans = [Plan(data, design=design, recipe=recipe, tasks=[Task(target)]) for data in (captioned, renamed)]  # type: ignore[arg-type]
        assert (plans[0].record().source == plans[1].record().source) is same


def test_a_model_of_open_clip_is_the_network() -> None:
    recipe = Recipe(method="clip", clip=CLIP(model="ViT-B-32"))
    assert recipe.described()["network"] == "open_clip:ViT-B-32"
    assert recipe.lr == 0.01, "it has no batch-norm"
    assert recipe.digest == replace(recipe, network="convnet-8", clip=CLIP("ViT-B-32", embed=3, width=3)).digest
    others = [CLIP("RN50"), CLIP("ViT-B-32", temperature=0.1)]
    assert len({recipe.digest, *(replace(recipe, clip=clip).digest for clip in others)}) == 3


def test_captions_are_read_once_a_process_not_for_every_row(captioned: Dataset) -> None:
    reads = []

    class Noted(tuple):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[str]:
            reads.append(1)
            return super().__iter__()

    source = with_captions(captioned, list(captioned.captions or ()))
    object.__setattr__(source, "captions", Noted(source.captions or ()))
    short = replace(RECIPE, epochs=1)
    train(source, None, short, 0)
    first = len(reads)
    for seed in range(3):
        train(source, None, short, seed)
    assert len(reads) - first <= 3, "whether all are equal, which two of them tell"


# ---- what is refused before anything is trained ----------------------------------------------------------------------


def test_sources_from_which_it_cannot_learn_are_refused(source: Dataset, captioned: Dataset) -> None:
    captions = [NAMES[label] for label in source.labels]
    some = [*captions[:7], " .!", *captions[8:]]
    cases: list[tuple[Dataset, Recipe, type[PydtError], str]] = [
        (source, RECIPE, DataError, "blobs.*has no captions"),
        (with_captions(source, some), RECIPE, DataError, "1 caption has no word, the first that of image '7'"),
        (with_captions(source, ["One thing"] * 80 + ["one thing!"] * 80), RECIPE, DataError, "'One thing'.*nothing"),
        (captioned, replace(RECIPE, batch_size=1), ConfigError, "batch_size"),
    ]
    for data, recipe, kind, words in cases:
        with pytest.raises(kind, match=words):
            recipe.check(data)
        with pytest.raises(kind, match=words):
            train(data, None, recipe, 0)


@pytest.mark.parametrize(
    "settings", [{"embed": 0}, {"width": 1.5}, {"temperature": 0.001}, {"temperature": math.inf}, {"model": 3}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CLIP(**settings)  # type: ignore[arg-type]

"""Towers of open_clip: their numbers are open_clip's own, and without weights nothing is asked of the network."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.training import CLIP, Recipe, Task, train, transfer, trial
from pydt.training.open_clip_towers import check_images, open_clip_model

open_clip: Any = pytest.importorskip("open_clip")
TEXTS = ["a small red circle", "Two cats", "a photo of a dog, on a sofa"]
SMALL = {
    "tiny-vit": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 4},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "tiny-resnet": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "tiny-custom": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 4},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        "init_logit_bias": -10,
    },
    "tiny-coca": {  # its towers return more than features
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": {
            **{"image_size": 16, "layers": 1, "width": 64, "patch_size": 4, "output_tokens": True},
            **{"attentional_pool": True, "attn_pooler_heads": 2},
        },
        "text_cfg": {
            **{"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
            **{"embed_cls": True, "output_tokens": True},
        },
        "multimodal_cfg": {
            **{"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
            **{"dim_head": 8, "n_queries": 4, "attn_pooler_heads": 2},
        },
    },
    "tiny-hugging-face": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 4},
        "text_cfg": {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"},
    },
}


@pytest.fixture(scope="module", autouse=True)
def _small_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("configs")
    for name, config in SMALL.items():
        (root / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(root)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach the network is an error."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet", "tiny-custom", "tiny-coca"])
@pytest.mark.parametrize("sides", [None, (32, 32)])
def test_features_are_those_of_open_clip(name: str, sides: tuple[int, int] | None, offline: None) -> None:
    torch.manual_seed(3)
    ours = open_clip_model(name, sides=sides)
    torch.manual_seed(3)
    theirs = open_clip.create_model(name, force_image_size=None if sides is None else sides[0])
    side = 32 if sides or name == "tiny-resnet" else 16
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    with torch.inference_mode():
        theirs.eval()
        found = ours.body.eval()(images)
        wanted = theirs.encode_image(images, normalize=False)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            ours.text.encode(TEXTS), theirs.encode_text(tokens, normalize=True), atol=1e-5, rtol=0
        )
        near = ours.text.scale * ours.text.place(found) @ ours.text.encode(TEXTS).T
        units = theirs.encode_image(images, normalize=True), theirs.encode_text(tokens, normalize=True)
        torch.testing.assert_close(near, theirs.logit_scale.exp() * units[0] @ units[1].T, atol=1e-4, rtol=1e-5)
        grey = images[:, :1]
        torch.testing.assert_close(
            ours.body(grey), theirs.encode_image(grey.repeat(1, 3, 1, 1), normalize=False), atol=1e-5, rtol=1e-5
        )
    assert ours.text.encode([]).shape == (0, 12)
    assert not {id(p) for p in ours.body.parameters()} & {id(p) for p in ours.text.parameters()}
    both = sum(p.numel() for part in (ours.body, ours.text) for p in part.parameters())
    unread = ("text_decoder.", "logit_bias")
    assert both == sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith(unread))


def test_weights_of_a_file_are_read(tmp_path: Path, offline: None) -> None:
    torch.manual_seed(1)
    theirs = open_clip.create_model("tiny-vit").eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    ours = open_clip_model("tiny-vit", str(tmp_path / "weights.pt"))
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours.body.eval()(images), theirs.encode_image(images), atol=1e-5, rtol=1e-5)
    assert ours.preprocess["size"] == (16, 16)


def test_the_callers_logging_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    before = logging.getLogger().handlers[:], logging.getLogger().manager.disable
    open_clip_model("tiny-vit")
    assert (logging.getLogger().handlers[:], logging.getLogger().manager.disable) == before
    assert not caplog.records


def test_what_cannot_be_built_is_refused(offline: None) -> None:
    for name, words in {
        "ViT-B/32": "no such model.*did you mean 'ViT-B-32'",
        "RN5O": "did you mean 'RN50'",
        "a model of mine": "list_models",
        "tiny-hugging-face": "Hugging Face.*ViT-B-32",
        "ViT-B-16-SigLIP": "Hugging Face",
    }.items():
        with pytest.raises(ConfigError, match=words):
            open_clip_model(name)
    check_images("tiny-vit", 1, 16, 16)
    check_images("tiny-resnet", 3, 64, 64)
    for name, channels, side in (("tiny-vit", 3, 2), ("tiny-resnet", 3, 16), ("tiny-vit", 4, 16)):
        with pytest.raises(ConfigError, match=f"{name}.*{side} x {side} pixels"):
            check_images(name, channels, side, side)


# ---- trained by method "clip" --------------------------------------------------------------------------------------

RECIPE = Recipe(
    method="clip",
    clip=CLIP(model="tiny-vit", temperature=0.1),
    optimizer="adamw",
    lr=3e-3,
    epochs=15,
    batch_size=32,
    augment=Augment(mean=(0.3,), std=(0.2,)),
)


@pytest.fixture(scope="module")
def captioned(source: Dataset) -> Dataset:
    captions = [
        f"a {('red', 'blue', 'green', 'black')[label // 2]} {('cat', 'dog')[label % 2]}" for label in source.labels
    ]
    return Dataset.from_arrays(source.images, source.labels, source.classes, captions=captions, name="blobs")


def test_it_trains_on_the_images_as_they_are(captioned: Dataset, target: Target, offline: None) -> None:
    trained = train(captioned, None, RECIPE, 0)
    assert trained.dim == 12
    assert trained.metrics["source_accuracy"] > 0.6, "chance is 1/8"
    assert trained.text is not None
    assert 1 < float(trained.text.scale.detach()) <= 100
    with torch.inference_mode():
        texts = trained.text.encode([f"a {colour} cat" for colour in ("red", "blue", "green", "black")])
        nearest = (trained.text.place(trained.features(captioned, captioned.labels % 2 == 0)) @ texts.T).argmax(1)
    assert (nearest.numpy() == captioned.labels[captioned.labels % 2 == 0] // 2).mean() > 0.6
    assert transfer(trained, Task(target, shots=5, draws=2), 0).scalars["report_accuracy"] > 0.4
    again = train(captioned, None, RECIPE, 0)
    for name, value in trained.text.state_dict().items():
        assert torch.equal(value, again.text.state_dict()[name])  # type: ignore[union-attr]


def test_images_that_do_not_fit_are_refused_early(captioned: Dataset, target: Target, offline: None) -> None:
    for clip, augment, words in (
        (CLIP(model="tiny-vits"), RECIPE.augment, "did you mean 'tiny-vit'"),
        (CLIP(model="tiny-resnet"), RECIPE.augment, "tiny-resnet.*12 x 12 pixels"),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(RECIPE, clip=clip, augment=augment).check(captioned)
    ramped = Augment(size=12, resized_crop=((0.5, 1), (1, 1)), ramp=((0, 8),))
    with pytest.raises(ConfigError, match="sees images of 8 x 8 pixels, but is built for 12 x 12"):
        trial(captioned, None, replace(RECIPE, augment=ramped), [Task(target)])
    trial(captioned, None, RECIPE, [Task(target)])
    mended = replace(RECIPE, clip=CLIP(model="tiny-resnet"), augment=Augment(size=32, resize=32), epochs=1)
    trial(captioned, None, mended, [Task(target)])
    assert train(captioned, None, mended, 0).dim == 12
    larger = np.zeros((80, 20, 20), np.uint8)
    larger[:, 3] = np.arange(80)[:, None]
    with pytest.raises(ConfigError, match=r"task .*20 x 20 pixels, but is built for 12 x 12"):
        trial(captioned, None, RECIPE, [Task(Target(Dataset.from_arrays(larger, np.arange(80) % 2)), shots=1)])


def test_the_usual_rate_is_that_of_the_model() -> None:
    assert Recipe(method="clip", clip=CLIP(model="ViT-B-32")).lr == 0.01
    assert Recipe(method="clip", clip=CLIP(model="RN50")).lr == 0.05
    assert Recipe(method="supervised", clip=CLIP(model="RN50")).lr == Recipe(method="clip").lr == 0.2


def test_without_open_clip_it_says_what_to_install(captioned: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match=r"open_clip is not installed.*pip install 'pydt-transfer\[clip\]'"):
        replace(RECIPE, clip=CLIP(model="ViT-B-32")).check(captioned)


def test_an_old_open_clip_is_named(captioned: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_clip.__version__", "2.32.0")
    with pytest.raises(ConfigError, match=r"open_clip 2\.32\.0 is too old.*pip install --upgrade"):
        replace(RECIPE, clip=CLIP(model="ViT-B-32")).check(captioned)

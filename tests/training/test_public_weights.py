"""Public weights of torchvision, timm and open_clip: random ones in the libraries' caches, made here, no network.

Features are compared with the library's own preprocessing of a PIL image and its own forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import pydt
from pydt import design
from pydt.base import ConfigError, DataError
from pydt.data import Dataset, Target
from pydt.data.loading import Loader
from pydt.training import Checkpoint, FineTune, Recipe, Task, train, transfer, trial
from pydt.training.public_weights import full_name, public

SHUFFLENET = "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
Library = tuple[str, Callable[[Image.Image], torch.Tensor], Callable[[torch.Tensor], torch.Tensor], int]
"""A name, the library's preprocessing and forward pass, and the side of images that it only crops."""


def lively(model: torch.nn.Module, shape: tuple[int, ...]) -> torch.nn.Module:
    """In evaluation mode, with batch-norm statistics of its own."""
    model.train()
    with torch.no_grad():
        model(torch.randn(*shape))
    return model.eval()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the libraries keep what they downloaded; they are told that there is no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def torchvisions(cache: Path) -> Library:
    import torchvision

    weights = torchvision.models.get_weight(SHUFFLENET)
    torch.manual_seed(0)
    model = lively(torchvision.models.shufflenet_v2_x0_5(), (4, 3, 64, 64))
    (cache / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(model.state_dict(), cache / "torch" / "hub" / "checkpoints" / Path(weights.url).name)
    model.fc = torch.nn.Identity()
    how = weights.transforms()
    return f"torchvision:{SHUFFLENET}", how, model, 256


def timms(cache: Path) -> Library:
    timm = pytest.importorskip("timm")
    name = "test_resnet.r160_in1k"
    torch.manual_seed(0)
    model = lively(timm.create_model(name, pretrained=False), (4, 3, 64, 64))
    folder = cache / "hub" / f"models--timm--{name}"
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    save_file(model.state_dict(), folder / "snapshots" / "1" / "model.safetensors")
    how = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def features(images: torch.Tensor) -> torch.Tensor:
        return model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[no-any-return]

    return f"timm:{name}", how, features, 168


def open_clips(cache: Path) -> Library:
    open_clip = pytest.importorskip("open_clip")
    (cache / "pydt-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(cache / "pydt-tiny.json")
    torch.manual_seed(0)
    model = open_clip.create_model("pydt-tiny")
    torch.save(model.state_dict(), cache / "tiny.pt")
    model, how = open_clip.create_model_from_pretrained("pydt-tiny", pretrained=str(cache / "tiny.pt"))
    return f"open_clip:pydt-tiny/{cache / 'tiny.pt'}", how, model.encode_image, 32


@pytest.fixture
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def photographs(height: int, width: int, channels: int) -> np.ndarray:
    """Four images with large and small features, of middle brightness."""
    random = np.random.default_rng(0)
    coarse = random.integers(40, 215, (4, height // 8 + 1, width // 8 + 1, channels)).repeat(8, 1).repeat(8, 2)
    noisy = coarse[:, :height, :width] + random.normal(0, 8, (4, height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def named(name: str) -> Checkpoint:
    """A checkpoint of this very name: the tiny model is in no list of names."""
    made = Checkpoint()
    object.__setattr__(made, "name", name)
    return made


@pytest.mark.parametrize("made", [torchvisions, timms, open_clips])
def test_features_are_the_librarys(made: Any, offline: Path) -> None:
    name, transform, forward, side = made(offline)
    prepared: list[tuple[np.ndarray, Dataset]] = []
    for height, width, channels in ((side, side, 3), (90, 70, 3), (28, 28, 1)):
        images = photographs(height, width, channels)
        prepared.append((images, Dataset.from_arrays(images, np.arange(4))))
    folder = offline / "files" / "a"
    folder.mkdir(parents=True)
    for number, image in enumerate(photographs(200, 250, 3)):
        Image.fromarray(image).save(folder / f"{number}.png")
    prepared.append((photographs(200, 250, 3), Dataset.from_folder(folder.parent)))
    for images, data in prepared:
        trained = train(data, None, Recipe(method="checkpoint", checkpoint=named(name)), 0)
        assert trained.metrics == {}
        seen = next(iter(Loader(data, None, 4, False, trained.preprocess))).images
        theirs = torch.stack([transform(Image.fromarray(image.squeeze()).convert("RGB")) for image in images])
        deviation = torch.tensor(trained.preprocess.std).view(3, 1, 1)
        pixels = float(((seen - theirs) * deviation * 255).abs().max())
        with torch.no_grad():
            expected = forward(theirs)
        difference = trained.features(data) - expected
        off = float(difference.std(0).mean() / expected.std(0).mean())
        print(f"{name[:11]} {images.shape[1:]}: pixels {pixels:.1e} of 255, features {off:.1e} of their spread")
        if images.shape[1:] == (side, side, 3):
            assert pixels < 1e-3
            assert difference.abs().max() < 1e-4 * expected.abs().max()
        # Both sides round resized pixels to 8 bits, twice (DALI once): they differ by 1 or 2 (3) of 255 here and there.
        assert pixels < (3.5 if data.encoded else 2.5)
        assert off < 0.03


@pytest.mark.parametrize("made", [torchvisions, open_clips])
def test_grey_rows_of_a_public_network_in_every_kind_of_transfer(
    made: Any, offline: Path, source: Dataset, target: Target
) -> None:
    name, *_ = made(offline)
    recipe = Recipe(method="checkpoint", checkpoint=named(name))
    how = FineTune(epochs=1, lr=0.01, batch_size=8)
    tasks = [Task(target, shots=2, draws=2), Task(target, mode="finetune", shots=2, draws=1, finetune=how)]
    trial(source, None, recipe, tasks)
    trained = train(source, None, recipe, 0)
    before = {key: value.clone() for key, value in trained.body.state_dict().items()}
    for task in tasks:
        assert np.isfinite(transfer(trained, task, 0).primitives).all()
    assert all(torch.equal(value, before[key]) for key, value in trained.body.state_dict().items())


def test_zero_shot_of_an_open_clip_checkpoint(offline: Path, source: Dataset, target: Target) -> None:
    name, *_ = open_clips(offline)
    open_clip = pytest.importorskip("open_clip")
    recipe = Recipe(method="checkpoint", checkpoint=named(name))
    trained = train(source, None, recipe, 0)
    assert trained.text is not None
    model, _ = open_clip.create_model_from_pretrained("pydt-tiny", pretrained=str(offline / "tiny.pt"))
    texts = ["a photo of a cat", "b"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer("pydt-tiny")(texts), normalize=True)
        assert torch.allclose(trained.text.encode(texts), expected, atol=1e-5)
        assert torch.allclose(trained.text.scale, model.logit_scale.exp(), rtol=1e-5)
    outputs = transfer(trained, Task(target, mode="zero-shot"), 0)
    assert np.isfinite(outputs.primitives).all()


def test_short_names_are_made_full() -> None:
    assert full_name("torchvision:resnet50") == "torchvision:ResNet50_Weights.IMAGENET1K_V2"
    assert full_name("torchvision:ResNet50_Weights.IMAGENET1K_V1") == "torchvision:ResNet50_Weights.IMAGENET1K_V1"
    short, full = (
        Recipe(method="checkpoint", checkpoint=Checkpoint(f"torchvision:{name}"))
        for name in ("resnet50", "ResNet50_Weights.IMAGENET1K_V2")
    )
    assert short.digest == full.digest
    assert short.described()["network"] == "torchvision:ResNet50_Weights.IMAGENET1K_V2"
    assert short.digest != Recipe(method="checkpoint", checkpoint=Checkpoint("torchvision:resnet18")).digest
    pytest.importorskip("timm")
    assert full_name("timm:resnet50") == "timm:resnet50.a1_in1k"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("torchvision:resnet_50", "did you mean 'resnet50'"),
        ("torchvision:fcn_resnet50", "did you mean"),
        ("timm:resnet50.a1_in2k", r"did you mean 'resnet50\.a1_in1k'"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79", "did you mean 'ViT-B-32/laion2b_s34b_b79k'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, nearest: str) -> None:
    pytest.importorskip(name.partition(":")[0])
    with pytest.raises(ConfigError, match=f"no such public weights.*{nearest}"):
        Checkpoint(name)


def test_weights_that_cannot_be_had_are_named_with_their_place(offline: Path) -> None:
    url = "shufflenetv2_x0.5-f707e7126e.pth"
    (offline / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (offline / "torch" / "hub" / "checkpoints" / url).write_bytes(b"cut")
    with pytest.raises(DataError, match=rf"downloaded or read.*put {url} into {offline}/torch/hub/checkpoints"):
        public(f"torchvision:{SHUFFLENET}")
    for name in ("timm:test_resnet.r160_in1k", "open_clip:RN50/cc12m"):
        pytest.importorskip(name.partition(":")[0])
        with pytest.raises(DataError, match=rf"run `hf download timm/.*copy models--timm--.* into {offline}/hub"):
            public(name)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_heads_beside_the_last_one_are_left_out(offline: Path, name: str) -> None:
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    model = torchvision.models.get_model(name, init_weights=False, aux_logits=True)
    place = offline / "torch" / "hub" / "checkpoints" / Path(weights.url).name
    place.parent.mkdir(parents=True)
    torch.save(model.state_dict(), place)
    body = public(f"torchvision:{weights}").body
    for training in (True, False):
        assert body.train(training)(torch.rand(2, 3, 96, 96)).ndim == 2
    assert not any("aux" in part.lower() for part in body.state_dict())


def test_models_have_the_activation_that_their_weights_were_trained_with(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip lists "ViT-B-32/openai" and 26 others whose settings do not say QuickGELU."""
    open_clip = pytest.importorskip("open_clip")
    _, _, plain, _ = open_clips(offline)
    (offline / "pydt-quick.json").write_text(json.dumps(TINY | {"quick_gelu": True}))
    open_clip.add_model_config(offline / "pydt-quick.json")
    quick = open_clip.create_model("pydt-quick", pretrained=str(offline / "tiny.pt")).eval().encode_image

    def tag(model: str, tag: str) -> dict[str, Any]:
        return {"url": "tiny", "quick_gelu": tag == "quick"}

    for module in (open_clip, open_clip.factory):
        monkeypatch.setattr(module, "get_pretrained_cfg", tag)
        monkeypatch.setattr(module, "download_pretrained", lambda *_, **__: str(offline / "tiny.pt"))
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        for name, expected in (("pydt-tiny/quick", quick), ("pydt-quick/quick", quick), ("pydt-tiny/plain", plain)):
            assert torch.allclose(public(f"open_clip:{name}").body(images), expected(images), atol=1e-6)
        assert not torch.allclose(quick(images), plain(images), atol=1e-3)


def test_public_weights_are_never_unpickled(offline: Path) -> None:
    import torchvision

    place = offline / "torch" / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    place.parent.mkdir(parents=True)
    torch.save(torchvision.models.shufflenet_v2_x0_5(), place)  # torchvision itself would unpickle it
    with pytest.raises(DataError, match="Weights only load failed"):
        public(f"torchvision:{SHUFFLENET}")


def test_a_plan_by_name(offline: Path, source: Dataset, target: Target) -> None:
    recipe = Recipe(method="checkpoint", checkpoint=Checkpoint(f"torchvision:{SHUFFLENET}"))
    plan = pydt.Plan(source, design=design.Design.explicit(np.ones((1, 8))), recipe=recipe, tasks=[Task(target)])
    pydt.write_plan(plan, offline / "plan.toml")
    assert f'name = "torchvision:{SHUFFLENET}"' in (offline / "plan.toml").read_text()
    assert pydt.read_plan(offline / "plan.toml").plan.digest == plan.digest
    colour = Target(Dataset.from_arrays(np.zeros((90, 8, 8, 3), np.uint8), np.arange(90) % 3, name="colour"))
    both = [Task(target), Task(colour)]
    pydt.Plan(source, design=plan.design, recipe=recipe, tasks=both)
    with pytest.raises(DataError, match="colour has images of 3 channels"):
        pydt.Plan(source, design=plan.design, recipe=Recipe(), tasks=both)
    odd = Dataset.from_arrays(np.zeros((6, 8, 8, 2), np.uint8), np.arange(6) % 2)
    with pytest.raises(ConfigError, match="images of 2 channels, public weights take RGB"):
        recipe.check(odd)

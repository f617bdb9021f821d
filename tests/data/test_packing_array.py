"""Packing a folder into one array: the pixels are torchvision's, and nothing that happens on the way shows in them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle_pixels
import pytest
from PIL import Image

from pydt.base import DataError, StoreError, exclusive
from pydt.data import Dataset, pixels
from pydt.data.index_file import FILE, read_index
from pydt.data.packing import array as packing
from pydt.data.packing import pack
from pydt.data.pixels import decode


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (3 + c) + c) + np.cos(y / (4 + c)) for c in range(channels)], axis=2)
    noise = np.random.default_rng(seed).normal(0, 8, waves.shape)
    return np.clip(120 + 55 * waves + noise, 0, 255).astype(np.uint8)


def zoo(folder: Path) -> None:
    """Every kind of image that a folder may hold."""
    folder.mkdir(parents=True)
    rgb = Image.fromarray(picture(37, 53))
    rgb.save(folder / "rgb.jpg", quality=90)
    rgb.save(folder / "rgb.bmp")
    rgb.save(folder / "rgb.webp", lossless=True)
    rgb.save(folder / "rgb.ppm")
    rgb.convert("L").save(folder / "grey.jpg")
    rgb.convert("L").save(folder / "grey.pgm")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.tif")
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "clear.png", transparency=bytes([0, 128] * 100))
    rgb.convert("1").save(folder / "bits.png")
    Image.fromarray(picture(40, 31, 4)).save(folder / "alpha.png")
    Image.fromarray(picture(40, 31, 2), "LA").save(folder / "grey alpha.png")
    Image.fromarray(picture(33, 35, 1)[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    frames = [Image.fromarray(picture(24, 24, seed=i)) for i in range(3)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=turned, quality=90)
    for height, width in [(1, 1), (1, 90), (90, 1), (16, 16), (16, 17), (17, 16), (15, 300), (3, 5), (255, 16)]:
        Image.fromarray(picture(height, width)).save(folder / f"{height} x {width}.png")


def on_white(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode == "I;16":
            return np.rint(oracle_pixels.shown(np.asarray(image)[..., None], 16, (255, 255, 255))).astype(np.uint8)
        samples = np.asarray(image.convert("RGBA"))
    return np.rint(oracle_pixels.shown(samples, 8, (255, 255, 255))).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 16, 21])
@pytest.mark.filterwarnings("ignore:Palette images:UserWarning")
def test_every_kind_of_image_is_torchvisions(tmp_path: Path, size: int) -> None:
    """But for alpha and more than 8 bits: tests/data/test_pixels.py."""
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import CenterCrop, Compose, Resize

    zoo(tmp_path / "in" / "zoo")
    packed = pack(tmp_path / "in", tmp_path / "out", size)
    transform = Compose([Resize(size), CenterCrop(size)])
    assert packed.images is not None
    assert packed.images.shape == (25, size, size, 3)
    for key, image in zip(packed.all_keys(), packed.images, strict=True):
        loaded = default_loader(str(tmp_path / "in" / key))
        if Path(key).stem in ("alpha", "clear", "grey alpha", "deep"):
            assert not np.array_equal(image, np.asarray(transform(loaded))), key
            loaded = Image.fromarray(on_white(tmp_path / "in" / key))
        assert np.array_equal(image, np.asarray(transform(loaded))), key


def test_exif_orientation_only_where_it_is_asked_for(tmp_path: Path) -> None:
    image = Image.fromarray(picture(20, 30))
    for orientation in range(1, 9):
        turned = Image.Exif()
        turned[0x0112] = orientation
        image.save(tmp_path / "x.png", exif=turned)
        data = (tmp_path / "x.png").read_bytes()
        assert np.array_equal(decode(data, 20, False), picture(20, 30)[:, 5:25])
        ways = {1: "x", 2: "x[:, ::-1]", 3: "x[::-1, ::-1]", 4: "x[::-1]", 5: "t", 6: "t[:, ::-1]", 7: "t[::-1, ::-1]"}
        x = picture(20, 30)
        expected = eval(ways.get(orientation, "t[::-1]"), {"x": x, "t": x.transpose(1, 0, 2)})
        height, width = expected.shape[:2]
        top, left = (height - 20) // 2, (width - 20) // 2
        assert np.array_equal(decode(data, 20, True), expected[top : top + 20, left : left + 20]), orientation


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of eleven files; runs of four, so that there are several."""
    monkeypatch.setattr(packing, "RUN", 4)
    root = tmp_path / "in"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for i in range(11):
            Image.fromarray(picture(30 + i, 40 - i, seed=i)).save(root / label / f"{i}.png")
    return root


def content(out: Path) -> tuple[bytes, dict[str, object]]:
    """The pixels' file and what the index says, but for when the file was written."""
    sections = {
        name: value.tolist() if isinstance(value, np.ndarray) else list(value)
        for name, value in read_index(out / FILE).items()
    }
    sections["stamp"] = sections["stamp"][:1]
    return (out / "images.npy").read_bytes(), sections


def test_equal_bytes_for_any_number_of_workers(pictures: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2, 5):
        packed = pack(pictures, tmp_path / f"out {workers}", 12, workers=workers)
        assert sorted(p.name for p in (tmp_path / f"out {workers}").iterdir()) == ["images.npy", FILE, "pack.json"]
        found.append(content(tmp_path / f"out {workers}"))
    assert found[0] == found[1] == found[2]
    assert np.array_equal(np.load(tmp_path / "out 1" / "images.npy"), packed.images)
    assert list(packed.all_keys())[:3] == ["a/0.png", "a/1.png", "a/10.png"]
    assert packed.labels.tolist() == [0] * 11 + [1] * 11
    moved = (tmp_path / "out 1").rename(tmp_path / "moved")
    assert Dataset.open(moved).digest == packed.digest


class Full:
    """A function of the system that says once, at its n-th call, that the disk is full."""

    def __init__(self, function: Callable[..., Any], at: int) -> None:
        self.function, self.at, self.calls = function, at, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.function(*arguments, **named)


@pytest.mark.parametrize("name", ["write", "pwrite", "fsync", "replace", "ftruncate", "posix_fallocate"])
def test_broken_off_at_any_call_it_continues(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pack(pictures, tmp_path / "whole", 12, workers=1)
    expected = content(tmp_path / "whole")
    for n in range(1, 40):
        full = Full(getattr(os, name), n)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with contextlib.suppress(StoreError):
                pack(pictures, tmp_path / "out", 12, workers=1)
        failed = full.calls >= n
        assert (tmp_path / "out").exists() != failed, f"{name} {n}: half a result is none"
        counted = Full(decode, 0)
        with monkeypatch.context() as patch:
            patch.setattr(packing, "decode", counted)
            pack(pictures, tmp_path / "out", 12, workers=1)
        assert content(tmp_path / "out") == expected, f"{name} {n}"
        if name == "replace":
            assert not counted.calls, "all that was done is kept"
        shutil.rmtree(tmp_path / "out")
        if not failed:
            break
    assert n > 1, "the call is made at all"


KILLED = """
import os, signal, sys, time
from pydt.data.packing import array as packing
log = sys.argv[2] + ".packing/done.jsonl"
packing.RUN = 4
honest, count = packing.decode, 0
def dying(*arguments):
    global count
    count += 1
    if count == 15:
        while not (os.path.exists(log) and open(log, "rb").read().count(b"\\n")):
            time.sleep(0.01)  # runs are written down by another thread, which may be behind
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(*arguments)
packing.decode = dying
packing.pack(sys.argv[1], sys.argv[2], 12, workers=1)
"""


def test_killed_it_continues_and_believes_only_checksums(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(pictures, tmp_path / "whole", 12)
    part = tmp_path / "out.packing"
    for damage in ("none", "row", "log", "cut"):
        done = subprocess.run([sys.executable, "-c", KILLED, str(pictures), str(tmp_path / "out")], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
        lines = (part / "done.jsonl").read_bytes().splitlines()
        assert len(lines) in (1, 2, 3), "runs of four, killed at the fifteenth image"
        if damage == "row":
            pixels = bytearray((part / "images.npy").read_bytes())
            pixels[128 + 5] ^= 1
            (part / "images.npy").write_bytes(pixels)
        elif damage == "log":
            (part / "done.jsonl").write_bytes(b"\n".join([b"[[[", lines[0][:-9], b'{"at": 99}', *lines[1:]]))
        elif damage == "cut":
            os.truncate(part / "images.npy", 1000)
        counted = Full(decode, 0)
        with monkeypatch.context() as patch:
            patch.setattr(packing, "decode", counted)
            pack(pictures, tmp_path / "out", 12)
        assert content(tmp_path / "out") == content(tmp_path / "whole"), damage
        kept = {"none": len(lines), "row": len(lines) - 1, "log": len(lines) - 1, "cut": 0}[damage]
        assert counted.calls == 22 - 4 * kept
        shutil.rmtree(tmp_path / "out")


def spoil(pictures: Path) -> None:
    data = bytearray((pictures / "a" / "3.png").read_bytes())
    data[80:120] = bytes(40)  # starts and ends as an image should
    (pictures / "a" / "3.png").write_bytes(data)
    (pictures / "b" / "7.png").write_bytes(b"no image")
    Image.fromarray(picture(1, 9000)).save(pictures / "b" / "8.png")


def test_bad_images_are_named_or_left_out(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(pictures, tmp_path / "before", 12)
    spoil(pictures)
    monkeypatch.setattr(pixels, "MOST_PIXELS", 12 * 12 * 8000)
    with pytest.raises(DataError, match=r"(?s)3 bad files: .*3\.png: cannot be decoded.*7\.png: is no.*8\.png.*narrow"):
        pack(pictures, tmp_path / "out", 12)
    assert not (tmp_path / "out").exists()
    packed = pack(pictures, tmp_path / "out", 12, bad="skip")
    assert sorted(packed.left_out) == ["a/3.png", "b/7.png", "b/8.png"]
    before = Dataset.open(tmp_path / "before")
    good = [i for i, key in enumerate(before.all_keys()) if key not in packed.left_out]
    assert packed.images is not None
    assert before.images is not None
    assert np.array_equal(packed.images, before.images[good])
    assert list(packed.all_keys()) == [before.all_keys()[i] for i in good]
    assert packed.labels.tolist() == before.labels[good].tolist()
    assert np.load(tmp_path / "out" / "images.npy").shape == (19, 12, 12, 3)
    assert pack(pictures, tmp_path / "out", 12, bad="skip").digest == packed.digest, "a finished one is opened"


def test_a_finished_folder_is_recognised_and_never_overwritten(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    first = pack(pictures, tmp_path / "out", 12)
    written = (tmp_path / "out" / "images.npy").stat().st_mtime_ns
    assert pack(pictures, tmp_path / "out", 12, workers=1).digest == first.digest
    assert (tmp_path / "out" / "images.npy").stat().st_mtime_ns == written
    for other in ({"size": 13}, {"size": 12, "exif": True}):
        with pytest.raises(DataError, match="other images or with other settings"):
            pack(pictures, tmp_path / "out", **other)
    (pictures / "a" / "0.png").unlink()
    with pytest.raises(DataError, match="other images or with other settings"):
        pack(pictures, tmp_path / "out", 12)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="was not made by pack"):
        pack(pictures, tmp_path / "mine", 12)
    said = json.loads((tmp_path / "out" / "pack.json").read_text())
    assert said["size"] == 12


def test_one_process_at_a_time(pictures: Path, tmp_path: Path) -> None:
    part = tmp_path / "out.packing"
    part.mkdir()
    with exclusive(part / ".lock"), pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on"):
        pack(pictures, tmp_path / "out", 12)
    pack(pictures, tmp_path / "out", 12)


def test_no_lock_file_stays(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(RuntimeWarning, match="without locks"):
        pack(pictures, tmp_path / "out", 12)
    assert sorted(os.listdir(tmp_path / "out")) == ["images.npy", "index.pydt", "pack.json"]
    (tmp_path / "out" / ".lock").touch()  # of a process that was killed just before it removed it
    pack(pictures, tmp_path / "out", 12)
    assert not (tmp_path / "out" / ".lock").exists()


def test_packing_errors(pictures: Path, tmp_path: Path) -> None:
    for how, message in [
        ({"size": 0}, "size 0"),
        ({"size": 2.5}, r"size 2\.5"),
        ({"size": 8, "workers": 0}, "workers 0"),
        ({"size": 8, "bad": "ignore"}, "unknown bad 'ignore'"),
    ]:
        with pytest.raises(DataError, match=message):
            pack(pictures, tmp_path / "out", **how)
    with pytest.raises(DataError, match="no such folder"):
        pack(tmp_path / "nowhere", tmp_path / "out", 8)
    with pytest.raises(StoreError, match="cannot be written"):
        pack(pictures, "/proc/out", 8)

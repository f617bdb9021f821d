"""Packing a folder into tar shards: the same images, the same bytes each time, whatever happens on the way."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import stub_tars as tars
from PIL import Image
from typer.testing import CliRunner

from pydt.base import DataError, DataWarning, StoreError
from pydt.cli.app import app
from pydt.data import Dataset
from pydt.data.packing import pack, pack_tar
from pydt.data.packing import tar as packtar
from pydt.data.packing.tar import member_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 30 JPEGs of about 90 kB."""
    noise = np.random.default_rng(0)
    for c in "ab":
        (tmp_path / "in" / c).mkdir(parents=True)
        for i in range(30):
            data = tars.jpeg(i)
            (tmp_path / "in" / c / f"{i}.jpg").write_bytes(
                data[:-2] + b"\xff\xfe\xff\xf0" + noise.bytes(90_000) + data[-2:]
            )
    return tmp_path / "in"


def test_names_without_a_suffix_of_images_get_one(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    forms = {"photo.jpg_large": "JPEG", "no suffix": "PNG", "x.gif.1": "GIF", "w": "WEBP", "plain.JPG": "JPEG"}
    for i, (name, form) in enumerate(forms.items()):
        Image.new("RGB", (5, 5), (40 * i, 0, 0)).save(tmp_path / "in" / "a" / name, form)
    folder, shards = Dataset.from_folder(tmp_path / "in"), pack_tar(tmp_path / "in", tmp_path / "out")
    expected = ["a/no suffix.png", "a/photo_jpg_large.jpg", "a/plain.JPG", "a/w.webp", "a/x_gif_1.gif"]
    assert list(shards.all_keys()) == expected
    assert [bytes(b) for b in shards.bytes_of(range(5))] == [bytes(b) for b in folder.bytes_of(range(5))]


def contents(place: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(place.iterdir()) if p.suffix == ".tar"}


def test_shards_of_a_folder(folder: Path, tmp_path: Path) -> None:
    made = pack_tar(folder, tmp_path / "out", limit=1 << 20)
    source = Dataset.from_folder(folder)
    assert made.digest == source.digest, "rows that trained on the folder are those of the shards"
    assert list(made.all_keys()) == list(source.all_keys())
    assert made.classes == ("a", "b")
    shards = contents(tmp_path / "out")
    assert len(shards) == len(made.paths or ()) == 6
    assert all(len(data) <= 1 << 20 for data in shards.values())
    members = []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            inside = tar.getmembers()
            assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in inside} == {(0, 0, 0, 0o644, "")}
            first = tar.extractfile(inside[0])
            assert first is not None
            assert (inside[0].name, first.read()) == ("__pydt__/classes.txt", b"a\nb\n")
            members += [(m.name, tar.extractfile(m).read()) for m in inside[1:]]  # type: ignore[union-attr]
    expected = []
    for key, label in zip(source.all_keys(), source.labels, strict=True):
        expected += [(key, (folder / key).read_bytes()), (key.replace(".jpg", ".cls"), str(label).encode())]
    assert members == expected
    # The last shards alone: the classes that are there.
    assert Dataset.from_tar(sorted((tmp_path / "out").glob("*.tar"))[-1:]).classes == ("b",)
    assert not (tmp_path / "out.packing").exists()
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".tar", ".pydt", ".json"}
    pack_tar(folder, tmp_path / "again", limit=1 << 20, workers=3)
    assert contents(tmp_path / "again") == shards
    assert pack_tar(folder, tmp_path / "out", limit=1 << 20).digest == made.digest, "a finished one is opened"
    with pytest.raises(DataError, match="made of other images or with other settings"):
        pack_tar(folder, tmp_path / "out", limit=2 << 20)
    assert pack_tar(tmp_path / "out", tmp_path / "larger").digest == made.digest, "shards of shards"
    assert len(contents(tmp_path / "larger")) == 1


def test_broken_off_it_continues(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_tar(folder, tmp_path / "whole", limit=1 << 20)
    out, part = tmp_path / "out", tmp_path / "out.packing"
    honest = packtar.write_shard
    written: list[str] = []

    def dying(*arguments: object) -> str:
        file = arguments[-1]
        assert isinstance(file, Path)
        if len(written) == 3:
            file.with_name(f".{file.name}.elsewhere-1-ab.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(file.name)
        return honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(packtar, "write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        pack_tar(folder, out, limit=1 << 20, workers=1)
    assert not out.exists()
    monkeypatch.setattr(packtar, "write_shard", lambda *given: (written.append(given[-1].name), honest(*given))[1])
    # One of the three is damaged, one gone; a line of the log is torn; a shard of another attempt lies about.
    shard = part / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"1")
    (part / "shard-000000.tar").unlink()
    with open(part / "done.jsonl", "ab") as log:
        log.write(b'{"at": 5, "of')
    (part / "shard-000099.tar").write_bytes(b"of another attempt")
    pack_tar(folder, out, limit=1 << 20, workers=1)
    assert written[3:] == [f"shard-{i:06d}.tar" for i in (0, 1, 3, 4, 5)]
    assert contents(out) == contents(tmp_path / "whole")
    assert not part.exists()


def test_files_that_change_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = packtar.shards_of

    def meddling(source: Dataset, *others: object) -> object:
        path = folder / "b" / "3.jpg"
        data = bytearray(path.read_bytes())
        data[5000] ^= 1
        path.write_bytes(data)
        return honest(source, *others)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(packtar, "shards_of", meddling)
        with pytest.raises(DataError, match="its bytes are not those that were indexed") as caught:
            pack_tar(folder, tmp_path / "out", limit=1 << 20)
    assert str(caught.value.where).endswith("b/3.jpg")
    assert pack_tar(folder, tmp_path / "out", limit=1 << 20).digest == Dataset.from_folder(folder).digest
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        pack_tar(folder, tmp_path / "file" / "out")
    (folder / "a" / "bad.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"bad\.jpg: empty image file"):
        pack_tar(folder, tmp_path / "skipped")
    assert dict(pack_tar(folder, tmp_path / "skipped", bad="skip").left_out) == {}
    assert json.loads((tmp_path / "skipped" / "pack.json").read_text())["left out"] == {"a/bad.jpg": "empty image file"}


def test_names_of_members() -> None:
    keys = ["v1.0/a.b.jpg", "c/x.jpg", "c/x.png", "d/.jpg", "__meta__/y.jpg", "c/ü ü.JPEG", "e.jpg"]
    made = ["v1.0/a_b.jpg", "c/x_jpg.jpg", "c/x_png.png", "d/_.jpg", "-__meta__/y.jpg", "c/ü ü.JPEG", "e.jpg"]
    assert member_names(keys) == made
    with pytest.raises(DataError, match=r"'a\.b\.jpg' and 'a_b\.jpg' would both be"):
        member_names(["a.b.jpg", "a_b.jpg"])


def test_odd_names_and_long_ones(tmp_path: Path) -> None:
    keys = ["x.y.jpg", "x.jpg", "x.png", "é" * 100 + ".jpg", "n" * 200 + ".jpg"]
    for i, key in enumerate(keys):
        (tmp_path / "in" / "ü 1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "ü 1" / key).write_bytes(tars.jpeg(i))
    made = pack_tar(tmp_path / "in", tmp_path / "out")
    source = Dataset.from_folder(tmp_path / "in")
    assert [v.tobytes() for v in made.bytes_of(range(5))] == [v.tobytes() for v in source.bytes_of(range(5))]
    assert made.classes == ("ü 1",)
    assert sorted(made.all_keys()) == sorted(f"ü 1/{name}" for name in member_names(keys))
    (tmp_path / "in" / "line\nbreak").mkdir()
    (tmp_path / "in" / "line\nbreak" / "1.jpg").write_bytes(tars.jpeg(1))
    with pytest.raises(DataError, match="holds a line break"):
        pack_tar(tmp_path / "in", tmp_path / "other")


def test_captions_and_units_come_along(tmp_path: Path) -> None:
    path = tars.write(tmp_path / "in.tar", tars.examples(range(5), cls="{i}", txt="t ü {i}", json='{"site": "s{i}"}'))
    made = pack_tar(path, tmp_path / "out")
    assert made.full_digest == Dataset.from_tar(path).full_digest
    assert list(made.captions or ()) == [f"t ü {i}" for i in range(5)]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(app, ["pack", str(folder), str(tmp_path / "out"), "--tar", "--limit", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("60 images of 2 classes in 3 shards: ")
    result = run(app, ["pack", str(folder), str(tmp_path / "one"), "--tar"])
    assert result.output.startswith("60 images of 2 classes in 1 shard: ")
    for wrong in ([], ["--tar", "--size", "8"]):
        result = run(app, ["pack", str(folder), str(tmp_path / "none"), *wrong])
        assert "choose one of --size and --tar" in str(result.exception)
    result = run(app, ["pack", str(tmp_path / "out"), str(tmp_path / "array"), "--size", "8"])
    assert result.exit_code == 0, result.output
    array = Dataset.open(tmp_path / "array")
    assert array.images is not None
    assert array.images.shape == (60, 8, 8, 3)
    assert list(array.all_keys()) == list(Dataset.from_folder(folder).all_keys())


def test_texts_beside_images_are_told_of_and_a_saved_data_set_brings_its_captions(folder: Path, tmp_path: Path) -> None:
    (folder / "a" / "7.txt").write_text("a caption, or a label")
    with pytest.warns(DataWarning, match=r"1 texts beside images are not taken as captions .*7\.txt"):
        assert pack_tar(folder, tmp_path / "plain").captions is None
    texts = {key: f"of {key}" for key in Dataset.from_folder(folder).all_keys()}
    Dataset.from_folder(folder, captions=texts).save(tmp_path / "saved")
    made = pack_tar(tmp_path / "saved", tmp_path / "shards")
    assert dict(zip(made.all_keys(), made.captions or (), strict=True)) == texts
    with pytest.raises(DataError, match=r"is a saved data set.*--tar"):
        pack(tmp_path / "saved", tmp_path / "array", 8)

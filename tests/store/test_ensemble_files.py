"""Files of masks and outputs, and the layouts in which ensembles were released."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pydt.base import DataError
from pydt.store.ensemble_files import read_array, read_entries
from pydt.store.layouts import LAYOUTS
from pydt.store.layouts.common import chosen, completed

VALUES = np.random.default_rng(0).normal(size=(7, 3))


def mapped(array: Any) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def test_every_format_gives_the_numbers_that_were_written(tmp_path: Path) -> None:
    half = VALUES.astype(np.float16)
    np.save(tmp_path / "a.npy", half)
    np.savez(tmp_path / "b.npz", first=half, second=np.asfortranarray(VALUES))
    np.savez_compressed(tmp_path / "c.npz", only=half)
    save_file({"x": half, "y": VALUES}, tmp_path / "d.safetensors")
    lines = "\n".join(",".join(map(repr, row)) for row in VALUES.tolist())
    (tmp_path / "e.csv").write_text(lines)
    (tmp_path / "f.csv").write_text("\ufeffu,v,w\r\n" + lines.replace("\n", "\r\n"))
    (tmp_path / "g.csv").write_text(",u,v,w\n" + "\n".join(f"{i},{line}" for i, line in enumerate(lines.split("\n"))))
    for place, key, expected in (
        ("a.npy", "a", half),
        ("b.npz::first", "first", half),
        ("b.npz::second", "second", VALUES),
        ("c.npz", "only", half),
        ("d.safetensors::x", "x", half),
        ("d.safetensors::y", "y", VALUES),
        ("e.csv", "e", VALUES),
        ("f.csv", "f", VALUES),
        ("g.csv", "g", VALUES),
    ):
        found = read_array(str(tmp_path / place))
        np.testing.assert_array_equal(found.array, expected)
        assert (found.array.dtype, found.key) == (expected.dtype, key)
        assert found.names == (("u", "v", "w") if place[0] in "fg" else None)
        assert mapped(found.array) == (place[0] in "ab")
    (tmp_path / "gap.csv").write_text("1,\n2,3\n")
    assert np.isnan(read_array(str(tmp_path / "gap.csv")).array[0, 1])
    (tmp_path / "names.txt").write_text("a b\nc,d\n")
    assert read_entries(tmp_path / "names.txt") == ["a b", "c,d"]


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=VALUES, b=VALUES)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    np.savez(tmp_path / "short.npz", a=VALUES)
    data = (tmp_path / "short.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(data.replace(b"(7, 3)", b"(9, 3)"))  # its CRC fails, or its size
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        header = str({"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**9)}).ljust(117) + "\n"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    (tmp_path / "words.csv").write_text("a,b\n1,x\n")
    (tmp_path / "head.csv").write_text("a,b\n")
    for name in ("model.pt", "model.pkl", "x.parquet", "bad.npz", "bad.safetensors", "bad.npy"):
        (tmp_path / name).write_bytes(b"nothing of this is run")
    for place, told in (
        ("two.npz", r"holds 2 arrays.*name one: .*two\.npz::a, .*two\.npz::b"),
        ("two.npz::c", "has no array 'c'.*::a"),
        ("objects.npz", "is a pickle of objects"),
        ("objects.npy", "pickle of objects"),
        ("short.npz", "no .npz of numbers"),
        ("huge.npz", "no .npz of numbers"),
        ("ragged.csv", "line 2 has 1 fields, not 2"),
        ("words.csv", "no CSV of numbers"),
        ("head.csv", "holds no numbers"),
        ("model.pt", r"is a pickle.*torch\.load\('model\.pt', map_location='cpu'\).*numpy\.savez\('model\.npz'"),
        ("model.pkl", r"is a pickle.*numpy\.load\('model\.pkl', allow_pickle=True\)"),
        ("x.parquet", "has the suffix '.parquet'"),
        ("bad.npz", "no .npz of numbers"),
        ("bad.safetensors", "no safetensors file of numbers"),
        ("bad.npy", "cannot be mapped as .npy"),
        ("gone.npy", "is not there"),
        ("two.npy::a", "is not there"),
    ):
        with pytest.raises(DataError, match=told):
            read_array(str(tmp_path / place))
    np.save(tmp_path / "one.npy", VALUES)
    with pytest.raises(DataError, match="holds one array, no 'a'"):
        read_array(f"{tmp_path / 'one.npy'}::a")


def test_released_layouts_say_units_names_and_which_rows_are_whole(tmp_path: Path) -> None:
    flags = np.array([1, 1, 0, 1, 1, 0, 1], bool)
    folder = tmp_path / "cifar10" / "full"
    folder.mkdir(parents=True)
    np.save(folder / "_completed.npy", flags)
    np.save(folder / "raw_margins.npy", VALUES.astype(np.float16))
    np.save(folder / "acc.npy", VALUES[:, 0].astype(np.float16))
    np.save(folder / "predictions.npy", np.ones((7, 3), np.int64))
    np.save(tmp_path / "train_masks.npy", np.ones((7, 1000), bool))
    masks = read_array(str(tmp_path / "train_masks.npy"))
    margins, acc, predictions = (
        read_array(str(folder / f"{kind}.npy")) for kind in ("raw_margins", "acc", "predictions")
    )
    transfer = LAYOUTS["data-transfer"]
    told = transfer.described(masks, margins)
    assert (told["unit"], told["scale"], told["higher_is_better"]) == ("margin units", 1.0, True)
    assert (told["by"], told["name"]) == ("class", "cifar10 full raw_margins")
    assert transfer.described(masks, acc)["unit"] == "points of accuracy"
    with pytest.raises(DataError, match="numbers of classes"):
        transfer.described(masks, predictions)
    with pytest.raises(DataError, match=r"no output of this layout.*raw_margins"):
        transfer.described(masks, masks)
    found = completed(margins)
    assert found is not None
    np.testing.assert_array_equal(found, flags)
    np.testing.assert_array_equal(chosen(margins.array, flags, "x"), VALUES.astype(np.float16)[flags])
    assert mapped(chosen(margins.array, np.arange(7) < 4, "x"))
    np.save(folder / "_completed.npy", flags[:5])
    with pytest.raises(DataError, match="a flag for each row"):
        completed(margins)

    np.save(tmp_path / "test_margins_50pct.npy", VALUES)
    np.save(tmp_path / "test_logits_50pct.npy", np.zeros((7, 3, 10), np.float16))
    released = LAYOUTS["datamodels"]
    outputs = read_array(str(tmp_path / "test_margins_50pct.npy"))
    assert released.described(masks, outputs)["by"] == "example"
    assert completed(outputs) is None
    with pytest.raises(DataError, match="one number for each example"):
        released.described(masks, read_array(str(tmp_path / "test_logits_50pct.npy")))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("head", ["run,a,b\n", ""])
def test_a_column_that_numbers_the_rows_is_left_out(tmp_path: Path, first: int, head: str) -> None:
    lines = "".join(f"{first + i},{bool(i % 2)},{i % 3 == 0}\n" for i in range(5))
    (tmp_path / "masks.csv").write_text(head + lines)
    read = read_array(str(tmp_path / "masks.csv"))
    assert read.array.tolist() == [[float(i % 2), float(i % 3 == 0)] for i in range(5)]
    assert read.names == (("a", "b") if head else None)
    (tmp_path / "other.csv").write_text("1,0\n0,1\n1,1\n")
    assert read_array(str(tmp_path / "other.csv")).array.shape == (3, 2)

"""`Dataset.bytes_of`: what is handed to a decoder is what lies in the files."""

from __future__ import annotations

import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest

from pydt.base import DataError, StoreError
from pydt.data import Dataset
from pydt.data.packing import pack_tar


def test_bytes_of_files_are_the_files(folder_of_images: Path) -> None:
    dataset = Dataset.from_folder(folder_of_images)
    before = os.listdir("/proc/self/fd")
    part = dataset.sample(5, seed=1)
    for data in (dataset, part, pickle.loads(pickle.dumps(dataset)), Dataset.open(folder_of_images)):
        ids = np.array([len(data) - 1, 0, 2, 0])
        views = data.bytes_of(ids, check=True)
        assert [view.tobytes() for view in views] == [Path(data.place_of(i)).read_bytes() for i in ids]
        assert all(view.dtype == np.uint8 and view.ndim == 1 and not view.flags.writeable for view in views)
    assert len({id(view.base) for view in dataset.bytes_of(range(4))}) == 1, "one buffer a batch"
    assert dataset.bytes_of([]) == []
    assert os.listdir("/proc/self/fd") == before, "nothing stays open"


def test_bytes_of_files_that_changed(folder_of_images: Path) -> None:
    dataset = Dataset.from_folder(folder_of_images)
    path = Path(dataset.place_of(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert len(dataset.bytes_of([3])[0]) == len(whole), "bytes are compared by choice"
    with pytest.raises(DataError, match=r"not those that were indexed\. restore") as caught:
        dataset.bytes_of([0, 3], check=True)
    assert caught.value.where == str(path)
    for change, what in [
        (lambda: path.write_bytes(whole[:-1]), "another length"),
        (lambda: path.write_bytes(whole + b"1"), "another length"),
        (lambda: path.write_bytes(b"x" * len(whole)), "is no JPEG"),
        (path.unlink, "No such file"),
        (lambda: os.mkfifo(path), "no regular file"),
    ]:
        change()
        with pytest.raises(DataError, match=what) as caught:
            dataset.bytes_of([0, 3])
        assert caught.value.where == str(path)


def test_bytes_of_refuses(folder_of_images: Path) -> None:
    dataset = Dataset.from_folder(folder_of_images)
    for ids, what in [([len(dataset)], "example id"), ([-1], "example id -1"), ([0.5], "float64"), ([[0]], "shape")]:
        with pytest.raises(DataError, match=what):
            dataset.bytes_of(ids)
    with pytest.raises(DataError, match="are pixels, not files"):
        Dataset.from_arrays(np.zeros((2, 3, 3), np.uint8), [0, 1]).bytes_of([0])


def test_too_many_open_files_are_no_fault_of_an_image(folder_of_images: Path, tmp_path: Path) -> None:
    files = Dataset.from_folder(folder_of_images)
    shards = Dataset.open(pack_tar(folder_of_images, tmp_path / "tar").save(tmp_path / "saved").folder or "")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, most[1]))
        for dataset in (files, shards):
            with pytest.raises(StoreError, match=r"Too many open files.*ulimit"):
                dataset.bytes_of([0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert len(files.bytes_of([0])[0]) == len(shards.bytes_of([0])[0])

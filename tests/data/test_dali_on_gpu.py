"""The pipeline for a GPU, as DALI accepts and serialises it without one: operators, where each runs, what each is told.

What an operator computes on a GPU is not seen here. A pipeline is serialised as a protobuf message; `fields` reads its
wire format, whose numbers of fields are those of DALI's messages PipelineDef, OpDef, InputOutput and Argument.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from pydt.data.loading import Augment
from pydt.data.loading.dali import Batch, Engine, Settings, feeds, graph

pytest.importorskip("nvidia.dali")

BUSY = Augment(
    **{"size": 32, "flip": True, "jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.1, 2.0), "solarize": 0.2, "erase": 0.5}
)
RAMP = Augment(size=32, ramp=((0, 16), (2, 24)), randaugment=(2, 9))
SOURCE = "ExternalSource"


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field; texts and messages as bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        length = varint() if key & 7 == 2 else 4
        value = message[place : place + length]
        place += length
        yield key >> 3, value if key & 7 == 2 else struct.unpack("<f", value)[0]


@dataclass
class Operator:
    """One operator; inputs and arguments from other operators by name and device, arguments by their values."""

    name: str
    inputs: list[str]
    outputs: list[str]
    fed: dict[str, str]
    told: dict[str, Any]


@cache
def operators(
    augment: Augment, train: bool = True, device: str = "cuda:1", dtype: torch.dtype = torch.float32
) -> list[Operator]:
    from nvidia.dali.pipeline import pipeline_def

    settings = Settings(augment, train, 8, torch.device(device), dtype, False, 1)
    ids, sizes = np.arange(4), np.full((4, 2), 60, np.int32)
    batch = Batch([], feeds(augment, train, 0, 0, 0, ids, sizes))
    splits = augment.randaugment is not None
    made = pipeline_def(graph, enable_conditionals=splits)(
        settings, batch, batch_size=8, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_dynamic=True
    )
    found = []
    for number, message in fields(made.serialize()):
        if number != 5:
            continue
        one = Operator("", [], [], {}, {})
        for place, value in fields(message):
            if place == 1:
                one.name = value.decode()
            elif place in (2, 3):
                link = dict(fields(value))
                if link.get(3):
                    one.fed[link[4].decode()] = link[2].decode()
                else:
                    (one.inputs if place == 2 else one.outputs).append(link[2].decode())
            elif place == 4:
                argument = dict(fields(value))
                kind = argument[2].decode()
                slot = {"string": 5, "bool": 6, "int64": 4, "float": 3}.get(kind)
                one.told[argument[1].decode()] = argument.get(slot, b"") if slot else None
        found.append(one)
    return found


CASES = [
    (Augment(size=32, flip=True), True),
    (BUSY, True),
    (RAMP, True),
    (BUSY, False),
    (Augment(size=32, resize=40, interpolation="bicubic"), False),
]


@pytest.mark.parametrize(("augment", "train"), CASES)
def test_files_and_numbers_stay_on_the_cpu_and_pixels_on_the_gpu(augment: Augment, train: bool) -> None:
    found = operators(augment, train)
    for one in found:
        assert set(one.fed.values()) <= {"cpu"}, one.name  # DALI's arguments per image lie on the CPU
        if one.name == SOURCE:
            assert one.outputs == ["cpu"]
            assert one.told["no_copy"] == 1
    images = [one for one in found if one.told.get("_display_name") in (b"image", b"image_slice")]
    assert [one.told["device"] for one in images] == [b"mixed"]
    assert images[0].inputs == ["cpu"]
    assert images[0].outputs == ["gpu"]
    for name in ("Resize", "ColorTwist", "GaussianBlur", "Erase", "CropMirrorNormalize", "Cast"):
        assert all(one.told["device"] == b"gpu" for one in found if one.name == name)
    assert found[-1].outputs == ["gpu"]


@pytest.mark.parametrize(("augment", "train"), CASES)
def test_every_image_is_decoded_by_one_decoder_and_not_turned(augment: Augment, train: bool) -> None:
    (decoder,) = (one for one in operators(augment, train) if one.name.startswith("decoders__"))
    assert decoder.name == ("decoders__ImageSlice" if train else "decoders__Image")
    assert decoder.told["hw_decoder_load"] == 0  # or what decodes an image depended on the others of its batch
    assert decoder.told["affine"] == 0
    assert decoder.told["adjust_orientation"] == 0
    assert decoder.told["jpeg_fancy_upsampling"] == 1
    assert set(decoder.fed) == ({"start", "shape"} if train else set())


def test_augmentations_and_their_thresholds_are_on_the_gpu() -> None:
    found = operators(BUSY)
    assert {"ColorTwist", "GaussianBlur", "Erase"} <= {one.name for one in found}
    assert [one.inputs for one in found if one.name == "_ArithmeticGenericOp"] == [["gpu", "gpu"], ["gpu"], ["gpu"] * 2]


def test_a_pipeline_for_the_cpu_is_told_nothing_of_it() -> None:
    (decoder,) = (one for one in operators(BUSY, device="cpu") if one.name.startswith("decoders__"))
    assert decoder.told["device"] == b"cpu"
    assert not {"hw_decoder_load", "affine", "jpeg_fancy_upsampling"} & set(decoder.told)


def test_half_precision_is_made_by_dali_and_bfloat16_of_float32() -> None:
    from nvidia.dali import types

    for dtype, kind in ((torch.float16, types.FLOAT16), (torch.bfloat16, types.FLOAT), (torch.float32, types.FLOAT)):
        (last,) = (one for one in operators(BUSY, dtype=dtype) if one.name == "CropMirrorNormalize")
        assert last.told["dtype"] == int(kind)


@pytest.mark.parametrize(
    "text", ["Can't allocate 4096 bytes on device 0.", "Error in thread 0: CUDA allocation failed"]
)
def test_a_gpu_without_memory_is_not_the_fault_of_an_image(text: str) -> None:
    class Full:
        def run(self, stream: Any) -> Any:
            raise RuntimeError(f"Critical error in pipeline: {text}")

    engine = Engine(Settings(BUSY, True, 8, torch.device("cpu"), torch.float32, False, 1))
    engine.pipeline = Full()  # type: ignore[assignment]
    with pytest.raises(torch.OutOfMemoryError, match="Critical error"):
        engine.run([], {})

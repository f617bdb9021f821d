"""Raw images against other loaders, and what an index costs: `python bench/loader.py [PART ...] --json FILE`.

50,000 images of 32 x 32 x 3, batches of 512: crop with 4 pixels of padding + flip + normalise, one thread each. Both
sides of a case run in this process, in turns, and the median of the repeats counts: seconds of processor time, all
threads together, per 50,000 images (other jobs of the machine disturb that least); starts are elapsed seconds. What a
loader returns is checked before it is timed: images must be one of the 162 crops and mirror images of the example whose
number comes with them. The part `index`: 40,000 files of some 400 bytes in 100 folders, warm cache, elapsed seconds.
Loaders that are not installed are left out with a message; FFCV is installed by
`apt install libopencv-dev libturbojpeg0-dev pkg-config` and `pip install --no-build-isolation ffcv==1.0.2`.
More than 500 lines: every peer has files and a check of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from pydt import _core
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader

COUNT, SIDE, PAD, BATCH = 50_000, 32, 4, 512
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
AUGMENT = Augment(crop_pad=PAD, flip=True, mean=MEAN, std=STD)
# (images (B, C, H, W), numbers of their examples (B,))
Stream = Iterator[tuple[torch.Tensor, np.ndarray]]
Epoch = Callable[[np.ndarray], Stream]
Case = dict[str, Any]


def data() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)


def masks() -> dict[str, np.ndarray]:
    """Ids that each mask keeps: all, half of 100 classes, a twentieth of the examples."""
    rng = np.random.default_rng(1)
    labels = np.arange(COUNT) % 100
    half = np.isin(labels, rng.choice(100, 50, replace=False))
    return {
        "full": np.arange(COUNT),
        "50 % of the classes": np.flatnonzero(half),
        "5 % of the examples": np.flatnonzero(rng.random(COUNT) < 0.05),
    }


# ---- loaders --------------------------------------------------------------------------------------------------------
def ours(images: np.ndarray, **how: Any) -> Epoch:
    dataset = Dataset.from_arrays(images, np.arange(COUNT) % 100)

    def epoch(ids: np.ndarray) -> Stream:
        for batch in Loader(dataset, ids, BATCH, augment=AUGMENT, **how):
            yield batch.images, batch.index.numpy()

    return epoch


def shuffled(ids: np.ndarray) -> Iterator[np.ndarray]:
    order = np.random.default_rng(2).permutation(ids)
    return (order[i : i + BATCH] for i in range(0, len(order), BATCH))


def torch_index_select(images: np.ndarray, channels_last: bool = False) -> Epoch:
    """One index_select over the pixels of images padded beforehand."""
    padded = torch.nn.functional.pad(torch.from_numpy(images), (0, 0, PAD, PAD, PAD, PAD))
    wide = SIDE + 2 * PAD
    pixels = padded.reshape(-1, 3)
    scale, bias = 1 / (255 * torch.tensor(STD)), -torch.tensor(MEAN) / torch.tensor(STD)
    at = torch.arange(SIDE)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def epoch(ids: np.ndarray) -> Stream:
        for numbers in shuffled(ids):
            n = len(numbers)
            top, left = torch.randint(0, 2 * PAD + 1, (2, n))
            column = torch.where(torch.rand(n, 1) < 0.5, SIDE - 1 - at, at) + left[:, None]
            row = (torch.from_numpy(numbers) * wide + top)[:, None] + at
            flat = (row[:, :, None] * wide + column[:, None, :]).reshape(-1)
            batch = pixels.index_select(0, flat).reshape(n, SIDE, SIDE, 3).float().mul_(scale).add_(bias)
            yield batch.permute(0, 3, 1, 2).contiguous(memory_format=layout), numbers

    return epoch


def grouped_shifts(images: np.ndarray, dtype: torch.dtype) -> Epoch:
    """As the record trainings on CIFAR do: the whole set normalised and padded beforehand in the type of the batch,
    then one copy for each row shift and one for each column shift."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    plain = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    black = (-mean / std).to(dtype)
    padded = black.expand(COUNT, 3, SIDE + 2 * PAD, SIDE + 2 * PAD).clone()
    padded[:, :, PAD:-PAD, PAD:-PAD] = plain.to(dtype)
    del plain

    def epoch(ids: np.ndarray) -> Stream:
        for numbers in shuffled(ids):
            batch = padded[torch.from_numpy(numbers)]
            n = len(batch)
            top, left = torch.randint(0, 2 * PAD + 1, (2, n))
            rows = torch.empty((n, 3, SIDE, SIDE + 2 * PAD), dtype=dtype)
            out = torch.empty((n, 3, SIDE, SIDE), dtype=dtype)
            for shift in range(2 * PAD + 1):
                chosen = top == shift
                rows[chosen] = batch[chosen][:, :, shift : shift + SIDE]
            for shift in range(2 * PAD + 1):
                chosen = left == shift
                out[chosen] = rows[chosen][:, :, :, shift : shift + SIDE]
            yield torch.where((torch.rand(n) < 0.5)[:, None, None, None], out.flip(-1), out), numbers

    return epoch


class _Examples(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, images: np.ndarray, ids: np.ndarray) -> None:
        from torchvision.transforms import v2

        self.images, self.ids = torch.from_numpy(images), ids
        self.transform = v2.Compose(
            [
                v2.RandomCrop(SIDE, padding=PAD),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        number = int(self.ids[at])
        return self.transform(self.images[number].permute(2, 0, 1)), number


def torchvision_loader(images: np.ndarray) -> Epoch:
    def epoch(ids: np.ndarray) -> Stream:
        for batch, numbers in torch.utils.data.DataLoader(_Examples(images, ids), BATCH, shuffle=True):
            yield batch, numbers.numpy()

    return epoch


def dali_loader(images: np.ndarray) -> Epoch:
    """external_source with batches gathered by numpy."""
    from nvidia.dali import fn, pipeline_def, types

    here: dict[str, np.ndarray] = {}

    @pipeline_def(
        batch_size=BATCH,
        num_threads=1,
        device_id=None,
        prefetch_queue_depth=1,
        exec_async=False,
        exec_pipelined=False,
    )
    def pipeline() -> Any:
        pixels = fn.external_source(lambda: here["images"], batch=True, layout="HWC", dtype=types.UINT8)
        anchor = fn.random.uniform(values=[float(v) for v in range(-PAD, PAD + 1)], shape=(2,))
        start = fn.cast(anchor, dtype=types.INT32)
        cropped = fn.slice(
            pixels, start=start, shape=(SIDE, SIDE), axis_names="HW", out_of_bounds_policy="pad", fill_values=0
        )
        return fn.crop_mirror_normalize(
            cropped,
            dtype=types.FLOAT,
            output_layout="CHW",
            mirror=fn.random.coin_flip(),
            mean=[m * 255 for m in MEAN],
            std=[s * 255 for s in STD],
        )

    pipe = pipeline()
    pipe.build()

    def epoch(ids: np.ndarray) -> Stream:
        for numbers in shuffled(ids):
            here["images"] = images[numbers]
            (out,) = pipe.run()
            yield torch.from_dlpack(out.as_tensor()), numbers

    return epoch


def _write_beton(images: np.ndarray, path: str) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    class Numbered:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, at: int) -> tuple[np.ndarray, int]:
            return images[at], at

    fields = {"image": RGBImageField(write_mode="raw"), "number": IntField()}
    DatasetWriter(path, fields, num_workers=1).from_indexed_dataset(Numbered())


def ffcv_loader(path: str, own_normalise: bool = False) -> Epoch:
    """With torch's conversion to float32 NCHW, or with its own NormalizeImage, channels_last."""
    import torchvision
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader as Peer
    from ffcv.loader import OrderOption
    from ffcv.transforms import Convert, NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage

    mean, std = np.array(MEAN) * 255, np.array(STD) * 255

    def epoch(ids: np.ndarray) -> Stream:
        steps = [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(padding=PAD)]
        if own_normalise:
            steps += [NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage(convert_back_int16=False)]
        else:
            steps += [ToTensor(), ToTorchImage(channels_last=False), Convert(torch.float32)]
            steps += [torchvision.transforms.Normalize(mean.tolist(), std.tolist())]
        key = (own_normalise, len(ids))
        if key not in made:
            made[key] = Peer(
                path,
                batch_size=BATCH,
                num_workers=1,
                order=OrderOption.RANDOM,
                os_cache=True,
                indices=ids,
                drop_last=False,
                pipelines={"image": steps, "number": [IntDecoder(), ToTensor()]},
            )
        for batch, numbers in made[key]:
            yield batch, numbers[:, 0].numpy()

    made: dict[tuple[bool, int], Any] = {}
    return epoch


# ---- checks and times -----------------------------------------------------------------------------------------------
def check(epoch: Epoch, images: np.ndarray, ids: np.ndarray) -> None:
    """Some images of the first batch against all crops of their examples."""
    batch, numbers = next(epoch(ids))
    tolerance = {4: 1e-4, 2: 0.03}[batch.element_size()]
    assert batch.shape[1:] == (3, SIDE, SIDE)
    assert np.isin(numbers, ids).all()
    for image, number in list(zip(batch.float().numpy(), numbers, strict=True))[:8]:
        padded = np.pad(images[number], ((PAD, PAD), (PAD, PAD), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), (0, 1)) / 255
        normal = (windows - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
        distance = min(abs(normal[..., ::step] - image).max(axis=(2, 3, 4)).min() for step in (1, -1))
        assert distance < tolerance, f"example {number} is off by {distance}"


def seconds(epoch: Epoch, ids: np.ndarray, most: int) -> float:
    """Per COUNT images, of an epoch or of its first `most` images."""
    done = 0
    start = time.process_time()
    for _, numbers in epoch(ids):
        done += len(numbers)
        if done >= most:
            break
    return (time.process_time() - start) * COUNT / done


def case(name: str, ours_s: list[float], peer: str, peer_s: list[float], checked: bool = True) -> Case:
    a, b = statistics.median(ours_s), statistics.median(peer_s)
    spread = [f"({min(times):.4f}-{max(times):.4f})" for times in (ours_s, peer_s)]
    print(f"{name:<44} {a:9.4f} {spread[0]:<17} {peer:<34} {b:9.4f} {spread[1]:<19} {b / a:7.2f}x", flush=True)
    return {"case": name, "ours_s": a, "peer": peer, "peer_s": b, "ratio": b / a, "checked": checked}


def in_turns(calls: list[Callable[[], float]], repeats: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for into, call in zip(times, calls, strict=True):
            value = call()
            if turn:  # the first turn warms caches
                into.append(value)
    return times


def rates(images: np.ndarray, beton: str | None, repeats: int) -> list[Case]:
    f32, last = ours(images), ours(images, channels_last=True)
    f16, bf16 = ours(images, dtype=torch.float16), ours(images, dtype=torch.bfloat16)
    some = 4 * BATCH  # of the slow ones
    peers: list[tuple[str, Callable[[], Epoch], str, Epoch, int]] = [
        ("torch index_select", lambda: torch_index_select(images), "f32 NCHW", f32, 10 * BATCH),
        ("torch index_select", lambda: torch_index_select(images, True), "f32 channels_last", last, 10 * BATCH),
        ("torchvision v2 + DataLoader", lambda: torchvision_loader(images), "f32 NCHW", f32, some),
        ("DALI external_source", lambda: dali_loader(images), "f32 NCHW", f32, 10 * BATCH),
        ("torch grouped shifts f16", lambda: grouped_shifts(images, torch.float16), "f16 NCHW", f16, some),
        ("torch grouped shifts f16", lambda: grouped_shifts(images, torch.float16), "bf16 NCHW", bf16, some),
    ]
    if beton is not None:
        path = beton
        peers += [
            ("FFCV, torch's conversion", lambda: ffcv_loader(path), "f32 NCHW", f32, COUNT),
            ("FFCV NormalizeImage", lambda: ffcv_loader(path, True), "f32 channels_last", last, COUNT),
        ]
    cases = []
    for title, make, kind, own, most in peers:
        if title.startswith("DALI") and importlib.util.find_spec("nvidia.dali") is None:
            print("DALI is not installed: left out")
            continue
        peer = make()
        for name, ids in masks().items():
            if name != "full" and kind != "f32 NCHW":
                continue
            check(own, images, ids)
            check(peer, images, ids)
            mine, theirs = in_turns(
                [lambda i=ids, e=own: seconds(e, i, COUNT), lambda i=ids, e=peer, m=most: seconds(e, i, m)], repeats
            )
            cases.append(case(f"{kind}, {name}", mine, title, theirs))
        del peer
    order = np.random.default_rng(3).permutation(COUNT)
    flat, block = images.reshape(COUNT, -1), np.empty((BATCH, SIDE * SIDE * 3), np.uint8)

    def copy_all() -> float:
        start = time.process_time()
        for at in range(0, COUNT - BATCH, BATCH):
            np.take(flat, order[at : at + BATCH], axis=0, out=block, mode="clip")
        return (time.process_time() - start) * COUNT / (at + BATCH)

    everything = masks()
    own_times = in_turns(
        [copy_all, *(lambda i=i: seconds(f32, i, COUNT) for i in everything.values())], max(repeats, 9)
    )
    cases.append(case("f32 NCHW, full", own_times[1], "memcpy of the same bytes", own_times[0]))
    for name, times in list(zip(everything, own_times[1:], strict=True))[1:]:
        cases.append(case(f"f32 NCHW, {name}", times, "ours, full", own_times[1]))
    return cases


def starts(images: np.ndarray, beton: str | None, repeats: int) -> list[Case]:
    rng = np.random.default_rng(4)

    def first(make: Callable[[np.ndarray], Iterator[Any]], count: int = COUNT) -> float:
        keep = rng.random(count) < 0.5
        start = time.perf_counter()  # elapsed: others start in threads of their own
        next(make(keep))
        return time.perf_counter() - start

    small = Dataset.from_arrays(images, np.arange(COUNT) % 100)
    many = 1_281_167
    large = Dataset.from_arrays(np.zeros((many, 8, 8, 3), np.uint8), np.arange(many) % 1000)
    loader = Loader(small, None, BATCH, augment=AUGMENT)

    def restart() -> float:
        loader.set_epoch(loader.state_dict()["epoch"] + 1)
        return first(lambda _: iter(loader))

    def new(dataset: Dataset, whole: bool = False) -> Callable[[np.ndarray], Iterator[Any]]:
        return lambda keep: iter(Loader(dataset, keep | whole, BATCH, augment=AUGMENT))

    peers = {
        "torchvision v2 + DataLoader": lambda keep: iter(
            torch.utils.data.DataLoader(_Examples(images, np.flatnonzero(keep)), BATCH, shuffle=True)
        )
    }
    if beton is not None:
        path = beton
        peers["FFCV"] = lambda keep: ffcv_loader(path)(np.flatnonzero(keep))
    cases = []
    for title, make in peers.items():
        mine, theirs = in_turns([lambda: first(new(small)), lambda m=make: first(m)], repeats)
        cases.append(case("new mask to first batch, 50,000", mine, title, theirs))
    everything = np.ones(COUNT, bool)
    kept = torch.utils.data.DataLoader(_Examples(images, np.arange(COUNT)), BATCH, shuffle=True)
    restarts: dict[str, Callable[[np.ndarray], Iterator[Any]]] = {"torchvision v2 + DataLoader": lambda _: iter(kept)}
    if beton is not None:
        again = ffcv_loader(beton)
        restarts["FFCV"] = lambda _: again(np.flatnonzero(everything))
    for title, make in restarts.items():
        mine, theirs = in_turns([restart, lambda m=make: first(m)], repeats)
        cases.append(case("new epoch to first batch, 50,000", mine, title, theirs))
    half, whole = in_turns([lambda: first(new(large), many), lambda: first(new(large, True), many)], repeats)
    cases.append(case("new mask to first batch, half of 1,281,167", half, "target", [0.150]))
    cases.append(case("new mask to first batch, all of 1,281,167", whole, "target", [0.150]))
    return cases


# ---- memory: in processes of their own ------------------------------------------------------------------------------
def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def one_process(what: str, beton: str) -> None:
    """Prints the peak of memory in MB over three epochs, and how much of it came after importing torch; the images lie
    in a file that is mapped. Or, of 1,000 loaders that are made and broken off, the growth in MB and threads left."""
    imported = resident_mb()
    torch.set_num_threads(2 if what == "thousand" else 1)
    images = np.load(Path(beton).with_suffix(".npy"), mmap_mode="r")
    if what == "thousand":
        dataset = Dataset.from_arrays(images, np.arange(COUNT) % 100)
        rng = np.random.default_rng(0)
        for turn in range(1000):
            if turn == 20:
                start, threads = resident_mb(), len(os.listdir("/proc/self/task"))
            stream = iter(Loader(dataset, rng.random(COUNT) < 0.5, BATCH, augment=AUGMENT))
            next(stream)
            next(stream)
        # pages of the mapped file that were touched meanwhile are no growth of ours: all were touched before
        print(resident_mb() - start, len(os.listdir("/proc/self/task")) - threads)
        return
    epoch = ours(images) if what == "ours" else ffcv_loader(beton)
    for _ in range(3):
        for _ in epoch(np.arange(COUNT)):
            pass
    print(peak_mb(), peak_mb() - imported)


def memory(beton: str, with_ffcv: bool) -> list[Case]:
    def run(what: str) -> tuple[float, float]:
        command = [sys.executable, __file__, "--process", what, "--file", beton]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = done.stdout.split()[-2:]
        return float(first), float(second)

    cases = []
    own, above = run("ours")
    if with_ffcv:
        peer, peer_above = run("ffcv")
        cases.append(case("peak resident memory, MB", [own], "FFCV", [peer]))
        cases.append(case("the same above importing torch, MB", [above], "FFCV", [peer_above]))
    else:
        print(f"peak resident memory: {own:.0f} MB, of it {above:.0f} after importing torch")
    growth, threads = run("thousand")
    assert threads <= 0, f"{threads} threads are left"
    cases.append(case("1,000 loaders: growth in MB", [max(growth, 0.1)], "target", [20.0]))
    return cases


# ---- the index of a folder ------------------------------------------------------------------------------------------
def indexing(folder: Path, repeats: int) -> list[Case]:
    import hashlib
    import io

    from PIL import Image

    files, classes = 40_000, 100
    rng = np.random.default_rng(5)
    for number in range(files):
        place = folder / f"class {number % classes:02d}" / f"{number:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (18, 18), np.uint8)).save(picture, "PNG", compress_level=0)
        place.write_bytes(picture.getvalue())

    def index() -> float:
        (folder / "index.pydt").unlink(missing_ok=True)
        start = time.perf_counter()
        made = Dataset.from_folder(folder)
        took = time.perf_counter() - start
        assert len(made) == files
        assert made.labels[-1] == classes - 1
        return took

    def again() -> float:
        start = time.perf_counter()
        assert len(Dataset.from_folder(folder)) == files
        return time.perf_counter() - start

    def plain() -> float:
        start = time.perf_counter()
        names = [Path(at, name) for at, _, found in os.walk(folder) for name in found if name.endswith(".png")]
        sums = [hashlib.sha256(name.read_bytes()).digest() for name in names]
        assert len(sums) == files
        return time.perf_counter() - start

    first, loop = in_turns([index, plain], repeats)
    second, _ = in_turns([again, lambda: 0.0], repeats)
    title = "index of 40,000 small files"
    print(f"{title}: {files / statistics.median(first):,.0f} files a second")
    return [
        case(title, first, "target", [2.0]),
        case(title, first, "walk, read and SHA-256 in Python", loop),
        case(f"{title}, unchanged", second, "the first time", first),
    ]


PARTS = ("rates", "starts", "memory", "index")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--process", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        one_process(options.process, options.file)
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = options.parts or PARTS
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {_core.isa()}, numpy {np.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        cases = indexing(Path(folder) / "small files", options.repeats) if "index" in parts else []
        if set(parts) - {"index"}:
            images, file = data(), str(Path(folder) / "images.beton")
            np.save(Path(folder) / "images.npy", images)
            beton = None
            if importlib.util.find_spec("ffcv") is None:
                print("FFCV is not installed (see --help): left out")
            else:
                # its writer does not always end, though the file is complete
                writer = multiprocessing.get_context("fork").Process(target=_write_beton, args=(images, file))
                writer.start()
                writer.join(120)
                if writer.is_alive():
                    writer.kill()
                if Path(file).is_file():
                    beton = file
            cases += rates(images, beton, options.repeats) if "rates" in parts else []
            cases += starts(images, beton, options.repeats) if "starts" in parts else []
            cases += memory(file, beton is not None) if "memory" in parts else []
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

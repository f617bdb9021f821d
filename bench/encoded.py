"""JPEGs through DALI against other loaders: `python bench/encoded.py [PART ...] --json FILE`.

800 JPEGs in 20 classes, 300 to 500 pixels a side, quality 85 to 92, cut from the two photographs that scikit-learn
ships, turned, coloured and with sensor noise, are made first: as files and, by `pack_tar`, as shards. Batches of 64 at
224 x 224: random resized crop, flip, normalise, antialiased, on one thread each. Both sides run in this process, in
turns; seconds of processor time, all threads together, per 1,000 images, medians of the repeats. Evaluation is checked
against torchvision's, and labels against the images' names, before anything is timed. Memory is that of processes of
their own.

Peers that are not installed are left out with a message: `pip install webdataset`; FFCV as `bench/loader.py` says.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
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
from PIL import Image

from pydt import _core
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader
from pydt.data.packing import pack_tar

COUNT, CLASSES, BATCH, SIDE = 800, 20, 64, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = Augment(flip=True, mean=MEAN, std=STD)
Case = dict[str, Any]
# One epoch of the kept examples: (images, labels) batch by batch.
Epoch = Callable[[], Iterator[tuple[torch.Tensor, Any]]]


# ---- data -----------------------------------------------------------------------------------------------------------
def photographs(folder: Path) -> None:
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    scenes = [Image.fromarray(scene) for scene in load_sample_images().images]
    for number in range(COUNT):
        scene = scenes[number % 2].rotate(float(random.uniform(-8, 8)), Image.Resampling.BILINEAR)
        size = tuple(int(v) for v in random.integers(300, 501, 2))
        share = random.uniform(0.5, 0.9, 2)
        corner = random.uniform(0, 1, 2) * (1 - share) * scene.size
        box = (*corner.tolist(), *(corner + share * scene.size).tolist())
        image = np.asarray(scene.resize(size, Image.Resampling.LANCZOS, box), np.float64)
        image = image * random.uniform(0.8, 1.2, 3) + random.normal(0, 1.2, image.shape)
        place = folder / f"class {number % CLASSES:02d}"
        place.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        quality = int(random.integers(85, 93))
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        (place / f"{number:04d}.jpg").write_bytes(file.getvalue())


def masks(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Ids that each mask keeps: all, half of the classes, a twentieth of the examples."""
    random = np.random.default_rng(1)
    return {
        "full": np.arange(COUNT),
        "50 % of the classes": np.flatnonzero(np.isin(labels, random.choice(CLASSES, CLASSES // 2, replace=False))),
        "5 % of the examples": np.sort(random.choice(COUNT, COUNT // 20, replace=False)),
    }


# ---- loaders --------------------------------------------------------------------------------------------------------
def ours(dataset: Dataset, ids: np.ndarray) -> Epoch:
    loader = Loader(dataset, ids, BATCH, augment=AUGMENT)

    def epoch() -> Iterator[tuple[torch.Tensor, Any]]:
        loader.set_epoch(loader.state_dict()["epoch"] + 1)
        for batch in loader:
            yield batch.images, batch.labels

    return epoch


def _pipeline(graph: Callable[[Any, Any], Any]) -> Any:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    made = Pipeline(BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_dynamic=True)
    with made:
        made.set_outputs(*graph(fn, types))
    made.build()
    return made


def readers_file(dataset: Dataset, ids: np.ndarray) -> Epoch:
    """DALI's own reader of files, given the list of what is kept."""
    files, labels = [dataset.place_of(i) for i in ids.tolist()], dataset.labels[ids].tolist()

    def graph(fn: Any, types: Any) -> Any:
        data, label = fn.readers.file(files=files, labels=labels, random_shuffle=True, initial_fill=256)
        images = fn.decoders.image_random_crop(data, device="cpu", output_type=types.RGB, adjust_orientation=False)
        images = fn.resize(images, size=[SIDE, SIDE], antialias=True)
        mean, std = [255 * m for m in MEAN], [255 * s for s in STD]
        mirror = fn.random.coin_flip()
        return fn.crop_mirror_normalize(
            images, mirror=mirror, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std
        ), label

    pipeline = _pipeline(graph)

    def epoch() -> Iterator[tuple[torch.Tensor, Any]]:
        for _ in range(len(ids) // BATCH or 1):
            images, label = pipeline.run()
            yield torch.from_dlpack(images.as_tensor()), torch.from_dlpack(label.as_tensor())[:, 0]

    return epoch


def _transform() -> Any:
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def torchvision_loader(dataset: Dataset, ids: np.ndarray) -> Epoch:
    from torchvision.datasets import ImageFolder

    root = Path(dataset.place_of(0)).parent.parent
    part = torch.utils.data.Subset(ImageFolder(root, _transform()), ids.tolist())
    return lambda: iter(torch.utils.data.DataLoader(part, BATCH, shuffle=True))


def webdataset_loader(shards: list[str], ids: np.ndarray, keys: list[str]) -> Epoch:
    import webdataset

    kept, transform = {os.path.splitext(keys[i])[0] for i in ids.tolist()}, _transform()

    def prepared(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
        with Image.open(io.BytesIO(sample["jpg"])) as image:
            return transform(image.convert("RGB")), int(sample["cls"])

    def epoch() -> Iterator[tuple[torch.Tensor, Any]]:
        samples = webdataset.WebDataset(shards, shardshuffle=False).select(lambda s: s["__key__"] in kept).shuffle(256)
        batch: list[tuple[torch.Tensor, int]] = []
        for sample in samples.map(prepared):
            batch.append(sample)
            if len(batch) == BATCH:
                yield torch.stack([image for image, _ in batch]), torch.tensor([label for _, label in batch])
                batch = []
        if batch:
            yield torch.stack([image for image, _ in batch]), torch.tensor([label for _, label in batch])

    return epoch


# ---- checks and times -----------------------------------------------------------------------------------------------
def check(dataset: Dataset) -> None:
    """Evaluation within 1/255 of torchvision's; labels are those of the names."""
    from torchvision.transforms import v2

    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    batch = next(iter(Loader(dataset, range(0, COUNT, 50), train=False, augment=Augment(mean=0, std=1))))
    for image, number in zip(batch.images, batch.index.tolist(), strict=True):
        with Image.open(io.BytesIO(dataset.bytes_of([number])[0].tobytes())) as opened:
            expected = np.asarray(transform(opened.convert("RGB")), np.float64).transpose(2, 0, 1)
        assert abs(image.numpy() * 255 - expected).mean() < 1, number
        assert dataset.classes[dataset.labels[number]] == f"class {int(Path(dataset.all_keys()[number]).stem) % 20:02d}"


def seconds(epoch: Epoch, most: int) -> float:
    """Processor time per 1,000 images, of the first `most` images of an epoch."""
    done = 0
    start = time.process_time()
    for images, _ in epoch():
        assert images.shape[1:] == (3, SIDE, SIDE)
        done += len(images)
        if done >= most:
            break
    return (time.process_time() - start) * 1000 / done


def case(name: str, ours_s: list[float], peer: str, peer_s: list[float]) -> Case:
    """The ratio is the median of the ratios of the turns: the machine's other jobs hurt both sides of a turn."""
    ratio = statistics.median(b / a for a, b in zip(ours_s, peer_s, strict=True))
    a, b = statistics.median(ours_s), statistics.median(peer_s)
    spread = [f"({min(times):.4g}-{max(times):.4g})" for times in (ours_s, peer_s)]
    print(f"{name:<50} {a:9.4g} {spread[0]:<17} {peer:<32} {b:9.4g} {spread[1]:<17} {ratio:7.2f}x", flush=True)
    return {"case": name, "ours_s": a, "peer": peer, "peer_s": b, "ratio": ratio, "checked": True}


def in_turns(calls: list[Callable[[], float]], repeats: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for into, call in zip(times, calls, strict=True):
            value = call()
            if turn:  # the first turn warms caches
                into.append(value)
    return times


def rates(folder: Dataset, tar: Dataset, shards: list[str], repeats: int) -> list[Case]:
    cases = []
    everything, slow = masks(folder.labels), 2 * BATCH
    full = ours(tar, everything["full"])
    for name, ids in everything.items():
        own, files, peer = ours(tar, ids), ours(folder, ids), readers_file(folder, ids)
        whole, some = 4 * BATCH, len(ids) // BATCH * BATCH or len(ids)
        most = min(whole, some)
        calls = [lambda e=e, m=most: seconds(e, m) for e in (own, files, peer, full)]
        times = in_turns(calls, repeats)
        cases.append(case(f"tar shards, {name}", times[0], "DALI readers.file", times[2]))
        cases.append(case(f"folder, {name}", times[1], "DALI readers.file", times[2]))
        if name != "full":
            cases.append(case(f"tar shards, {name}", times[0], "ours, full", times[3]))
        peers: dict[str, Epoch] = {"torchvision ImageFolder + DataLoader": torchvision_loader(folder, ids)}
        if importlib.util.find_spec("webdataset"):
            peers["webdataset, PIL, v2"] = webdataset_loader(shards, ids, list(tar.all_keys()))
        else:
            print("webdataset is not installed: left out")
        for title, epoch in peers.items():
            mine, theirs = in_turns(
                [lambda e=own, m=most: seconds(e, m), lambda e=epoch, m=slow: seconds(e, m)], max(3, repeats // 3)
            )
            cases.append(case(f"tar shards, {name}", mine, title, theirs))
    return cases


def feed(folder: Dataset, tar: Dataset, repeats: int) -> list[Case]:
    """Everything but decoding of 50 batches: bytes, headers looked at by us, crops, handed to DALI; its own reader, and
    headers looked at by it.
    """
    from pydt.data.loading.dali import feeds

    state: dict[str, Any] = {}
    batches = [np.random.default_rng(i).choice(COUNT, BATCH, replace=False) for i in range(50)]

    def fed(fn: Any, types: Any) -> Any:
        from nvidia.dali.tensors import TensorCPU

        files = fn.external_source(
            lambda: [TensorCPU(f) for f in state["files"]], batch=True, no_copy=True, dtype=types.UINT8, ndim=1
        )
        return (files.shape(),)

    def read(fn: Any, types: Any) -> Any:
        files, _ = fn.readers.file(files=[folder.place_of(i) for i in range(COUNT)], labels=[0] * COUNT)
        return (fn.peek_image_shape(files),)

    own, peer = _pipeline(fed), _pipeline(read)

    def ours_s(dataset: Dataset) -> float:
        start = time.process_time()
        for epoch, ids in enumerate(batches):
            state["files"] = dataset.bytes_of(ids)
            sizes = _core.image_sides(state["files"])
            feeds(AUGMENT, True, 0, epoch, 0, ids, sizes)
            own.run()
        return (time.process_time() - start) * 1000 / (len(batches) * BATCH)

    def peer_s() -> float:
        start = time.process_time()
        for _ in batches:
            peer.run()
        return (time.process_time() - start) * 1000 / (len(batches) * BATCH)

    shards, files, theirs = in_turns([lambda: ours_s(tar), lambda: ours_s(folder), peer_s], repeats)
    return [
        case("feed alone, tar shards", shards, "DALI readers.file", theirs),
        case("feed alone, folder", files, "DALI readers.file", theirs),
    ]


def starts(tar: Dataset, repeats: int) -> list[Case]:
    """A pipeline built (seconds of processor time: there is no peer in the same turn); and what a new mask costs before
    the first batch beyond that batch itself (elapsed).
    """
    from pydt.data.loading.dali import Engine, feeds

    held = Loader(tar, None, BATCH, augment=AUGMENT)
    next(iter(held))
    settings = held.engine.settings
    sizes = np.full((BATCH, 2), 300, np.int32)

    def build() -> float:
        fresh = Engine(settings)
        fresh._next.feeds = feeds(AUGMENT, True, 0, 0, 0, np.arange(BATCH), sizes)
        start = time.process_time()
        fresh._build()
        return time.process_time() - start

    random = np.random.default_rng(4)

    def new_mask() -> float:
        keep = random.random(COUNT) < 0.5
        start = time.perf_counter()
        loader = Loader(tar, keep, BATCH, augment=AUGMENT)
        order = loader.ids[_core.epoch_order(0, 0, loader.ids)][:BATCH]
        taken = time.perf_counter() - start
        assert loader.engine.pipeline is held.engine.pipeline
        assert len(order) == BATCH
        return taken

    built, mask = in_turns([build, new_mask], max(repeats, 15))
    return [
        case("pipeline built", built, "target", [0.015] * len(built)),
        case("new mask to the first read, pipeline shared", mask, "target", [0.015] * len(mask)),
    ]


# ---- memory: in processes of their own ------------------------------------------------------------------------------
def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def one_process(what: str, folder: Path) -> None:
    """Prints the peak of memory in MB over three epochs, and how much of it came after importing; or the growth in MB
    over 1,000 pipelines made, broken off and dropped, and the threads left."""
    torch.set_num_threads(1)
    from nvidia.dali import fn  # noqa: F401

    imported = resident_mb()
    files = Dataset.from_folder(folder / "photographs")
    if what == "thousand":
        for turn in range(1000):
            if turn == 50:
                start, threads = resident_mb(), len(os.listdir("/proc/self/task"))
            how = Augment(flip=True, size=64, std=(0.2 + turn / 1e5,))  # another deviation: another pipeline
            stream = iter(Loader(files, np.arange(turn % 50, 200), 16, augment=how))
            held = next(stream).images[:1]
            if turn % 2:
                next(stream)
        del stream, held
        print(resident_mb() - start, len(os.listdir("/proc/self/task")) - threads)
        return
    everything = np.arange(COUNT)
    if what == "tar":
        epoch = ours(Dataset.from_tar(folder / "shards"), everything)
    elif what == "folder":
        epoch = ours(files, everything)
    else:
        epoch = {"readers.file": readers_file, "torchvision": torchvision_loader}[what](files, everything)
    for _ in range(3):
        for _ in epoch():
            pass
    print(peak_mb(), peak_mb() - imported)


def memory(folder: Path) -> list[Case]:
    def run(what: str) -> tuple[float, float]:
        command = [sys.executable, __file__, "--process", what, "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = done.stdout.split()[-2:]
        return float(first), float(second)

    cases = []
    own = {what: run(what) for what in ("tar", "folder")}
    for peer in ("readers.file", "torchvision"):
        theirs = run(peer)
        for what, (peak, above) in own.items():
            cases.append(case(f"peak resident memory, {what}, MB", [peak], peer, [theirs[0]]))
            cases.append(case(f"the same above imports, {what}, MB", [above], peer, [theirs[1]]))
    growth, threads = run("thousand")
    assert threads <= 0, f"{threads} threads are left"
    cases.append(case("1,000 pipelines: growth in MB", [max(growth, 0.1)], "target", [20.0]))
    return cases


PARTS = ("rates", "feed", "starts", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--process", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        one_process(options.process, options.folder)
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = options.parts or PARTS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        photographs(root / "photographs")
        folder = Dataset.from_folder(root / "photographs")
        pack_tar(root / "photographs", root / "shards")
        shards = sorted(str(path) for path in (root / "shards").glob("*.tar"))
        tar = Dataset.from_tar(root / "shards")
        check(folder)
        check(tar)
        size = sum(Path(shard).stat().st_size for shard in shards) / COUNT / 1000
        print(f"{platform.machine()}, {_core.isa()}, torch {torch.__version__}; {COUNT} JPEGs of {size:.0f} kB")
        cases = rates(folder, tar, shards, options.repeats) if "rates" in parts else []
        cases += feed(folder, tar, options.repeats) if "feed" in parts else []
        cases += starts(tar, options.repeats) if "starts" in parts else []
        cases += memory(root) if "memory" in parts else []
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

"""Bad input: each case is a PydtError that names the thing and the mend. One line a case."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pydt import design
from pydt.base import PydtError
from pydt.data import Dataset, Target, guarded
from pydt.data.loading import Augment, Loader
from pydt.data.packing.tar import member_names
from pydt.data.samples import glyphs
from pydt.ensemble import Plan, RowInput, choose_rates, run
from pydt.estimation import influences
from pydt.store import Store
from pydt.studies import Mixture, Source, Study, run_study
from pydt.training import CLIP, Checkpoint, FineTune, Recipe, SimCLR, Task, ZeroShot

IMAGES = np.zeros((6, 4, 4), np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]
MASKS = np.random.default_rng(0).random((40, 4)) < 0.5
OUTPUTS = np.random.default_rng(1).normal(size=(40, 3))


def dataset() -> Dataset:
    return Dataset.from_arrays(IMAGES, LABELS)


def captioned(captions: list[str]) -> Dataset:
    return Dataset.from_arrays(IMAGES, LABELS, captions=captions)


def target() -> Target:
    return Target(Dataset.from_arrays(np.zeros((90, 4, 4), np.uint8), np.arange(90) % 3))


def plan(**how: object) -> Plan:
    settings: dict = {"design": design.random(3, 4, alpha=0.67), "recipe": Recipe(), "tasks": (Task(target()),)}
    return Plan(dataset(), **{**settings, **how})


def study(**how: object) -> Study:
    """Sources of 6 images without captions; a target whose classes have 7 or 6 images in the pool."""
    sources, methods = {"photos": dataset(), "sketches": dataset()}, {"supervised": Recipe("convnet-4", steps=1)}
    return Study(
        **{"sources": sources, "methods": methods, "targets": {"t": target()}, "sizes": (4,), "shots": (1,), **how}
    )  # type: ignore[arg-type]


def outputs_with(value: float) -> np.ndarray:
    broken = OUTPUTS.copy()
    broken[7, 1] = value
    return broken


def masks_with(column: int, value: bool) -> np.ndarray:
    broken = MASKS.copy()
    broken[:, column] = value
    return broken


# fmt: off
# what is done wrong; what the message must name; what it must say about mending it
CASES: dict[str, tuple[Callable[[], object], str, str]] = {
    "an empty path for a store": (
        lambda: Store.create(""), "store: is an empty path", 'name a file or folder; "." is the working folder'),
    "too many placebos": (
        lambda: design.random(10, 5, placebos=1 << 30), "placebos: 1,073,741,824 columns", "8 show what noise looks like"),
    # --- data
    "labels that do not match images": (lambda: Dataset.from_arrays(IMAGES, [0, 1]), r"labels.*6 images", "one per image"),
    "label out of range": (lambda: Dataset.from_arrays(IMAGES, [0, 1, 2, 3, 0, 9], list("abcd")), "label 9 at position 5", r"0\.\.3"),
    "negative label": (lambda: Dataset.from_arrays(IMAGES, [0, 1, -1, 0, 1, 2], list("abc")), "label -1 at position 2", r"0\.\.2"),
    "label that is no class": (lambda: Dataset.from_arrays(IMAGES, list("abcabx"), list("abc")), "label 'x'", "classes"),
    "labels that are not whole numbers": (lambda: Dataset.from_arrays(IMAGES, [0.5] * 6), "labels", "integers or strings"),
    "NaN labels": (lambda: Dataset.from_arrays(IMAGES, [np.nan] * 6), "labels", "integers or strings"),
    "a class with no images": (lambda: Dataset.from_arrays(IMAGES, LABELS, list("abcd")), "without images: d", "remove"),
    "two classes of one name": (lambda: Dataset.from_arrays(IMAGES, LABELS, ["a", "a", "b"]), "same name twice", "of its own"),
    "float images": (lambda: Dataset.from_arrays(IMAGES / 255, LABELS), "images.*float64", "uint8"),
    "flat images": (lambda: Dataset.from_arrays(IMAGES.reshape(6, 16), LABELS), r"images.*\(6, 16\)", "height, width"),
    "no images": (lambda: Dataset.from_arrays(IMAGES[:0], []), "no pixels", "at least one"),
    "captions for other images": (lambda: Dataset.from_arrays(IMAGES, LABELS, captions=["x"]), "1 captions for 6", "one per image"),
    "background of no colour": (lambda: Dataset.from_folder("/nowhere", background="red"), "background='red'", '"white".*#rrggbb'),
    "background of opaque images": (
        lambda: Dataset.from_arrays(IMAGES, LABELS, background="white"), "1 channels, none of which is alpha", "leave it out",
    ),
    "image of floats": (lambda: Dataset.from_torchvision([(Image.new("F", (2, 2)), 0)]), r"\[0\].*range is not known", "scale them"),
    "unknown group column": (lambda: dataset().units("sight"), "no group column 'sight'", "choose one of: class, example"),
    "sample larger than the data": (lambda: dataset().sample(7), "7 of 6", "1 to 6"),
    "no such folder": (lambda: Dataset.from_folder("/nowhere/at/all"), "/nowhere/at/all", "sub-folder"),
    "no data set in the folder": (lambda: Dataset.open("/nowhere/at/all"), r"index\.pydt", r"Dataset\.save"),
    "no such .npy": (lambda: Dataset.from_arrays("/nowhere/x.npy", LABELS), "/nowhere/x.npy", r"numpy\.save"),
    "concat of two shapes": (
        lambda: Dataset.concat([dataset(), Dataset.from_arrays(np.zeros((2, 5, 4), np.uint8), [0, 1], name="b")]),
        "shapes differ", "one shape",
    ),
    "sample of a half": (lambda: dataset().sample(2.5), r"n 2\.5", "whole number"),
    "open of nothing": (lambda: Dataset.open(None), "None is no path", "string"),
    "ragged images": (lambda: Dataset.from_arrays([IMAGES[0], IMAGES[0, :2]], [0, 1]), "images", "one shape"),
    "ragged labels": (lambda: Dataset.from_arrays(IMAGES[:2], [[0], [0, 1]]), r"labels.*position 0", "integers or strings"),
    "missing label": (lambda: Dataset.from_arrays(IMAGES[:3], [0, None, 1]), "labels: no label at position 1", "leave the image out"),
    "classes that are a number": (lambda: Dataset.from_arrays(IMAGES, LABELS, 5), "classes: 5 is no list", r"classes=\["),
    "columns that are a list": (lambda: Dataset.from_arrays(IMAGES, LABELS, columns=LABELS), "columns: a list", "dict"),
    "column that is a number": (lambda: Dataset.from_arrays(IMAGES, LABELS, columns={"site": 5}), "'site'.*6 images", "one per image"),
    "captions that are one text": (lambda: Dataset.from_arrays(IMAGES, LABELS, captions="abcdef"), "captions: 'abcdef'", "one text each"),
    "no torchvision data set": (lambda: Dataset.from_torchvision(None), "NoneType is no data set", "length"),
    "one label in two spellings": (lambda: Dataset.from_arrays(IMAGES[:3], ["cat", "cat ", "dog"]), "labels: 'cat' and 'cat '", "alike"),
    "a number and its text": (lambda: Dataset.from_arrays(IMAGES[:3], [1, "1", 2]), "labels: 1 and '1'", "alike"),
    "text that is no UTF-8": (lambda: Dataset.from_arrays(IMAGES[:2], [b"a", b"\xe9"]), r"b'\\xe9' at position 1 is not UTF-8", "decode"),
    "classes that are a set": (lambda: Dataset.from_arrays(IMAGES, LABELS, {"a", "b", "c"}), "classes: a set has no order", "sorted"),
    "classes of two names each": (
        lambda: Dataset.from_arrays(IMAGES, LABELS, {"a": "b", "b": "c", "c": "a"}), "a number and what a name", "{number: name}",
    ),
    "a table as labels": (lambda: Dataset.from_arrays(IMAGES, {"kind": LABELS}), "labels: a dict is no list", "one column"),
    "labels that are dates": (lambda: Dataset.from_arrays(IMAGES[:1], [np.datetime64("2020")]), "'2020'.*at position 0", "strings"),
    "a number as a caption": (lambda: Dataset.from_arrays(IMAGES[:2], [0, 1], captions=["a", 5]), "5 at position 1 is no text", "one text"),
    "a class in place of a data set": (lambda: Dataset.from_torchvision(dict), "a dict is the class and no data set", "length"),
    "items that are no pairs": (lambda: Dataset.from_torchvision([(1, 2, 3)]), r"list\[0\]: .* but a tuple of 3", "wrap"),
    "images that are text": (lambda: Dataset.from_torchvision([("a.jpg", 0)]), r"list\[0\]: a str is no image", "Pillow"),
    "tar shards": (lambda: Dataset.from_tar("*.tar"), "no such file", "glob.glob"),
    "no shards": (lambda: Dataset.from_tar([]), "no shard", "at least one"),
    "captions of another field": (lambda: Dataset.from_tar("x.tar", caption="text"), "caption='text'", 'caption="txt"'),
    "files of pixels": (lambda: dataset().bytes_of([0]), "pixels, not files", "Dataset.images"),
    "a spot check of too much": (lambda: dataset().check(7), "n 7", "from 1 to 6"),
    "files of one name in a shard": (lambda: member_names(["a.b.jpg", "a_b.jpg"]), "would both be 'a_b_jpg'", "rename one"),
    "concat of a stranger": (lambda: Dataset.concat([dataset(), IMAGES]), "ndarray among", "data sets only"),
    "concat of nothing": (lambda: Dataset.concat(None), "None is no list", r"concat\(\[a, b\]\)"),
    "group column of no name": (lambda: dataset().units(["class"]), "no group column", "choose one of"),
    "half a glyph": (lambda: glyphs.source(each=2.5), r"each 2\.5", "whole number >= 1"),
    "target of nothing": (lambda: Target(None), "train is a NoneType", "from_arrays"),
    "half an example in the pool": (lambda: Target(target().train, pool=10.5), r"pool 10\.5", "whole number"),
    "judged on what was learned": (lambda: Target(target().train, target().train), "same examples", "leave them out"),
    "target of one class": (lambda: Target(Dataset.from_arrays(IMAGES, [0] * 6)), "1 class", "two classes"),
    "target too small to split": (lambda: Target(Dataset.from_arrays(IMAGES[:2], [0, 1])), "no example", "more target examples"),
    "an AUROC of one class": (
        lambda: Target(target().train, Dataset.from_arrays(7 - IMAGES, [0] * 6), metric="auroc"),
        "score half has images of class '0' alone", "other classes, or another metric",
    ),
    "unknown metric": (lambda: Target(target().train, metric="top-2"), "metric 'top-2'", "mean per class"),
    "test classes of another name": (
        lambda: Target(target().train, Dataset.from_arrays(IMAGES, list("abcabc"))), "different class names", "same classes",
    ),
    # --- studies
    "a size above the smallest source": (lambda: study(sizes=(4, 60)), "60 images, but source 'photos' has 6", "at most 6.*cells="),
    "weights of a mixture that do not sum": (
        lambda: Mixture({"a": dataset(), "b": captioned(list("abcdef"))}, weights={"a": 0.5, "b": 0.4}), r"weights sum to 0\.9", "in these proportions",
    ),
    "a mixture of a stranger": (lambda: Mixture({"photos": dataset(), "b": dataset()}, weights={"photo": 1.0}), "no source 'photo'", "did you mean 'photos'"),
    "an unknown source in cells": (lambda: study(cells=[("photo", 4, "supervised")]), r"cells\[0\].*'photo'", "did you mean 'photos'"),
    "an unknown method in cells": (lambda: study(cells=[("photos", 4, "clip")]), r"cells\[0\].*'clip'", "supervised"),
    "an unknown size in cells": (lambda: study(cells=[("photos", 5, "supervised")]), r"cells\[0\].*5", "4"),
    "a cell of two": (lambda: study(cells=[("photos", 4)]), r"cells\[0\]", r"\(source, size, method\)"),
    "an unknown mode of a study": (lambda: study(modes=["prob"]), "'prob'", "did you mean 'probe'"),
    "an unknown setting of a mode": (lambda: study(modes={"probe": {"penality": 1}}), "'penality'", "did you mean 'penalty'"),
    "a class with fewer images than shots": (lambda: study(shots=(1, 50)), "50 shots, but class '.*' has", ""),
    "captions that CLIP lacks": (lambda: study(methods={"clip": Recipe("convnet-4", "clip", steps=1)}), "no captions", "captions="),
    "shots there twice": (lambda: study(shots=(1, 5, 1)), "Study.shots.*1 is there twice", "each once"),
    "sizes there twice": (lambda: study(sizes=(4, 4)), "Study.sizes.*4 is there twice", "each once"),
    "no shots": (lambda: study(shots=()), "Study.shots.*is empty", "at least one"),
    "no sources": (lambda: study(sources={}), "Study.sources.*is empty", "give"),
    "no targets": (lambda: study(targets={}), "Study.targets.*is empty", "give"),
    "rates for a probe alone": (lambda: run_study(study(rates=(0.1, 0.3)), "/nowhere/at/all"), "no mode has a learning rate", "leave the rates out"),
    "noise in all labels": (lambda: Source(dataset(), noise=1.0), "noise 1", ""),
    # --- loader and recipe
    "empty mask": (lambda: Loader(dataset(), np.zeros(6, bool)), "keeps no example", "at least one group"),
    "mask of another length": (lambda: Loader(dataset(), np.ones(5, bool)), r"\(5,\) over 6", "one bool per example"),
    "id out of range": (lambda: Loader(dataset(), [0, 6]), "id 6 of 6", r"0\.\.5"),
    "batch of nothing": (lambda: Loader(dataset(), batch_size=0), "batch_size 0", ">= 1"),
    "half a batch": (lambda: Loader(dataset(), batch_size=2.5), r"batch_size 2\.5", "whole number >= 1"),
    "mask as numbers": (lambda: Loader(dataset(), np.array([0, 1, 1, 0, 1, 1], np.uint8)), "id 1 is given 4 times", "0/1 mask: pass bool"),
    "id given twice": (lambda: Loader(dataset(), [4, 2, 4]), "id 4 is given 2 times", "every id once"),
    "no such device": (lambda: Loader(dataset(), device="gpu"), "device 'gpu'", '"cpu"'),
    "seed of 70 bits": (lambda: Loader(dataset(), seed=2**70), f"seed {2**70}", f"from 0 to {2**64 - 1}"),
    "rank beyond the world": (lambda: Loader(dataset(), rank=2, world=2), "rank 2", "from 0 to 1"),
    "loader of nothing": (lambda: Loader(None), "NoneType is no data set", r"pydt\.Dataset"),
    "augment as a dict": (lambda: Loader(dataset(), augment={"flip": True}), "augment is a dict", "Augment"),
    "negative epoch": (lambda: Loader(dataset()).set_epoch(-1), "epoch -1", ">= 0|from 0"),
    "empty state": (lambda: Loader(dataset()).load_state_dict({}), r"state \{\}", "state_dict"),
    "state beyond the epoch": (
        lambda: Loader(dataset()).load_state_dict({"seed": 0, "epoch": 0, "position": 9}), "position 9", "from 0 to 1",
    ),
    "three views": (lambda: Loader(dataset(), views=3), "views 3", "from 1 to 2"),
    "views of evaluation": (lambda: Loader(dataset(), views=2, train=False), "without augmentation", "views=1"),
    "batches of doubles": (lambda: Loader(dataset(), dtype=torch.float64), r"torch\.float64", r"torch\.float16"),
    "colours of two channels": (lambda: Loader(Dataset.from_arrays(IMAGES[..., None].repeat(2, 3), LABELS), augment=Augment(grey=0.5)), "grey for images of 2 channels", "leave it out"),
    "RandAugment of raw images": (lambda: Loader(dataset(), augment=Augment(randaugment=(2, 9))), "randaugment for raw images", "from_folder"),
    "operations of RandAugment": (lambda: Augment(randaugment=(0, 9)), "randaugment's operations", "1"),
    "ramp of raw images": (lambda: Loader(dataset(), augment=Augment(ramp=((0, 4),))), "a ramp for raw images", "resized_crop"),
    "unknown on_error": (lambda: Loader(dataset(), on_error="ignore"), "on_error 'ignore'", "raise.*skip"),
    "ramp that starts late": (lambda: Augment(ramp=((3, 160), (12, 192))), "ramp", "rising from 0"),
    "ramp of one number": (lambda: Augment(ramp=160), "ramp 160", r"\(epoch, size\) pairs"),
    "jitter of three numbers": (lambda: Augment(jitter=(0.4, 0.4, 0.4)), "jitter", "brightness, contrast, saturation, hue"),
    "hue beyond half a turn": (lambda: Augment(jitter=(0, 0, 0, 0.6)), "jitter", r"at most 0\.5"),
    "blur of nothing": (lambda: Augment(blur=(0, 2)), "blur", "least and the most sigma"),
    "chance above one": (lambda: Augment(erase=1.5), r"erase 1\.5", "a number >= 0 and <= 1"),
    "two crops": (lambda: Augment(crop_pad=1, resized_crop=((0.1, 1), (1, 1))), "crop_pad and resized_crop", "one of the two"),
    "crop of nothing": (lambda: Augment(resized_crop=((0, 1), (1, 1))), "resized_crop", "least and the most share"),
    "half a crop": (lambda: Augment(resized_crop=(0.1, 1)), "resized_crop", "least and the most share"),
    "half a pixel": (lambda: Augment(size=2.5), r"size 2\.5", "whole number"),
    "mean as text": (lambda: Augment(mean="0.5"), "mean '0.5'", "one number"),
    "no mean": (lambda: Augment(mean=()), r"mean \(\)", "one number"),
    "deviation of zero": (lambda: Augment(std=(0.0,)), r"std \(0\.0,\)", "positive"),
    "two means for one channel": (lambda: list(Loader(dataset(), augment=Augment(mean=(0.1, 0.2)))), "2 means", "one each"),
    "unknown method": (lambda: Recipe(method="supervized"), "supervized", "choose one of"),
    "unknown public weights": (lambda: Checkpoint("torchvision:resnet19"), "no such public weights", "resnet1"),
    "settings that are a name": (lambda: Recipe(method="checkpoint", checkpoint="torchvision:resnet18"), "Recipe.checkpoint: a str", r"Checkpoint\("),
    "settings of CLIP that are a name": (lambda: Recipe(method="clip", clip="ViT-B-32"), "Recipe.clip: a str", r"CLIP\("),
    "a method in another case": (lambda: Recipe(method="SimCLR"), "unknown method", "did you mean 'simclr'"),
    "a mode in another case": (lambda: Task(Target(dataset()), mode="WiSE-FT"), "unknown mode", "did you mean 'wise-ft'"),
    "a metric in another case": (lambda: Target(dataset(), metric="AUROC"), "unknown metric", "did you mean 'auroc'"),
    "shots that are a word": (lambda: Task(Target(dataset()), shots="all"), "shots 'all'", '"full" for the whole pool'),
    "checkpoint without weights": (lambda: Recipe(method="checkpoint"), "without a checkpoint", r"Checkpoint\("),
    "views that cannot differ": (lambda: Recipe(method="simclr", augment=Augment(mean=0.3)).check(dataset()), "can only be equal", "crop at random"),
    "two views of one pixel": (lambda: Recipe(method="simclr").check(Dataset.from_arrays(IMAGES[:, :1, :1], [0] * 6)), "images of one pixel", "larger images"),
    "contrast within batches of one": (lambda: Recipe(method="simclr", batch_size=1).check(dataset()), "a batch of 1 image", "2 or more"),
    "temperature of nothing": (lambda: SimCLR(temperature=0), "SimCLR.*temperature 0", ""),
    "CLIP without captions": (lambda: Recipe(method="clip").check(dataset()), "has no captions", "give captions="),
    "CLIP of one caption": (lambda: Recipe(method="clip").check(captioned(["A dog!"] * 6)), "all images have the caption 'A dog!'", "what is in each image"),
    "CLIP of a caption without words": (lambda: Recipe(method="clip").check(captioned(["a", "b", "?", "c", "d", ""])), "2 captions have no word.*image '2'", "leave them out"),
    "CLIP in batches of one": (lambda: Recipe(method="clip", batch_size=1).check(captioned(list("abcdef"))), "batches of one image", "2 or more"),
    "misspelt model of open_clip": (lambda: Recipe(method="clip", clip=CLIP("ViT-B/32")).check(captioned(list("abcdef"))), "ViT-B/32.*(no such model|not installed)", "did you mean 'ViT-B-32'|pip install"),
    "width of nothing": (lambda: CLIP(width=0), "CLIP.*width 0", "whole number"),
    "source of one class": (lambda: Plan(Dataset.from_arrays(IMAGES, ["a"] * 6), by="example", design=design.random(6, 4), recipe=Recipe(), tasks=(Task(target()),)), "all images are of the class 'a'", "two classes or more"),
    "epochs of fine-tuning that are no number": (lambda: FineTune(epochs=1.5), "FineTune.*epochs 1.5", "whole number >= 1"),
    "misspelt network": (lambda: Recipe(network="resnet19"), "resnet19.*no such network", "did you mean 'resnet1"),
    "negative epochs": (lambda: Recipe(epochs=-1), "epochs -1", "whole number"),
    "two budgets": (lambda: Recipe(epochs=2, steps=9), "epochs 2 and steps 9", "give one of epochs, steps, samples"),
    "warm-up of more steps than there are": (lambda: Recipe(schedule="cosine", warmup=500), "warmup 500", ""),
    "unknown optimiser": (lambda: Recipe(optimizer="adam"), "'adam'", "choose one of"),
    "one beta": (lambda: Recipe(optimizer="adamw", betas=0.9), "betas 0.9", "two numbers"),
    "no steps": (lambda: Recipe(steps=0), "steps 0", "whole number"),
    "more shots than examples": (lambda: Task(target(), shots=50), "50 shots, but class", "take shots = 6"),
    # --- designs and plans
    "alpha that keeps nothing": (lambda: design.random(10, 5, alpha=0.01), "alpha|0 of 10", ""),
    "alpha that keeps everything": (lambda: design.random(10, 5, alpha=1.0), "alpha|10 of 10", ""),
    "foldover of another alpha": (lambda: design.foldover(10, 8, alpha=0.25), "alpha", "bernoulli|random|0.5"),
    "design of other groups": (lambda: plan(design=design.random(5, 4)), "5 groups, but the source has 3", "groups=3"),
    "no task": (lambda: plan(tasks=()), "tasks", "at least one"),
    "zero-shot without a text tower": (lambda: plan(tasks=(Task(target(), "zero-shot", name="x"),)), "task 'x': models of method 'supervised' have no text tower", 'Recipe\\(method="clip"\\)'),
    "shots of zero-shot": (lambda: Task(target(), "zero-shot", shots=5), "shots 5, but mode 'zero-shot' reads no labelled image", "leave shots out"),
    "a sentence without a class": (lambda: ZeroShot(("a photo",)), "template 'a photo' has no {}", "put {} where the class goes"),
    "two phrases for a class": (lambda: ZeroShot(names=(("a", "x"), ("a", "y"))), "class 'a' has two phrases", "one phrase for each"),
    "more layers than there are": (lambda: plan(tasks=(Task(target(), "last-n", last=9),)), "last 9, but the network has 3 layers", "at most 3"),
    "a head that a mode has not": (lambda: Task(target(), "lp-ft", finetune=FineTune(head="random")), "has a head of its own, not 'random'", "leave it out"),
    "two tasks of one name": (lambda: plan(tasks=(Task(target(), name="x"), Task(target(), shots=2, name="x"))), "'x'", "own name"),
    "seeds that do not match rows": (lambda: plan(seeds=(1, 2)), "2 seeds for 4 rows", "one seed a row"),
    "one learning rate to choose from": (lambda: choose_rates(plan(), "nowhere", [0.1]), "rates: is one rate", r"finetune\.lr"),
    "learning rates of a probe": (lambda: choose_rates(plan(), "nowhere", [0.1, 0.01]), "no task has a learning rate .mode 'probe'", "leave the rates out"),
    "a rate below zero": (lambda: choose_rates(plan(), "nowhere", [0.1, -1]), r"rates\[1\] -1 is out of range", "above 0"),
    "rates without validation images": (lambda: choose_rates(plan(tasks=(Task(replace(target(), validation=0), mode="finetune"),)), "nowhere", [0.1, 0.01]), "has no validation images", r"Target\(validation="),
    "a judged half of a guarded target": (lambda: guarded(target()).split["report"], "target .*: the report half cannot be read", "pool and the validation"),
    "a trial in a plan": (lambda: plan(tasks=(Task(target(), part="validation", name="x"),)), "task 'x': is a trial", "choose_rates"),
    # --- store
    "no store in the folder": (lambda: Store("/nowhere/at/all"), "/nowhere/at/all", "run a plan"),
    # --- estimates
    "NaN outputs": (lambda: influences(MASKS, outputs_with(np.nan)), "row 7.*target 1|target 1.*row 7", "nan="),
    "infinite outputs": (lambda: influences(MASKS, outputs_with(np.inf)), "row 7.*target 1|target 1.*row 7", "nan="),
    "group always in": (lambda: influences(masks_with(2, True), OUTPUTS), "group 2|2", "drop|leave|remove|design"),
    "group never in": (lambda: influences(masks_with(3, False), OUTPUTS), "group 3|3", "drop|leave|remove|design"),
    "identical groups": (lambda: influences(MASKS[:, [0, 1, 1]], OUTPUTS, "ols"), "1.*2", "ridge or lasso|ridge.*lasso"),
    "fewer rows than groups": (
        lambda: influences(design.bernoulli(30, 12), OUTPUTS[:12], "ols"), "12|group", "ridge|lasso",
    ),
    "errors of no kind": (lambda: influences(MASKS, OUTPUTS, errors="white"), "errors 'white'", "auto, classical, robust"),
    "robust errors of ridge": (lambda: influences(MASKS, OUTPUTS, "ridge", errors="robust"), "errors: ridge has none", '"ols" or "lasso"'),
    "rows that were never written": (lambda: influences(np.vstack([MASKS, np.zeros((3, 4), bool)]), np.vstack([OUTPUTS, np.zeros((3, 3))])), "row 40 keeps no group and has no output, nor do 2 others", "leave out"),
    "bits in the other order": (lambda: influences(np.packbits(MASKS, axis=1), OUTPUTS, groups=4), 'bitorder="little"', 'bitorder="big": pass it'),
    "rows that do not match": (lambda: influences(MASKS, OUTPUTS[:39]), "39", "row|model"),
    "masks that are not 0/1": (lambda: influences(MASKS * 2.0, OUTPUTS), "masks", "0|1"),
    "unknown estimator": (lambda: influences(MASKS, OUTPUTS, "laso"), "laso", "lasso"),
}
# fmt: on


@pytest.mark.parametrize("case", CASES)
def test_bad_input_names_the_thing_and_the_mend(case: str) -> None:
    do, thing, mend = CASES[case]
    with pytest.raises(PydtError, match=rf"(?s){thing}") as caught:
        do()
    assert caught.value.mend or mend == "", "an error without a mend"
    assert __import__("re").search(mend, str(caught.value.mend or "")), f"the mend says {caught.value.mend!r}"


def test_a_class_whose_folder_is_empty(folder_of_images: Path) -> None:
    (folder_of_images / "class 9").mkdir()
    with pytest.raises(PydtError, match=r"class 9.*without images"):
        Dataset.from_folder(folder_of_images)
    (folder_of_images / "class 10").mkdir()
    kept = Dataset.from_folder(folder_of_images, bad="skip")
    assert kept.classes == ("class 0", "class 1", "class 2")
    assert sorted(kept.left_out) == ["class 10", "class 9"]
    assert np.bincount(kept.labels).tolist() == [7, 7, 7]


def test_an_empty_image_file(folder_of_images: Path) -> None:
    (folder_of_images / "class 1" / "3.jpg").write_bytes(b"")
    with pytest.raises(PydtError, match=r"3\.jpg.*empty image file"):
        Dataset.from_folder(folder_of_images)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="root may write everywhere")
def test_an_unwritable_folder_is_named_before_anything_is_trained() -> None:
    # Root may write into read-only folders, but nobody may create files in /proc.
    trained = []

    def runner(given: RowInput) -> dict:
        row = given.row
        trained.append(row)
        return {}

    with pytest.raises(PydtError, match=r"/proc/pydt.*(?s:.)*folder you may write to"):
        run(plan(), "/proc/pydt", runner=runner, progress=False)
    assert not trained


def test_changed_bytes_under_one_name_are_another_data_set() -> None:
    changed = IMAGES.copy()
    changed[0, 0, 0] = 1
    assert replace(dataset(), images=changed[..., None]).digest != dataset().digest

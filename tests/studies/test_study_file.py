"""Studies as TOML: a file is the study that the same words in Python are; what means nothing is refused by place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import pydt
from pydt.base import ConfigError, DataError, PydtError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.data.samples import glyphs
from pydt.ensemble import read_plan
from pydt.studies import Mixture, PublicModel, Source, Study, read_study
from pydt.training import Checkpoint, FineTune, Recipe, Scratch
from pydt.training.networks import build

LATIN = """
[[sources]]
name = "latin"
sample = "alphanumerics"
each = 2
"""
CLIP = """
[[methods]]
name = "clip"
method = "clip"
steps = 3
"""
MIXED = """
[[sources]]
name = "mixed"
mixture.greek = 0.25
mixture.latin = 0.75
"""
STUDY = f"""
[study]
sizes = [20, 10]
shots = [1, 5, "full"]
draws = 2
seeds = 2
rates = [0.1, 0.3]
seed = 4
{LATIN}
[[sources]]
name = "few"
sample = "alphanumerics"
each = 2
where.class = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
captions = "template"
template = "the letter {{}}"
names.a = "alpha"
noise = 0.25
{MIXED}
[[sources]]
name = "greek"
sample = "greek"
each = 2

[[methods]]
name = "supervised"
steps = 3
augment.mean = 0.2
{CLIP}
[[targets]]
name = "digits"
train.sample = "digits"
pool = 400
validation = 200

[[modes]]
name = "probe"
penalty = 1

[[modes]]
name = "short"
mode = "finetune"
finetune.epochs = 2
finetune.head = "random"

[scratch]
scratch.epochs = 9
"""


def written(folder: Path, text: str = STUDY) -> Path:
    path = folder / "letters.toml"
    path.write_text(text)
    return path


def by_hand() -> Study:
    latin, greek = glyphs.source(each=2), glyphs.source("greek", each=2)
    changed: dict[str, Any] = {"captions": "template", "template": "the letter {}", "classes": {"a": "alpha"}}
    few = Source(latin, where={"class": list("abcdefghij")}, noise=0.25, **changed)
    mixed = Mixture({"greek": greek, "latin": latin}, weights={"greek": 0.25, "latin": 0.75})
    supervised = Recipe(steps=3, augment=Augment(mean=0.2))
    return Study(
        {"latin": latin, "few": few, "mixed": mixed, "greek": greek},
        {"supervised": supervised, "clip": Recipe(method="clip", steps=3)},
        {"digits": glyphs.digits()},
        sizes=(10, 20),
        shots=(1, 5, "full"),
        modes={"probe": {"penalty": 1}, "short": {"mode": "finetune", "finetune": FineTune(epochs=2, head="random")}},
        draws=2,
        seeds=2,
        rates=(0.1, 0.3),
        scratch=Recipe(method="none", scratch=Scratch(epochs=9)),
        seed=4,
        name="letters",
    )


def test_a_file_is_the_study_that_it_says(tmp_path: Path) -> None:
    read, study = read_study(written(tmp_path)), by_hand()
    assert read.study.described() == study.described()
    assert read.study.digest == study.digest
    assert list(read.study.sources) == ["latin", "few", "mixed", "greek"], "in the order of the file"
    assert read.study.sources["few"].take(4).captions == study.sources["few"].take(4).captions
    assert (read.dir, read.workers, read.limit) == (tmp_path / "letters", None, None)
    assert (read.same_code, read.keep, read.keep_bytes) == (False, "weights", None)


def test_how_it_is_run_is_no_part_of_the_study(tmp_path: Path) -> None:
    run = '[run]\ndir = "x/y"\nworkers = 2\nlimit = 60\nsame_code = true\nkeep = "none"\nkeep_bytes = 1_000_000\n'
    read = read_study(written(tmp_path, run + STUDY))
    assert read.study.digest == by_hand().digest
    assert (read.dir, read.workers, read.limit) == (tmp_path / "x" / "y", 2, 60.0)
    assert (read.same_code, read.keep, read.keep_bytes) == (True, "none", 1_000_000)


def test_what_is_left_out_has_the_defaults_of_python(tmp_path: Path) -> None:
    text = f"""
    [study]
    {LATIN}
    [[methods]]
    name = "supervised"
    steps = 2
    [[targets]]
    name = "digits"
    train.sample = "digits"
    """
    digits, latin = Target(glyphs.digits().train), glyphs.source(each=2)
    made = Study({"latin": latin}, {"supervised": Recipe(steps=2)}, {"digits": digits}, name="letters")
    assert read_study(written(tmp_path, text)).study.digest == made.digest


def test_a_data_set_that_is_named_twice_is_opened_once(tmp_path: Path) -> None:
    study = read_study(written(tmp_path)).study
    latin, few, mixed = (study.sources[name] for name in ("latin", "few", "mixed"))
    assert latin.dataset is few.dataset
    assert mixed.sources["latin"] is latin
    other = read_study(written(tmp_path, STUDY.replace("each = 2\nwhere", "each = 3\nwhere"))).study
    assert other.sources["latin"].dataset is not other.sources["few"].dataset
    assert len(other.sources["few"]) == 30


def test_every_group_of_a_column_can_be_a_source(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 28, 28), np.uint8)
    styles = ["print"] * 30 + ["sketch"] * 20 + ["paint"] * 10
    Dataset.from_arrays(images, np.arange(60) % 2, columns={"style": styles}).save(tmp_path / "works")
    text = STUDY[STUDY.index("[[methods]]") :].replace(CLIP, "").replace("augment.mean = 0.2", 'method = "simclr"')
    head = '[study]\nsizes = [4, 5]\n[[sources]]\nsplit = "style"\nsaved = "works"\nwhere.class = "1"\n'
    study = read_study(written(tmp_path, head + text)).study
    assert {name: len(source) for name, source in study.sources.items()} == {"paint": 5, "print": 15, "sketch": 10}
    assert study.sources["paint"].dataset is study.sources["print"].dataset
    with pytest.raises(
        PydtError, match=r"sources\[0\].* no group column 'stile'. choose one of: class, example, style"
    ):
        read_study(written(tmp_path, head.replace("style", "stile") + text))


def test_captions_are_a_file_or_what_becomes_of_them(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 255, (40, 28, 28), np.uint8))
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    (tmp_path / "words.txt").write_text("\n".join(f"picture {i}" for i in range(40)))
    arrays = '\n[[sources]]\nname = "latin"\nimages = "x.npy"\nlabels = "y.npy"\ncaptions = '

    def captions(given: str) -> Any:
        text = STUDY.replace(LATIN, f"{arrays}{given}\n").replace(MIXED, "")
        return read_study(written(tmp_path, text)).study.sources["latin"].take(1).captions

    assert captions('"words.txt"')[0].startswith("picture ")
    assert captions('"template"')[0].startswith("a photo of a ")
    with pytest.raises(ConfigError, match=r"no captions"):
        captions('"none"')


def test_public_models_stand_beside(tmp_path: Path) -> None:
    save_file(build("convnet-4", 1).state_dict(), tmp_path / "w.safetensors")
    more = """
    [[checkpoints]]
    name = "large"
    file = "w.safetensors"
    network = "convnet-4"
    source = "all letters"
    images = 400_000_000
    method = "clip"
    epochs = 32
    augment.mean = 0.2
    """
    study = read_study(written(tmp_path, STUDY + more)).study
    checkpoint = Checkpoint(file=str(tmp_path / "w.safetensors"))
    recipe = Recipe("convnet-4", "checkpoint", checkpoint=checkpoint, augment=Augment(mean=0.2))
    assert study.checkpoints == {"large": PublicModel(recipe, "all letters", 400_000_000, "clip", 32.0)}
    assert study.arms[-1].kind == "checkpoint"


def test_cells_are_arms(tmp_path: Path) -> None:
    cells = 'seed = 4\ncells = [["greek", 20, "clip"], ["latin", 10, "supervised"]]'
    arms = read_study(written(tmp_path, STUDY.replace("seed = 4", cells))).study.arms
    listed = [(arm.source, arm.size, arm.method) for arm in arms if arm.kind == "trained"]
    assert listed == [("latin", 10, "supervised"), ("greek", 20, "clip")]


# what is replaced, by what, and what the error says
WRONG: Mapping[str, tuple[str, str, str]] = {
    "a table of plans": ("[scratch]", "[recipe]", r"toml: recipe: is no key of this table"),
    "a misspelt table": ("[[modes]]", "[[mode]]", r"mode: is no key of this table\. did you mean 'modes'"),
    "a misspelt axis": ("shots =", "shot =", r"study\.shot: is no key of this table\. did you mean 'shots'"),
    "a misspelt setting of a run": ("[study]", "[run]\nworker = 1\n[study]", r"run\.worker.*did you mean 'workers'"),
    "one bracket": ("[[targets]]", "[targets]", r"targets: is one table.*write \[\[targets\]\]"),
    "a misspelt recipe": (
        "steps = 3\naug",
        "step = 3\naug",
        r"methods\[0\]\.step: .*did you mean 'steps'",
    ),
    "a misspelt setting of a mode": ("penalty = 1", "penality = 1", r"modes\[0\]\.penality: .*did you mean 'penalty'"),
    "shots of a mode": ("penalty = 1", "shots = 1", r"modes\[0\]\.shots: is no key of this table"),
    "another method than none": ("scratch.epochs", 'method = "clip"\nscratch.epochs', r"scratch\.method: is no key"),
    "an unknown mode": ('mode = "finetune"', 'mode = "finetun"', r"unknown mode 'finetun'.*did you mean 'finetune'"),
    "an unknown method": ('method = "clip"', 'method = "clop"', r"methods\[1\]: Recipe: unknown method 'clop'.*'clip'"),
    "an unknown kind": (
        'sample = "greek"',
        'sampel = "greek"',
        r"sources\[3\]\.sampel: .*did you mean 'sample'",
    ),
    "no data set": ('sample = "greek"\neach = 2', "", r"sources\[3\]: none given\. give one of: folder, .*mixture"),
    "a mixture as a target": ('train.sample = "digits"', "train.mixture.a = 1", r"targets\[0\]\.train"),
    "an unknown script": ('sample = "greek"', 'sample = "grek"', r"unknown sample 'grek'.*did you mean 'greek'"),
    "unknown captions": (
        '"template"',
        '"templat"',
        r"sources\[1\]: unknown captions 'templat'.*'template'",
    ),
    "an unknown column": ("where.class", "where.clas", r"sources\[1\].*no group column 'clas'.*did you mean 'class'"),
    "a mixture of a stranger": (
        "mixture.latin",
        "mixture.latn",
        r"mixture: unknown source 'latn'.*'latin'",
    ),
    "a mixture of a mixture": ("mixture.latin", "mixture.mixed", r"mixture: unknown source 'mixed'"),
    "weights": (
        "mixture.latin = 0.75",
        "mixture.latin = 0.7",
        r"sources\[2\]: Mixture: weights sum to 0\.95",
    ),
    "a mixture with a sample": ("mixture.latin =", 'sample = "x"\nmixture.latin =', r"sources\[2\]\.sample: is no key"),
    "two of one name": ('name = "greek"', 'name = "few"', r"sources\[3\]\.name: a second one is called 'few'"),
    "a mixture": (
        'name = "mixed"',
        'name = "few"',
        r"sources\[2\]\.name: a second one is called 'few'",
    ),
    "two methods of one name": ('name = "clip"', 'name = "supervised"', r"methods\[1\]\.name: a second one"),
    "no name": ('name = "digits"', "", r"targets\[0\]\.name: is missing"),
    "draws as text": ("draws = 2", 'draws = "2"', r"study\.draws: is '2', not a whole number"),
    "one shot, no list": ('shots = [1, 5, "full"]', "shots = 1", r"study\.shots: is 1, not a list"),
    "no weights": ("[scratch]", '[[checkpoints]]\nname = "x"\nsource = "y"\n[scratch]', r"checkpoints\[0\]"),
    "no source": (
        "[scratch]",
        '[[checkpoints]]\nname = "x"\n[scratch]',
        r"checkpoints\[0\]\.source: is missing",
    ),
    "noise of all": ("noise = 0.25", "noise = 1.0", r"sources\[1\]: Source: noise 1"),
    "a size above the smallest source": ("sizes = [20, 10]", "sizes = [20, 50]", r"50 images, but source 'few' has 20"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_means_nothing_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    old, new, told = WRONG[name]
    assert old in STUDY
    with pytest.raises(PydtError, match=told):
        read_study(written(tmp_path, STUDY.replace(old, new, 1)))


def test_plans_and_studies_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a study, not a plan\. `pydt study FILE`"):
        read_plan(written(tmp_path))
    plan = (
        '[source]\nsample = "greek"\n[design]\nkind = "random"\nmodels = 3\n[[tasks]]\ntarget.train.sample = "digits"\n'
    )
    with pytest.raises(ConfigError, match=r"is a plan, not a study.*`pydt run FILE`"):
        read_study(written(tmp_path, plan))
    with pytest.raises(ConfigError, match="study: is missing"):
        read_study(written(tmp_path, "[run]\n"))
    with pytest.raises(ConfigError, match="no such file"):
        read_study(tmp_path / "nothing.toml")
    with pytest.raises(DataError, match="read_study"):
        read_study(None)  # type: ignore[arg-type]


def test_the_public_face() -> None:
    assert pydt.read_study is read_study

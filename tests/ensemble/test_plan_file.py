"""Plans as TOML: what is written is read back as the same plan, and what means nothing is refused with its place.

More than 500 lines: tables of refusals, a line or two a case, for plans of both kinds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import pydt.design
from pydt.base import ConfigError, DataError, PydtError, StoreError
from pydt.data import Dataset, Groups, Target
from pydt.data.loading import Augment
from pydt.data.packing import pack_tar
from pydt.data.samples import glyphs, textures
from pydt.ensemble import Command, Function, Plan, quickstart_plan, read_plan, write_plan
from pydt.store import Measure
from pydt.training import FineTune, Recipe, Task, ZeroShot

QUICKSTART = """
seed = 3
[source]
sample = "alphanumerics"
[design]
kind = "random"
models = 40
alpha = 0.25
seed = 3
[recipe]
network = "convnet-4"
lr = 1
augment.mean = [0.2]
augment.std = 0.35
[[tasks]]
seed = 3
shots = 1
draws = 32
target.train.sample = "digits"
target.pool = 400
target.validation = 200
[[tasks]]
seed = 3
shots = [2, 5, 10, 20, "full"]
target.train.sample = "digits"
target.pool = 400
target.validation = 200
"""

ONE_TABLE = QUICKSTART.partition("[[tasks]]")[0] + "[[tasks]]" + QUICKSTART.rpartition("[[tasks]]")[2]


def _written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_the_page_shows_the_quickstart_as_a_file(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()
    read = read_plan(_written(tmp_path, page.split("```toml\n")[1].split("```")[0]))
    assert read.plan.digest == quickstart_plan().digest
    assert (read.dir, read.stop) == (tmp_path / "characters", None)  # all 600 are trained


def test_a_file_written_by_hand_is_the_plan_that_it_says(tmp_path: Path) -> None:
    read = read_plan(_written(tmp_path, QUICKSTART))
    assert read.plan.digest == quickstart_plan(40, 3).digest
    assert read.dir == tmp_path / "study"
    assert (read.workers, read.stop, read.limit) == (None, None, None)


def test_a_list_of_shots_is_a_task_of_each_number(tmp_path: Path) -> None:
    text = ONE_TABLE.replace("[2, 5,", "[5, 1, 2,")
    text = text.replace("seed = 3\nshots = [", 'seed = 3\nname = "mine"\ndraws = 3\nshots = [')
    plan = read_plan(_written(tmp_path, text)).plan
    assert [task.shots for task in plan.tasks] == [5, 1, 2, 10, 20, "full"]
    assert [task.draws for task in plan.tasks] == [3, 3, 3, 3, 3, 1]
    assert plan.tasks[0].name == "mine, 5-shot"
    one = text.replace('shots = [5, 1, 2, 10, 20, "full"]', "shots = 5")
    assert read_plan(_written(tmp_path, one)).plan.tasks[0].digest == plan.tasks[0].digest
    wrongs = {"[]": "shots: is empty", "[1, 1]": "shots: names a number twice", "[1, true]": "shots"}
    for wrong, pattern in wrongs.items():
        with pytest.raises(ConfigError, match=pattern):
            read_plan(_written(tmp_path, text.replace('[5, 1, 2, 10, 20, "full"]', wrong)))


OWN = """
[source]
groups = "sites.txt"
by = "site"
[design]
kind = "bernoulli"
models = 9
[runner]
command = ["python", "train.py", "{keep}", "{out}"]
depends = ["train.py"]
[[tasks]]
measure = "accuracy"
examples = "ids.txt"
unit = "points"
scale = 100
"""


def _own(folder: Path, text: str = OWN) -> Path:
    """A plan of a command, with the files that it names."""
    (folder / "train.py").write_text("print(1)\n")
    (folder / "sites.txt").write_text("b\na\n\nb\n")
    (folder / "ids.txt").write_text("".join(f"person {i}\n" for i in range(6)))
    return _written(folder, text)


def test_rows_may_be_a_command_of_ones_own(tmp_path: Path) -> None:
    plan = read_plan(_own(tmp_path)).plan
    source = Groups(["b", "a", None, "b"], by="site")
    tasks = [Measure("accuracy", [f"person {i}" for i in range(6)], unit="points", scale=100)]
    recipe = Command(["python", "train.py", "{keep}", "{out}"], depends=["train.py"], folder=str(tmp_path))
    made = Plan(source, design=pydt.design.design.bernoulli(2, 9), recipe=recipe, tasks=tasks)
    assert plan.digest == made.digest
    assert plan.by == "site"
    assert Path(plan.recipe.folder) == tmp_path, "train.py is found beside the file"
    assert (plan.tasks[0].unit, plan.tasks[0].scale) == ("points", 100)
    write_plan(plan, tmp_path / "copy.toml")
    assert read_plan(tmp_path / "copy.toml").plan.digest == plan.digest


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ("[runner]", "[recipe]\nepochs = 1\n[runner]", r"study\.toml: runner: there is a \[recipe\], too"),
        ("[runner]", "[recipe]", r"study\.toml: source\.groups: has no images that a \[recipe\] .*\[runner\] command"),
        ("[runner]", "[runer]", r"study\.toml: runer: is no key.*did you mean 'runner'"),
        ("depends =", "dependss =", r"runner\.dependss: is no key.*did you mean 'depends'"),
        ("depends =", "tpu = true\ndepends =", r"runner\.tpu: is no key"),
        ('"train.py"]\n[[', '"tain.py"]\n[[', r"study\.toml: runner: Command\.depends: .*tain\.py cannot be read"),
        ("depends =", 'folder = "sub"\ndepends =', r"study\.toml: runner: .*sub.train\.py"),
        ("depends =", 'device = "gpu"\ndepends =', r"study\.toml: runner: .*device 'gpu'"),
        ('measure = "accuracy"', 'mesure = "accuracy"', r"study\.toml: tasks\[0\]: is no measure.*measure = "),
        ('measure = "accuracy"', "measure = 3", r"tasks\[0\]\.measure: is 3, not text"),
        ('measure = "accuracy"', 'measure = "a"\nshots = 5', r"tasks\[0\]\.shots: is no key"),
        ("scale = 100", "scale = 0", r"study\.toml: tasks\[0\]: .*scale 0 is out of range"),
        ("unit =", "units =", r"tasks\[0\]\.units: is no key.*did you mean 'unit'"),
        ('"ids.txt"', '"is.txt"', r"study\.toml: tasks\[0\]\.examples: .*is\.txt: cannot be read"),
        ('"ids.txt"', "true", r"study\.toml: tasks\[0\]: .*examples True is not a whole number"),
        ('"ids.txt"', "1.5", r"tasks\[0\]\.examples: is 1\.5, no list"),
        ('"ids.txt"', "0", r"study\.toml: tasks\[0\]: .*examples 0 is out of range"),
        ("scale = 100", 'half = "sites.txt"', r"study\.toml: tasks\[0\]: .*half: shape \(4,\) for 6 examples"),
        ("scale = 100", 'weights = "ids.txt"', r"study\.toml: tasks\[0\]\.weights: are no numbers"),
        ("scale = 100", 'classes = {a = 1}', r"study\.toml: tasks\[0\]\.classes: is \{'a': 1\}, no list"),
        ('"sites.txt"', '"site.txt"', r"study\.toml: source\.groups: .*site\.txt: cannot be read"),
        ('"sites.txt"', "3", r"study\.toml: source\.groups: is 3, no list"),
        ('"sites.txt"', '"train.py"\nids = "ids.txt"', r"study\.toml: source: .*6 ids for 1 examples"),
        ('"sites.txt"', '"sites.txt"\nlabels = "x"', r"source\.labels: is no key"),
        ('"sites.txt"', '"sites.txt"\ndigest = "00"', r"source\.groups: holds the data"),
        ('groups = ', 'group = ', r"source\.group: is no key.*did you mean 'groups'"),
        ("\n[source]", '\nby = "class"\n[source]', r"study\.toml: design: .*no partition 'class'.*'site'"),
        ("\n[source]", '\nrates.grid = [0.1, 0.2]\n[source]', r"study\.toml: rates: has no task with a learning rate"),
        ("\n[source]", '\nrun.keep = "weights"\n[source]', r"study\.toml: run\.keep: is for networks that pydt trains"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_command_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, pattern: str
) -> None:
    assert OWN.count(old) == 1
    with pytest.raises(PydtError, match=pattern) as refused:
        read_plan(_own(tmp_path, OWN.replace(old, new)))
    assert str(refused.value).count("study.toml") == 1


def test_a_measure_beside_a_recipe_is_refused_with_its_place(tmp_path: Path) -> None:
    text = ONE_TABLE.replace("[[tasks]]", '[[tasks]]\nmeasure = "accuracy"')
    with pytest.raises(ConfigError, match=r"study\.toml: tasks\[0\]\.measure: is what a \[runner\] gives"):
        read_plan(_written(tmp_path, text))


def test_files_of_a_measure_say_what_lists_say(tmp_path: Path) -> None:
    half, classes, weights = ["score", "report"] * 3, ["cat", "dog", "cat"] * 2, [1, 2.5, 0, 1, 1, 3]
    (tmp_path / "half.txt").write_text("\n".join(half))
    (tmp_path / "classes.txt").write_text("\n".join(classes))
    (tmp_path / "weights.txt").write_text("\n".join(map(str, weights)))
    np.save(tmp_path / "weights.npy", weights)
    np.save(tmp_path / "ids.npy", np.arange(10, 16))
    np.save(tmp_path / "sites.npy", np.array([7, 7, -1, 10]))
    made = Measure("a", range(10, 16), half=half, classes=classes, weights=weights, higher_is_better=False)
    text = OWN.partition("measure")[0].replace("sites.txt", "sites.npy")
    rest = 'measure = "a"\nexamples = "ids.npy"\nhigher_is_better = false\nhalf = "half.txt"\nclasses = "classes.txt"\n'
    for ending in ("txt", "npy"):
        plan = read_plan(_own(tmp_path, f'{text}{rest}weights = "weights.{ending}"')).plan
        assert plan.tasks[0].digest == made.digest
        assert not plan.tasks[0].higher_is_better
        assert plan.source.digest == Groups([7, 7, None, 10]).digest


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5) | st.from_regex(r"-?[0-9]{1,3}", fullmatch=True)


@st.composite
def groups_of_anything(draw: st.DrawFn) -> Groups:
    about = {"name": draw(NAMES), "by": draw(NAMES)}
    if draw(st.booleans()):
        names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
        sizes = draw(st.lists(st.integers(1, 3), min_size=len(names), max_size=len(names)))
        ids = iter(draw(st.lists(NAMES | st.just(""), min_size=sum(sizes), max_size=sum(sizes), unique=True)))
        return Groups({n: [next(ids) for _ in range(size)] for n, size in zip(names, sizes, strict=True)}, **about)
    entry = st.integers(-1, 12) if draw(st.booleans()) else st.none() | NAMES
    members = draw(st.lists(entry, min_size=1, max_size=7))
    ids = draw(st.none() | st.lists(NAMES, min_size=len(members), max_size=len(members), unique=True))
    try:
        return Groups(members, ids=ids, **about)
    except DataError:  # no group, or two spellings of one name
        return Groups(["b", None, "a"], **about)


@st.composite
def measures(draw: st.DrawFn, name: str) -> Measure:
    count = draw(st.integers(1, 7))
    many = {"min_size": count, "max_size": count}
    given: dict[str, Any] = {"examples": count}
    if draw(st.booleans()):
        given["examples"] = draw(st.lists(NAMES | st.just(""), **many, unique=True))
    if draw(st.booleans()):
        given["classes"] = draw(st.lists(st.integers(-3, 12), **many) | st.lists(NAMES, **many))
    if draw(st.booleans()) and count > 1:
        given["half"] = ["score", "report", *draw(st.lists(st.sampled_from(["score", "report"]), **many))][:count]
    if draw(st.booleans()):
        given["weights"] = np.array(draw(st.lists(st.floats(0.1, 1e6), **many)))
    unit = draw(st.sampled_from(["units", "nats"]))
    scale, up = draw(st.sampled_from([1.0, 0.1, 100])), draw(st.booleans())
    return Measure(name, unit=unit, scale=scale, higher_is_better=up, **given)


RUN = st.fixed_dictionaries(
    {
        "keep": st.sampled_from(["npy", "parquet"]),
        "out": st.sampled_from(["csv", "json", "safetensors"]),
        "env": st.dictionaries(st.sampled_from(["LEVEL", "A_B"]), NAMES.filter(lambda text: "\0" not in text)),
        "tries": st.integers(1, 3),
        "threads": st.integers(1, 3),
        "device": st.sampled_from(["cpu", "cuda"]),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=groups_of_anything(), one=measures("one"), two=measures("t w\no"), how=RUN)
def test_whatever_a_plan_of_a_command_says_comes_back(
    tmp_path: Path, source: Groups, one: Measure, two: Measure, how: dict[str, Any]
) -> None:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "train.py").write_text("print(2)\n")
    recipe = Command(
        ["python", "train.py", "{keep}", "{out}"], depends=["train.py"], folder=str(tmp_path / "code"), **how
    )
    masks = pydt.design.Design.explicit(np.ones((2, len(source.names)), bool))
    plan = Plan(source, design=masks, recipe=recipe, tasks=[one, two])
    write_plan(plan, tmp_path / "any.toml")
    again = read_plan(tmp_path / "any.toml").plan
    assert again.digest == plan.digest
    assert (again.source.digest, again.source.name, again.by) == (source.digest, source.name, source.by)
    for measure, read in zip(plan.tasks, again.tasks, strict=True):
        assert read.digest == measure.digest
        assert read.described() == measure.described()
    assert vars(again.recipe) == vars(recipe)


def test_a_function_cannot_be_written(tmp_path: Path) -> None:
    masks = pydt.design.design.bernoulli(2, 9)
    plan = Plan(Groups(["a", "b"]), design=masks, recipe=Function(_written), tasks=[Measure("loss")])
    with pytest.raises(ConfigError, match=r"Plan\.recipe: is a function, which no file can hold.*pydt\.Command"):
        write_plan(plan, tmp_path / "a.toml")
    command = replace(plan, recipe=Command(["true", "{out}"]))
    with pytest.raises(ConfigError, match=r"rows of a pydt\.Command have no learning rate"):
        write_plan(command, tmp_path / "a.toml", rates=(0.1, 0.2))
    assert not (tmp_path / "a.toml").exists()


def _strata(groups: int) -> list[int]:
    return [i % 2 for i in range(groups)]


DESIGNS: list[Any] = [
    pydt.design.design.random(8, 12, 0.5, 3),
    pydt.design.design.random(8, 12, 0.25, placebos=0),
    pydt.design.design.random(8, 12, 0.5, 5, strata=_strata(8)),
    pydt.design.design.bernoulli(8, 9, 0.3, 2),
    pydt.design.design.foldover(8, 10, 4),
    pydt.design.design.random(8, 12, 0.5, 3).take([7, 2, 3]),
    pydt.design.Design.explicit(np.eye(8, dtype=bool)),
]


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.kind)
def test_every_kind_of_design_comes_back(tmp_path: Path, source: Dataset, target: Target, design: Any) -> None:
    plan = Plan(source, design=design, recipe=Recipe(), tasks=[Task(target)], seed=11)
    write_plan(plan, tmp_path / "a.toml")
    assert read_plan(tmp_path / "a.toml").plan.digest == plan.digest


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    recipe=st.builds(
        lambda budget, **more: Recipe(**budget, **more),
        st.dictionaries(st.sampled_from(["epochs", "steps", "samples"]), st.integers(1, 99), max_size=1),
        network=st.sampled_from(["convnet-8", "resnet18"]),
        lr=st.floats(1e-6, 10),
        optimizer=st.sampled_from(["sgd", "adamw"]),
        betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
        clip_norm=st.none() | st.floats(0.1, 9),
        schedule=st.sampled_from(["one-cycle", "triangular", "cosine"]),
        nesterov=st.booleans(),
        threads=st.integers(1, 4),
        compile=st.booleans(),
        augment=st.builds(
            Augment,
            crop_pad=st.just(0),
            flip=st.booleans(),
            mean=st.tuples(st.floats(0, 1)),
            size=st.none() | st.integers(1, 64),
            resized_crop=st.none() | st.just(((0.1, 0.9), (0.5, 2.0))),
        ),
    ),
    tasks=st.lists(
        st.fixed_dictionaries(
            {
                "mode": st.sampled_from(["probe", "finetune", "lp-ft", "last-n", "drifting-probe", "wise-ft"]),
                "last": st.integers(0, 3),
                "alpha": st.floats(0, 1),
                "shots": st.integers(1, 5) | st.just("full"),
                "draws": st.integers(1, 9),
                "penalty": st.floats(1e-3, 1e3),
                "finetune": st.builds(FineTune, epochs=st.integers(1, 9), lr=st.floats(1e-4, 1)),
                "name": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
            }
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda task: task["name"],
    ),
    seeds=st.none() | st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=4),
    seed=st.integers(0, 2**63 - 1),
)
def test_whatever_a_plan_says_comes_back(
    tmp_path: Path, source: Dataset, target: Target, recipe: Recipe, tasks: Any, seeds: Any, seed: int
) -> None:
    made = [Task(target, **task) for task in tasks]
    plan = Plan(source, design=pydt.design.design.random(8, 4), recipe=recipe, tasks=made, seeds=seeds, seed=seed)
    write_plan(plan, tmp_path / "any.toml")
    read = read_plan(tmp_path / "any.toml").plan
    assert read.digest == plan.digest
    assert read.recipe == plan.recipe
    assert read.seeds == plan.seeds


def test_sentences_of_a_text_tower_come_back(tmp_path: Path, source: Dataset, target: Target) -> None:
    told = replace(source, captions=[f"blob {'abcd'[label % 4]}, dark" for label in source.labels])
    sentences = ZeroShot(("a {} blob", "{}"), {"a": "dark {a}", "c": 'c "blob"'})
    tasks = [
        Task(target, mode, zero_shot=sentences, finetune=FineTune(epochs=1, clip_norm=1.0))
        for mode in ("zero-shot", "finetune", "wise-ft")
    ]
    recipe = Recipe(method="clip", network="convnet-4")
    plan = Plan(told, design=pydt.design.design.random(8, 4), recipe=recipe, tasks=tasks)
    write_plan(plan, tmp_path / "any.toml")
    again = read_plan(tmp_path / "any.toml").plan
    assert again.digest == plan.digest
    assert [task.zero_shot for task in again.tasks] == [sentences] * 3
    text = (tmp_path / "any.toml").read_text()
    by_hand = """
[[tasks]]
mode = "zero-shot"
zero_shot.templates = ["a {} blob", "{}"]
zero_shot.names = {a = "dark {a}", c = 'c "blob"'}
target.train.saved = """
    saved = text.partition("[tasks.target.train]")[2].partition("saved = ")[2].partition("\n")[0]
    (tmp_path / "hand.toml").write_text(text.partition("[[tasks]]")[0] + by_hand + saved)
    assert read_plan(tmp_path / "hand.toml").plan.tasks[0].digest == plan.tasks[0].digest


def test_how_to_run_it_comes_back_too(tmp_path: Path, source: Dataset, target: Target) -> None:
    plan = Plan(source, design=pydt.design.design.random(8, 4), recipe=Recipe(), tasks=[Task(target)])
    write_plan(plan, tmp_path / "a.toml", dir="elsewhere", workers=3, stop="sign 2", limit=1.5, same_code=True)
    read = read_plan(tmp_path / "a.toml")
    assert (read.dir, read.workers, read.stop, read.limit) == (tmp_path / "elsewhere", 3, "sign 2", 1.5)
    assert read.same_code
    write_plan(plan, tmp_path / "a.toml")
    assert not read_plan(tmp_path / "a.toml").same_code


def test_rates_to_choose_come_back_and_stand_in_no_digest(tmp_path: Path, source: Dataset, target: Target) -> None:
    tasks = [Task(target, mode="finetune"), Task(target)]
    plan = Plan(source, design=pydt.design.design.random(8, 4), recipe=Recipe(), tasks=tasks)
    write_plan(plan, tmp_path / "a.toml", rates=(0.1, 0.01), rate_rows=2)
    read = read_plan(tmp_path / "a.toml")
    assert (read.plan.digest, read.rates, read.rate_rows) == (plan.digest, (0.01, 0.1), 2)
    with pytest.raises(StoreError, match=r"holds no choice of the plan's learning rates.*pydt run FILE"):
        read.chosen()
    made = replace(plan, tasks=[tasks[0].at(0.01), tasks[1]])
    write_plan(made, tmp_path / "b.toml")
    read = read_plan(tmp_path / "b.toml")
    assert (read.plan.digest, read.rates, read.chosen().tasks[0].finetune.lr) == (made.digest, (), 0.01)
    with pytest.raises(ConfigError, match="no task has a learning rate"):
        write_plan(replace(plan, tasks=tasks[1:]), tmp_path / "c.toml", rates=(0.1, 0.01))


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("", r"study\.toml: rates\.grid: is missing"),
        ("grid = 0.1", r"study\.toml: rates\.grid: is 0\.1, not a list"),
        ("grid = []", r"study\.toml: rates: rates: is empty"),
        ("grid = [0.1]", r"study\.toml: rates: .*leaves nothing to choose"),
        ("grid = [0.1, -1]", r"study\.toml: rates: rates\[1\] -1 is out of range"),
        ("grid = [0.1, inf]", r"study\.toml: rates: rates\[1\] inf is not a finite number"),
        ("grid = [0.1, 0.1]", r"study\.toml: rates: rates: 0\.1 is there twice"),
        ("grid = [0.1, 0.2]\nrows = 0", r"study\.toml: rates: choose_rates: rows 0 is out of range"),
        ("grid = [0.1, 0.2]\nrow = 3", r"study\.toml: rates\.row: is no key.*did you mean 'rows'"),
        ("grid = [0.1, 0.2]", r"study\.toml: rates: rates: no task has a learning rate \(mode 'probe'\)"),
    ],
)
def test_rates_that_make_no_sense_are_refused_with_their_place(tmp_path: Path, given: str, pattern: str) -> None:
    tuned = ONE_TABLE if "probe" in pattern else ONE_TABLE.replace("[[tasks]]", "[[tasks]]\nmode = 'finetune'")
    with pytest.raises(ConfigError, match=pattern):
        read_plan(_written(tmp_path, f"{tuned}[rates]\n{given}\n"))


def test_file_and_data_can_be_moved_together(tmp_path: Path, source: Dataset, target: Target) -> None:
    test = Dataset.from_arrays(target.train.images[::-1] // 2, target.train.labels[::-1], target.classes, name="darker")
    judged = Target(target.train, test, metric="mean per class", validation=7)
    plan = Plan(source, design=pydt.design.design.random(8, 4), recipe=Recipe(), tasks=[Task(judged)])
    (tmp_path / "here").mkdir()
    write_plan(plan, tmp_path / "here" / "a.toml")
    (tmp_path / "here").rename(tmp_path / "there")
    assert read_plan(tmp_path / "there" / "a.toml").plan.digest == plan.digest


def test_folders_and_arrays_are_named_from_where_the_file_lies(tmp_path: Path, source: Dataset, target: Target) -> None:
    np.save(tmp_path / "images.npy", source.images)
    np.save(tmp_path / "labels.npy", np.array(source.classes)[source.labels])
    (tmp_path / "styles.txt").write_text("\n".join("ab"[i % 2] for i in range(len(source))) + "\n")
    target.train.save(tmp_path / "target")
    text = """
        by = "style"
        [source]
        images = "images.npy"
        labels = "labels.npy"
        columns.style = "styles.txt"
        [design]
        kind = "bernoulli"
        models = 4
        [[tasks]]
        name = "blobs"
        target.train.saved = "target"
    """
    plan = read_plan(_written(tmp_path, text)).plan
    assert plan.context.units[1] == ("a", "b")
    assert np.array_equal(plan.context.units[0], np.arange(len(source)) % 2)
    assert plan.source.digest == source.digest
    assert plan.tasks[0].target.digest == target.digest


def test_a_folder_of_images_is_a_source(folder_of_images: Path, target: Target) -> None:
    target.train.save(folder_of_images.parent / "target")
    colour = Dataset.from_arrays(np.repeat(target.train.images, 3, axis=3), target.train.labels)
    colour.save(folder_of_images.parent / "colour")
    text = f"""
        [source]
        folder = "{folder_of_images.name}"
        [design]
        kind = "bernoulli"
        models = 4
        [recipe]
        augment.size = 32
        [[tasks]]
        target.train.saved = "colour"
    """
    plan = read_plan(_written(folder_of_images.parent, text)).plan
    assert plan.source.digest == Dataset.from_folder(folder_of_images).digest
    assert plan.recipe.augment.size == 32
    # The same images as shards: the same rows.
    pack_tar(folder_of_images, folder_of_images.parent / "shards")
    tars = text.replace(f'folder = "{folder_of_images.name}"', 'tar = "shards"\ncaption = false')
    assert read_plan(_written(folder_of_images.parent, tars)).plan.source.digest == plan.source.digest
    with pytest.raises(DataError, match=r"study\.toml: source\.tar: .*no image has a \.json|no \.json has 'kind'"):
        read_plan(_written(folder_of_images.parent, tars.replace("caption = false", 'label = "kind"')))
    with pytest.raises(DataError, match="classes: False is no list"):  # false is a word for nothing in these two alone
        read_plan(_written(folder_of_images.parent, tars.replace("caption = false", "classes = false")))


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ("seed = 3\n[source]", "sed = 3\n[source]", r"study.toml: sed: is no key.*mean 'seed'"),
        ("[recipe]", "[recipes]", r"recipes.*did you mean 'recipe'"),
        ("lr = 1", "learning_rate = 1", r"recipe\.learning_rate: is no key.*known"),
        ("lr = 1", "epochs = 0", r"study.toml: recipe"),
        ("lr = 1", 'lr = "1"', r"study.toml: recipe: Recipe: lr '1'"),
        ("augment.mean", "augment.maen", r"recipe\.augment\.maen.*did you mean 'mean'"),
        ("alpha =", "alhpa =", r"design\.alhpa.*did you mean 'alpha'"),
        ('kind = "random"', 'kind = "randon"', r"design\.kind: no kind 'randon'.*mean 'random'"),
        ('kind = "random"', 'kind = "foldover"', r"design\.alpha: is no key"),
        ('kind = "random"', 'kind = "stratified"', r"design\.strata: is missing"),
        ("models = 40", "modles = 40", r"design\.models: is missing.*'modles' meant"),
        ("models = 40", "models = 40.5", r"design\.models: is 40.5, not a whole number"),
        ("models = 40", "models = true", r"design\.models: is True, not a whole number"),
        ("alpha = 0.25", "alpha = 0.001", r"study.toml: design: alpha"),
        ("[[tasks]]", "[tasks]", r"write \[\[tasks\]\], with two brackets"),
        ("target.pool", "target.pol", r"tasks\[0\]\.target\.pol.*did you mean 'pool'"),
        ('sample = "digits"', 'sample = "digit"', r"tasks\[0\]\.target\.train\.sample: .*'digit'.*mean 'digits'"),
        ('sample = "digits"', 'sample = "texture"', r"train\.sample: .*unknown sample.*did you mean 'textures'"),
        ('sample = "digits"', 'sample = "textures"\ntarget.train.each = 3', r"train\.sample: each does not apply"),
        ('sample = "digits"', 'smaple = "digits"', r"target\.train\.smaple.*did you mean 'sample'"),
        ('sample = "alphanumerics"', 'sample = "greek"\nfolder = "x"', r"source: folder and sample given"),
        ('sample = "alphanumerics"', 'folder = "nowhere"', r"study.toml: source.folder: .*nowhere"),
        ('sample = "alphanumerics"', 'images = "nowhere.npy"', r"source: labels: is missing"),
        ('sample = "alphanumerics"', 'sample = "alphanumerics"\ndigest = "00"', r"source.sample: holds the data"),
        ('sample = "alphanumerics"', "", r"source: none given. give one of: folder"),
        ("[design]", "[design", r"study.toml: is no TOML: .*line 5"),
        ("[design]", "[design]\nkind = 'random'\n", r"is no TOML"),
        ("seed = 3\n[source]", 'seed = 3\nby = "colour"\n[source]', r"study.toml: design: .*no group column 'colour'"),
        ("seed = 3\n[source]", "seeds = [1]\n[source]", r"study.toml: Plan.seeds: 1 seeds for 40 rows"),
        ("[source]", "[run]\nworker = 3\n[source]", r"run\.worker.*did you mean 'workers'"),
        ("[source]", '[run]\nlimit = "1h"\n[source]', r"run\.limit: is '1h', not a number"),
        ("[source]", '[run]\nstop = "stder < 2"\n[source]', r"study.toml: run\.stop: stop: 'stder < 2' is not"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_with_its_place(tmp_path: Path, old: str, new: str, pattern: str) -> None:
    assert ONE_TABLE.count(old) == 1
    with pytest.raises(PydtError, match=pattern) as refused:
        read_plan(_written(tmp_path, ONE_TABLE.replace(old, new)))
    assert str(refused.value).count("study.toml") == 1


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing.toml: no such file"):
        read_plan(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="name a plan or study file"):
        read_plan(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no TOML"):
        read_plan(tmp_path / "binary.toml")
    with open(tmp_path / "sparse.toml", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="is larger than"):
        read_plan(tmp_path / "sparse.toml")


def test_other_data_than_the_plan_was_written_for_is_noticed(tmp_path: Path, source: Dataset, target: Target) -> None:
    plan = Plan(source, design=pydt.design.design.random(8, 4), recipe=Recipe(), tasks=[Task(target)])
    write_plan(plan, tmp_path / "a.toml")
    text = (tmp_path / "a.toml").read_text()
    assert source.digest in text
    (tmp_path / "a.toml").write_text(text.replace(f'digest = "{source.digest}"', f'digest = "{target.train.digest}"'))
    with pytest.raises(DataError, match=r"a.toml: source.saved: holds the data .*restore"):
        read_plan(tmp_path / "a.toml")


def test_a_network_that_no_file_can_hold_is_refused(tmp_path: Path, source: Dataset, target: Target) -> None:
    plan = Plan(source, design=pydt.design.design.random(8, 4), recipe=Recipe(), tasks=[Task(target)])
    odd = replace(plan, recipe=Recipe(network=glyphs.source))
    with pytest.raises(ConfigError, match="network is a function"):
        write_plan(odd, tmp_path / "a.toml")
    assert not (tmp_path / "a.toml").exists()


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("workers = 0", r"study.toml: run\.workers: is 0"),
        ("workers = 99999999999", r"run\.workers"),
        ("limit = -1", r"study.toml: run\.limit: is -1"),
        ("limit = nan", r"run\.limit"),
        ('dir = "a\\u0000"', r"study.toml: run\.dir"),
        ("same_code = 1", r"run\.same_code: is 1, not true or false"),
    ],
)
def test_ways_to_run_that_make_no_sense_are_refused_with_their_place(tmp_path: Path, line: str, pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        read_plan(_written(tmp_path, f"[run]\n{line}\n{ONE_TABLE[ONE_TABLE.index('[source]') :]}"))


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("name = 3", r"tasks\[0\]\.name: is 3, not text"),
        ('finetune.epochs = "a"', r"tasks\[0\]\.finetune\.epochs: is 'a', not a whole number"),
        ('zero_shot.templates = "a {}"', r"tasks\[0\]\.zero_shot: ZeroShot: templates 'a \{\}' is no list"),
        ('zero_shot.names = ["ab"]', r"tasks\[0\]\.zero_shot: .*'ab' is no class and its phrase"),
        ("finetune.nesterov = 1", r"finetune\.nesterov: is 1, not true or false"),
    ],
)
def test_values_of_another_type_in_tasks_are_refused(tmp_path: Path, line: str, pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        read_plan(_written(tmp_path, ONE_TABLE.replace("[[tasks]]", f"[[tasks]]\n{line}")))


def test_the_far_target_stands_in_two_samples(tmp_path: Path) -> None:
    both = 'target.train.sample = "textures"\ntarget.test.sample = "textures-test"'
    path = _written(tmp_path, ONE_TABLE.replace('target.train.sample = "digits"', both))
    assert read_plan(path).plan.tasks[0].target.digest == textures().digest


def test_lines_of_a_text_file_end_where_an_editor_says(tmp_path: Path, source: Dataset) -> None:
    np.save(tmp_path / "images.npy", source.images[:4])
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\r\ndog\u2028s\r\ncat\r\ndog\u2028s\r\n".encode())
    text = """
        [source]
        images = "images.npy"
        labels = "labels.txt"
        [design]
        kind = "bernoulli"
        models = 4
        [[tasks]]
        target.train.sample = "digits"
    """
    assert read_plan(_written(tmp_path, "\ufeff" + text)).plan.source.classes == ("cat", "dog\u2028s")


def test_a_list_of_rates_without_a_table_is_told_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'rates = [0.1, 0.2]\n[source]\nsample = "greek"\neach = 2\n[design]\nkind = "random"\nmodels = 8\n'
        '[[tasks]]\ntarget.train.sample = "digits"\n'
    )
    with pytest.raises(ConfigError, match=r"a\.toml: rates: is a list, not a table\. write rates\.grid = \[\.\.\.\]"):
        read_plan(tmp_path / "a.toml")


def test_captions_of_a_folder_stand_in_a_file(tmp_path: Path) -> None:
    for i, key in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        (tmp_path / "photos" / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (60 * i, 0, 0)).save(tmp_path / "photos" / key)

    def read(file: str) -> tuple[str, ...] | None:
        made = f'source.folder = "photos"\nsource.captions = "{file}"\ndesign.kind = "random"\ndesign.models = 8\n'
        (tmp_path / "a.toml").write_text(
            made + 'recipe.augment.rgb = true\n[[tasks]]\ntarget.train.sample = "digits"\n'
        )
        return read_plan(tmp_path / "a.toml").plan.source.captions

    (tmp_path / "c.csv").write_text('caption,site,file\n"one, b",x,b/1.png\ntwo,y,2.png\none,x,a/1.png\n', "utf-8-sig")
    assert read("c.csv") == ("one", "two", "one, b")
    (tmp_path / "c.txt").write_text("b/1.png\tone, b\r\n2.png\ttwo\na/1.png\tone\n")
    assert read("c.txt") == ("one", "two", "one, b")
    for text, message in (
        ("a/1.png,one\n", r"captions: .*c\.csv: has the head .*begin it with a line: file,caption"),
        ("file,caption\na/1.png,one, two\n", "entry 1 has 3 fields, not 2"),
        ("file,caption\na/1.png,one\na/1.png,two\n", r"entry 2 names 'a/1\.png' again"),
        ("file,caption\na/1.png,one\nb/1.png,two\n", r"1 of 3 images have none: 'a/2\.png'"),
    ):
        (tmp_path / "c.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read("c.csv")

"""Every file that pydt reads back, damaged or made up: the same answer, or an error that names the file.

Damage is a flipped bit, a lost end, another byte; what is made up has the right checksums, and a value of another type,
size or depth than any writer of pydt has written. Memory is limited while the files are read: what a file claims is not
believed before it is checked.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_json import paths, replaced
from safetensors.numpy import save
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask
from stub_store import choice, computed

from pydt import design
from pydt.analyses.counterfactual import stored as counterfactual
from pydt.base import PydtError, canonical_json, digest, encode, load, parse
from pydt.ensemble import Plan
from pydt.estimation import failure_test
from pydt.store import (
    Bank,
    Kept,
    Store,
    compact,
    export,
    merge,
    name_plan,
    read_choices,
    row_seconds,
    status,
    verify,
    write_choice,
)
from pydt.store.outputs import OUTPUTS

ROOM = 1 << 30  # bytes that reading may take
BAD = "null", "-1", "4611686018427387904", "1e400", '"x"', "[]", "{}", "true", "1.5", '"\\ud800"'
DEEP = "[" * 10_000 + "]" * 10_000
SEEDS = np.random.default_rng(13)


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def plan() -> Plan:
    return Plan(StubSource(), design=design.bernoulli(GROUPS, 5, seed=1), recipe=StubRecipe(), tasks=(StubTask(),))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store that has every kind of file: rows of both kinds in files and in a block, descriptions, notes."""
    folder = tmp_path_factory.mktemp("hostile") / "store"
    made = computed(folder, plan(), [0, 1, 2], failures=(1,))
    compact(folder, fewest=2)
    computed(folder, plan(), [3, 4], failures=(3,))
    record = made.plan()
    made.put_thumbnails(record, *plan().context.source.pictured("class", 2))
    made.note_stop(record, {"rows": 5, "rule": "sign 1", "looks": 2, "reason": "sure", "decided": [["class 1", 1]]})
    made.log(event="row", source=record.sources[0], keys=list(record.keys[0]), seconds=0.5, pid=1)
    link = {"plan": record.digest, "rows": record.digest, "task": record.tasks[0]["digest"]}
    write_choice(made, choice())
    name_plan(made, record.digest, "first try", file=folder.parent / "first try.toml")
    Bank(made).put(record.sources[0], Kept("weights", {"body.w": np.arange(6.0)}, {"loss": 0.5}, facts={"code": "x"}))
    (folder / "counterfactual").mkdir()
    (folder / "counterfactual" / f"{record.digest}.json").write_text(canonical_json(link))
    return folder


def kinds(store: Path) -> dict[str, Path]:
    """One file of each kind, relative to the store."""
    rows = sorted(store.glob("rows/*/*"))
    failed = next(path for path in rows if load(path)[1]["status"] == "failed")
    found = {"good row": next(path for path in rows if path != failed), "failed row": failed}
    for pattern in (
        "packed/*/*",
        "plans/*",
        "stops/*",
        "tasks/*",
        "thumbnails/*",
        "choices/*",
        "names/*",
        "counterfactual/*",
        "bank/*/*",
    ):
        found |= {f"{path.relative_to(store).parts[0]} {path.suffix}": path for path in store.glob(pattern)}
    found = {name.replace("packed .npy", "packed array"): path for name, path in found.items()}
    (block,) = store.glob("packed/*")
    found |= {"masks": block / "masks.npy", "primitives": block / "primitives.npy", "format": store / "store.json"}
    return {name: path.relative_to(store) for name, path in found.items() if "array" not in name}


KINDS = (
    "format", "good row", "failed row", "packed .jsonl", "masks", "primitives", "plans .json", "stops .json",
    "tasks .safetensors", "thumbnails .safetensors", "choices .json", "names .json", "counterfactual .json",
    "bank .safetensors",
)  # fmt: skip
VOLATILE = "folder", "rows_per_hour", "bytes", "files", "quarantined", "writer"


def plain(value: Any) -> Any:
    """Anything as something that can be compared."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def asked(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is read of a store, each question on its own; the first ones change nothing."""
    name = StubTask().name

    def told() -> Any:
        found = status(folder)
        return {key: value for key, value in found.items() if key not in VOLATILE}

    def rows(ask: Callable[[Store], Any]) -> Callable[[], Any]:
        return lambda: ask(Store(folder))

    return {
        "status": told,
        "masks": rows(lambda s: s.masks()),
        "outputs": rows(lambda s: [s.outputs(name, output, "all") for output in OUTPUTS]),
        "failed": rows(lambda s: [(i, str(row), why) for i, row, why in s.failed()]),
        "scalars": rows(lambda s: s.scalars(name)),
        "examples": rows(lambda s: s.examples(name)),
        "thumbnails": rows(lambda s: s.thumbnails()),
        "stopped": rows(lambda s: s.stopped()),
        "facts": rows(lambda s: (s.names(), s.design().digest, failure_test(s))),
        "seconds": rows(lambda s: row_seconds(s, s.plan())),
        "choices": rows(lambda s: list(read_choices(s))),
        "bank": rows(lambda s: [vars(kept) for key in s.plan().sources if (kept := Bank(s).get(key)) is not None]),
        "counterfactual": rows(lambda s: [arm.correct for arm in getattr(counterfactual(s, s.plan()), "arms", ())]),
        "verify": lambda: {key: value for key, value in verify(folder).items() if key in ("missing", "damaged")},
    }


def answers(folder: Path) -> dict[str, Any]:
    """Every answer, or the error; anything but a `PydtError` is the test's failure."""
    found: dict[str, Any] = {}
    for name, ask in asked(folder).items():
        try:
            found[name] = plain(ask())
        except PydtError as error:
            found[name] = error
    return found


def compare(folder: Path, file: Path, expected: dict[str, Any]) -> int:
    """Compare the answers of a damaged store with those of the sound one; how many differ, all with a trace."""
    found = answers(folder)
    different = [name for name in expected if isinstance(found[name], PydtError) or found[name] != expected[name]]
    stem = file.parts[1] if file.parts[0] == "packed" else file.stem
    traces = (folder / "log.jsonl").read_text() + " ".join(map(str, folder.glob("quarantine/*")))
    traces += f"{found['status']} {found['verify']}"
    for name in different:
        assert stem in f"{found[name]} {traces}", (name, found[name], expected[name])
    return len(different)


# ---- what is done to a file


def damaged(data: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """A flipped bit in so many bytes, and so many lengths."""
    places = SEEDS.choice(len(data), min(count, len(data)), replace=False)
    for place in map(int, places):
        changed = bytearray(data)
        changed[place] ^= 1 << int(SEEDS.integers(8))
        yield f"bit in byte {place}", bytes(changed)
        yield f"first {place} bytes", data[:place]


def made_up(value: Any) -> Iterator[tuple[str, str]]:
    """Texts of JSON in which one value is another one, is not there, or is there twice."""
    for at in paths(value, 2):
        text = canonical_json(replaced(value, at, "@@"))
        for bad in (*BAD, DEEP):
            yield f"{at} is {bad[:20]}", text.replace('"@@"', bad)
        if at and isinstance(at[-1], str):
            inside = value
            for key in at[:-1]:
                inside = inside[key]
            yield f"no {at}", canonical_json(replaced(value, at[:-1], {k: inside[k] for k in inside if k != at[-1]}))
            twice = f"{canonical_json(at[-1])}:1,{canonical_json(at[-1])}:"
            yield f"{at} twice", text.replace(f'{canonical_json(at[-1])}:"@@"', f'{twice}"@@"')


def signed(text: str, kind: str) -> tuple[str, str | None]:
    """The text with the checksum that its writer would give it, and its digest; as it is where it is no JSON."""
    try:
        value = parse(text)
        if kind == "plan":
            return text, digest("plan", value)
        body = {name: inner for name, inner in value.items() if name != "sha256"}
        return canonical_json({**body, "sha256": digest(kind, body)}), None
    except (PydtError, AttributeError):
        return text, None


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Callable[[], Path]:
    def copy() -> Path:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        return shutil.copytree(store, tmp_path / "store")

    return copy


def damages(kind: str, store: Path, copied: Callable[[], Path], count: int) -> None:
    file, expected = kinds(store)[kind], answers(copied())
    assert not any(isinstance(answer, PydtError) for answer in expected.values())
    noticed = 0
    for what, data in damaged((store / file).read_bytes(), count):
        folder = copied()
        (folder / file).write_bytes(data)
        try:
            noticed += compare(folder, file, expected) > 0
        except Exception as error:
            raise AssertionError(f"{file}, {what}: {type(error).__name__}: {error}") from error
    assert noticed


def made_ups(store: Path, copied: Callable[[], Path], count: int) -> None:
    """Files by a writer who knows the format."""
    places = kinds(store)
    jobs: list[tuple[str, str, Callable[[Path], Any]]] = []

    def add(kind: str, value: Any, write: Callable[[Path, str], Any]) -> None:
        jobs.extend((kind, what, partial(write, text=text)) for what, text in made_up(value))

    def plan_file(folder: Path, text: str) -> None:
        text, name = signed(text, "plan")
        file = folder / places["plans .json"]
        file.unlink()
        file.with_stem(name or file.stem).write_text(text)

    def stop_file(folder: Path, text: str) -> None:
        (folder / places["stops .json"]).write_text(signed(text, "stop")[0])

    def plain_file(kind: str, folder: Path, text: str) -> None:
        (folder / places[kind]).write_text(text)

    def cell(kind: str, folder: Path, text: str) -> None:
        arrays = load(folder / places[kind])[0]
        try:
            data = encode(arrays, parse(text))
        except (PydtError, TypeError):
            data = save(arrays, {"pydt": text})
        (folder / places[kind]).write_bytes(data)

    def line(number: int, folder: Path, text: str) -> None:
        lines = (folder / places["packed .jsonl"]).read_text().splitlines()
        lines[number] = text
        if not number:
            lines[0] = lines[-1] = signed(text, "block")[0]
        (folder / places["packed .jsonl"]).write_text("\n".join([*lines, ""]))

    add("plan", json.loads((store / places["plans .json"]).read_text()), plan_file)

    def choice_file(folder: Path, text: str) -> None:
        (folder / places["choices .json"]).write_text(signed(text, "choice")[0])

    add("choice", json.loads((store / places["choices .json"]).read_text()), choice_file)
    add("stop", json.loads((store / places["stops .json"]).read_text()), stop_file)
    for kind in ("format", "counterfactual .json"):
        add(kind, json.loads((store / places[kind]).read_text()), partial(plain_file, kind))
    for kind in ("good row", "failed row", "bank .safetensors"):
        add(kind, load(store / places[kind])[1], partial(cell, kind))
    lines = (store / places["packed .jsonl"]).read_text().splitlines()
    for number in (0, 1, 2):
        add(f"line {number}", json.loads(lines[number]), partial(line, number))
    chosen = SEEDS.choice(len(jobs), min(count, len(jobs)), replace=False)
    for i in map(int, chosen):
        kind, what, write = jobs[i]
        folder = copied()
        write(folder)
        try:
            answers(folder)
            work(folder)
        except Exception as error:
            raise AssertionError(f"{kind}, {what}: {type(error).__name__}: {error}") from error


def work(folder: Path) -> None:
    """What writes: to the end, or to an error of pydt's own."""
    for job in (
        lambda: merge(folder.parent / "merged", folder),
        lambda: compact(folder, fewest=2),
        lambda: export(folder, folder.parent / "out"),
        lambda: computed(folder, plan()).outputs(StubTask().name),
    ):
        with contextlib.suppress(PydtError):
            job()
    for made in ("merged", "out"):
        shutil.rmtree(folder.parent / made, ignore_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_named_and_got_around(kind: str, store: Path, copied: Callable[[], Path]) -> None:
    damages(kind, store, copied, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_damage(kind: str, store: Path, copied: Callable[[], Path]) -> None:
    damages(kind, store, copied, 200)


def test_files_that_somebody_made_up_trip_nothing(store: Path, copied: Callable[[], Path]) -> None:
    made_ups(store, copied, 40)


@pytest.mark.slow
def test_more_that_somebody_made_up_trips_nothing(store: Path, copied: Callable[[], Path]) -> None:
    made_ups(store, copied, 1000)


# ---- sizes that no plan has


def record_file(folder: Path, **changes: Any) -> Path:
    """The plan of a store, with some of its entries changed, under the name it then has."""
    (path,) = (folder / "plans").glob("*.json")
    value = json.loads(path.read_text())
    for name, change in changes.items():
        value[name] = {**value[name], **change} if isinstance(change, dict) else change
    path.unlink()
    made = path.with_stem(digest("plan", value))
    made.write_text(canonical_json(value))
    return made


MANY = [{"digest": f"t{i}", "name": f"t{i}", "target": "x", "examples": 9, "settings": {}} for i in range(2000)]


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": MANY, "rows": {"count": 1 << 24}, "design": {"models": 1 << 24}},
        {"rows": {"count": (1 << 24) + 1}, "design": {"models": (1 << 24) + 1}},
        {"design": {"placebos": 1 << 30}},
        {"design": {"groups": 1 << 30}},
        {"design": {"rows": [1 << 62]}},
        {"design": {"kind": "stratified", "strata": [[1]] * GROUPS, "alpha": 0.5}},
        {"design": {"kind": "explicit", "masks": "AAAA"}},
        {"rows": {"seeds": [1]}},
        {"tasks": []},
        {"names": []},
        {"format": 2},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_sizes_that_no_plan_has_are_named_and_take_no_memory(
    changes: dict[str, Any], copied: Callable[[], Path]
) -> None:
    folder = copied()
    path = record_file(folder, **changes)
    with pytest.raises(PydtError, match=path.stem):
        Store(folder).masks()
    found = status(folder)
    assert found["plan"] is None
    assert [entry["file"] for entry in found["damaged"]] == [f"plans/{path.name}"]
    assert verify(folder)["damaged"][0]["file"] == f"plans/{path.name}"
    assert len(computed(folder, plan(), failures=(1, 3)).finished()) == 3


def test_a_plan_of_a_later_kind_of_design_is_shown_and_stays(copied: Callable[[], Path]) -> None:
    folder = copied()
    path = record_file(folder, design={"kind": "spiral"})
    found = status(folder)
    assert (found["plan"], found["rows"]) == (path.stem, 5)
    assert "unknown kind of design 'spiral'" in str(found["damaged"])
    verify(folder)
    assert path.exists()


# ---- the case that was met


def test_a_failed_row_whose_header_lost_a_key_is_one_row_to_train(copied: Callable[[], Path], store: Path) -> None:
    file = kinds(store)["failed row"]
    folder = copied()
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data.replace(b'\\"reason\\"', b'\\"seasom\\"'))
    assert status(folder)["missing"] == 1
    assert [path.name.partition("-")[2] for path in folder.glob("quarantine/*")] == [file.name]


def test_a_stop_note_that_is_damaged_hides_no_rows(copied: Callable[[], Path], store: Path) -> None:
    file = kinds(store)["stops .json"]
    folder = copied()
    (folder / file).write_text("{}")
    found = status(folder)
    assert (found["rows"], found["finished"], found["failed"], found["stop"]) == (5, 3, 2, None)
    assert [entry["file"] for entry in found["damaged"]] == [str(file)]
    with pytest.raises(PydtError, match=f"{file}: is damaged.*delete this one file and run the same plan again"):
        Store(folder).masks()


# ---- the log, which is no data


@pytest.mark.slow
def test_no_line_of_the_log_is_believed(copied: Callable[[], Path], tmp_path: Path) -> None:
    told = {name for name in asked(tmp_path) if name not in ("verify", "seconds")}
    expected = answers(copied())
    folder = copied()
    lines = [text for _, text in made_up(json.loads((folder / "log.jsonl").read_text().splitlines()[-1]))]
    lines += ["[" * 100_000, "\0", "", '"row"', "x" * (3 << 20)]
    with open(folder / "log.jsonl", "ab") as file:
        file.write(b"\xff\xfe\n" + "\n".join(lines).encode())
        file.truncate(1 << 31)  # the rest of it is a hole
    found = answers(folder)
    assert {name: found[name] for name in told} == {name: expected[name] for name in told}
    assert found["seconds"] > 0
    assert merge(tmp_path / "merged", folder)["damaged"] == []


def test_a_stop_note_without_words_is_shown(copied: Callable[[], Path], store: Path) -> None:
    folder = copied()
    made = Store(folder)
    made.note_stop(None, {"rows": 4})
    assert made.stopped() == {"rows": 4, "rule": "a rule that is not named", "looks": 1, "reason": "no reason given"}
    assert status(folder)["stop"]["rule"] == "a rule that is not named"

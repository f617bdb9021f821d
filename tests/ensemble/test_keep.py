"""The bank of a run: a task that is added later trains no source, and no number depends on what was kept."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stub_images import blobs
from stub_keep import plan, source, target, tasks
from stub_rows import plan as stub_plan
from stub_rows import stub_row
from stub_store import contents, flip

from pydt import design
from pydt.base import ConfigError, StoreError, TrainError
from pydt.data import Dataset
from pydt.ensemble import Plan, Slurm, cost, run, run_rows
from pydt.store import Bank, Row, Store, row_seconds
from pydt.training import Recipe, Task, restore, train, weights_of


def origins(folder: Path) -> Counter[str]:
    """Where the networks of the rows came from, by the log."""
    return Counter(entry["network"] for entry in Store(folder).logged("row", {"network": str}))


def cells_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.startswith("rows/")}


def bank_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.startswith("bank/")}


def go(made: Plan, folder: Path, **more: Any) -> Store:
    """Run in a thread of this process: no worker needs to start."""
    with ThreadPoolExecutor(1) as thread:
        return run(made, folder, thread, progress=False, **more)


@pytest.mark.parametrize("network", ["convnet-4", pytest.param("resnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["supervised", "none"])
def test_tasks_added_later_train_no_source_and_give_the_bytes_of_fresh_trainings(
    network: str, method: str, tmp_path: Path
) -> None:
    both = plan(2, tasks(), network=network, method=method)
    run(both, tmp_path / "fresh", workers=1, progress=False)
    first, kept = replace(both, tasks=both.tasks[:1]), tmp_path / "kept"
    go(first, kept, keep="weights")
    go(both, kept)
    assert cells_of(kept) == cells_of(tmp_path / "fresh")
    if method == "none":  # the seed is enough
        assert origins(kept) == {"untrained": 4}
        assert not bank_of(kept)
    else:
        assert origins(kept) == {"trained": 2, "bank": 2}
        assert len(bank_of(kept)) == 2


def test_a_target_and_shots_added_later_train_no_source_nor_do_rows_of_the_same_training(tmp_path: Path) -> None:
    first = plan(3)
    go(first, tmp_path, keep="weights")
    later = replace(first, tasks=(*tasks(target=target(2)), *tasks(shots=5), Task(target(2), shots="full")))
    go(later, tmp_path)
    assert origins(tmp_path) == {"trained": 3, "bank": 3}
    rows = [*list(first.rows())[:2], Row(np.ones(8, int), 99)]
    with ThreadPoolExecutor(1) as thread:
        run_rows(first.source, first.by, first.recipe, tasks(seed=9), rows, tmp_path, thread, progress=False)
    assert origins(tmp_path) == {"trained": 4, "bank": 5}


def test_bytes_are_the_same_with_any_number_of_workers_and_a_run_that_keeps_changes_no_row(tmp_path: Path) -> None:
    job = plan(4)
    for name, workers, keep in (("none", 1, "none"), ("one", 1, "weights"), ("two", 2, "weights")):
        run(job, tmp_path / name, workers=workers, progress=False, keep=keep)
    assert bank_of(tmp_path / "one") == bank_of(tmp_path / "two")
    assert len(bank_of(tmp_path / "one")) == 4
    assert not bank_of(tmp_path / "none")
    one, none = (contents(tmp_path / name) for name in ("one", "none"))
    beside = "bank/", "data/"  # of data, the index says when they were written
    assert {name: data for name, data in one.items() if not name.startswith(beside)} == {
        name: data for name, data in none.items() if not name.startswith(beside)
    }
    assert origins(tmp_path / "two") == {"trained": 4}


def test_a_training_that_failed_is_not_trained_again(tmp_path: Path) -> None:
    one = plan(2, lr=1e30)
    go(one, tmp_path / "kept", keep="weights")
    both = replace(one, tasks=(*one.tasks, *tasks(target=target(2))[:1]))
    store = go(both, tmp_path / "kept")
    assert origins(tmp_path / "kept") == {"trained": 2, "bank": 2}
    fresh = go(both, tmp_path / "fresh")
    assert [reason for _, _, reason in store.failed()] == [reason for _, _, reason in fresh.failed()]
    assert len(store.failed()) == 2
    assert cells_of(tmp_path / "kept") == cells_of(tmp_path / "fresh")


class Failing(torch.nn.Module):
    """Fails in training, not in the trial step before it, with a name that is not UTF-8."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > 2:
            raise TrainError("broke at image \udcff.png")
        features: torch.Tensor = self.body(images)
        return features


def test_a_failure_is_kept_by_the_reason_that_its_row_has(tmp_path: Path) -> None:
    for keep in ("none", "weights"):
        store = go(plan(1, network=Failing), tmp_path / keep, keep=keep)
        assert [reason for _, _, reason in store.failed()] == [r"broke at image \udcff.png"]
    assert cells_of(tmp_path / "none") == cells_of(tmp_path / "weights")


def test_a_damaged_entry_is_trained_anew(tmp_path: Path) -> None:
    job = plan(2)
    store = go(job, tmp_path, keep="weights")
    before = bank_of(tmp_path)
    bank = Bank(store)
    flip(bank.path(min(bank.sizes())), -5)
    go(replace(job, tasks=tasks()), tmp_path, keep="weights")
    assert origins(tmp_path) == {"trained": 3, "bank": 1}
    assert bank_of(tmp_path) == before


def test_a_full_bank_takes_no_more_and_the_run_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = plan(4)
    go(job, tmp_path / "all", keep="weights")
    size = max(Bank(Store(tmp_path / "all")).sizes().values())
    with ThreadPoolExecutor(1) as thread:
        run(job, tmp_path / "some", thread, keep="weights", keep_bytes=2 * size + 100)
    assert len(bank_of(tmp_path / "some")) == 2
    assert capsys.readouterr().err.count("the bank is full (2 networks") == 1
    assert len(list(Store(tmp_path / "some").logged("bank full", {"text": str}))) == 1
    assert cells_of(tmp_path / "some") == cells_of(tmp_path / "all")


def test_entries_of_other_code_are_not_used_where_only_the_same_will_do(tmp_path: Path) -> None:
    job = plan(1)
    bank = Bank(go(job, tmp_path, keep="weights"))
    (key,) = bank.sizes()
    kept = bank.read(key)
    assert kept.facts["torch"]
    bank.put(key, replace(kept, facts={**kept.facts, "torch": "1.0"}))
    go(replace(job, tasks=tasks()), tmp_path, same_code=True, keep="weights")
    assert origins(tmp_path) == {"trained": 2}
    assert bank.read(key).facts == kept.facts


def aged(folder: Path) -> tuple[Bank, str]:
    """The one entry of a bank, from now on by another version of PyTorch."""
    bank = Bank(Store(folder))
    (key,) = bank.sizes()
    kept = bank.read(key)
    bank.put(key, replace(kept, facts={**kept.facts, "torch": "1.0"}))
    return bank, key


def test_rows_from_networks_of_other_code_are_told_and_refused_where_only_the_same_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = plan(1)
    go(job, tmp_path, keep="weights")
    aged(tmp_path)
    more = replace(job, tasks=tasks())
    with ThreadPoolExecutor(1) as thread:
        store = run(more, tmp_path, thread)
    told = f"networks of the bank were trained by other code than this process: torch 1.0 (now {torch.__version__}"
    assert capsys.readouterr().err.count(told.partition("+")[0]) == 1
    fresh, served = (store.metadata(key)["torch"] for key in store.plan(more).keys[0])
    assert served == f"1.0 and {fresh}"
    with pytest.raises(StoreError, match=r"holds rows computed by other code: torch 1\.0 and"):
        go(more, tmp_path, same_code=True)


def test_features_of_other_code_do_not_join(tmp_path: Path) -> None:
    job = plan(1)
    go(job, tmp_path, keep="features")
    bank, key = aged(tmp_path)
    before = bank.read(key)
    other = replace(job, tasks=tasks(target=target(2))[:1])
    go(other, tmp_path, keep="features")
    after = bank.read(key)
    assert after.facts["torch"] != "1.0"
    assert not after.arrays.keys() & before.arrays.keys()


class Asking(ThreadPoolExecutor):
    """Notes what is to be kept of each row."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[str | None] = []

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Any:
        self.asked.append(named.get("keep"))
        return super().submit(function, *arguments, **named)


def test_networks_do_not_travel_to_a_full_bank(tmp_path: Path) -> None:
    with Asking() as thread:
        run(plan(6), tmp_path, thread, progress=False, keep="weights", keep_bytes=100)
    assert thread.asked[0] == "weights"
    assert thread.asked[-2:] == [None, None]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    job = plan(1)
    bank = Bank(go(job, tmp_path, keep="weights"))
    (key,) = bank.sizes()
    kept = bank.read(key)
    arrays = dict(kept.arrays)
    del arrays["body.1.weight"]
    bank.put(key, replace(kept, arrays=arrays))
    with pytest.raises(StoreError, match=r"convnet-4.*body\.1\.weight|1\.weight.*drop-bank"):
        go(replace(job, tasks=tasks()), tmp_path)


def test_only_pydts_own_runner_keeps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runner of your own"):
        run(stub_plan(2), tmp_path, runner=stub_row, keep="weights")
    with pytest.raises(ConfigError, match="keep"):
        run(plan(2), tmp_path, keep="wieghts")
    with pytest.raises(ConfigError, match="keep_bytes"):
        run(plan(2), tmp_path, keep="weights", keep_bytes=0)
    assert not tmp_path.joinpath("store.json").exists()


class Odd(torch.nn.Module):
    """Weights of a type that numpy lacks, a buffer, and one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 6))
        self.scale = torch.nn.Parameter(torch.ones(6, dtype=torch.bfloat16))
        self.again = self.scale
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("noise", torch.rand(6), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += len(images)
        features: torch.Tensor = self.body(images) * self.scale.float() + self.noise + 1e-3 * self.seen
        return features


def test_odd_networks_come_back_as_they_were() -> None:
    data, recipe = source(), Recipe(network=Odd, epochs=2, batch_size=16)
    fresh = train(data, np.ones(len(data), bool), recipe, 5)
    arrays = weights_of(fresh)
    assert fresh.body.seen > 0
    again = restore(data, recipe, 5, arrays, fresh.metrics)
    assert torch.equal(again.features(data), fresh.features(data))
    assert again.metrics == fresh.metrics
    assert {name: a.tobytes() for name, a in weights_of(again).items()} == {n: a.tobytes() for n, a in arrays.items()}


def test_cost_tells_the_disk_of_kept_features(tmp_path: Path) -> None:
    one = plan(1)
    told = cost(one, workers=1, keep="features").network_bytes
    (size,) = Bank(go(one, tmp_path, keep="features")).sizes().values()
    assert 0.8 * size < told < size


def test_cost_tells_the_disk_of_the_bank_and_rows_that_need_no_training(tmp_path: Path) -> None:
    one = plan(3)
    before = cost(one, tmp_path, workers=1, keep="weights")
    go(one, tmp_path, keep="weights")
    sizes = Bank(Store(tmp_path)).sizes().values()
    assert 0.5 * min(sizes) < before.network_bytes < min(sizes)  # but for a header
    assert before.bank_bytes == 3 * before.network_bytes
    assert "bank: " in str(before)
    more = replace(one, design=design.Design.explicit(np.concatenate([np.asarray(one.design), np.ones((1, 8), int)])))
    more = replace(more, tasks=tasks())
    found = cost(more, tmp_path, workers=1, keep="weights")
    assert (found.rows, found.stored, found.kept) == (4, 0, 3)
    assert found.bank_bytes == found.network_bytes
    assert "3 of these need no training" in str(found)
    assert cost(one, tmp_path, workers=1).network_bytes == 0


def test_times_of_rows_from_the_bank_are_no_times_of_trainings(tmp_path: Path) -> None:
    store, record = Store.create(tmp_path), plan(2).record()
    for row, seconds, network in ((0, 4.0, "trained"), (1, 0.1, "bank"), (1, 6.0, "trained")):
        keys = record.keys[row]
        store.log(event="row", source=record.sources[row], keys=keys, seconds=seconds, network=network)
    assert row_seconds(store, record) == 5.0


def test_times_of_other_tasks_on_the_same_trainings_are_no_times_of_a_plan(tmp_path: Path) -> None:
    job = plan(2)
    store = go(replace(job, tasks=tasks(seed=9)), tmp_path)
    assert row_seconds(store, store.plan()) is not None
    assert row_seconds(store, job.record()) is None
    longer = replace(job, tasks=(*tasks(seed=9), Task(target(2), draws=2, shots=2)))
    assert row_seconds(store, longer.record()) is not None


def test_features_serve_probes_of_the_same_target_and_give_the_bytes_of_fresh_trainings(tmp_path: Path) -> None:
    first = plan(2)
    go(first, tmp_path / "kept", keep="features")
    same = target()
    probes = (
        Task(same, draws=3, shots=1), Task(same, draws=2, shots=5), Task(same, draws=2, shots=3, seed=7, name="seed 7"),
        Task(same, draws=2, shots=3, penalty=1.0, name="weak"), Task(same, shots="full"),
    )  # fmt: skip
    more = replace(first, tasks=(*first.tasks, *probes))
    go(more, tmp_path / "kept")
    assert origins(tmp_path / "kept") == {"trained": 2, "bank": 2}
    go(more, tmp_path / "fresh")
    assert cells_of(tmp_path / "kept") == cells_of(tmp_path / "fresh")


def test_features_of_another_target_join_and_other_modes_train_again(tmp_path: Path) -> None:
    first = plan(2)
    go(first, tmp_path, keep="features")
    other = replace(first, tasks=(*first.tasks, *tasks(target=target(2))[:1]))
    go(other, tmp_path, keep="features")
    assert origins(tmp_path) == {"trained": 4}
    both = replace(first, tasks=(Task(target(), shots=2, draws=2), Task(target(2), shots=2, draws=2)))
    go(both, tmp_path)
    assert origins(tmp_path) == {"trained": 4, "bank": 2}
    go(replace(first, tasks=tasks()), tmp_path)
    assert origins(tmp_path) == {"trained": 6, "bank": 2}


class Batchwise(torch.nn.Module):
    """Features whose last bits depend on the number of images in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.body(images)
        return features * (1 + 1e-6 * len(images))


def test_features_that_depend_on_the_batch_serve_the_same_examples_alone(tmp_path: Path) -> None:
    first = plan(1, network=Batchwise)
    go(first, tmp_path / "kept", keep="features")
    alike = replace(first, tasks=(*first.tasks, Task(target(), draws=2, shots=3, penalty=1.0, name="weak")))
    go(alike, tmp_path / "kept")
    assert origins(tmp_path / "kept") == {"trained": 1, "bank": 1}
    other = replace(first, tasks=(*alike.tasks, Task(target(), draws=2, shots=1)))
    go(other, tmp_path / "kept")
    assert origins(tmp_path / "kept") == {"trained": 2, "bank": 1}
    go(other, tmp_path / "fresh")
    assert cells_of(tmp_path / "kept") == cells_of(tmp_path / "fresh")


def test_a_batch_of_a_few_images_is_not_served_from_those_of_the_pool(tmp_path: Path) -> None:
    first = plan(1)
    go(first, tmp_path / "kept", keep="features")
    few = replace(first, tasks=(*first.tasks, Task(target(), draws=1, shots=1)))  # four images
    go(few, tmp_path / "kept")
    assert origins(tmp_path / "kept") == {"trained": 2}
    go(few, tmp_path / "fresh")
    assert cells_of(tmp_path / "kept") == cells_of(tmp_path / "fresh")


def test_a_row_whose_run_died_after_its_entry_is_not_trained_again(tmp_path: Path) -> None:
    job = plan(2)
    store = go(job, tmp_path, keep="weights")
    before = contents(tmp_path)
    (key,) = store.plan().keys[1]
    store.path(key).unlink()
    go(job, tmp_path, keep="weights")
    assert origins(tmp_path) == {"trained": 2, "bank": 1}
    assert contents(tmp_path) == before


def test_the_text_tower_of_clip_is_kept(tmp_path: Path) -> None:
    images, labels = blobs(12, 4, 0)
    captions = [f"a square at place {label}" for label in labels]
    captioned = Dataset.from_arrays(images, labels, captions=captions, name="captioned")
    how = Recipe(network="convnet-4", method="clip", epochs=2, batch_size=16)
    zero = Task(target(), mode="zero-shot", shots=0)
    first = Plan(captioned, design=design.random(4, 2, alpha=0.5, seed=3), recipe=how, tasks=tasks()[:1])
    go(first, tmp_path / "kept", keep="weights")
    both = replace(first, tasks=(*first.tasks, zero))
    go(both, tmp_path / "kept")
    assert origins(tmp_path / "kept") == {"trained": 2, "bank": 2}
    go(both, tmp_path / "fresh")
    assert cells_of(tmp_path / "kept") == cells_of(tmp_path / "fresh")


@pytest.mark.slow
def test_networks_travel_to_the_jobs_of_a_cluster_and_back(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    job = plan(2)
    both = replace(job, tasks=tasks())
    with Slurm(tmp_path / "jobs", cluster="local", workers=1, timeout_min=5) as jobs:
        run(job, tmp_path / "kept", jobs, progress=False, keep="weights")
        run(both, tmp_path / "kept", jobs, progress=False)
    assert origins(tmp_path / "kept") == {"trained": 2, "bank": 2}
    go(both, tmp_path / "fresh")
    assert cells_of(tmp_path / "kept") == cells_of(tmp_path / "fresh")

"""Progress, status and the final lines of a run tell a measure in its own unit."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import stub_measures

from pydt.cli.arguments import metrics
from pydt.data import Groups
from pydt.design import bernoulli
from pydt.ensemble import Function, Plan, RowInput, run
from pydt.store import Measure, status

MEASURE = Measure("loss", 40, unit="nats", higher_is_better=False, weights=np.arange(1, 41))


def compute(row: RowInput) -> dict[str, np.ndarray]:
    random = np.random.default_rng(row.seed)
    return {"loss": 2 + 0.1 * row.mask[0] + 0.02 * random.normal() + 0.1 * random.normal(size=40)}


def small(measure: Measure = MEASURE, rows: int = 30) -> Plan:
    source = Groups([f"g{i % 4}" for i in range(40)])
    return Plan(source, design=bernoulli(4, rows, seed=1), recipe=Function(compute), tasks=[measure])


def test_lines_and_json_tell_levels_as_the_user_knows_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = small()
    store = stub_measures.filled(job, tmp_path / "a")
    judged = store.examples(MEASURE, "report")
    values = np.asarray(store.outputs(MEASURE, "value", "report"), np.float64) @ judged["weights"]
    assert not np.allclose(values, store.outputs(MEASURE, "value", "report").mean(1), atol=1e-4), "weights count"
    for how in (True, "json"):
        with ThreadPoolExecutor(1) as executor:
            run(job, tmp_path / f"as {how}", executor, progress=how)
    told = capfd.readouterr().err.splitlines()
    lines, events = [line for line in told if line[0] != "{"], [json.loads(line) for line in told if line[0] == "{"]
    assert f"latest loss {values[-1]:.4g} nats" in lines[-1]
    assert "(nats, + is a lower loss, 30 models)" in lines[-1]
    assert "least g0 -0.1" in lines[-1], "it raises the loss"
    assert events[-1]["latest_value"] == pytest.approx(values[-1])
    assert events[-1]["measure"] == {
        "name": "loss", "unit": "nats", "scale": 1.0, "higher_is_better": False, "shared": False
    }  # fmt: skip
    found = status(tmp_path / "a")["tasks"][0]
    assert (found["rows"], found["metric"]) == (30, "loss")
    assert found["mean"] == pytest.approx(values.mean())
    assert found["sd"] == pytest.approx(values.std(ddof=1))
    assert metrics([found]) == [
        f"loss: {values.mean():.3f} nats on average, SD {values.std(ddof=1):.3f} over 30 rows (lower is better)"
    ]


def test_a_share_is_told_in_percent(tmp_path: Path) -> None:
    job = stub_measures.told_as("accuracy")
    stub_measures.filled(job, tmp_path)
    line = metrics(status(tmp_path)["tasks"])[0]
    assert line.startswith("accuracy: ")
    assert " % on average, SD " in line
    assert "better" not in line


def test_a_damaged_row_does_not_end_status(tmp_path: Path) -> None:
    stub_measures.filled(small(), tmp_path)
    cell = next(path for path in sorted((tmp_path / "rows").rglob("*")) if path.is_file())
    cell.write_bytes(cell.read_bytes()[:-9] + b"\0" * 9)
    assert len(status(tmp_path)["damaged"]) == 1

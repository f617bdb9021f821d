"""Commands on stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import stub_rows
from typer.testing import CliRunner

from pydt.base import StoreError
from pydt.cli.app import app
from pydt.ensemble import run
from pydt.store import Store


def test_a_store_is_looked_after_from_the_command_line(tmp_path: Path) -> None:
    def pydt(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    first, second, whole = tmp_path / "first", tmp_path / "second", tmp_path / "whole"
    run(stub_rows.plan(24), first, workers=2, runner=stub_rows.stub_row, progress=False)
    run(stub_rows.plan(30, what="fail"), second, workers=2, runner=stub_rows.stub_row, progress=False)

    told = pydt("status", second)
    assert told.exit_code == 0
    assert "30 rows: 27 finished, 3 failed, 0 missing" in told.output
    assert "3 failed: diverged" in told.output
    assert json.loads(pydt("status", second, "--json").output)["failed"] == 3

    assert pydt("verify", first).exit_code == 0
    path = next((first / "rows").glob("*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    broken = pydt("verify", first)
    assert broken.exit_code == 1
    assert path.name in broken.output
    assert "missing: 1 row of plan" in broken.output
    told = pydt("verify", first)
    assert told.exit_code == 0, "a missing row is no damage: its plan may have been given up"
    assert "missing: 1 row of plan" in told.output
    assert not json.loads(pydt("verify", first, "--json").output)["verified"]
    run(stub_rows.plan(24), first, workers=1, runner=stub_rows.stub_row, progress=False)
    mended = pydt("verify", first)
    assert mended.exit_code == 0
    assert "24 cells are whole, 0 files are damaged" in mended.output

    for count in ("24 cells copied, 0 were", "0 cells copied, 24 were"):
        merged = pydt("merge", whole, first)
        assert (merged.exit_code, count in merged.output) == (0, True), merged.output
    assert "24 cells went into 1 block; 0 stay files" in pydt("compact", whole).output
    few = tmp_path / "few"
    run(stub_rows.plan(15), few, workers=2, runner=stub_rows.stub_row, progress=False)
    assert "0 cells went into 0 blocks; 15 stay files, since a block takes 16 cells" in pydt("compact", few).output
    assert "24 cells in blocks" in pydt("status", whole).output
    assert pydt("verify", whole).exit_code == 0

    exported = pydt("export", whole, tmp_path / "bundle")
    assert exported.exit_code == 0, exported.output
    assert np.array_equal(np.load(tmp_path / "bundle" / "masks.npy"), Store(whole).masks())
    again = pydt("export", whole, tmp_path / "bundle")
    assert isinstance(again.exception, StoreError)

"""An ensemble is brought from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pydt.base import ConfigError, PydtError
from pydt.cli.app import app
from pydt.store import Store
from pydt.store.ensemble_files import read_array


def pydt(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_files_become_a_store_that_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    masks = rng.random((80, 6)) < 0.5
    masks[~masks.any(1), 0] = True
    outputs = (masks @ np.array([2.0, -2, 0, 0, 0, 0]))[:, None] + rng.normal(size=(80, 20))
    outputs[7] = np.nan
    np.savez("both.npz", masks=masks, losses=outputs.astype(np.float16))
    Path("names.txt").write_text("one\ntwo\nthree\nfour\nfive\nsix\n")
    Path("labels.txt").write_text("cat\ndog\n" * 10)
    done = pydt(
        "import", "both.npz::masks", "both.npz::losses", "--groups", "names.txt", "--examples", "labels.txt",
        "--unit", "nats", "--lower-is-better", "--by", "site",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (
        "80 models on 6 groups (site); losses: float16, 20 target examples of 2 classes, 10 to estimate" in done.output
    )
    assert "entries of labels.txt were taken as 2 classes" in done.output
    assert "failed: 1 row: 'losses' has outputs that are not finite" in done.output
    assert "79 rows in both-losses\nnext: pydt report both-losses  # " in done.output
    report = pydt("report", "both-losses")
    assert report.exit_code == 0, report.output
    assert "adding “two” helps" in report.output.lower() or "“two”" in report.output
    assert "were imported" in report.output
    status = pydt("status", "both-losses")
    assert "80 rows: 79 finished, 1 failed, 0 missing" in status.output
    refused = pydt("prove", "both-losses")
    assert isinstance(refused.exception, ConfigError)
    assert "command trains on the same groups" in str(refused.exception)

    again = pydt("import", "both.npz::masks", "both.npz::losses", "--models", 50, "--dir", "both-losses")
    assert again.exit_code == 0
    assert "next: pydt report both-losses --plan " in again.output
    assert len(Store("both-losses").plans()) == 2


def test_heads_of_csv_files_name_groups_and_examples(tmp_path: Path) -> None:
    (tmp_path / "masks.csv").write_text("left,right\n" + "1,0\n0,1\n1,1\n" * 6)
    (tmp_path / "out.csv").write_text("p,q\n" + "".join(f"{i},{i * i}\n" for i in range(18)))
    done = pydt("import", tmp_path / "masks.csv", tmp_path / "out.csv", "--dir", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert Store(tmp_path / "store").names() == ("left", "right")
    assert "Note" not in done.output
    (tmp_path / "same.csv").write_text("1,1\n1,0\n" * 9)
    same = pydt("import", tmp_path / "same.csv", tmp_path / "out.csv", "--dir", tmp_path / "same")
    assert "Note: group 'group 0' is in every row of 18" in same.output
    assert "leave these columns out of the masks" in same.output
    np.save(tmp_path / "packed.npy", np.packbits(np.array([[1, 0], [0, 1], [1, 1]] * 6, bool), axis=1))
    more = ("--groups", "2", "--bitorder", "big", "--dir", tmp_path / "packed")
    assert pydt("import", tmp_path / "packed.npy", tmp_path / "out.csv", *more).exit_code == 0
    np.testing.assert_array_equal(Store(tmp_path / "packed").masks(), Store(tmp_path / "store").masks())


def test_a_released_layout_leaves_out_what_was_never_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    masks, margins = rng.random((40, 30)) < 0.5, rng.normal(size=(40, 9)).astype(np.float16)
    flags = np.ones(40, bool)
    flags[[4, 39]] = False
    masks[~flags], margins[~flags] = False, 0
    for name, array in (("masks", masks), ("margins", margins), ("_completed", flags)):
        np.save(tmp_path / f"{name}.npy", array)
    files = (tmp_path / "masks.npy", tmp_path / "margins.npy")
    done = pydt("import", *files, "--layout", "datamodels", "--dir", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert "left out: 2 rows that" in done.output
    store = Store(tmp_path / "store")
    np.testing.assert_array_equal(store.masks(), masks[flags])
    assert (store.plan().by, store.plan().tasks[0]["settings"]["measure"]["unit"]) == ("example", "margin units")
    plain = pydt("import", *files, "--dir", tmp_path / "other")
    assert isinstance(plain.exception, PydtError)
    assert "row 4 and 1 more keep no group" in str(plain.exception)
    (tmp_path / "seeds.txt").write_text("1\nx\n")
    wrong = pydt("import", *files, "--layout", "datamodels", "--seeds", tmp_path / "seeds.txt")
    assert "not all numbers" in str(wrong.exception)


def test_heads_that_number_the_columns_as_pandas_writes_them_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "masks.csv").write_text(",0,1\n" + "".join(f"{i},{i % 2},{(i + 1) % 2}\n" for i in range(18)))
    (tmp_path / "out.csv").write_text(",0,1\n" + "".join(f"{i},{i * i},\n" for i in range(1)))
    with open(tmp_path / "out.csv", "a") as file:
        file.writelines(f"{i},{i * i},{-i}\n" for i in range(1, 18))
    done = pydt("import", tmp_path / "masks.csv", tmp_path / "out.csv", "--dir", tmp_path / "store")
    assert done.exit_code == 0, done.output
    store = Store(tmp_path / "store")
    assert store.names() == ("0", "1")
    np.testing.assert_array_equal(store.masks()[:, 0], [i % 2 for i in range(1, 18)])  # row 0 lacks an output
    (tmp_path / "rows.csv").write_text(",0\n" + "1,0\n0,1\n1,1\n" * 6)  # nothing before one number is a head, too
    assert read_array(str(tmp_path / "rows.csv")).array.shape == (18, 1)


@pytest.mark.parametrize("more", [("--models", "3"), ("--groups", "0")])
def test_one_number_and_no_groups_are_refused(tmp_path: Path, more: tuple[str, ...]) -> None:
    np.save(tmp_path / "masks.npy", np.eye(3) if more[0] == "--groups" else np.float64(1))
    np.save(tmp_path / "out.npy", np.arange(3.0) if more[0] == "--groups" else np.float64(1))
    done = pydt("import", tmp_path / "masks.npy", tmp_path / "out.npy", *more, "--dir", tmp_path / "store")
    assert done.exit_code != 0
    assert isinstance(done.exception, PydtError), done.output

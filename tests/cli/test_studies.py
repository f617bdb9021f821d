"""`pydt study`: what it tells before it starts, what it trains, and what other commands say of its store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pydt.base import StoreError
from pydt.cli.app import app

STUDY = """
[run]
workers = 1
[study]
sizes = [12]
shots = [1]
draws = 2
seeds = 2
rates = [0.1, 0.3]
[[sources]]
name = "latin"
sample = "alphanumerics"
each = 1
[[sources]]
name = "greek"
sample = "greek"
each = 1
[[methods]]
name = "supervised"
network = "convnet-4"
steps = 1
[[targets]]
name = "digits"
train.sample = "digits"
[[modes]]
name = "finetune"
finetune.epochs = 1
"""
MORE = '[[sources]]\nname = "signs"\nsample = "signs"\neach = 1\n'


def pydt(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def trained(store: Path) -> int:
    """Rows that drivers were given so far, trials included."""
    events = [json.loads(line) for line in (store / "log.jsonl").read_text().splitlines()]
    return sum(event["event"] == "row" for event in events)


@pytest.mark.slow  # six rows and three trials, each with a process of its own
def test_a_study_is_told_costed_run_and_extended(tmp_path: Path) -> None:
    file, store = tmp_path / "letters.toml", tmp_path / "letters"
    file.write_text(STUDY)
    told = pydt("study", file, "--plan")
    assert told.exit_code == 0, told.output
    assert "2 arms to pre-train (2 sources x 1 size x 1 method); 2 seeds each" in told.output
    assert "1 target x 1 mode x shots 1, 2 draws each" in told.output
    assert "4 rows, 0 of them stored" in told.output
    assert "trials of learning rates" in told.output
    assert not store.exists(), "nothing is written"

    done = pydt("study", file)
    assert done.exit_code == 0, done.output
    assert done.output.index("4 rows, 0 of them stored") < done.output.index("Report:"), "costs are told first"
    found = json.loads((store / "results.json").read_text())
    for text in found["recommendation"]:
        assert text in done.output
    assert (store / "study.html").is_file()
    rows = trained(store)

    again = pydt("study", file)
    assert "4 rows, all of them stored" in again.output
    assert trained(store) == rows, "nothing is trained again"

    file.write_text(STUDY.replace("[[methods]]", f"{MORE}[[methods]]"))
    assert "6 rows, 4 of them stored" in pydt("study", file, "--plan").output
    assert pydt("study", file).exit_code == 0
    added = trained(store) - rows
    assert added == 2 + len(("0.1", "0.3")) or added == 2 + 1, "two rows, and the trials of one arm"

    for place in (store, file):
        lines = pydt("status", place).output.splitlines()
        assert "plans without a design, as of a study: `pydt study FILE`" in lines[0]
        assert ", 0 failed, 0 missing" in lines[1]
        assert len(lines) < 6, "a line for each task of each arm is nothing to read"
    assert pydt("verify", file).exit_code == 0
    refused = pydt("report", store)
    assert isinstance(refused.exception, StoreError)
    assert "`pydt study FILE` writes the page of a study" in str(refused.exception)


@pytest.mark.slow
def test_mixtures_are_costed_first_run_after_the_study_and_told(tmp_path: Path) -> None:
    file, store = tmp_path / "letters.toml", tmp_path / "letters"
    file.write_text(STUDY)
    refused = pydt("study", file, "--mixtures", 12)
    assert "2 of at least 3 sources" in str(refused.exception)
    assert not store.exists(), "refused before anything is trained"
    file.write_text(STUDY.replace("[[methods]]", f"{MORE}[[methods]]"))
    told = pydt("study", file, "--mixtures", 12, "--plan")
    assert told.exit_code == 0, told.output
    assert "mixtures of 3 sources, supervised:\n12 rows, 0 of them stored" in told.output
    assert not store.exists()
    done = pydt("study", file, "--mixtures", 12)
    assert done.exit_code == 0, done.output
    assert "(“digits”, “finetune”, 12 rows, 3 sources)" in done.output
    assert (store / "study.html").is_file()
    assert (store / "analyses" / "mixtures.html").is_file()
    rows = trained(store)
    assert pydt("study", file, "--mixtures", 12).exit_code == 0
    assert trained(store) == rows


def test_plans_and_studies_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "letters.toml"
    file.write_text(STUDY)
    for command in ("run", "plan", "prove"):
        assert "is a study, not a plan. `pydt study FILE`" in str(pydt(command, file).exception)
    file.write_text('[source]\nsample = "greek"\n')
    assert "is a plan, not a study" in str(pydt("study", file).exception)

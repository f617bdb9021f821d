"""What to do next, as lines to copy: the command of each case, with the folder, plan and task as they were named."""

from __future__ import annotations

import html
from typing import Any

import pytest
from stub_results import LETTERS, Page, plain, results

from pydt.reporting import Place, render
from pydt.reporting.next_steps import next_steps


def gains(low: float, high: float) -> dict[str, Any]:
    """Results whose gain over the whole source has this interval."""
    given = results(LETTERS)
    given["gains"][0] |= {"low": low, "difference": (low + high) / 2, "high": high}
    return given


HERE = Place("my store", first="handwritten digits, 5-shot probe", trains="my store")


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.03), (-0.005, 0.005)])
def test_what_may_go_is_left_out_by_the_list(low: float, high: float) -> None:
    (step,) = next_steps(gains(low, high), HERE)
    assert step.command == "pydt keep 'my store' --drop 31"
    assert step.python == 'source = source.keep(pydt.keep("my store", drop=31).kept)'


def test_what_is_left_out_is_named_lowest_first() -> None:
    given = gains(0.01, 0.03)
    order = [g["name"] for g in sorted(given["groups"], key=lambda g: g["value"])]
    (step,) = next_steps(given, HERE)
    assert (list(step.names), step.more) == (order[:31], 0)
    assert f"Left out, lowest first: {', '.join(order[:31])}." in Page(render(given, place=HERE)).section("next")
    many = results([f"g{i}" for i in range(200)])
    many["gains"][0] |= {"low": 0.01, "difference": 0.02, "high": 0.03}
    (step,) = next_steps(many, HERE)
    assert (len(step.names), step.more) == (60, 40)
    assert " and 40 more, see groups.csv." in plain(render(many, place=HERE))
    many["question"]["by"] = "example"
    assert next_steps(many, HERE)[0].names == ()


def test_several_plans_and_tasks_are_named_and_columns_too() -> None:
    given = gains(0.01, 0.03)
    given["question"]["by"] = "font"
    (step,) = next_steps(given, Place("s", plan="first plan", first="another"))
    assert step.command == "pydt keep s --drop 31 --plan 'first plan' --task 'handwritten digits, 5-shot probe'"
    assert step.python == (
        'source = source.keep(pydt.keep("s", "first plan", task="handwritten digits, 5-shot probe", drop=31).kept, '
        'by="font")'
    )


def test_what_is_unclear_is_retrained_more_often_and_what_costs_with_fewer_groups() -> None:
    (step,) = next_steps(gains(-0.03, 0.02), HERE)
    assert step.command == "pydt prove 'my store' --drop 31 --repeats 42", "the size that was judged, not the usual one"
    assert step.python == 'pydt.counterfactual("my store", plan, drop=[31], repeats=42)'
    given = gains(-0.03, 0.02)
    for one in (*given["gains"], *given["contrasts"], *given["arms"]):
        one["dropped"] = 20 * bool(one["dropped"])
    assert next_steps(given, HERE)[0].command == "pydt prove 'my store' --repeats 42"
    (step,) = next_steps(gains(-0.03, -0.02), HERE)
    assert (step.command, step.python) == (
        "pydt prove 'my store' --drop 15",
        'pydt.counterfactual("my store", plan, drop=[15])',
    )


def test_a_proof_of_another_ranking_is_repeated() -> None:
    proof, listed = next_steps(gains(0.01, 0.03) | {"moved": 1}, HERE)
    assert (proof.why, proof.command) == ("Prove the ranking again by retraining", "pydt prove 'my store'")
    assert "unproven" in listed.why


def test_what_is_not_proven_is_proven_first() -> None:
    given = results(LETTERS, counterfactual=False)
    proof, listed = next_steps(given, Place("s", "p", HERE.first, "s"))
    assert proof.command == "pydt prove s --plan p"
    assert listed.why == "List what would stay, unproven, without the 20 lowest"
    proof, _ = next_steps(given, Place("s", "p", HERE.first, "s.toml"))
    assert proof.command == "pydt prove s.toml", "a file is one plan"
    proof, _ = next_steps(given, Place("s", None, HERE.first))
    assert proof.command == ""
    assert "with the file of the plan" in proof.why
    given["question"]["method"] = "imported"
    (only,) = next_steps(given, HERE)
    assert only.command.startswith("pydt keep"), "what was imported cannot be retrained"


def test_noise_needs_more_models_and_failures_are_looked_at() -> None:
    given = results(LETTERS, found=False)
    (step,) = next_steps(given, HERE)
    assert step.why.startswith("Train about 2,400 models")
    assert step.command == "pydt run 'my store'"
    given["verdict"]["blocked"] = "4 % failed"
    (step,) = next_steps(given, HERE)
    assert step.command == "pydt status 'my store'"


def test_the_page_has_the_lines() -> None:
    given = gains(0.01, 0.03)
    assert "What to do next" not in render(given)
    page = html.unescape(render(given, place=HERE))
    assert "<code>pydt keep 'my store' --drop 31</code>" in page
    assert page.index('id="answer"') < page.index('id="next"') < page.index('id="removal"') < page.index('id="ranking"')
    assert page.index('id="ranking"') < page.index('id="stability"') < page.index('id="how-sure"')

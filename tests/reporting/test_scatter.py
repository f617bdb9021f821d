"""The block of points in two dimensions: where they stand, what is named, what a phone shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_browser import Browser

from pydt.base import ConfigError
from pydt.reporting import Page, Scatter, write_pages


def of(points: int, **more: Any) -> Scatter:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, points))
    names = more.pop("names", [f"<b>{i}" for i in range(points)])
    given = {"x_label": "influence on <a>", "y_label": "influence on b", "title": "Both", **more}
    return Scatter(names, (x, x - 0.5, x + 0.5), (y, y - 0.25, y + 0.25), **given)


def written(block: Scatter, folder: Path) -> str:
    write_pages([Page("both", "Both", "Why?", ["So."], [block], {}, "As it is.")], folder, "a page")
    return (folder / "both.html").read_text("utf-8")


def places(text: str) -> dict[str, tuple[float, float]]:
    """By name, where each point stands: percent from the left, pixels from the top."""
    found = re.findall(r"<g><title>(.*?): .*?</title>.*?<svg x=\"([\d.]+)%\" y=\"([\d.]+)\"", text)
    return {name: (float(x), float(y)) for name, x, y in found}


def test_points_stand_where_their_values_say(tmp_path: Path) -> None:
    block = of(30)
    at = places(written(block, tmp_path))
    assert len(at) == 30
    x, y = (np.array([at[f"&lt;b&gt;{i}"][axis] for i in range(30)]) for axis in (0, 1))
    assert np.corrcoef(x, block.x[0])[0, 1] > 0.9999, "to the right is larger"
    assert np.corrcoef(y, block.y[0])[0, 1] < -0.9999, "upwards is larger"
    text = (tmp_path / "both.html").read_text("utf-8")
    zero = re.findall(r'<line class="zero" x1="([\d.]+)%" x2="[\d.]+%" y1="8"', text)
    slope, offset = np.polyfit(block.x[0], x, 1)
    assert float(zero[0]) == pytest.approx(offset, abs=0.05)
    bars = re.findall(r'<line class="bar plain second" x1="([\d.]+)%" x2="([\d.]+)%" y1="([\d.]+)" y2="\3"', text)
    assert len(bars) == 30
    assert float(bars[0][1]) - float(bars[0][0]) == pytest.approx(slope, abs=0.05), "as wide as the interval"


def test_findings_are_named_and_stand_on_top(tmp_path: Path) -> None:
    marked = np.zeros(30, bool)
    marked[[3, 7]] = True
    names = [f"name {i} that is too long for a phone" for i in range(30)]
    text = written(of(30, names=names, marked=marked, mark="a finding", alike=True), tmp_path)
    assert list(places(text))[-2:] == [names[3], names[7]]
    shown = re.findall(r'class="named"[^>]*>([^<]*)<', text)
    assert set(shown) <= {"name 3 that is too\u2026"[:17] + "\u2026", "name 7 that is too\u2026"[:17] + "\u2026"}
    assert shown
    assert "a finding" in text
    assert "Dotted: where both are equal." in text
    (label,) = re.findall(r'role="img" aria-label="([^"]*)"', text)
    assert names[3] in label
    assert names[4] not in label


def test_missing_numbers_and_many_points(tmp_path: Path) -> None:
    block = of(5)
    block.x[0][1], block.x[1][2] = np.nan, np.nan
    text = written(block, tmp_path / "few")
    assert len(places(text)) == 4
    assert "1 are not shown" in text
    marked = np.arange(3000) % 100 == 0
    text = written(of(3000, marked=marked), tmp_path / "many")
    assert len(places(text)) == 2000
    assert text.count('class="bar ink"') == 60, "those of findings"
    assert "findings alone have bars" in text
    assert len(text) < 2_000_000
    assert not places(written(of(0), tmp_path / "none"))
    with pytest.raises(ConfigError, match="Scatter 'Both'"):
        of(3, marked=[True])


def test_a_phone_shows_it_whole_and_the_console_is_silent(tmp_path: Path) -> None:
    marked = np.arange(60) % 9 == 0
    names = [f"name {i} that is too long for a phone" for i in range(60)]
    text = written(of(60, names=names, marked=marked), tmp_path)
    browser = Browser(tmp_path)
    assert browser.wide(text, 390) <= 390
    assert "CONSOLE" not in browser.load(text, 1000)[1]

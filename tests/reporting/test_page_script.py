"""The script of a page in a real browser: what sorts, filters, switches, opens and prints, by mouse and by keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_live import Live, live
from stub_results import EVIL, LETTERS, results
from stub_study import study

from pydt.reporting import Page, Table, render, write_pages
from pydt.reporting.html_templates import template
from pydt.reporting.study_html import study_html

pytestmark = pytest.mark.slow

SOON = "new Promise(done => setTimeout(done, 50))"
VISIBLE = "(e => e.getClientRects().length > 0)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("browser")) as found:
        yield found


def body(inside: str) -> str:
    """A page of that body, with the frame, style and script of every page."""
    text = template("index.html.j2").render(heading="Title", pages=[], report=None, facts=[])
    assert "</main>" in text
    return text.replace("</main>", f"{inside}</main>")


def opened(page: Live, folder: Path, text: str, **how: Any) -> Live:
    """The page of the text, open; nothing was said and nothing else was asked for."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    page.open(path, **how)
    assert page.log == []
    assert page.requests == [path.as_uri()]
    return page


def column(page: Live, n: int = 0, table: str = "table") -> list[str]:
    """The texts of a column, in the rows that are visible."""
    rows = f"[...document.querySelectorAll('{table} tbody tr')].filter(r => !r.matches('.break') && {VISIBLE}(r))"
    return page.ask(f"{rows}.map(r => r.cells[{n}].textContent.trim())")


def head(page: Live, name: str) -> None:
    """A click on the head of a column."""
    page.ask(f"[...document.querySelectorAll('th button')].find(b => b.textContent.trim() === '{name}').click()")


def find(page: Live, text: str) -> str:
    """Type into the field, and what is then said."""
    page.ask("document.querySelector('input[type=search]').focus()")
    page.ask("document.activeElement.select()")
    page.press(text)
    return page.ask("document.querySelector('[aria-live]').textContent")


CELLS = ["b 10", "B 9", "a", "", "é", "–", "c"]
NUMBERS = ["1,200", "−3.5 ± 0.1", "< 0.001", "–", "+9e2", "−40 to 3", "30 × 5"]
SMALL = (
    "<table data-sort><thead><tr><th data-kind='text'>name</th><th data-kind='number'>number</th>"
    "<th data-kind='number'>exact</th><th>none</th></tr></thead><tbody>"
    + "".join(
        f"<tr><td>{a}</td><td>{b}</td><td data-v='{c}'>1.0</td><td></td></tr>"
        for a, b, c in zip(CELLS, NUMBERS, ["0.3", "0.1", "", "0.2", "0.1", "1e-9", "7"], strict=True)
    )
    + "</tbody></table>"
)


def test_columns_sort_both_ways_and_what_is_missing_stays_last(page: Live, tmp_path: Path) -> None:
    opened(page, tmp_path, body(SMALL))
    head(page, "name")
    assert column(page) == ["a", "B 9", "b 10", "c", "é", "", "–"]
    assert page.ask("[...document.querySelectorAll('th')].map(h => h.ariaSort)") == ["ascending", None, None, None]
    head(page, "name")
    assert column(page) == ["é", "c", "b 10", "B 9", "a", "", "–"]
    head(page, "number")
    ascending = ["−40 to 3", "−3.5 ± 0.1", "< 0.001", "30 × 5", "+9e2", "1,200", "–"]
    assert column(page, 1) == ascending
    assert page.ask("[...document.querySelectorAll('th')].map(h => h.ariaSort)") == [None, "ascending", None, None]
    head(page, "number")
    assert column(page, 1) == [*ascending[-2::-1], "–"]
    assert page.ask("document.querySelectorAll('th')[1].ariaSort") == "descending"
    head(page, "exact")
    assert column(page) == ["–", "B 9", "é", "", "b 10", "c", "a"], "by data-v; equal ones as they stood"
    head(page, "exact")
    assert column(page) == ["c", "b 10", "", "B 9", "é", "–", "a"], "equal ones as they stood, downwards too"
    assert page.ask("document.querySelectorAll('th button').length") == 3
    assert page.log == []


def test_parts_of_a_table_sort_apart_below_their_titles(page: Live, tmp_path: Path) -> None:
    rows = "".join(
        f"<tbody><tr class='break'><th colspan='2'>part {p}</th></tr>"
        + "".join(f"<tr><th scope='row'>{p}{i}</th><td>{v}</td></tr>" for i, v in enumerate((2, 3, 1)))
        + "</tbody>"
        for p in "ab"
    )
    still = "<tbody data-still><tr><th scope='row'>z</th><td>9</td></tr><tr><td>y</td><td>0</td></tr></tbody>"
    heads = "<thead><tr><th data-kind='text'>name</th><th data-kind='number'>n</th></tr></thead>"
    table = f"<table data-sort data-filter='Find'>{heads}{rows}{still}</table>"
    opened(page, tmp_path, body(table))
    head(page, "n")
    assert column(page) == ["a2", "a0", "a1", "b2", "b0", "b1", "z", "y"]
    titles = "[...document.querySelectorAll('tbody')].map(b => b.rows[0].textContent)"
    assert page.ask(titles) == ["part a", "part b", "z9"]
    assert find(page, "B1") == "1 of 6 shown"
    assert column(page) == ["b1", "z", "y"]
    shown = f"[...document.querySelectorAll('tr.break')].filter({VISIBLE}).map(r => r.textContent)"
    assert page.ask(shown) == ["part b"], "no title stands above nothing"


def test_the_ranking_filters_by_the_name_alone_and_shows_its_ends_first(page: Live, tmp_path: Path) -> None:
    names = [f"Class {i:03}" for i in range(200)]
    given = results(names)
    order = sorted(range(200), key=lambda i: -given["groups"][i]["value"])
    opened(page, tmp_path, render(given))
    groups = "#ranked tr.group"
    ranks = [str(r) for r in (*range(1, 41), *range(161, 201))]
    assert column(page, 0, "#ranking table")[:80] == ranks
    assert page.ask("document.querySelector('[aria-live]').textContent") == "80 of 200 shown"
    more = page.ask("document.querySelector('tr.more').textContent")
    assert more == "Show 120 more"
    assert page.ask("document.querySelector('tr.more').rowIndex") == 41
    assert find(page, "class 01") == "10 of 200 shown"
    visible = f"[...document.querySelectorAll('{groups}')].filter({VISIBLE}).map(r => r.id)"
    assert page.ask(visible) == [f"group-{i}" for i in order if i // 10 == 1]
    assert page.ask("document.querySelector('tr.more')") is None
    assert page.ask(f"[...document.querySelectorAll('tr.placebo')].filter({VISIBLE}).length") == 8
    assert find(page, "75") == "2 of 200 shown", "75 models are no name"
    assert find(page, "nothing") == "0 of 200 shown"
    assert find(page, " class 01 ") == "10 of 200 shown"
    assert find(page, " ") == "80 of 200 shown"
    page.ask("document.querySelector('tr.more button').focus()")
    page.press("Enter")
    assert page.ask("document.querySelector('[aria-live]').textContent") == "200 of 200 shown"
    assert page.ask("document.activeElement.id") == f"group-{order[40]}"
    head(page, "group")
    assert page.ask(visible) == [f"group-{i}" for i in range(200)]
    page.ask("document.querySelector('th.est button').click()")
    assert page.ask(visible) == [f"group-{i}" for i in order[::-1]], "lowest first"
    assert page.log == []


def test_the_line_of_what_was_left_out_holds_in_the_order_of_the_ranking_alone(page: Live, tmp_path: Path) -> None:
    opened(page, tmp_path, render(results(LETTERS)))
    below = "map(r => r.nextElementSibling.cells[0].textContent)"
    line = f"[...document.querySelectorAll('tr.cut')].filter({VISIBLE}).{below}"
    assert page.ask(line) == ["32"]
    head(page, "group")
    assert page.ask(line) == []
    head(page, "rank")
    assert page.ask(line) == ["32"]
    assert page.ask("document.querySelector('tr.cut').rowIndex") == 32
    head(page, "rank")
    assert page.ask(line) == []
    head(page, "rank")
    find(page, "no such group")
    assert page.ask(line) == []
    assert page.log == []


def test_a_link_to_a_hidden_row_shows_it(page: Live, tmp_path: Path) -> None:
    names = [f"Class {i:03}" for i in range(200)]
    given = results(names)
    order = sorted(range(200), key=lambda i: -given["groups"][i]["value"])
    middle = order[100]
    text = render(given).replace("</main>", f"<a id='to' href='#group-{middle}'>to</a></main>")
    opened(page, tmp_path, text)
    row = f"document.getElementById('group-{middle}')"
    assert not page.ask(f"{VISIBLE}({row})")
    find(page, "nothing")
    page.click("#to")
    page.ask(SOON)
    assert page.ask(f"{VISIBLE}({row})")
    assert page.ask(f"{row}.getBoundingClientRect().top >= 0 && {row}.getBoundingClientRect().top < innerHeight")
    assert page.ask("document.querySelector('input').value") == "", "what is typed is what is shown"
    find(page, "nothing")
    page.ask(f"location.hash = '#group-{order[101]}'")
    page.ask(SOON)
    assert page.ask("document.querySelector('[aria-live]').textContent") == "200 of 200 shown", (
        "an address typed by hand"
    )
    opened(page, tmp_path, text, at=f"#group-{middle}")
    assert page.ask(f"{VISIBLE}({row})"), "a page opened at a row"


SWITCH = (
    "<div data-switch='Task'>"
    + "".join(
        f"<section data-name='{n}'><h2>{n}</h2><details><summary>How sure</summary><p id='p{i}'>Inside</p></details>"
        "</section>"
        for i, n in enumerate(["1-shot", "5-shot", "full"])
    )
    + "</div><p><a href='#p2'>to the last</a></p>"
)


def test_one_task_shows_at_a_time_and_arrow_keys_change_it(page: Live, tmp_path: Path) -> None:
    opened(page, tmp_path, body(f"{SWITCH}<div style='height: 3000px'></div>"))
    heads = f"[...document.querySelectorAll('section h2')].filter({VISIBLE}).map(h => h.textContent)"
    tabs = "[...document.querySelectorAll('[role=tab]')]"
    assert page.ask(heads) == ["1-shot"]
    assert page.ask("document.querySelector('[role=tablist]').ariaLabel") == "Task"
    assert page.ask(f"{tabs}.map(t => [t.textContent, t.ariaSelected, t.tabIndex])") == [
        ["1-shot", "true", 0],
        ["5-shot", "false", -1],
        ["full", "false", -1],
    ]
    joined = "document.getElementById(t.getAttribute('aria-controls')).getAttribute('aria-labelledby') === t.id"
    assert page.ask(f"{tabs}.every(t => {joined})")
    page.ask(f"{tabs}[0].focus()")
    for key, wanted in (("ArrowRight", "5-shot"), ("ArrowRight", "full"), ("ArrowRight", "1-shot")):
        page.press(key)
        assert page.ask(heads) == [wanted]
        assert page.ask("[document.activeElement.textContent, document.activeElement.ariaSelected]") == [wanted, "true"]
    for key, wanted in (("ArrowLeft", "full"), ("Home", "1-shot"), ("End", "full"), ("ArrowLeft", "5-shot")):
        page.press(key)
        assert page.ask(heads) == [wanted]
        assert page.ask("scrollY") == 0, "the key is the list's, not the window's"
    page.ask(f"{tabs}[0].click()")
    assert page.ask(heads) == ["1-shot"]
    page.click("a[href='#p2']")
    page.ask(SOON)
    assert page.ask(heads) == ["full"], "a link into another task shows it"
    assert page.ask(f"{VISIBLE}(document.getElementById('p2'))"), "and opens the fold"
    assert not page.ask("document.querySelector('details').open")
    assert page.log == []


def test_a_fold_opens_by_keys(page: Live, tmp_path: Path) -> None:
    opened(page, tmp_path, study_html(study()))
    assert page.ask("document.querySelectorAll('details[open]').length") == 0
    page.ask("document.querySelector('summary').focus()")
    page.press("Enter")
    assert page.ask("document.querySelector('details').open")
    assert page.log == []


def test_pictures_open_larger_with_their_captions(page: Live, tmp_path: Path) -> None:
    pictures = {n: np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8) for n in LETTERS}
    opened(page, tmp_path, render(results(LETTERS), pictures))
    assert page.ask("document.querySelectorAll('dialog').length") == 0
    page.ask("document.querySelector('button.picture').focus()")
    name = page.ask("document.activeElement.dataset.caption")
    page.press("Enter")
    assert page.ask("document.querySelector('dialog').open")
    assert page.ask("document.querySelector('#larger').textContent") == name
    assert page.ask("document.querySelector('dialog').getAttribute('aria-labelledby')") == "larger"
    assert page.ask("document.querySelectorAll('dialog img').length") == 3
    assert page.ask("document.querySelector('dialog img').width > 200")
    assert page.ask("document.activeElement.textContent") == "Close"
    page.press("Escape")
    assert not page.ask("document.querySelector('dialog').open")
    assert page.ask("document.activeElement.dataset.caption") == name, "the focus is back where it was"
    page.ask("document.querySelectorAll('button.picture img')[4].click()")
    assert page.ask("document.querySelectorAll('dialog').length") == 1
    assert page.ask("document.querySelector('#larger').textContent") != name
    assert page.ask("document.querySelectorAll('dialog img.small').length") == 3
    page.click("dialog button")
    assert not page.ask("document.querySelector('dialog').open")
    page.click("button.picture")
    page.click("dialog img")
    assert page.ask("document.querySelector('dialog').open")
    page.click("dialog")
    assert not page.ask("document.querySelector('dialog').open"), "a click beside the content closes"
    assert page.log == []


def test_each_picture_has_its_own_caption_if_it_is_given(page: Live, tmp_path: Path) -> None:
    image = re.search(r"data:image[^\"]+", render(results(["a"]), {"a": np.zeros((1, 9, 9), np.uint8)}))
    assert image is not None
    inside = f"<button class='picture' data-caption='cats'><img src='{image[0]}' alt='' data-caption='a/&lt;b&gt;.png'>"
    opened(page, tmp_path, body(inside + "</button>"))
    page.click("button.picture")
    assert page.ask("document.querySelector('figcaption').textContent") == "a/<b>.png"
    assert page.ask("document.querySelector('#larger').textContent") == "cats"


def test_names_that_would_be_markup_stay_text(page: Live, tmp_path: Path) -> None:
    names = [*EVIL, *LETTERS]
    opened(page, tmp_path, render(results(names), dict.fromkeys(names, np.zeros((1, 9, 9), np.uint8))))
    for position in range(len(EVIL)):
        page.click(f"#group-{position} button.picture")
        page.click("dialog button")
    head(page, "group")
    assert page.ask("document.querySelectorAll('img[onerror], main script').length") == 0
    assert page.log == []


def test_a_page_of_an_analysis_sorts_and_filters_its_table(page: Live, tmp_path: Path) -> None:
    rows = [(f"row {i}", (7 * i) % 50 / 1000) for i in range(50)]
    table = Table(("name", "value"), rows, "All", digits={"value": 1})
    write_pages([Page("one", "One", "What?", ["So."], [table], {}, "By hand.")], tmp_path, "t")
    page.open(tmp_path / "one.html")
    assert (page.log, len(page.requests)) == ([], 1)
    assert column(page) == [f"row {i}" for i in range(40)]
    head(page, "value")
    assert column(page)[:3] == ["row 0", "row 43", "row 36"], "by more digits than are shown"
    assert find(page, "row 4") == "11 of 50 shown"
    assert page.ask("document.querySelector('.scroll input')") is None, "the field stays where it is"


def test_without_script_and_on_paper_everything_is_there(page: Live, tmp_path: Path) -> None:
    names = [f"Class {i:03}" for i in range(200)]
    text = render(results(names)).replace("</main>", f"{SWITCH}</main>")
    opened(page, tmp_path, text, media="print")
    assert len(column(page, 0, "#ranked")) == 0  # the rows of the body, not of a table in it
    rows = f"[...document.querySelectorAll('#ranked tr.group')].filter({VISIBLE}).length"
    sections = f"[...document.querySelectorAll('[data-switch] > section')].filter({VISIBLE}).length"
    tools = f"[...document.querySelectorAll('.find, tr.more, [role=tablist]')].filter({VISIBLE}).length"
    seen = "p => p.checkVisibility({contentVisibilityAuto: true})"
    inside = f"[...document.querySelectorAll('details p:not(.find)')].every({seen})"
    assert page.ask(f"[{rows}, {sections}, {tools}, {inside}]") == [200, 3, 0, True]
    path = tmp_path / "page.html"
    path.write_text(re.sub(r"<script>.*</script>", "", text, flags=re.S), encoding="utf-8")
    page.open(path)
    assert page.ask(f"[{rows}, {sections}, document.querySelectorAll('th button, input').length]") == [200, 3, 0]


def test_another_script_does_not_run(page: Live, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(body("<script>document.title = 'ran'</script>"), encoding="utf-8")
    page.open(path)
    assert page.ask("document.title") == "Title"
    assert "Content Security Policy" in " ".join(page.log), "the log does tell what a page does wrong"


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_controls_have_enough_contrast(page: Live, tmp_path: Path, dark: bool) -> None:
    opened(page, tmp_path, body(""), dark=dark)
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    names = ("paper", "ink", "soft", "better", "worse", "plain")
    colours = {name: page.ask(f"{style}('--{name}').trim()") for name in names}
    paper = luminance(colours["paper"])
    for name, least in (("ink", 4.5), ("soft", 4.5), ("better", 4.5), ("worse", 4.5), ("plain", 3.0)):
        light, darkest = sorted((paper, luminance(colours[name])), reverse=True)
        assert (light + 0.05) / (darkest + 0.05) >= least, name


def luminance(colour: str) -> float:
    """Of a colour as #rrggbb, by WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_table_is_clipped(page: Live, tmp_path: Path, width: int) -> None:
    names = [f"Class of things {i:04}" for i in range(300)]
    opened(page, tmp_path, render(results(names), dict.fromkeys(names, np.zeros((3, 28, 28), np.uint8))), width=width)
    assert page.ask("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('table:not(.scroll table)')].map(t => t.getBoundingClientRect().right)"
    assert max(page.ask(wide)) <= width
    page.ask("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    scrolled = (
        "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth).map(s => s.ariaLabel)"
    )
    assert page.ask(scrolled) == []
    cells = "[...document.querySelectorAll('#ranked tr.group:first-child > *, .ranking thead th')]"
    over = f"{cells}.filter(c => c.scrollWidth > c.clientWidth + 1).map(c => c.textContent)"
    assert page.ask(over) == []


def test_every_control_is_reached_by_tab_and_shows_it(page: Live, tmp_path: Path) -> None:
    opened(page, tmp_path, body(SWITCH + SMALL.replace("data-sort", "data-sort data-filter='Find'")))
    reached = []
    for _ in range(12):
        page.press("Tab")
        shown = "getComputedStyle(document.activeElement).outlineStyle + document.activeElement.tagName"
        reached.append(page.ask(f"{shown} + document.activeElement.textContent.trim()"))
    wanted = ["BUTTON1-shot", "SUMMARYHow sure", "Ato the last", "INPUT", "BUTTONname", "BUTTONnumber", "BUTTONexact"]
    assert reached[: len(wanted)] == [f"solid{one}" for one in wanted]

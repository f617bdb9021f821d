"""A report, the pages of analyses and kept lists belong together: they link to each other, and travel as one file."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from stub_report import study
from typer.testing import CliRunner

from pydt.analyses import ranking, report, share, stability
from pydt.base import StoreError
from pydt.cli.app import app
from pydt.data import Dataset, Target
from pydt.reporting import PAGES, write_pages
from pydt.store import Store


def links(page: Path) -> set[str]:
    """What a page links to, but for places in itself."""
    found = set(re.findall(r'href="([^"]*)"', page.read_text()))
    return {one for one in found if not one.startswith(("#", "data:"))}


def dead(folder: Path) -> list[tuple[str, str]]:
    """Links of all pages below a folder that lead to no file below it."""
    here = folder.resolve()
    return [
        (page.name, link)
        for page in folder.rglob("*.html")
        for link in links(page)
        if here not in (there := (page.parent / link).resolve()).parents or not there.is_file()
    ]


@pytest.fixture
def store(tmp_path: Path, source: Dataset, target: Target) -> Store:
    return study(tmp_path / "a study", source, target)


def test_report_and_pages_link_to_each_other_in_any_order(store: Store) -> None:
    folder = store.folder
    write_pages([ranking(store).page()], folder / PAGES, "a study")
    assert links(folder / PAGES / "index.html") == {"ranking-target.html"}, "there is no report yet"
    report(store, folder)
    before = (folder / "report.html").read_text()
    assert links(folder / "report.html") == {"analyses/ranking-target.html", "analyses/index.html"}
    assert "../report.html" in links(folder / PAGES / "index.html")
    write_pages([stability(store).page()], folder / PAGES, "a study", absent={"shots": ("which?", "no shots")})
    assert "analyses/stability.html" in links(folder / "report.html")
    assert "shots" not in (folder / "report.html").read_text().partition("<!-- analyses -->")[2].partition("<!-- /")[0]
    assert dead(folder) == []
    report(store, folder)
    assert "analyses/stability.html" in links(folder / "report.html")
    shutil.rmtree(folder / PAGES)
    report(store, folder)
    assert links(folder / "report.html") == set()
    assert len((folder / "report.html").read_text()) < len(before)


def test_a_report_elsewhere_links_to_no_pages(store: Store, tmp_path: Path) -> None:
    write_pages([ranking(store).page()], store.folder / PAGES, "a study")
    report(store, tmp_path / "elsewhere")
    assert links(tmp_path / "elsewhere" / "report.html") == set()


def test_one_file_holds_the_results_and_nothing_of_the_rows(store: Store, tmp_path: Path) -> None:
    folder = store.folder
    with pytest.raises(StoreError, match=r"has no report.*pydt report"):
        share(store)
    write_pages([ranking(store).page(), stability(store).page()], folder / PAGES, "a study")
    (folder / PAGES / "notes.html").write_text("of the user's own")
    (folder / "mine.csv").write_text("secret")
    (folder / "kept").mkdir()
    for name in ("top-2.txt", "top-2.csv", "top-2.bin"):
        (folder / "kept" / name).write_text("c1\nc2\n")
    (tmp_path / "key").write_text("secret")
    (folder / "kept" / "link.txt").symlink_to(tmp_path / "key")
    done = CliRunner().invoke(app, ["report", str(folder), "--zip"])
    assert done.exit_code == 0, done.output
    packed = folder / "a study-report.zip"
    size = f"{packed.stat().st_size / 1e6:.1f} MB"
    assert f"{packed} ({size})" in done.output.replace("\n", "")
    with zipfile.ZipFile(packed) as file:
        names = file.namelist()
        assert file.testzip() is None
        file.extractall(tmp_path / "unpacked")
    assert names[:2] == ["a study/report.html", "a study/results.json"]
    inside = {name.removeprefix("a study/") for name in names}
    assert {"groups.csv", "rows.csv", "analyses/index.html", "analyses/stability.html", "kept/top-2.txt"} <= inside
    assert {
        "analyses/notes.html",
        "mine.csv",
        "kept/top-2.bin",
        "kept/link.txt",
        "store.json",
        "analyses/index.json",
    } & inside == set()
    assert {name.split("/")[0] for name in inside if "/" in name} == {"analyses", "kept"}
    assert all(re.search(r"\.(html|json|csv|txt)$", name) for name in inside)
    for name in inside:
        assert (tmp_path / "unpacked" / "a study" / name).read_bytes() == (folder / name).read_bytes()
    assert dead(tmp_path / "unpacked") == []
    assert share(folder, tmp_path / "other.zip").read_bytes() == packed.read_bytes()


def test_pictures_of_the_ranking_say_where_they_lie(store: Store) -> None:
    record = store.plan()
    images = {"c1": np.zeros((2, 8, 8, 3), np.uint8), "c2": np.zeros((1, 8, 8, 1), np.uint8)}
    store.put_thumbnails(record, images, {"c1": ("c1/a.png", "c1/b.png")})
    report(store, store.folder)
    page = (store.folder / "report.html").read_text()
    (button,) = re.findall(r'<button[^>]* data-caption="c1" title="c1: c1/a.png, c1/b.png">.*?</button>', page)
    assert re.findall(r'<img[^>]* data-caption="([^"]*)"', button) == ["c1/a.png", "c1/b.png"]
    (button,) = re.findall(r'<button[^>]* data-caption="c2" title="c2">.*?</button>', page)
    assert button.count("<img") == 1

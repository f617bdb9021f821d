"""The documentation says what this version computes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pydt

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_worked_example_shows_the_numbers_of_this_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = tool("worked_example")
    monkeypatch.setattr("sys.argv", ["worked_example.py", "--check"])
    with pytest.raises(SystemExit) as stopped:
        example.main()
    assert not stopped.value.code, stopped.value.code

    # and a page with other numbers is noticed
    changed = tmp_path / "page.md"
    changed.write_text(example.PAGE.read_text(encoding="utf-8").replace("| 0 | +3.0 |", "| 0 | +3.1 |"), "utf-8")
    monkeypatch.setattr(example, "PAGE", changed)
    with pytest.raises(SystemExit) as stopped:
        example.main()
    assert "page.md" in str(stopped.value.code)


def lost(text: str) -> list[str]:
    """Dotted names of pydt in a text that do not exist."""
    found = []
    for name in sorted(set(re.findall(r"(?<![\w./-])pydt(?:\.[A-Za-z_]\w*)+", text))):
        at = pydt
        for part in name.split(".")[1:]:
            try:
                at = getattr(at, part)
            except AttributeError:
                try:
                    at = importlib.import_module(f"{at.__name__}.{part}")
                except (AttributeError, ImportError):
                    found.append(name)
                    break
    return found


def test_names_in_documents_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md"), ROOT / "pydt" / "README.md"]
    found = {page.name: lost(page.read_text(encoding="utf-8")) for page in pages if page.name != "CHANGELOG.md"}
    assert len(found) > 12
    assert not any(found.values()), found
    assert lost("`pydt.influences`, `pydt.influence`, `pydt.base.errors`") == ["pydt.influence"]


def test_dead_links_in_documents_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One head: a `name`\n", encoding="utf-8")
    good = "[a](#one-head-a-name) [b](page.md) [c](https://x.org/y#z) `store/rows.py` `test_docs.py` `tests/ROOM/x.py`"
    bad = "[a](#another) [b](none.md) `store/none.py` `test_none.py` `tests/none`"
    listed = ["pydt/store/rows.py", "tests/system/test_docs.py"]
    dead = tool("check_repository").dead
    assert dead(page, good, listed) == []
    assert dead(page, bad, listed) == ["#another", "none.md#", "store/none.py", "test_none.py", "tests/none"]


def test_the_scripts_of_the_page_of_methods_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.S)
    assert len(scripts) == 2
    for script in scripts:
        exec(compile(script, "methods.md", "exec"), names)
    stored = [row["report_accuracy"] for row in names["store"].scalars(names["task"])]
    assert names["accuracy"] == pytest.approx(stored)
    assert 62 * (0.25**31 + 0.75**31) < 0.01 < 62 * 0.75**30


def test_the_memory_of_the_device_regression_is_that_of_its_module() -> None:
    from pydt.estimation import torch_backend

    (formula,) = re.findall(r"^    8 n \(.*$", str(torch_backend.__doc__), re.MULTILINE)
    assert formula in (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").splitlines()

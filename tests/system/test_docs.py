"""The documentation says what this version computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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

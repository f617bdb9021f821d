"""Which code a row is computed by: the declared files, all of what a row is made of, and no other."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from pydt.ensemble.code_version import PACKAGE, code_version, decisive


def names(package: Path = PACKAGE) -> set[str]:
    return {file.relative_to(package).as_posix() for file in decisive(package)}


def test_the_code_version_covers_the_rooms_that_decide_a_row_and_no_others() -> None:
    assert {name.split("/")[0] for name in names()} == {"base", "data", "design", "training", "ensemble", "store"}
    own = {name for name in names() if name.startswith(("ensemble", "store")) and "runners" not in name}
    assert own == {"ensemble/row.py", "store/rows.py", "store/measure.py"}
    for room in ("base", "data", "design", "training", "ensemble/runners"):
        files = {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.joinpath(room).rglob("*.py")}
        assert files
        assert files <= names()


def test_a_changed_byte_of_these_files_changes_it_and_one_of_the_driver_does_not(tmp_path: Path) -> None:
    package = tmp_path / "pydt"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    version = code_version(package)
    assert version == code_version()
    chosen = names(package)
    for name in [*chosen, "ensemble/driver.py", "reporting/page.py", "store/store.py", "cli/app.py"]:
        whole = (package / name).read_bytes()
        (package / name).write_bytes(whole + b"#")
        assert (code_version(package) != version) == (name in chosen), name
        (package / name).write_bytes(whole)
    (package / "training" / "new.py").touch()
    assert code_version(package) != version


def test_what_a_row_is_made_of_is_among_the_files() -> None:
    """Everything that `run_row` imports, directly or not, but the store, of which rows.py alone counts."""
    found: set[Path] = set()
    waiting = [PACKAGE / "ensemble" / "row.py"]
    while waiting:
        file = waiting.pop()
        if file in found or PACKAGE / "store" in file.parents:
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pydt":
                place = PACKAGE.joinpath(*str(node.module).split(".")[1:])
                inner = [place / alias.name for alias in node.names]
                known = [file for base in (place, *inner) for file in (base.with_suffix(".py"), base / "__init__.py")]
                waiting += [file for file in known if file.exists() and file != PACKAGE / "__init__.py"]
    assert len(found) > 40
    assert found <= set(decisive())

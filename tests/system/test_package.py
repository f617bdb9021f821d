"""The package as it is imported and installed: what it shows, what importing it costs, what is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import files, metadata
from pathlib import Path

import pytest

import pydt
from pydt.base import DataError

ROOT = Path(pydt.__file__).parent
CHECKOUT = Path(__file__).parents[2]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_and_shows_everything() -> None:
    shown = run(
        "import sys, pydt; heavy = {'torch', 'numpy', 'rich', 'typer'} & set(sys.modules); assert not heavy, heavy; "
        "names = [name for name in pydt.__all__ if getattr(pydt, name) is None]; assert not names, names; "
        "assert callable(pydt.report) and callable(pydt.run); print(len(pydt.__all__), *dir(pydt))"
    )
    assert int(shown.split()[0]) > 40
    assert {"influences", "Store", "design", "errors", "transfer", "Slurm"} <= set(shown.split())


@pytest.mark.parametrize("name", ["errors", "estimate", "examples", "glyphs", "lab", "models", "train", "transfer"])
def test_short_names_of_modules_are_imported_like_any_module(name: str) -> None:
    run(
        f"import pydt.{name} as found, sys, pydt; "
        f"assert found is pydt.{name} is sys.modules['pydt.{name}'] is sys.modules[found.__name__]; "
        f"assert found.__name__ == found.__spec__.name != 'pydt.{name}', found.__name__"
    )


@pytest.mark.parametrize("room", ["base", "data", "design", "reporting", "store", "estimation", "ensemble", "analyses"])
def test_rooms_are_entered_without_torch(room: str) -> None:
    heavy = {"torch", "scipy", "PIL", "rich"}
    run(f"import sys, pydt.{room}; found = {heavy} & set(sys.modules); assert not found, found")


def test_an_installed_package_holds_its_tree_and_nothing_else() -> None:
    """Checked where pydt was installed from this checkout, not in place."""
    installed = {str(path) for path in files("pydt-transfer") or () if path.parts[0] == "pydt"}
    if not installed or ROOT.parent == CHECKOUT:
        pytest.skip("installed in place")
    listed = subprocess.run(["git", "ls-files", "pydt"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    found = {name for name in installed if "__pycache__" not in name and not name.startswith("pydt/_core.cpython")}
    assert found == set(listed.stdout.split())


def test_extras_that_are_named_exist() -> None:
    """In messages, documents and benchmarks; an index's `pydt` is another package, so it must not be named."""
    documents = (path for folder in ("docs", "bench") for path in CHECKOUT.glob(f"{folder}/*"))
    found = set()
    for path in [*ROOT.rglob("*.py"), *CHECKOUT.glob("*.md"), *documents]:
        if path.suffix not in {".py", ".md"}:
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pydt\[\w", text) or path.name == "CHANGELOG.md", path
        assert not re.search(r"pip install\s+'?pydt\b(?!-transfer)", text), path
        named = re.findall(r"'(?:pydt-transfer|\.)\[([\w,]+)\]'", text)
        found |= {name for names in named for name in names.split(",")}
        found |= set(re.findall(r'_?imported\("\w+", "(\w+)"\)', text))  # an extra put into the message
    assert {"timm", "hf", "ray", "slurm"} <= found
    assert found <= set(metadata("pydt-transfer").get_all("Provides-Extra") or ())


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'influence'"):
        _ = pydt.influence  # type: ignore[attr-defined]


def test_errors_survive_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DataError("broken", "file 7", "replace it")))
    assert (error.what, error.where, error.mend) == ("broken", "file 7", "replace it")
    assert str(error) == "file 7: broken. replace it"

"""The shape of the package: what it shows, what importing it costs, in which order modules may know each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

import pydt

ROOT = Path(pydt.__file__).parent
ORDER = [
    "errors",
    "schema",
    "files",
    "cores",
    "pixels",
    "index",
    "encode",
    "labels",
    "seeds",
    "sources",
    "foreign",
    "contents",
    "shards",
    "joined",
    "saved",
    "data",
    "identical",
    "target",
    "glyphs",
    "drawing",
    "design",
    "augment",
    "buffers",
    "jitter",
    "encoded",
    "loader",
    "models",
    "train",
    "transfer",
    "cells",
    "packed",
    "record",
    "shelf",
    "store",
    "learnt",
    "remarks",
    "export",
    "upkeep",
    "plan",
    "inputs",
    "moments",
    "fit",
    "robust",
    "linear",
    "penalised",
    "estimate",
    "verdict",
    "stopping",
    "planfile",
    "score",
    "overall",
    "copies",
    "workers",
    "jobs",
    "cluster",
    "live",
    "ensemble",
    "rates",
    "counterfactual",
    "planning",
    "alphas",
    "cost",
    "figures",
    "words",
    "render",
    "pages",
    "pack",
    "packtar",
    "nearest",
    "subject",
    "uneven",
    "duplicates",
    "leakage",
    "misleading",
    "examples",
    "rankings",
    "subpopulations",
    "sensitivity",
    "removal",
    "failures",
    "brittleness",
    "report",
    "inspect",
    "lab",
    "doctor",
    "analyse",
    "cli",
]
LAZY = {
    "buffers",
    "encoded",
    "loader",
    "models",
    "train",
    "transfer",
}  # the only modules that import torch when they are imported


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top level) of each import in a file, type-checking blocks left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(name.name, node in tree.body) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"pydt.{a.name}" for a in node.names] if node.module == "pydt" else [node.module]
            found += [(name, node in tree.body) for name in names]
    return found


def test_modules_only_know_those_above_them() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    assert modules == set(ORDER), "a new module needs a place in the order"
    for module in modules:
        for name, _ in imports(ROOT / f"{module}.py"):
            if name.startswith("pydt.") and (other := name.split(".")[1]) in modules:
                assert ORDER.index(other) < ORDER.index(module), f"{module} imports {other}, which stands below it"


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    heavy = {"torch", "torchvision", "nvidia", "matplotlib", "sklearn", "scipy", "PIL", "rich", "jinja2", "typer"}
    heavy |= {"ray", "submitit"}
    allowed = {(module, "torch") for module in LAZY} | {("cli", "typer")}
    for path in ROOT.glob("*.py"):
        for name, top in imports(path):
            package = name.split(".")[0]
            assert not top or package not in heavy or (path.stem, package) in allowed, (
                f"{path.stem} imports {name} at its top"
            )


UNPICKLES = {"load", "loads", "Unpickler", "_Unpickler"}
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}


def unpickling(tree: ast.AST) -> list[str]:
    """What in a module could unpickle: names of such functions and classes, wherever they stand."""
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    found = [name for name in found if name.split(".")[0] in PICKLES and name.split(".")[-1] in UNPICKLES | {"open"}]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            found += [name.name for name in node.names if name.name in UNPICKLES | {"open", "*"}]
        if isinstance(node, ast.Attribute) and node.attr in {"read_pickle", "loads_pickle", "recv", "find_class"}:
            found.append(ast.unparse(node))
    return found


def test_pickles_are_read_in_one_place_and_from_a_worker_s_own_driver() -> None:
    found = {path.stem: unpickling(ast.parse(path.read_text())) for path in ROOT.glob("*.py")}
    assert {name: set(names) for name, names in found.items() if names} == {
        "copies": {"pickle.Unpickler", "super().find_class"},  # messages whose keyed checksum was right
        "workers": {"connection.recv"},  # a socket that only a driver and its child have
    }
    for bad in ("import pickle; pickle.loads(x)", "from pickle import loads", "import dill; dill.Unpickler(f).load()"):
        assert unpickling(ast.parse(bad))


def test_nothing_is_pickled_or_evaluated() -> None:
    for path in ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"eval", "exec", "torch.load", "pickle.load", "yaml.load"}, (
                    f"{path.name}:{node.lineno}"
                )
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if name == "np.load":
                    assert keywords.get("allow_pickle") == "False", f"{path.name}:{node.lineno}"


def test_import_loads_nothing_and_shows_everything() -> None:
    code = (
        "import sys, pydt; heavy = {'torch', 'numpy', 'rich', 'typer'} & set(sys.modules); assert not heavy, heavy; "
        "import pydt.report, pydt.counterfactual; assert callable(pydt.report) and callable(pydt.counterfactual); "
        "assert 'torch' not in sys.modules, 'reading a store must not import torch'; "
        "assert all(getattr(pydt, name) is not None for name in pydt.__all__); print(len(pydt.__all__))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def test_extras_that_are_named_exist() -> None:
    """In messages, documents and benchmarks; an index's `pydt` is another package, so it must not be named."""
    root = ROOT.parent if (ROOT.parent / "pyproject.toml").is_file() else Path(__file__).parents[1]
    texts = [*ROOT.glob("*.py"), *root.glob("*.md"), *(path for d in ("docs", "bench") for path in root.glob(f"{d}/*"))]
    found = set()
    for path in texts:
        if path.suffix not in {".py", ".md"}:
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pydt\[\w", text) or path.name == "CHANGELOG.md", path
        assert not re.search(r"pip install\s+'?pydt\b(?!-transfer)", text), path
        found |= {
            name for names in re.findall(r"'(?:pydt-transfer|\.)\[([\w,]+)\]'", text) for name in names.split(",")
        }
        found |= set(re.findall(r'_imported\("\w+", "(\w+)"\)', text))  # an extra put into the message
    assert {"timm", "hf", "ray", "slurm"} <= found
    assert found <= set(metadata("pydt-transfer").get_all("Provides-Extra") or ())


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'influence'"):
        _ = pydt.influence


def test_errors_survive_another_process() -> None:
    import pickle

    from pydt.errors import DataError

    error = pickle.loads(pickle.dumps(DataError("broken", "file 7", "replace it")))
    assert (error.what, error.where, error.mend) == ("broken", "file 7", "replace it")
    assert str(error) == "file 7: broken. replace it"

"""_core.pyi declares the functions of the compiled core as they are: names, parameters, defaults, types."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pydt
from pydt import _core

DECLARED = {
    item.name: item
    for item in ast.parse(Path(pydt.__file__).with_name("_core.pyi").read_text(encoding="utf-8")).body
    if isinstance(item, ast.FunctionDef)
}

# How pybind11 writes a type in a signature, and how the stub does.
SPELLINGS = [
    (r"typing\.SupportsInt( \| typing\.SupportsIndex)?", "int"),
    (r"typing\.SupportsFloat( \| typing\.SupportsIndex)?", "float"),
    (r"typing\.Annotated\[collections\.abc\.Sequence\[(\w+)\], 'FixedSize\(2\)'\]", r"tuple[\1, \1]"),
    (r"typing\.Annotated\[collections\.abc\.Sequence\[(\w+)\], 'FixedSize\(4\)'\]", r"tuple[\1, \1, \1, \1]"),
    (r"numpy\.typing\.NDArray\[numpy\.bool\]", "NDArray[np.bool_]"),
    (r"numpy\.typing\.NDArray\[numpy\.(\w+)\]", r"NDArray[np.\1]"),
    (r"numpy\.ndarray", "NDArray"),
]


def compiled(name: str) -> ast.FunctionDef:
    """The signature that pybind11 writes into the first line of a docstring."""
    signature = getattr(_core, name).__doc__.splitlines()[0]
    definition = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    return definition


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def without_types(function: ast.FunctionDef) -> str:
    arguments = ast.parse(ast.unparse(function)).body[0].args  # type: ignore[attr-defined]
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        argument.annotation = None
    return ast.unparse(arguments)


def assert_same_type(stub: ast.expr | None, core: ast.expr | None, place: str) -> None:
    """The core's type is the stub's, or a wider one that names no contents: object, tuple, list, array."""
    assert stub, place
    assert core, place
    declared, true = ast.unparse(stub), ast.unparse(core)
    for pattern, spelling in SPELLINGS:
        true = re.sub(pattern, spelling, true)
    wider = true == "object" or (true in {"tuple", "list", "NDArray"} and declared.startswith(f"{true}["))
    assert wider or declared == true, f"{place}: {declared} in the stub, {true} in the core"


def test_the_names_agree() -> None:
    assert set(DECLARED) == {name for name in dir(_core) if not name.startswith("__")}


@pytest.mark.parametrize("name", DECLARED)
def test_signatures_agree(name: str) -> None:
    stub, core = DECLARED[name], compiled(name)
    assert without_types(stub) == without_types(core)
    for one, other in zip(parameters(stub), parameters(core), strict=True):
        assert_same_type(one.annotation, other.annotation, f"{name}, {one.arg}")
    assert_same_type(stub.returns, core.returns, f"{name}, result")


@pytest.mark.parametrize("name", DECLARED)
def test_the_stub_alone_documents(name: str) -> None:
    assert ast.get_docstring(DECLARED[name])
    assert len(getattr(_core, name).__doc__.strip().splitlines()) == 1

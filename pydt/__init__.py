"""pydt: which parts of a source data set help a transfer task, which hurt, and how sure one can be."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

__version__ = "0.1.0"

# The complete public list: name -> module. Nothing is imported until it is used, so `import pydt` is instant.
_PUBLIC = {
    "Augment": "augment",
    "Counterfactual": "counterfactual",
    "Dataset": "data",
    "Design": "design",
    "Loader": "loader",
    "Plan": "plan",
    "PydtError": "errors",
    "Recipe": "train",
    "Store": "store",
    "StoppingRule": "stopping",
    "Target": "target",
    "Task": "transfer",
    "analyse": "analyse",
    "brittleness": "brittleness",
    "compare_alphas": "alphas",
    "compare_outputs": "sensitivity",
    "cost": "cost",
    "counterfactual": "counterfactual",
    "failures": "failures",
    "influences": "estimate",
    "lds": "score",
    "leaks": "leakage",
    "misleading": "misleading",
    "models_for_effect": "planning",
    "models_for_stderr": "planning",
    "plan_models": "planning",
    "prediction_test": "verdict",
    "ranking": "rankings",
    "read_plan": "planfile",
    "removal_curve": "removal",
    "repeat_rows": "score",
    "report": "report",
    "run": "ensemble",
    "stability": "sensitivity",
    "subpopulations": "subpopulations",
    "write_plan": "planfile",
}
_MODULES = {"data", "design", "errors", "estimate", "glyphs", "models", "store", "train", "transfer"}

__all__ = [*sorted(_PUBLIC), "__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"pydt.{_PUBLIC[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"pydt.{name}")
    elif name == "_core":
        try:
            value = importlib.import_module("pydt._core")
        except ModuleNotFoundError:
            raise ImportError(
                f"the compiled core is not in {__path__[0]}: this is the source folder, not the installed package; "
                "run from another folder, or install in place with pip install --no-build-isolation -e ."
            ) from None
    else:
        raise AttributeError(f"module 'pydt' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(types.ModuleType):
    """Importing `pydt.report` binds that module on the package, over the function of its name: the function wins."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PUBLIC and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

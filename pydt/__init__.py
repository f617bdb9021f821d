"""pydt: which parts of a source data set help a transfer task, which hurt, and how sure one can be."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

import lazy_loader

__version__ = "0.1.0"

# The public names stand in __init__.pyi; each is imported when it is first used, so `import pydt` is instant.
_public, _, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Modules that are public by a shorter name than their place in the tree.
_MODULES = {
    "errors": "base.errors",
    "estimate": "estimation",
    "examples": "analyses.examples",
    "glyphs": "data.samples.glyphs",
    "lab": "analyses.laboratory",
    "models": "training.networks",
    "train": "training",
    "transfer": "training.transfer",
}
__all__ += ["__version__", *_MODULES]


class _ShortNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import statements find the modules of `_MODULES`, too: `from pydt.errors import DataError`."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        known = package == __name__ and name in _MODULES
        return importlib.machinery.ModuleSpec(fullname, self) if known else None

    def exec_module(self, module: types.ModuleType) -> None:
        # what stands in sys.modules after this call is what is imported: the module itself, not a copy of it
        sys.modules[module.__name__] = importlib.import_module(f"pydt.{_MODULES[module.__name__.partition('.')[2]]}")


sys.meta_path.append(_ShortNames())


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pydt.{_MODULES[name]}")
    if name == "_core":
        try:
            return importlib.import_module("pydt._core")
        except ModuleNotFoundError:
            raise ImportError(
                f"the compiled core is not in {__path__[0]}: this is the source folder, not the installed package; "
                "run from another folder, or install in place with pip install --no-build-isolation -e ."
            ) from None
    if name not in __all__:
        raise AttributeError(f"module 'pydt' has no attribute {name!r}")
    return _public(name)

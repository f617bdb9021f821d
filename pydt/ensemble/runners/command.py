"""A command as the recipe of a plan: any program that reads which examples to keep and writes outputs to a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydt.base import ConfigError, PydtError, digest, one_of, open_npy, whole
from pydt.ensemble.runners.depends import Files, contents, digests, unchanged
from pydt.ensemble.runners.function import DEVICES

if TYPE_CHECKING:
    from pydt.ensemble.row import RowInput


@dataclass(frozen=True, eq=False)
class Command:
    """A command that computes rows.

    Args:
        command: program and arguments; `{keep}`, `{seed}`, `{out}`, `{scratch}`, `{threads}` and `{device}` stand for
            a row's own.
        depends: files whose content decides the numbers, relative to `folder`.
        folder: working folder of the command.
        threads: cores of a row.
        device: "cpu", or "cuda" for one GPU a row.
    """

    command: Sequence[str]
    depends: Sequence[str | os.PathLike[str]] = ()
    folder: str = field(default=".", metadata={"path": True})
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", tuple(self.command))
        object.__setattr__(self, "folder", str(Path(self.folder).absolute()))
        object.__setattr__(self, "threads", whole(self.threads, "threads", "Command", 1, error=ConfigError))
        one_of(self.device, DEVICES, "device", "Command")
        files: Files = contents(self.depends, "Command.depends", Path(self.folder))
        object.__setattr__(self, "depends", tuple(files))
        object.__setattr__(self, "_files", files)

    method = "command"

    @property
    def digest(self) -> str:
        """Name of what decides the rows."""
        return digest("command", list(self.command), digests(self._files))  # type: ignore[attr-defined]

    def described(self) -> dict[str, Any]:
        """The command as JSON types, for stores and reports."""
        about = {"method": self.method, "command": list(self.command), "depends": digests(self._files)}  # type: ignore[attr-defined]
        return {**about, "threads": self.threads, "device": self.device}

    def compute(self, row: RowInput) -> Mapping[str, Any]:
        """The outputs of a row."""
        unchanged(self._files, "Command")  # type: ignore[attr-defined]
        keep, out = row.scratch / "keep.txt", row.scratch / "out.npy"
        keep.write_text("".join(f"{one}\n" for one in row.ids))
        own = {"keep": str(keep), "out": str(out), "seed": str(row.seed), "scratch": str(row.scratch)}
        own |= {"threads": str(row.threads), "device": row.device}
        argv = [part.format_map(own) for part in self.command]
        done = subprocess.run(argv, cwd=self.folder, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise PydtError(f"the command ended with exit status {done.returncode}", "Command", "mend it")
        return {row.tasks[0].name: open_npy(out)}

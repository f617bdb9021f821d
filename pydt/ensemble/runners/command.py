"""A command as the recipe of a plan: any program that reads what to train on and writes its outputs to a file."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydt.base import ConfigError, PydtError, as_path, digest, one_of, suggest, whole
from pydt.ensemble.runners.child import Overdue, run_child, told
from pydt.ensemble.runners.depends import Files, contents, digests, unchanged
from pydt.ensemble.runners.function import DEVICES
from pydt.ensemble.runners.keep_file import KEEP_FORMATS, check_keep
from pydt.ensemble.runners.out_file import OUT_FORMATS, read_out

if TYPE_CHECKING:
    from pydt.ensemble.row import RowInput

_PLACEHOLDERS = ("keep", "out", "seed", "scratch", "threads", "device")
_IN_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LONGEST = 1 << 20  # bytes of a log that are kept: its end
_LAST = 300  # characters of it in an error


@dataclass(frozen=True, eq=False)
class Command:
    """A command that computes rows, started anew for each, without a shell.

    The rows' names hold the arguments, `keep`, `out`, `env` and the content of the files in `depends`; a change of any
    of them gives rows of another plan. What else the program reads is not looked at.

    Args:
        command: program and arguments. `{keep}` stands for the path of a file that says what to train on, `{out}` for
            the path to which the outputs are written, `{seed}`, `{threads}`, `{device}` ("cpu" or "cuda") and
            `{scratch}` (an empty folder that is removed afterwards) for those of the row; `{{` and `}}` for braces.
        depends: files whose content decides the numbers, relative to `folder`.
        keep: what the file of `{keep}` holds, of `KEEP_FORMATS`: "ids", "groups", "npy" or "parquet".
        out: format and suffix of the file of `{out}`, of `OUT_FORMATS`: "npy", "csv", "json" or "safetensors".
        env: environment variables of the program, besides those of the worker, which has CUDA_VISIBLE_DEVICES set to
            its own GPU where there are several.
        folder: working folder of the program.
        tries: how often a row is tried when the program fails, is ended after the run's `limit`, or writes nothing.
        threads: cores of a row.
        device: "cpu", or "cuda" for one GPU a row.

    Raises:
        ConfigError: no list of texts, an unknown placeholder or format, no `{out}`, or a file that cannot be read.
    """

    command: Sequence[str]
    depends: Sequence[str | os.PathLike[str]] = ()
    keep: str = "ids"
    out: str = "npy"
    env: Mapping[str, str] = field(default_factory=dict, metadata={"table": True})
    folder: str = field(default=".", metadata={"path": True})
    tries: int = 2
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", _parts(self.command))
        one_of(self.keep, tuple(KEEP_FORMATS), "keep", "Command")
        one_of(self.out, tuple(OUT_FORMATS), "out", "Command")
        for name in ("tries", "threads"):
            object.__setattr__(self, name, whole(getattr(self, name), name, "Command", 1, error=ConfigError))
        one_of(self.device, DEVICES, "device", "Command")
        if not isinstance(self.env, Mapping) or not all(isinstance(t, str) for pair in self.env.items() for t in pair):
            raise ConfigError(f"is {self.env!r}", "Command.env", 'give texts by name: env={"LEVEL": "3"}')
        for name, text in self.env.items():
            if not name or "=" in name or "\0" in name + text:
                wrong = f"has {name!r}: {text!r}, which no environment can hold"
                raise ConfigError(wrong, "Command.env", "give names without = and texts without NUL")
        object.__setattr__(self, "env", dict(self.env))
        object.__setattr__(self, "folder", str(as_path(self.folder, "Command.folder")))
        object.__setattr__(self, "depends", tuple(contents(self.depends, "Command.depends", Path(self.folder))))
        _ = self._files  # as they are now, before the first row

    method = "command"

    @cached_property
    def _files(self) -> Files:
        return contents(self.depends, "Command.depends", Path(self.folder))

    @cached_property
    def digest(self) -> str:
        """Name of what decides the rows."""
        return digest("command", list(self.command), self.keep, self.out, dict(self.env), digests(self._files))

    def described(self) -> dict[str, Any]:
        """The command as JSON types, for stores and reports."""
        about = {"method": self.method, "command": list(self.command), "keep": self.keep, "out": self.out}
        return {**about, "env": dict(self.env), "depends": digests(self._files), "device": self.device}

    @property
    def name(self) -> str:
        """What reports call it."""
        return " ".join(self.command)

    def fits(self, source: Any, by: str, tasks: Sequence[Any]) -> None:
        """Refuse a source or measures that the formats cannot hold; raises a ConfigError."""
        check_keep(self.keep, source, by)
        if self.out == "npy" and len(tasks) > 1:
            mend = 'use out="json", "csv" or "safetensors"'
            raise ConfigError(f'out="npy" holds one measure, there are {len(tasks)}', "Command.out", mend)

    def remarks(self) -> list[str]:
        """A sentence about a missing `{keep}`, a program that is not found here, and each file of `folder` that is not
        in `depends`.
        """
        known = {os.path.normpath(place) for place, _ in self._files.values()}
        parts = self.command[1:] if os.path.isabs(self.command[0]) else self.command  # an interpreter is not the user's
        told = []
        if not any("{keep}" in part for part in self.command):
            told.append("the command has no {keep}: every row trains on all the data, and no group has an influence")
        for text in dict.fromkeys(text for part in parts for text in (part, part.partition("=")[2])):
            place = os.path.normpath(os.path.join(self.folder, text))
            if place.startswith(self.folder + os.sep) and os.path.isfile(place) and place not in known:
                told.append(f"{text} is not in depends: rows that are stored stay when it changes")
        program = os.path.join(self.folder, self.command[0]) if os.sep in self.command[0] else self.command[0]
        if not _IN_BRACES.search(program) and shutil.which(program, path=self.env.get("PATH")) is None:
            told.append(f"{self.command[0]} is no program of this machine: every worker must have it")
        return told

    def compute(self, row: RowInput) -> Mapping[str, Any]:
        """The outputs of a row.

        Raises:
            PydtError: the program failed as often as it was tried, or what it wrote cannot be read; `row.told.log` is
                what it printed.
        """
        for number in range(1, self.tries + 1):
            unchanged(self._files, "Command")
            wrong, mend, outputs = self._try(row)
            if outputs is not None:
                return outputs
            if number < self.tries:
                row.told.notes.append(f"try {number} of {self.tries}: {wrong}")
        times = f", {self.tries} times" if self.tries > 1 else ""
        last = row.told.log.strip()
        if len(last) > _LAST:
            last = "... " + (last[-_LAST:].partition("\n")[2] or last[-_LAST:])  # whole lines, if there are several
        raise PydtError(f"{wrong}{times}; it printed {f'last: {last}' if last else 'nothing'}", None, mend)

    def _try(self, row: RowInput) -> tuple[str, str, Mapping[str, Any] | None]:
        """What went wrong and its mend, or the outputs of a row."""
        files = Path(tempfile.mkdtemp(dir=row.scratch))
        keep, out = files / f"keep{KEEP_FORMATS[self.keep].suffix}", files / f"out.{self.out}"
        KEEP_FORMATS[self.keep].write(row, keep)
        (files / "scratch").mkdir()
        own = {"keep": str(keep), "out": str(out), "seed": str(row.seed), "scratch": str(files / "scratch")}
        own |= {"threads": str(row.threads), "device": row.device}
        argv = [_filled(part, own) for part in self.command]
        with open(files / "log", "w+b") as log:
            try:
                status = run_child(argv, self.folder, {**os.environ, **self.env}, log, row.limit)
            except Overdue:
                mend = "allow more than limit, or find out on what it hangs"
                return f"the command ran longer than {row.limit:g} s", mend, None
            except OSError as error:
                wrong = f"{argv[0]!r} cannot be started in {self.folder} ({error.strerror or error})"
                raise PydtError(wrong, None, "name a program that is there, and a working folder") from error
            finally:
                row.told.log = _end(log)
        if status:
            return f"the command {told(status)}", "mend the program", None
        try:
            return "", "", read_out(self.out, out, [task.name for task in row.tasks])
        except FileNotFoundError:
            return f"the command wrote no {{out}} file ({out.name})", "let it write its outputs to {out}", None


def _parts(command: Any) -> tuple[str, ...]:
    """Program and arguments, whose placeholders are known."""
    mend = 'give a list: ["python", "train.py", "--keep", "{keep}", "--seed", "{seed}", "--out", "{out}"]'
    if isinstance(command, (str, bytes)) or not isinstance(command, Iterable):
        raise ConfigError(f"is {command!r}", "Command.command", mend)
    parts = tuple(os.fspath(part) if isinstance(part, os.PathLike) else part for part in command)
    if not parts or not all(isinstance(part, str) and "\0" not in part for part in parts) or not parts[0]:
        raise ConfigError(f"is {list(parts)!r}", "Command.command", mend)
    used = set()
    for part in parts:
        for found in _IN_BRACES.finditer(part):
            if found[1] is None and found[0] in ("{{", "}}"):
                continue
            if found[1] not in _PLACEHOLDERS:
                known = suggest(found[1] or "", _PLACEHOLDERS)
                raise ConfigError(f"{part!r} has {found[0]!r}", "Command.command", f"{known}; {{{{ is a brace")
            used.add(found[1])
    if "out" not in used:
        raise ConfigError("has no {out}", "Command.command", "the program must know where to write its outputs")
    return parts


def _filled(part: str, own: Mapping[str, str]) -> str:
    """An argument with a row's own values."""
    return _IN_BRACES.sub(lambda found: own[found[1]] if found[1] else found[0][0], part)


def _end(log: BinaryIO) -> str:
    """The end of what a program printed."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LONGEST))
    return log.read().decode("utf-8", "backslashreplace")

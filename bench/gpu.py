"""All that a machine with a GPU is needed for, in one command of a few minutes: build, test, sanitise, benchmark.

    python bench/gpu.py --collect FOLDER                where there is a network: packages as wheels, for Python 3.12
    python bench/gpu.py --wheels FOLDER --json FILE     on the machine with the GPU, which needs no network: 8 minutes
    python bench/gpu.py --device cpu --json FILE        a rehearsal: every stage at small sizes, without a GPU

The machine brings torch with CUDA, nvcc and a C++ compiler. Stages run one after another, each in a process of its own
with a limit of seconds; one that fails or is cut off does not stop the others. FILE is written anew after every stage,
so it always says what was done, what failed, what was cut off and what was not reached. Beside it lie FILE.md, a table
of it, and FILE.log, what every stage printed. The benchmarks themselves are in `gpu_cases.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Large packages that torch's own machines have, or that no stage imports; DALI decodes images, which no stage does.
LEFT_OUT = {"torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn", "matplotlib", "nvidia-dali-cuda130"}
TO_BUILD_AND_TEST = ["cmake>=3.24", "ninja", "pytest>=8.0", "hypothesis>=6.100"]
MOST_BYTES = 60 << 20
TAGS = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010"]


# ---- wheels ----------------------------------------------------------------------------------------------------------
def requirements() -> list[str]:
    """What pyproject.toml asks for, to build and to run, less what is left out, and what stages need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"], *TO_BUILD_AND_TEST]
    return [text for text in asked if re.match(r"[\w.-]+", text)[0].lower() not in LEFT_OUT]  # type: ignore[index]


def collect(folder: Path, python: str) -> None:
    """Download the wheels for a Python version on x86-64 Linux, with all they depend on."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform={tag}_x86_64" for tag in TAGS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--python-version={python}"]
    subprocess.run([*command, *platforms, f"--dest={folder}", *requirements()], check=True)
    (folder / "commit").write_text(commit() + "\n")
    wheels = sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_size)
    for path in wheels:
        print(f"{path.stat().st_size / 2**20:7.2f} MiB  {path.name}")
    total = sum(path.stat().st_size for path in wheels)
    print(f"{total / 2**20:7.2f} MiB in {len(wheels)} wheels, of commit {commit()}, {datetime.now(UTC):%Y-%m-%d}")
    if total > MOST_BYTES:
        sys.exit(
            f"more than {MOST_BYTES >> 20} MiB: leave out what the machine has (LEFT_OUT in {Path(__file__).name})"
        )


def commit() -> str:
    """Of the checkout, marked where files were changed; "unknown" where it has no history."""
    call = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


# ---- stages ----------------------------------------------------------------------------------------------------------
@dataclass
class Session:
    """What stages share. `python` runs them: this one, or that of the environment that the first stage makes."""

    device: str
    wheels: Path | None
    scratch: Path
    log: Path
    deadline: float
    python: str = sys.executable
    head: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        self.environment.pop("PYTHONSAFEPATH", None)  # benchmarks import those beside them
        self.environment.pop("OPENBLAS_CORETYPE", None)  # slow kernels would flatter us

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def call(self, command: Sequence[str | Path], limit: float, **extra: str) -> str:
        """Run a command; its output goes to the log, too. Raises `Failed` with what it said last."""
        words = [str(word) for word in command]
        with self.log.open("a", encoding="utf-8") as log:
            print(f"\n$ {' '.join(words)}", file=log, flush=True)
            started = os.fstat(log.fileno()).st_size
            env = {**self.environment, **extra, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                words, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, limit))
            late = process.poll() is None
            if late:
                os.killpg(process.pid, signal.SIGKILL)  # the session that was started above, nothing else
                process.wait()
        said = self.log.read_bytes()[started:].decode(errors="replace")
        if late:
            raise Failed("cut off", f"longer than {limit:.0f} s", said)
        if process.returncode:
            lines = [line for line in said.strip().splitlines() if line.strip()]
            raise Failed("failed", f"exit status {process.returncode}: {lines[-1][:300] if lines else ''}", said)
        return said


class Failed(Exception):
    """A stage did not come to its end: `status`, why, and what it printed."""

    def __init__(self, status: str, why: str, said: str = "") -> None:
        super().__init__(why)
        self.status, self.said = status, said


Found = dict[str, Any]
Stage = Callable[[Session, float, Found], None]  # with a limit of seconds; what it finds goes into its line


def build(session: Session, limit: float, line: Found) -> None:
    """An environment that sees the packages of this Python; the wheels; pydt for the one kind of card that is here."""
    end, where = time.monotonic() + limit, session.scratch / "environment"
    venv.create(where, with_pip=False, system_site_packages=True)  # a Python may come without ensurepip
    python = where / "bin" / "python"
    # This Python may be one of an environment itself; the new one would see the packages of its base only.
    seen = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (package_folder,) = where.glob("lib/python*/site-packages")
    (package_folder / "of-the-parent.pth").write_text("\n".join(seen) + "\n")
    first = [str(where / "bin"), str(Path(sys.executable).parent)]
    last = ["/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"]
    session.environment["PATH"] = os.pathsep.join([*first, os.environ.get("PATH", os.defpath), *last])
    session.environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = [python, "-m", "pip", "install"]

    def left() -> float:
        return end - time.monotonic()

    if session.wheels is not None:
        session.call([*pip, "--no-index", f"--find-links={session.wheels}", *requirements()], left())
    kind = "90"
    if session.device == "cuda":
        asked = "import torch; print('capability', *torch.cuda.get_device_capability())"
        said = session.call([python, "-c", asked], left())
        kind = "".join(re.findall(r"^capability (\d+) (\d+)$", said, re.MULTILINE)[0])
    nvcc = shutil.which("nvcc", path=session.environment["PATH"])
    if nvcc is None and session.device == "cuda":
        raise Failed("failed", "there is no nvcc on the PATH, nor in /usr/local/cuda/bin")
    options = {"PYDT_CUDA": "ON" if nvcc else "OFF", "CMAKE_CUDA_ARCHITECTURES": f"{kind}-real"}
    if nvcc is not None:
        session.environment["CUDACXX"] = nvcc
    settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in options.items()]
    settings.append(f"--config-settings=build-dir={session.scratch / 'build'}")
    begun = time.monotonic()
    session.call([*pip, "--no-deps", "--no-build-isolation", "-v", *settings, ROOT], left())
    compiled = time.monotonic() - begun
    said = session.call([python, "-P", "-c", "from pydt import _core; print('CUDA', _core.cuda_built())"], left())
    if nvcc is not None and "CUDA True" not in said:
        raise Failed("failed", "the core was built without GPU code")
    session.python = str(python)
    line |= {"architectures": options["CMAKE_CUDA_ARCHITECTURES"], "compile_s": round(compiled, 1), "nvcc": nvcc}


def gpu_tests() -> list[str]:
    """Files with tests that need a GPU: they say so, or take the `device` of tests/stubs/stub_device.py."""
    said = re.compile("mark.gpu|stub_device")
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/*/test_*.py") if said.search(p.read_text()))


def _pytest(session: Session, which: str = "gpu") -> list[str]:
    # Warnings of newer packages are for CI to find; -P: the installed package, not the sources in this folder
    how = ["-P", "-m", "pytest", "-m", which, "-v", "-W", "default", "-p", "no:cacheprovider"]
    return [session.python, *how, *gpu_tests()]


def _counts(said: str) -> Found:
    """How tests ended, also of a run that was cut off."""
    ends = re.findall(r"^\S+::\S.* (PASSED|FAILED|ERROR|SKIPPED)\b", said, re.MULTILINE)
    return {word.lower(): ends.count(word) for word in ("PASSED", "FAILED", "ERROR", "SKIPPED")}


def tests(session: Session, limit: float, line: Found) -> None:
    try:
        line |= _counts(session.call(_pytest(session), limit))
    except Failed as failed:
        line |= _counts(failed.said)
        raise
    if session.device == "cuda" and not line["passed"]:
        raise Failed("failed", "no test ran on the GPU")


def _sanitizer(tool: str) -> Stage:
    """The same tests under NVIDIA's checker. torch's cache of memory is off: it hides reads past an array's end."""

    def check(session: Session, limit: float, line: Found) -> None:
        checker = shutil.which("compute-sanitizer", path=session.environment["PATH"])
        if session.device != "cuda" or checker is None:
            raise Failed("left out", "no GPU" if session.device != "cuda" else "there is no compute-sanitizer")
        offered = subprocess.run([checker, "--help"], capture_output=True, text=True, check=False).stdout
        every: list[str] = []
        ours = ["--kernel-name", "kernel_substring=pydt"] if "--kernel-name" in offered else every  # not torch's
        end = time.monotonic() + limit
        for kernels in (ours, every):  # once more without the choice of kernels, if it was not understood
            command = [checker, "--tool", tool, "--error-exitcode", "86", *kernels]
            command += _pytest(session, "gpu and not slow")
            line["kernels"] = "pydt's" if kernels else "all"
            try:
                said = session.call(command, end - time.monotonic(), PYTORCH_NO_CUDA_MEMORY_CACHING="1")
            except Failed as failed:
                if kernels and "test session starts" not in failed.said:
                    continue
                line |= _counts(failed.said) | _summary(failed.said)
                raise
            line |= _counts(said) | _summary(said)
            return

    return check


def _summary(said: str) -> Found:
    lines = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", said)
    return {"summary": lines[-1]} if lines else {}


def _cases(name: str) -> Stage:
    """Benchmarks of gpu_cases.py: every case is in a file as soon as it is there, so a cut loses the present one."""

    def measure(session: Session, limit: float, line: Found) -> None:
        out = session.scratch / f"{name}.jsonl"
        script, seconds = ROOT / "bench" / "gpu_cases.py", f"{limit - 3:.0f}"
        try:
            session.call([session.python, script, name, session.device, out, seconds], limit)
        finally:
            line["cases"] = [json.loads(text) for text in out.read_text().splitlines()] if out.exists() else []
        if wrong := sum("failed" in case for case in line["cases"]):
            raise Failed("failed", f"{wrong} of {len(line['cases'])} lines of the table below are failures")

    return measure


def head(session: Session, limit: float, line: Found) -> None:
    """Which machine this is."""
    _cases("head")(session, limit, line)
    session.head.update(*line.pop("cases"))


# In this order, with limits in seconds: together they may be longer than the session, single ones rarely take theirs.
STAGES: dict[str, tuple[float, Stage]] = {
    "build": (200, build),
    "head": (30, head),
    "tests": (90, tests),
    "memcheck": (80, _sanitizer("memcheck")),
    "regression": (80, _cases("regression")),
    "kernels": (40, _cases("kernels")),
    "lasso": (75, _cases("lasso")),
    "loader": (40, _cases("loader")),
    "rows": (100, _cases("rows")),
    "racecheck": (100, _sanitizer("racecheck")),
}
LEAST = 8.0  # seconds with which a stage is still begun


def run(session: Session, names: Sequence[str], save: Callable[[list[Found], list[Found]], None]) -> list[Found]:
    """All stages in turn; `save` gets the stages and the cases so far after each."""
    stages: list[Found] = []
    cases: list[Found] = []
    for name, (most, stage) in STAGES.items():
        if name not in names:
            continue
        slack = 1 if session.device == "cuda" else 10  # rehearsed on small machines, beside other work
        begun, limit = time.monotonic(), min(slack * most, session.left())
        with session.log.open("a", encoding="utf-8") as log:
            print(f"\n==== {name}, at most {limit:.0f} s", file=log)
        line: Found = {"stage": name, "status": "done"}
        try:
            if limit < LEAST:
                raise Failed("not reached", f"{max(0, limit):.0f} s were left")
            if stages and stages[0]["stage"] == "build" and stages[0]["status"] != "done":
                raise Failed("not reached", "pydt was not built")
            stage(session, limit, line)
        except Failed as failed:
            line |= {"status": failed.status, "why": str(failed)}
        except Exception as error:
            line |= {"status": "failed", "why": f"{type(error).__name__}: {error}"}
        cases += line.pop("cases", [])
        stages.append(line | {"seconds": round(time.monotonic() - begun, 1)})
        print(f"{name}: {line['status']}, {stages[-1]['seconds']} s {line.get('why', '')}", flush=True)
        save(stages, cases)
    return stages


# ---- what is handed back ---------------------------------------------------------------------------------------------
def table(found: dict[str, Any]) -> str:
    lines = [f"{name}: {value}  " for name, value in found["head"].items()]
    if found["head"]["device"] == "cpu":
        lines.insert(0, "A rehearsal without a GPU: no figure of it means anything.\n")
    lines += ["", "| stage | status | s | |", "|---|---|---|---|"]
    for stage in found["stages"]:
        rest = [f"{k}: {v}" for k, v in stage.items() if k not in ("stage", "status", "seconds") and v]
        lines.append(f"| {stage['stage']} | {stage['status']} | {stage['seconds']} | {'; '.join(rest)} |")
    lines += ["", "| case | ours, ms | peer | peer, ms | ratio | |", "|---|---|---|---|---|---|"]
    known = ("case", "ours_s", "peer", "peer_s", "ratio", "checked")
    for case in found["cases"]:
        rest = "; ".join(
            f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in case.items() if k not in known
        )
        if "ratio" in case:
            times = f"{1e3 * case['ours_s']:.3f} | {case['peer']} | {1e3 * case['peer_s']:.3f} | {case['ratio']:.2f}"
        else:
            times = " | | | "
        lines.append(f"| {case['case']} | {times} | {rest} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="download wheels into it, and do nothing else")
    parser.add_argument("--python", default="3.12", help="with --collect: the Python version of the machine with a GPU")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="of packages that this Python may lack")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write what was found")
    parser.add_argument("--minutes", type=float, default=8, help="of all stages together; 8 by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal at small sizes")
    parser.add_argument("--only", default=",".join(STAGES), help="stages, with commas between them; all by default")
    options = parser.parse_args()
    if options.collect:
        collect(options.collect, options.python)
        return
    names = options.only.split(",")
    if unknown := set(names) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if options.json is None:
        parser.error("--json FILE says where what was found is written")
    deadline = time.monotonic() + 60 * options.minutes
    options.json.parent.mkdir(parents=True, exist_ok=True)
    log = options.json.with_suffix(".log")
    log.write_text("")
    told = commit()
    if told == "unknown" and options.wheels and (options.wheels / "commit").is_file():
        told = (options.wheels / "commit").read_text().strip()
    with tempfile.TemporaryDirectory(prefix="pydt-gpu-") as scratch:
        wheels = options.wheels.resolve() if options.wheels else None
        session = Session(options.device, wheels, Path(scratch), log.resolve(), deadline)
        session.head |= {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": told, "device": options.device}

        def save(stages: list[Found], cases: list[Found]) -> None:
            found = {"head": session.head, "stages": stages, "cases": cases}
            options.json.write_text(json.dumps(found, indent=1) + "\n")
            options.json.with_suffix(".md").write_text(table(found))

        stages = run(session, names, save)
    print(options.json.with_suffix(".md").read_text())
    sys.exit(any(stage["status"] in ("failed", "cut off") for stage in stages))


if __name__ == "__main__":
    main()

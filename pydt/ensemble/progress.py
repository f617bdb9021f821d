"""What a run shows: a live panel on a terminal, a line that renews itself in a notebook, plain lines elsewhere, or JSON
lines for logs.

All show the same facts. The influences among them are OLS on the rows so far, in the order in which they came.
They are estimated at most every five seconds and in at most a hundredth of the time, and once more at the end. They are
for the eye only: stopping and reporting estimate their own.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.base import ConfigError, PydtError, notebook_display, one_blas_thread, suggest, tell, terminal
from pydt.ensemble.interim import Interim
from pydt.estimation import StoppingRule
from pydt.reporting import Metric, digits_for
from pydt.store import Outcome

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


_RECENT = 200  # rows from which the rate is computed
_KEPT = 3  # failures that a panel shows
_ENDS = 4  # groups shown from each end of the ranking
_WIDTH = 33  # characters of an interval
_MEASURE = "name", "unit", "scale", "higher_is_better", "shared"  # what is told of a measure
_TOLD = 5  # failures that get a line of their own
_FINE, _TINY = 0.02, 1e-5  # errors below need more than two decimals, or a power of ten
_UNHEARD = OSError, ValueError  # a terminal that is gone, a full disk, a closed file: the run goes on


class Progress:
    """Collects the facts and shows nothing; its children show them. See `Progress.of`.

    Attributes:
        clock: gives the seconds.
        every: seconds between lines (more in long runs), and at least between estimates.
        share: of the time that estimates may take.
    """

    clock = staticmethod(time.monotonic)
    every = 5.0
    share = 0.01

    @staticmethod
    def of(progress: bool | str) -> Progress:
        """What `progress=` of `pydt.run` asks for; raises ConfigError where it is not True, False or "json"."""
        if progress is False:
            return Progress()
        if progress is True:
            if (display := notebook_display()) is not None:
                return Notebook(display)
            return Screen() if terminal() else Lines()
        if progress == "json":
            return Json()
        mend = suggest(progress, ["json"]) if isinstance(progress, str) else 'use True, False or "json"'
        raise ConfigError(f"{progress!r} is no way to show progress", "progress", mend)

    def shown(
        self,
        total: int,
        before: int,
        interim: Interim,
        rule: StoppingRule,
        workers: int,
        alive: Callable[[], int] | None,
    ) -> Progress:
        """This display as a context manager around a run.

        Args:
            total, before: rows of the plan, and those stored already.
            workers: how many rows are trained at once; alive: gives the workers that live now, if known.
        """
        self.total, self.before, self.done = total, before, before
        self.interim, self.rule, self.workers, self.alive = interim, rule, workers, alive
        self.failed, self.died, self.kept = 0, 0, 0
        self.latest: float | None = None  # the metric of the row that finished last
        self._of = interim  # of that row
        self.failures: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.recent: deque[float] = deque(maxlen=max(_RECENT, 4 * workers))
        self.leading: dict[str, Any] | None = None
        self.begun = self._last = self.clock()
        self._spent = self._cost = 0.0
        if type(self) is not Progress:
            with one_blas_thread():  # finds the BLAS libraries, outside of the time that estimates may take
                pass
        self._estimated = (-np.inf, -1)  # when, and on how many rows
        return self

    def __enter__(self) -> Progress:
        self.open()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._estimate(self.clock(), last=True)
        self.close(kind is None)

    # ---- what happens

    def row(
        self,
        facts: Mapping[str, Any],
        interim: Interim,
        outcome: Outcome | None,
        reasons: Sequence[str | None],
        kept: bool = False,
    ) -> None:
        """One more row is done: its outcome for the plan's first task, and why its tasks failed, if any did.

        Args:
            facts: "row", its number, and "part", the name of its part in a run of several.
            interim: of its plan.
            kept: its network came from the bank.
        """
        self.done += 1
        self.kept += kept
        self.recent.append(self.clock())
        if outcome is not None and (level := interim.level(outcome)) is not None:
            self.latest, self._of = level, interim
        if reasons:
            self.failed += 1
            self.failures.append({**facts, "reason": reasons[0] or "no reason given"})
            self.tell_failure(self.failures[-1])

    def damaged(self, rows: int) -> None:
        """Stored rows are damaged and will be trained again, so they no longer count as done."""
        self.before, self.done = self.before - rows, self.done - rows
        self.say(f"{rows} stored row{'s are' if rows > 1 else ' is'} damaged and trained again")

    def death(self, row: str, reason: str) -> None:
        """A worker died in a row that will be tried again."""
        self.died += 1
        self.say(f"a worker died in {row} ({reason}); the row is tried again")

    def tick(self) -> None:
        """Called a few times a second and after every row."""
        now = self.clock()
        self._estimate(now)
        if now - self._last >= self.pause(now) and self.done > self.before:
            self._last = now
            self.draw()

    # ---- how it is shown

    def pause(self, now: float) -> float:
        """Seconds between two drawings."""
        return max(self.every, min(60.0, (now - self.begun) / 20))

    def open(self) -> None: ...
    def draw(self) -> None: ...
    def close(self, well: bool) -> None: ...
    def say(self, text: str) -> None: ...
    def tell_failure(self, failure: dict[str, Any]) -> None: ...

    # ---- what is known

    def facts(self) -> dict[str, Any]:
        """Everything to show, in JSON types; unknown facts are left out."""
        found: dict[str, Any] = {"rows": self.done, "of": self.total, "stored_before": self.before}
        found["seconds"] = round(self.clock() - self.begun, 1)
        left = self.total - self.done
        # from the first row on: before it, the workers were starting
        seconds = self.clock() - self.recent[0] if self.recent else 0.0
        if len(self.recent) > 1 and seconds > 0:
            rate = (len(self.recent) - 1) / seconds
            found["rows_per_hour"] = round(3600 * rate, 1)
            if left and not self.interim.last.stopped:
                found["seconds_left"] = round(left / rate)
        found["workers"] = self.workers if self.alive is None else self.alive()
        if self.latest is not None:
            names = {"auroc": "latest_auroc", "value": "latest_value"}
            found[names.get(self._of.output, "latest_accuracy")] = self.latest
            if self._of.metric.measured:
                found["measure"] = {name: getattr(self._of.metric, name) for name in _MEASURE}
        found |= {"failed": self.failed, "workers_died": self.died}
        if self.kept:
            found["from_bank"] = self.kept
        if self.failures:
            found["failures"] = list(self.failures)
        if self.rule.kind != "none":
            look = self.interim.last
            found["stop"] = {"rule": str(self.rule), "rows": look.rows, "looks": look.looks, "reason": look.reason}
            found["stop"] |= {"stopped": True} if look.stopped else {"next": look.next}
        if self.leading is not None:
            found["leading"] = self.leading
        return found

    def _estimate(self, now: float, last: bool = False) -> None:
        """Estimate the influences if their share of the time allows it; the last time always."""
        allowed = self.share * (now - self.begun) - self._spent
        if type(self) is Progress or not self.interim.estimable:
            return
        if not last and (allowed <= self._cost or now - self._estimated[0] < self.every):
            return
        with contextlib.suppress(PydtError):  # a damaged stored row does not end the run here
            unread = self.interim.read(np.inf if last else allowed)
            if not unread and (last or self._estimated[1] != self.done):
                self._estimated = now, self.done
                self.leading = leading(self.interim)
                self._cost = self.clock() - now
        self._spent += self.clock() - now


def leading(interim: Interim) -> dict[str, Any] | None:
    """The groups at both ends of the ranking so far, in JSON types; None where there is no estimate."""
    fit = interim.fit()
    if fit is None or not np.isfinite(fit.stderr).all():
        return None
    order = np.argsort(-np.asarray(fit.unbiased), kind="stable").tolist()
    ends = order if len(order) <= 2 * _ENDS else order[:_ENDS] + order[-_ENDS:]
    from scipy import special

    reach = special.stdtrit(fit.df, 0.975) * fit.stderr.astype(np.float64)
    columns = ("name", interim.record.names), ("value", fit.unbiased), ("stderr", fit.stderr), ("reach", reach)
    groups = [{key: of[i] if key == "name" else float(of[i]) for key, of in columns} for i in ends]
    better = "" if interim.metric.higher_is_better else f", + is a lower {interim.metric.name}"
    return {"unit": f"{interim.unit.name}{better}", "models": int(fit.models), "groups": groups}


class Json(Progress):
    """One JSON object a line on stderr: "time", "event" (start, progress, failed, message, end), facts."""

    def open(self) -> None:
        self.write("start", {**self.facts(), "folder": str(self.interim.store.folder)})

    def draw(self) -> None:
        self.write("progress", self.facts())

    def close(self, well: bool) -> None:
        self.write("end", {**self.facts(), "complete": well})

    def say(self, text: str) -> None:
        self.write("message", {"text": text})

    def tell_failure(self, failure: dict[str, Any]) -> None:
        self.write("failed", failure)

    def write(self, event: str, facts: dict[str, Any]) -> None:
        tell(json.dumps({"time": round(time.time(), 3), "event": event, **facts}))


class Lines(Progress):
    """Plain lines on stderr: one at the start, one now and then, one for each of the first failures, one at the end."""

    def open(self) -> None:
        more = f", {self.before} {'is' if self.before == 1 else 'are'} stored already" if self.before else ""
        self.say(f"{self.total} row{'' if self.total == 1 else 's'}{more}: {self.interim.store.folder}")

    def draw(self) -> None:
        self.say(_told(self.facts()))

    def close(self, well: bool) -> None:
        if well:
            self.draw()

    def say(self, text: str) -> None:
        tell(text)

    def tell_failure(self, failure: dict[str, Any]) -> None:
        if self.failed <= _TOLD:
            more = "; further ones are only counted" if self.failed == _TOLD else ""
            self.say(f"{_failed(failure, 500)}{more}")


class Notebook(Lines):
    """A bar and a line in the output of a notebook's cell, renewed every two seconds; messages and the first failures
    are lines on stderr, as elsewhere.

    Not rich's own way of showing in notebooks: it needs ipywidgets, and warns without it.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self.display = display

    def open(self) -> None:
        self.shown_as: Any = None  # where nothing can be shown
        with contextlib.suppress(Exception):
            self.shown_as = self.display(self._bundle(), raw=True, display_id=True)

    def pause(self, now: float) -> float:
        return min(2.0, self.every)

    def draw(self) -> None:
        # A kernel whose browser is gone, or an output that was cleared: the run goes on.
        with contextlib.suppress(Exception):
            self.shown_as.update(self._bundle(), raw=True)

    def close(self, well: bool) -> None:
        self.draw()

    def _bundle(self) -> dict[str, str]:
        facts = self.facts()
        text = f"{_told(facts)}; {self.interim.store.folder}"
        bar = f'<progress value="{facts["rows"]}" max="{max(1, facts["of"])}"></progress>'
        return {"text/plain": text, "text/html": f"<div>{bar} {escape(text)}</div>"}


class Screen(Progress):
    """A panel at the bottom of a terminal, drawn every two seconds."""

    def open(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console: Console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False)
        with contextlib.suppress(*_UNHEARD):
            self.live.start()
        self.draw()

    def pause(self, now: float) -> float:
        return min(2.0, self.every)

    def draw(self) -> None:
        ascii_only = self.console.options.ascii_only
        with contextlib.suppress(*_UNHEARD):
            self.live.update(panel(self.facts(), str(self.interim.store.folder), ascii_only), refresh=True)

    def close(self, well: bool) -> None:
        self.draw()
        with contextlib.suppress(*_UNHEARD):
            self.live.stop()

    def say(self, text: str) -> None:
        with contextlib.suppress(*_UNHEARD):
            self.console.print(text, markup=False, highlight=False)


def _printable(text: str, most: int) -> str:
    """A name or a reason on one line, without characters that move a terminal's cursor."""
    shown = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _failed(failure: dict[str, Any], most: int) -> str:
    """Which row failed, and why in `most` characters."""
    part = f"{_printable(failure['part'], 120)}, " if "part" in failure else ""
    return f"{part}row {failure['row']} failed: {_printable(failure['reason'], most)}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _rate(facts: dict[str, Any]) -> list[str]:
    if "rows_per_hour" not in facts:
        return []
    if "seconds_left" not in facts:
        time = f"{_duration(facts['seconds'])} in all"
    else:
        time = f"{'at most ' if 'stop' in facts else ''}{_duration(facts['seconds_left'])} left"
    return [f"{facts['rows_per_hour']:,.0f} an hour", time]


def _latest(facts: dict[str, Any]) -> list[str]:
    """The metric of the row that finished last."""
    if "latest_value" in facts:
        metric, value = Metric.of(facts), facts["latest_value"]
        shown = f"{metric.scale * value:.1f}" if metric.share else f"{metric.scale * value:.4g}"
        return [f"latest {_printable(metric.name, 24)} {shown} {_printable(metric.suffix, 24)}".rstrip()]
    names = {"latest_accuracy": "accuracy", "latest_auroc": "AUROC"}
    return [f"latest {name} {100 * facts[key]:.1f} %" for key, name in names.items() if key in facts]


def _line(facts: dict[str, Any]) -> str:
    """Rows done, rate, time left, the latest row's metric, failures, what the rule says."""
    parts = [f"{facts['rows']}/{facts['of']} rows", *_rate(facts), *_latest(facts)]
    if "from_bank" in facts:
        parts.append(f"{facts['from_bank']} from the bank")
    if facts["failed"]:
        parts.append(f"{facts['failed']} failed")
    if facts.get("stop", {}).get("looks"):
        parts.append(facts["stop"]["reason"])
    return ", ".join(parts)


def _told(facts: dict[str, Any]) -> str:
    """`_line`, and the groups that lead."""
    if "leading" not in facts:
        return _line(facts)
    leading = facts["leading"]
    first, last = (_group(leading["groups"][i]) for i in (0, -1))
    return f"{_line(facts)}; most {first}, least {last} ({leading['unit']}, {leading['models']:,} models)"


def _group(group: dict[str, Any]) -> str:
    return f"{_printable(group['name'], 24)} {_estimate(group, '+-')}"


def _estimate(group: dict[str, Any], sign: str) -> str:
    """An influence and its error, with two decimals; with more, or a power of ten, where these would show nothing."""
    value, stderr = group["value"], group["stderr"]
    if not 0 < stderr < _FINE:
        return f"{value:+.2f} {sign} {stderr:.2f}"
    if stderr < _TINY:
        return f"{value:+.2g} {sign} {stderr:.1g}"
    digits = digits_for(stderr)
    return f"{value:+.{digits}f} {sign} {stderr:.{digits}f}"


def interval(value: float, half: float, scale: float, ascii_only: bool = False) -> str:
    """A value and its interval on an axis from -scale to scale, 33 characters, with a bar at 0."""
    dash, dot, zero = ("-", "o", "|") if ascii_only else ("\u2500", "\u25cf", "\u2502")

    def at(x: float) -> int:
        return round((min(max(x / scale, -1.0), 1.0) + 1) / 2 * (_WIDTH - 1))

    line = [" "] * _WIDTH
    line[at(0.0)] = zero
    line[at(value - half) : at(value + half) + 1] = dash * (at(value + half) - at(value - half) + 1)
    if value - half < 0 < value + half:
        line[at(0.0)] = "+" if ascii_only else "\u253c"
    line[at(value)] = dot
    return "".join(line)


def panel(facts: dict[str, Any], folder: str, ascii_only: bool = False) -> RenderableType:
    """The facts for a terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"{facts['rows']:,} of {facts['of']:,} rows", style="bold"),
        ProgressBar(total=max(1, facts["of"]), completed=facts["rows"], width=30),
        Text(", ".join(_rate(facts)) or "starting"),
    )
    state = [f"{facts['workers']} worker{'' if facts['workers'] == 1 else 's'}"]
    if facts["workers_died"]:
        state.append(f"{facts['workers_died']} died and replaced")
    state += _latest(facts)
    if "from_bank" in facts:
        state.append(f"{facts['from_bank']} rows from the bank")
    state.append(f"{facts['failed']} failed" if facts["failed"] else "none failed")
    parts: list[RenderableType] = [head, Text(", ".join(state)), Text(_printable(folder, 200), style="dim")]
    if stop := facts.get("stop"):
        after = "" if "next" not in stop else f"; next look at row {stop['next']:,}"
        parts.append(Text(f"rule {stop['rule']}: {stop['reason']}{after}"))
    if leading := facts.get("leading"):
        parts.append(_table(leading, ascii_only))
        text = f"{leading['unit']}, {leading['models']:,} models, 95 % intervals; for the eye, not for stopping"
        parts.append(Text(text, style="dim"))
    for failure in facts.get("failures", ()):
        parts.append(Text(_failed(failure, 160), style="red"))
    return Group(*parts)


def _table(leading: dict[str, Any], ascii_only: bool) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    groups = leading["groups"]
    half = [group["reach"] for group in groups]
    reach = max([abs(g["value"]) + h for g, h in zip(groups, half, strict=True)] + [1e-9])
    power = 10.0 ** np.floor(np.log10(reach))
    scale = float(power * next(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= reach * (1 - 1e-9)))
    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=24, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    title = f"-{scale:g}".ljust(_WIDTH // 2) + "0" + f"{scale:g}".rjust(_WIDTH - _WIDTH // 2 - 1)
    table.add_row(
        Text("leading influences", style="bold"),
        Text(""),
        Text(title, style="dim"),
    )
    for i, (group, reaches) in enumerate(zip(groups, half, strict=True)):
        if i == _ENDS and len(groups) == 2 * _ENDS:
            table.add_row(Text("..." if ascii_only else "\u22ef", style="dim"), Text(""), Text(""))
        clear = abs(group["value"]) > reaches
        style = ("green" if group["value"] > 0 else "red") if clear else ""
        sign = "+-" if ascii_only else "\u00b1"
        table.add_row(
            Text(_printable(group["name"], 24)),
            Text(_estimate(group, sign)),
            Text(interval(group["value"], reaches, scale, ascii_only), style=style),
        )
    return table

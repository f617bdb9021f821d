"""What a run keeps of its trained networks, and what it takes from those kept before: the driver's side of the bank.

Only the driver reads and writes the bank: an entry travels to a worker with the call of its row, and back with the
result, so that nodes need no shared folder. Entries of the rows that wait for a worker are in the driver's memory: two
for each worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydt.base import ConfigError, one_of, whole
from pydt.ensemble.code_version import versions
from pydt.ensemble.row import Runner, run_row
from pydt.store import FACTS, KEEP, KEEP_BYTES, Bank, Store


def checked_keep(keep: str, keep_bytes: int | None, runner: Runner = run_row, recipe: Any = None) -> tuple[str, int]:
    """What to keep and at most how many bytes, fit to be used; raises ConfigError."""
    one_of(keep, KEEP, "keep", "run")
    if keep != "none" and (runner is not run_row or hasattr(recipe, "compute")):
        wrong = f"keep={keep!r}, but a runner of your own computes the rows"
        raise ConfigError(wrong, "run", "leave keep out, or let your runner keep what it needs")
    most = KEEP_BYTES if keep_bytes is None else whole(keep_bytes, "keep_bytes", "run", 1, error=ConfigError)
    return keep, most


def other_code(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """What differs between the code that computed something and that of this process, by the names in `FACTS`."""
    now = versions()
    return {name: [has] for name in FACTS if (has := str(facts.get(name))) != str(now.get(name))}


class Keeping:
    """The bank of a run's store, with what the run keeps.

    Args:
        store: of the run.
        runner: whose rows can be transferred from kept networks if it is `run_row`.
        keep, most: as `checked_keep` gives them.
        same_code: use no entry that other code computed.
    """

    def __init__(self, store: Store, runner: Runner, keep: str, most: int, same_code: bool) -> None:
        self._bank, self.keep, self._most, self._same_code = Bank(store), keep, most, same_code
        self._used = runner is run_row
        self._sizes = self._bank.sizes() if self._used else {}
        self._full = False

    def arguments(self, source: str) -> dict[str, Any]:
        """Named arguments of `work` for a row with this source key."""
        found: dict[str, Any] = {} if self.keep == "none" or self._full else {"keep": self.keep}
        if source in self._sizes:
            kept = self._bank.get(source)
            if kept is None:
                del self._sizes[source]  # damaged
            elif not (self._same_code and other_code(kept.facts)):
                found["kept"] = kept
        return found

    def take(self, source: str, result: dict[str, Any]) -> str | None:
        """Store what a worker returned to be kept; what there is to say, once a run, if the bank is full."""
        kept = result.pop("kept", None)
        if kept is None or self._full:
            return None
        room = self._most - sum(size for key, size in self._sizes.items() if key != source)
        size = self._bank.put(source, kept, room)
        if size is not None:
            self._sizes[source] = size
            return None
        self._full = True
        held = f"{len(self._sizes):,} networks in {sum(self._sizes.values()) / 1e9:.3g} GB"
        return f"the bank is full ({held}, at most {self._most / 1e9:.3g} GB): no more are kept; see keep_bytes"

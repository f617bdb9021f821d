"""Parcels of an executor: what open calls need can be reached, and little else."""

from __future__ import annotations

from typing import Any

from stub_rows import parts, stub_row

from pydt.ensemble.executors.call import MOST, work
from pydt.ensemble.executors.parcel import Parcel, Parcels
from pydt.ensemble.executors.pickling import pack


class Place:
    """Where nodes find parcels."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.put = self.most = 0
        self.parcels = Parcels(self._put, lambda parcel: self.held.remove(parcel.key))

    def _put(self, parcel: Parcel) -> None:
        assert parcel.key not in self.held
        self.held.add(parcel.key)
        self.put, self.most = self.put + 1, max(self.most, len(self.held))

    def open(self, data: bytes) -> tuple[Parcel, Any]:
        parcel, call = self.parcels.split(work, (data, "row", (0,)), {"keep": "none"})
        assert call == (work, ("row", (0,)), {"keep": "none"})
        return parcel, call


def test_five_hundred_parts_hold_few_parcels() -> None:
    place, running = Place(), []
    for part in parts(500):
        running.append(place.open(pack((stub_row, part.context)))[0])
        if len(running) == 8:
            place.parcels.release(running.pop(0))
        assert {parcel.key for parcel in running} <= place.held
    assert place.put == 500
    assert 8 <= place.most <= 8 + MOST


def test_a_parcel_stays_while_any_call_needs_it_and_a_little_longer() -> None:
    place = Place()
    long, again, *others = [pack((stub_row, part.context)) for part in parts(10)]
    held = [place.open(long)[0] for _ in range(2)]
    assert held[0] is held[1]
    place.parcels.release(place.open(again)[0])
    place.parcels.release(held.pop())
    for data in others[: MOST - 1]:
        place.parcels.release(place.open(data)[0])
    place.parcels.release(place.open(again)[0])
    assert place.put == 2 + MOST - 1
    for data in others:
        place.parcels.release(place.open(data)[0])
    assert held[0].key in place.held
    assert Parcel(again).key not in place.held
    assert len(place.held) == 1 + MOST


def test_another_call_has_no_parcel() -> None:
    place = Place()
    parcel, call = place.parcels.split(abs, (-3,), {})
    place.parcels.release(parcel)
    assert (parcel.key, call, place.put) == ("", (abs, (-3,), {}), 0)

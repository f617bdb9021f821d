"""Messages between a driver and its jobs: what somebody without the key has crafted is not read, and never runs."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pydt.base import ConfigError
from pydt.ensemble.executors.mailbox import Job, Listener, Mail, Pulse, listed
from pydt.ensemble.executors.parcel import Order, Parcel
from pydt.ensemble.executors.pickling import pack
from pydt.ensemble.executors.slurm import Slurm

KEY = bytes(range(32))


class Crafted:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def forged(mark: Path) -> dict[str, bytes]:
    data = pickle.dumps(Crafted(mark))
    folder = mark.parent / "other"
    Mail(folder, b"x" * 32).put("in/1", data)
    Mail(folder, KEY).put("in/2", data)
    return {
        "an unkeyed checksum": hashlib.sha256(data).digest() + data,
        "another key": (folder / "in/1").read_bytes(),
        "right, of another place": (folder / "in/2").read_bytes(),
        "no checksum": data,
        "nothing": b"",
    }


def test_a_message_is_what_was_written(tmp_path: Path) -> None:
    Mail(tmp_path, KEY).post("in/1", ["x", 1])
    assert not any(KEY in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert Mail(tmp_path, KEY).fetch("in/1") == ["x", 1]
    assert not (tmp_path / "in/1").exists()


@pytest.mark.parametrize(
    "how", ["an unkeyed checksum", "another key", "right, of another place", "no checksum", "nothing"]
)
def test_a_crafted_message_is_refused_before_it_is_read(how: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    data = forged(mark)[how]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1").write_bytes(data)
    with pytest.raises(ValueError, match="somebody else's"):
        Mail(tmp_path, KEY).fetch("in/1")
    assert not mark.exists()
    assert not (tmp_path / "in/1").exists()
    with pytest.raises(FileNotFoundError):
        Mail(tmp_path, KEY).fetch("in/1")


def test_the_crafted_message_would_have_run(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    mail = Mail(tmp_path, KEY)
    mail.put("in/1", pickle.dumps(Crafted(tmp_path / "mark")))
    mail.fetch("in/1")
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("what", ["call", "parcel"])
def test_a_job_reads_nothing_that_is_crafted(what: str, tmp_path: Path) -> None:
    folder, mark = tmp_path / "jobs", tmp_path / "mark"
    for name in ("in", "out", "parcels", "beats"):
        (folder / name).mkdir(parents=True)
    parcel = Parcel(pack(None))
    mail = Mail(folder, KEY)
    mail.put(f"parcels/{parcel.key}", parcel.data)
    if what == "parcel":
        (folder / "parcels" / parcel.key).write_bytes(forged(mark)["an unkeyed checksum"])
    pulse = Pulse(folder / "driver")
    pulse.beat()
    job = threading.Thread(target=Job(str(folder), 0, [], KEY), daemon=True)
    job.start()
    end = time.monotonic() + 60
    listener = Listener(folder / "beats" / "0")
    while "life" not in listener.listen() and time.monotonic() < end:
        time.sleep(0.02)
    place = f"in/{listener.said['life']}/1"
    if what == "call":
        (folder / place).write_bytes(forged(mark)["an unkeyed checksum"])
    else:
        mail.post(place, Order(parcel.key, [], 1, 1, (abs, (-3,), {})))
    while not listed(folder / "out") and time.monotonic() < end:
        pulse.beat()
        time.sleep(0.02)
    kind, value = mail.fetch("out/1")
    assert "damaged message" in str(value)
    assert kind == ("error" if what == "call" else "result")
    assert not mark.exists()
    (folder / "stop").touch()
    job.join(60)


def test_the_key_is_not_shown() -> None:
    assert repr(KEY)[2:-1] not in repr(Job("x", 0, [], KEY))


@pytest.mark.parametrize("life", ["../../outside", "x", "", 3, None])
def test_a_pulse_that_names_no_life_is_no_pulse(life: Any, tmp_path: Path) -> None:
    Pulse(tmp_path / "beat", life=life).beat()
    assert Listener(tmp_path / "beat").listen() == {}
    (tmp_path / "beat").write_text("[" * 100_000)
    assert Listener(tmp_path / "beat").listen() == {}


def test_submitit_s_files_are_closed_to_others(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "jobs" / "logs").mkdir(parents=True, mode=0o755)
    Slurm(tmp_path / "jobs", cluster="local", workers=1)
    assert (tmp_path / "jobs" / "logs").stat().st_mode & 0o777 == 0o700


def test_a_folder_where_others_could_put_a_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")

    def made(name: str) -> Slurm:
        return Slurm(tmp_path / name, cluster="local", workers=1)

    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="open to everybody"):
        made("open")
    (tmp_path / "open").chmod(0o1777)
    made("open").shutdown()
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "logs").symlink_to(tmp_path / "open")
    with pytest.raises(ConfigError, match="is not yours"):
        made("link")
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    with pytest.raises(ConfigError, match="is not yours"):
        made("open")

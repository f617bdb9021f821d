"""A program as a child that never outlives the process that waits for it.

Between the two stands a supervisor, a bare Python: it starts the program in a process group of its own and waits for
its end or for the end of a socket, which the kernel closes however the waiting process ends. Then it kills what is left
of the group, and what left the group: it is the subreaper, to which the kernel gives orphans. It costs about 10 ms;
without it a kill -9 would leave grandchildren behind.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO

_LONGEST_POLL = 1e9  # ms; the kernel counts them in 32 bits
_DEFAULTS = [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR2]

# The socket comes as stdin, so that no other descriptor need be passed on. A thread waits, since a pidfd needs Linux
# 5.3, older than which many clusters are; the module signal would take a third of the start.
_SUPERVISOR = f"""
import _thread, ctypes, os, select, sys
link = 3
os.dup2(0, link, False)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
ended, wake = os.pipe()
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
defaults = {[int(number) for number in _DEFAULTS]}
try:
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, setpgroup=0, setsigmask=[], setsigdef=defaults)
except OSError as error:
    os.write(link, b"error %d" % error.errno)
    os._exit(0)

def watch():
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except OSError:  # killed, and waited for below
        pass
    os.write(wake, b"!")

_thread.start_new_thread(watch, ())
poll = select.poll()
poll.register(ended, select.POLLIN)
poll.register(link, 0)
poll.poll()
try:
    os.killpg(pid, {int(signal.SIGKILL)})
except OSError:
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
try:
    while True:
        with open("/proc/%d/task/%d/children" % (os.getpid(), os.getpid())) as children:
            for child in children.read().split():
                os.kill(int(child), {int(signal.SIGKILL)})
        os.waitpid(-1, 0)  # the children of the dead one have come here when this returns
except OSError:
    pass
try:
    os.write(link, b"status %d" % status)
except OSError:
    pass
os._exit(0)
"""


class Overdue(Exception):
    """The program ran longer than it may, and was ended."""


def run_child(
    argv: Sequence[str], folder: str, environment: Mapping[str, str], log: BinaryIO, limit: float | None
) -> int:
    """Run a program to its end, without a shell and without input.

    Args:
        log: takes what it writes to stdout and stderr.
        limit: seconds that it may take.

    Returns:
        Its exit status; that of a program which a signal ended is the negative number of the signal.

    Raises:
        Overdue: it ran longer than the limit; it and all its children are dead.
        OSError: it cannot be started, or its working folder is not there.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [sys.executable, "-I", "-S", "-c", _SUPERVISOR, *argv]
            # blocked in the supervisor: what is sent to every process of a job, as before a time limit, is not for it
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                supervisor = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=dict(environment),
                    stdin=theirs.fileno(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            said = _heard(ours, limit)
        finally:
            ours.shutdown(socket.SHUT_RDWR)  # whatever ends the wait ends the program
            supervisor.wait()
    word, _, number = said.decode().partition(" ")
    if word == "error":
        raise OSError(int(number), os.strerror(int(number)))
    if word != "status":
        raise OSError(errno.ECHILD, "its supervisor was killed")
    return int(number)


def _heard(link: socket.socket, limit: float | None) -> bytes:
    """What the supervisor says at the end."""
    end = None if limit is None else time.monotonic() + limit
    poll = select.poll()
    poll.register(link, select.POLLIN)
    while not poll.poll(None if end is None else min(max(0.0, 1000 * (end - time.monotonic())), _LONGEST_POLL)):
        if end is not None and time.monotonic() >= end:
            raise Overdue
    return link.recv(64)


def told(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}" + (": perhaps the machine ran out of memory" if status == -signal.SIGKILL else "")

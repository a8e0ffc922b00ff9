"""Processes by identity and by group: the part that the watchdog and the stack share.

A process number alone is not an identity: the system hands it out again. A number and the time at which that
process began are one.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

POLL_SECONDS = 0.02
_KILLED_SECONDS = 10  # more than SIGKILL ever takes, unless a process hangs in the kernel


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that may be gone by now, and that is never mistaken for a later one of the same number.

    ``began_at`` is what the operating system reports, in seconds since 1970; compare it with nothing else.
    """

    pid: int
    began_at: float

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """The process that has this number now. Raises ``psutil.NoSuchProcess`` when there is none."""
        return cls(pid, psutil.Process(pid).create_time())

    @property
    def alive(self) -> bool:
        """Whether that very process still runs. A zombie has ended: it only waits to be read."""
        try:
            process = psutil.Process(self.pid)
            # The platforms round start times differently; a number comes round far later than in a second.
            same = abs(process.create_time() - self.began_at) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def end(self, end_signal: signal.Signals = signal.SIGTERM, grace_seconds: float = 10) -> None:
        """Ends it and its process group, asking first, though it need not be our child. Gone already is fine.

        Meant for what an earlier run left behind on purpose; a process of this run has ``ManagedProcess.stop``.
        """
        if not self.alive:
            return
        group = group_of(self.pid)
        send_signal(self.pid, end_signal)
        deadline = time.monotonic() + grace_seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if group == self.pid:
            kill_group(group)
        elif self.alive:
            send_signal(self.pid, signal.SIGKILL)


def group_of(pid: int) -> int | None:
    """The process group of a process; None when it is gone or not ours to ask about."""
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def is_running(pid: int) -> bool:
    """Whether a process of this number exists and is not a zombie."""
    try:
        return _runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def running_members(group: int) -> list[int]:
    """The running processes of a process group; zombies are left out."""
    return [pid for pid in psutil.pids() if group_of(pid) == group and is_running(pid)]


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signals one process; nothing happens when it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(group: int, timeout_seconds: float = _KILLED_SECONDS) -> None:
    """SIGKILLs a process group and returns when none of it runs any more.

    Sent again until then, because a member may have been forking when the first one arrived. Raises
    ``TimeoutError`` with the numbers of those that survive, which only a process stuck in the kernel does.
    """
    deadline = time.monotonic() + timeout_seconds
    while members := running_members(group):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {members} still run {timeout_seconds} s after SIGKILL; look at them")
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # PermissionError is how macOS says that only zombies are left
        time.sleep(POLL_SECONDS)


def descendants(pid: int) -> list[psutil.Process]:
    """Everything that a process started, directly or not, and that still runs under it."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_survivors(processes: Iterable[psutil.Process], grace_seconds: float) -> None:
    """Gives processes time to end by themselves, then SIGKILLs the rest and awaits their end."""
    survivors = _still_running(processes, grace_seconds)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _still_running(survivors, _KILLED_SECONDS)


def _still_running(processes: Iterable[psutil.Process], patience_seconds: float) -> list[psutil.Process]:
    # psutil's own wait counts a zombie as running, and in a container nobody may be there to reap orphans.
    deadline = time.monotonic() + patience_seconds
    running = [process for process in processes if _runs(process)]
    while running and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        running = [process for process in running if _runs(process)]
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

"""Nothing outlives the process that started it, not even when that one is SIGKILLed.

Whoever starts processes also starts one watchdog and tells it about each of them through a pipe. When the
starter is gone, however it went, the pipe closes and the watchdog ends what is still on its list, then itself.
Linux's parent-death signal was rejected: it fires when the *thread* that forked ends, is cleared when a process
changes its user (as PostgreSQL does under root), covers no grandchildren, and macOS has none.

Run as ``python -m sandbox.watchdog STARTER_PID`` with the pipe as standard input. One command a line:
``watch PID SIGNAL`` and ``forget PID``.
"""

import atexit
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import psutil

from sandbox.process_tree import descendants, kill_group, kill_survivors, send_signal

GRACE_SECONDS = 8
"""How long a process may take to end after its signal. PostgreSQL itself waits 5 s for its children."""

STARTER_CHECK_SECONDS = 0.5


class Watchdog:
    """The starter's end of the pipe."""

    def __init__(self) -> None:
        self.starter_pid = os.getpid()
        self.watched: dict[int, signal.Signals] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.watchdog", str(self.starter_pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is for the starter
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def watch(self, pid: int, end_signal: signal.Signals) -> None:
        """Should the starter die: ``end_signal`` to this process, and after a grace SIGKILL to its group."""
        self._say(f"watch {pid} {end_signal.value}\n")
        self.watched[pid] = end_signal

    def forget(self, pid: int) -> None:
        """The process has ended, or is meant to stay."""
        self.watched.pop(pid, None)
        with suppress(BrokenPipeError):  # then there is nobody left who could harm it
            self._say(f"forget {pid}\n")

    def close(self) -> None:
        """Ends everything that is still watched and returns when that is done."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=3 * GRACE_SECONDS)

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(command.encode())
            self._process.stdin.flush()


class _Ours:
    """The one watchdog of this process. A forked child shares nothing with it and gets its own."""

    watchdog: Watchdog | None = None
    lock = threading.Lock()


def our_watchdog() -> Watchdog:
    """The watchdog of this process, started on first use and closed at exit."""
    with _Ours.lock:
        ours = _Ours.watchdog
        if ours is None or ours.starter_pid != os.getpid() or not ours.alive:
            ours = _Ours.watchdog = _started_after(ours)
        return ours


def _started_after(previous: Watchdog | None) -> Watchdog:
    """A new watchdog. Should somebody have killed the previous one of this process, it takes over its list."""
    watchdog = Watchdog()
    atexit.register(_close_if_ours, watchdog)
    if previous is not None and previous.starter_pid == os.getpid():
        for pid, end_signal in previous.watched.items():
            watchdog.watch(pid, end_signal)
    return watchdog


def _close_if_ours(watchdog: Watchdog) -> None:
    if watchdog.starter_pid == os.getpid():
        watchdog.close()


def main() -> None:
    """Keeps the list, and ends what is on it once the starter is gone."""
    watched: dict[int, signal.Signals] = {}
    for command in _commands_until_starter_ends(int(sys.argv[1])):
        match command.split():
            case ["watch", pid, end_signal]:
                watched[int(pid)] = signal.Signals(int(end_signal))
            case ["forget", pid]:
                watched.pop(int(pid), None)
            case _:
                raise ValueError(f"not a command of the watchdog: {command!r}")
    _end_all(watched)


def _commands_until_starter_ends(starter_pid: int) -> Iterator[str]:
    unfinished = b""
    while (chunk := _read_until_starter_ends(starter_pid)) != b"":
        *lines, unfinished = (unfinished + chunk).split(b"\n")
        yield from (line.decode() for line in lines)


def _read_until_starter_ends(starter_pid: int) -> bytes:
    """The next bytes from the starter; empty when it is gone.

    The pipe alone would not do: a process that the starter forked without exec holds a copy of its other end.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while not selector.select(STARTER_CHECK_SECONDS):
            if os.getppid() != starter_pid:
                return b""
    return os.read(0, 65536)


def _end_all(watched: dict[int, signal.Signals]) -> None:
    # Taken before the first signal: afterwards a process that left its group could no longer be found.
    below = [process for pid in watched for process in descendants(pid)]
    asked = []
    for pid, end_signal in reversed(watched.items()):  # clients before the servers they use
        if end_signal == signal.SIGKILL:
            _kill_what_can_be_killed(pid)
        else:
            with suppress(psutil.NoSuchProcess):
                asked.append(psutil.Process(pid))
            send_signal(pid, end_signal)
    kill_survivors(asked, GRACE_SECONDS)
    for pid in watched:
        _kill_what_can_be_killed(pid)
    kill_survivors(below, 0)


def _kill_what_can_be_killed(group: int) -> None:
    with suppress(TimeoutError):  # one that hangs in the kernel must not keep the others alive
        kill_group(group)


if __name__ == "__main__":
    main()

"""However the demo is ended, and whenever: no process of it is left."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from sandbox.process_tree import descendants
from tests.demo.conftest import start_demo

pytestmark = pytest.mark.faults

INTERRUPTED = 130
END_SECONDS_MAX = 45
#: After SIGKILL the watchdog asks first; PostgreSQL waits 5 s for its own.
WATCHDOG_SECONDS_MAX = 20
EVENTS = 8_000


class Demo:
    """A demo that runs, every process that it started, and what it said so far."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = start_demo(home, "--events", str(EVENTS))
        self.seen: dict[tuple[int, float], psutil.Process] = {}
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def look(self) -> bool:
        """Take note of what runs now; whether the demo itself does."""
        for process in descendants(self.process.pid):
            try:
                self.seen[process.pid, process.create_time()] = process
            except psutil.NoSuchProcess:
                continue
        return self.process.poll() is None

    def look_until(self, condition: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.look() and not condition():
            assert time.monotonic() < until, self.said
            time.sleep(0.05)

    def left(self) -> list[str]:
        """What still runs of all that was ever seen, and what escaped our looks but belongs to this home."""
        seen = [one for one in self.seen.values() if is_running(one)]
        return [described(one) for one in seen] + [described(one) for one in psutil.process_iter() if self._owns(one)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            told = process.environ().get("CENTAVO_HOME", "") == str(self.home)
            return is_running(process) and (told or str(self.home) in " ".join(process.cmdline()))
        except psutil.Error:
            return False

    def close(self) -> None:
        self.process.kill()
        for process in self.seen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def described(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:100]}"
    except psutil.Error:
        return str(process.pid)


@pytest.fixture
def demo(short_dir: Path) -> Iterator[Demo]:
    running = Demo(short_dir / "h")
    yield running
    running.close()


def by_terminal(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: to the whole group in the foreground."""
    os.killpg(process.pid, signal.SIGINT)


def twice(process: subprocess.Popen[str]) -> None:
    """An impatient person."""
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)  # there is no condition to await: the second comes while the first is being heeded
    os.killpg(process.pid, signal.SIGINT)


def alone(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def terminated(process: subprocess.Popen[str]) -> None:
    process.terminate()


def hung_up(process: subprocess.Popen[str]) -> None:
    """The terminal was closed."""
    process.send_signal(signal.SIGHUP)


MOMENTS: dict[str, tuple[Callable[[Demo], bool], float]] = {
    "while servers boot": (lambda demo: bool(demo.seen), 1.2),
    "while workers start": (lambda demo: "workers and beat" in demo.said, 2.0),
    "while customers are made": (lambda demo: "their cards" in demo.said, 0.3),
    "while producers emit": (lambda demo: "producers" in demo.said, 1.5),
    "during the audit": (lambda demo: "the audit" in demo.said, 0.0),
}


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        ("while servers boot", alone),
        ("while servers boot", terminated),
        ("while workers start", by_terminal),
        ("while customers are made", hung_up),
        ("while producers emit", by_terminal),
        ("while producers emit", twice),
        ("during the audit", terminated),
    ],
)
def test_whoever_ends_a_demo_is_left_with_nothing(
    moment: str, end: Callable[[subprocess.Popen[str]], None], demo: Demo
) -> None:
    """At any moment of a step; when it returns, all that it started has ended, and the home is free again."""
    has_come, seconds_at_most = MOMENTS[moment]
    delay = random.uniform(0, seconds_at_most)
    demo.look_until(lambda: has_come(demo), 60)
    demo.look_until(_after(delay), 60)

    end(demo.process)
    demo.look_until(lambda: False, END_SECONDS_MAX)

    assert demo.process.returncode == INTERRUPTED, (delay, demo.said)
    assert demo.left() == [], (delay, demo.said)
    assert len(demo.seen) > 0
    assert "Traceback" not in demo.said, (delay, demo.said)
    assert not (demo.home / "demo" / "state.json").exists()


@pytest.mark.parametrize("moment", ["while servers boot", "while producers emit"])
def test_nothing_outlives_a_demo_that_was_killed(moment: str, demo: Demo) -> None:
    """SIGKILL: nobody asked it. Its watchdog ends the rest."""
    has_come, seconds_at_most = MOMENTS[moment]
    delay = random.uniform(0, seconds_at_most)
    demo.look_until(lambda: has_come(demo), 60)
    demo.look_until(_after(delay), 60)

    demo.process.kill()

    until = time.monotonic() + WATCHDOG_SECONDS_MAX
    while left := demo.left():
        assert time.monotonic() < until, (delay, left)
        time.sleep(0.1)


def _after(seconds: float) -> Callable[[], bool]:
    at = time.monotonic() + seconds
    return lambda: time.monotonic() >= at

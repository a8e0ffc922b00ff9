"""`up` and `down`: everything on this machine, seen from other processes, and gone afterwards."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg
import pytest

from sandbox.home import SandboxHome
from sandbox.process_tree import descendants
from sandbox.processes import await_condition
from sandbox.stack import ROOT
from tests.cli.conftest import Command, environment
from tests.factories import an_event, tokens

READY_SECONDS_MAX = 60
END_SECONDS_MAX = 40


class Up:
    """A `centavo up` that runs in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.output = home.with_suffix(".txt")
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up"],
                cwd=ROOT,
                env=environment(CENTAVO_HOME=str(home)),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        await_condition(lambda: self._is_up() or self._has_ended(), READY_SECONDS_MAX, "`centavo up` to be ready")
        assert self._is_up(), self.output.read_text()
        self.tree = descendants(self.process.pid)

    def _is_up(self) -> bool:
        return "Centavo is up in" in self.output.read_text()

    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def ended(self) -> int:
        """Its exit status; by then nothing of it runs any more."""
        status = self.process.wait(END_SECONDS_MAX)
        await_condition(lambda: not any(is_alive(one) for one in self.tree), 30, "what it started to end")
        return status


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


Starter = Callable[[], Up]


@pytest.fixture
def home(short_dir: Path) -> Path:
    return short_dir / "home"


@pytest.fixture
def start_up(home: Path) -> Iterator[Starter]:
    """Start `centavo up`; what a failure leaves behind is killed."""
    started: list[Up] = []

    def start() -> Up:
        started.append(Up(home))
        return started[-1]

    yield start
    for up in started:
        for process in [*up.tree, psutil.Process(up.process.pid) if up.process.poll() is None else None]:
            if process is not None and is_alive(process):
                process.kill()
        up.process.wait()


def test_a_stack_serves_other_processes_until_it_is_interrupted(
    start_up: Starter, nowhere: Command, home: Path
) -> None:
    """It says when it is ready; `emit`, `status` and the rest find it by its home; Ctrl-C ends all of it."""
    up = start_up()
    told = {"CENTAVO_HOME": str(home)}
    event = an_event("ana", [tokens(1000)]).to_wire()

    commands = [
        ["tenants", "create", "acme"],
        ["plans", "load", "acme"],
        ["prices", "load", "usd-per-unit"],
        ["customers", "create", "acme", "ana", "--plan", "prepaid", "--currency", "USD"],
    ]
    assert [nowhere(*command, **told).status for command in commands] == [0, 0, 0, 0]
    assert nowhere("emit", "-", typed=event + b"\n", **told).status == 0
    until = time.monotonic() + 20
    while (status := nowhere("status", "--json", **told).json)["database"]["charged"] != 1:
        assert time.monotonic() < until, status
    second = nowhere("up", **told)

    assert status["addresses"]["environment"] == "sandbox"
    assert second.status == 1
    assert f"process {up.process.pid} already runs a stack in {home}" in second.err
    names = " ".join(" ".join(one.cmdline()) for one in up.tree if is_alive(one))
    for program in ("postgres", "valkey", "stripe_double", "worker", "beat"):
        assert program in names

    up.process.send_signal(signal.SIGINT)

    assert up.ended() == 130
    assert up.output.read_text().endswith("interrupted; everything is ended\n")
    assert "no sandbox runs" in nowhere("status", **told).err


@pytest.mark.faults
def test_down_ends_a_stack_that_runs_elsewhere(start_up: Starter, nowhere: Command, home: Path) -> None:
    """Through the process that runs it, in order; then there is nothing more to end."""
    up = start_up()

    first, second = (nowhere("down", CENTAVO_HOME=str(home)) for _ in range(2))

    assert first == (0, f"ended centavo up (process {up.process.pid})\n", "")
    assert second == (0, f"nothing runs in {home}\n", "")
    assert up.ended() == 130


@pytest.mark.faults
def test_a_stack_that_has_lost_a_part_ends(start_up: Starter) -> None:
    """It says which part, and does not go on without it."""
    up = start_up()
    (valkey,) = [one for one in up.tree if "valkey" in one.name()]

    valkey.kill()

    assert up.ended() == 1
    assert "Valkey has ended, so everything was" in up.output.read_text()


@pytest.mark.faults
def test_a_stack_follows_its_clock_and_goes_on_from_there_when_it_is_up_again(
    start_up: Starter, nowhere: Command, home: Path
) -> None:
    """Workers that run follow without a restart; a double that begins anew is brought to where the data are."""
    up = start_up()
    told = {"CENTAVO_HOME": str(home)}
    moved = timedelta(hours=25)

    nowhere("clock", "advance", "25h", **told)
    nowhere("emit", "-", typed=an_event("nobody").to_wire() + b"\n", **told)

    await_condition(lambda: bool(parked_at(home)), 30, "the event to be parked")
    (at,) = parked_at(home)
    assert abs(at - datetime.now(UTC) - moved) < timedelta(minutes=1)
    up.process.send_signal(signal.SIGTERM)
    assert up.ended() == 130

    again = start_up()

    shown = nowhere("clock", "show", "--json", **told).json
    assert shown["offset_seconds"] == shown["stripe_double_offset_seconds"] == moved.total_seconds()
    assert "Its clock is moved, as it was left" in again.output.read_text()


def parked_at(home: Path) -> list[datetime]:
    """When the workers have parked what they have, by their clock."""
    state = SandboxHome(home).read()
    assert state is not None
    with psycopg.connect(state.database_url) as connection:
        return [at for (at,) in connection.execute("SELECT first_seen_at FROM parked_inputs")]


@pytest.mark.faults
def test_what_a_stack_has_recorded_is_there_when_it_is_up_again(
    start_up: Starter, nowhere: Command, home: Path
) -> None:
    """Its home keeps the data."""
    up = start_up()
    nowhere("tenants", "create", "acme", CENTAVO_HOME=str(home))
    up.process.send_signal(signal.SIGTERM)
    assert up.ended() == 130

    start_up()

    assert "was there already" in nowhere("tenants", "create", "acme", CENTAVO_HOME=str(home)).out

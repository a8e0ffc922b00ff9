"""The sandbox home says where a stack runs, believes nothing stale, and holds one stack at most."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.home import SandboxAlreadyRunning, SandboxHome, SandboxStateUnreadable, StackState
from sandbox.process_tree import ProcessIdentity


@pytest.fixture
def home(tmp_path: Path) -> SandboxHome:
    return SandboxHome(tmp_path / "some" / ".centavo")


@pytest.fixture
def server() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def state_of(**pids: int) -> StackState:
    return StackState(
        database_url="postgresql://postgres@/centavo?host=/tmp/x",
        broker_url="redis://127.0.0.1:6390/0",
        stripe_api_base="http://127.0.0.1:8123",
        started_at=datetime(2026, 11, 20, 15, tzinfo=UTC),
        processes={name: ProcessIdentity.of(pid) for name, pid in pids.items()},
    )


def recycled(state: StackState) -> StackState:
    """The same numbers, as if each process had begun an hour before the one that has its number now."""
    earlier = {name: replace(one, began_at=one.began_at - 3600) for name, one in state.processes.items()}
    return replace(state, processes=earlier)


def test_what_is_written_is_read_back_and_nobody_else_can_read_it(home: SandboxHome) -> None:
    state = state_of(demo=os.getpid())

    home.write(replace(state, broker_url="redis://127.0.0.1:1/0"))
    home.write(state)

    assert home.read() == state
    assert stat.S_IMODE(home.state_file.stat().st_mode) == 0o600
    assert [path.name for path in home.path.iterdir()] == ["state.json"]


def test_an_empty_home_has_no_state(home: SandboxHome) -> None:
    assert home.read() is None
    assert home.running_state() is None
    assert not home.is_running()
    home.clear()
    assert not home.path.exists()


def test_a_stack_runs_while_any_of_its_processes_does(home: SandboxHome, server: "subprocess.Popen[bytes]") -> None:
    state = state_of(valkey=server.pid)
    home.write(state)
    ran = home.running_state()

    server.kill()
    server.wait()

    assert ran == state
    assert not home.is_running()
    assert home.running_state() is None


def test_a_recycled_number_is_not_believed(home: SandboxHome) -> None:
    home.write(recycled(state_of(demo=os.getpid())))

    assert not home.is_running()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"database_url": 1, "processes": []}'])
def test_a_state_that_nobody_wrote_is_reported_with_what_to_do(home: SandboxHome, text: str) -> None:
    home.path.mkdir(parents=True)
    home.state_file.write_text(text)

    with pytest.raises(SandboxStateUnreadable, match=r"state\.json can't be understood .* delete it"):
        home.read()


HOLDS_THE_LOCK = """
import sys, time
from pathlib import Path
from sandbox.home import SandboxHome
with SandboxHome(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_stack_is_refused_until_the_first_is_gone_in_whatever_way(home: SandboxHome) -> None:
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"

        with (
            pytest.raises(
                SandboxAlreadyRunning, match=rf"process {first.pid} already .*kill {first.pid}.*CENTAVO_HOME"
            ),
            home.lock(),
        ):
            pass

        first.send_signal(signal.SIGKILL)
        first.wait()
    with home.lock():
        assert home.lock_file.read_text() == str(os.getpid())


def test_the_lock_is_free_again_after_use_and_even_after_an_error(home: SandboxHome) -> None:
    with pytest.raises(ZeroDivisionError), home.lock():
        raise ZeroDivisionError
    with home.lock():
        pass

    with home.lock(), pytest.raises(SandboxAlreadyRunning), home.lock():
        pass


def test_a_stack_that_was_left_running_is_named_and_not_disturbed(
    home: SandboxHome, server: "subprocess.Popen[bytes]"
) -> None:
    state = state_of(valkey=server.pid)
    home.write(state)

    with (
        pytest.raises(SandboxAlreadyRunning, match=rf"valkey \(process {server.pid}\).*kill {server.pid}"),
        home.lock(),
    ):
        pass

    assert home.read() == state


def test_the_state_of_a_stack_that_ended_is_cleaned_away(home: SandboxHome) -> None:
    home.write(recycled(state_of(demo=os.getpid())))

    with home.lock():
        assert home.read() is None

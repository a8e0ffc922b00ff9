"""Processes start, are awaited, and end with all that they started."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.process_tree import ProcessIdentity, running_members
from sandbox.processes import ConditionNotMet, ManagedProcess, ProcessEnded, await_condition

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


def shell(script: str, tmp_path: Path) -> ManagedProcess:
    return ManagedProcess.start("a script", ["sh", "-c", script], tmp_path / "logs" / "script.log")


def says(process: ManagedProcess, text: str) -> Callable[[], bool]:
    return lambda: text in process.log_tail()


def test_awaiting_in_vain_says_what_was_awaited_and_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))

    with pytest.raises(ConditionNotMet) as failed:
        await_condition(lambda: False, 0.05, "the moon", log_file=log)

    assert "waited 0.05 s for the moon" in str(failed.value)
    assert str(failed.value).endswith("line 99")
    assert "line 50" not in str(failed.value)


def test_output_is_appended_to_a_log_that_only_its_owner_reads(tmp_path: Path) -> None:
    first = shell("echo to stdout; echo to stderr >&2; exit 3", tmp_path)
    assert first.wait(timeout_seconds=10) == 3
    second = shell("echo again", tmp_path)

    assert second.wait(timeout_seconds=10) == 0

    assert first.log_file.read_text() == "to stdout\nto stderr\nagain\n"
    assert second.log_tail() == "again"
    assert stat.S_IMODE(first.log_file.stat().st_mode) == 0o600


def test_a_process_leads_a_group_of_its_own(tmp_path: Path) -> None:
    process = shell("sleep 60", tmp_path)

    group, session = os.getpgid(process.pid), os.getsid(process.pid)
    process.kill()

    assert (group, session) == (process.pid, process.pid)
    assert (process.alive, process.exit_code) == (False, -signal.SIGKILL)


def test_an_environment_that_is_given_replaces_ours(tmp_path: Path) -> None:
    log = tmp_path / "env.log"
    process = ManagedProcess.start("env", ["/usr/bin/env"], log, env={"COLOUR": "green"}, cwd=tmp_path)

    process.wait(timeout_seconds=10)

    names = {line.split("=")[0] for line in log.read_text().splitlines()}
    assert "COLOUR" in names
    assert "HOME" not in names


def test_stop_lets_a_process_end_in_its_own_way(tmp_path: Path) -> None:
    process = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", tmp_path)
    process.wait_ready(says(process, "ready"), 10)

    assert process.stop() == 7
    assert process.stop() == 7  # a second time is harmless


def test_stop_kills_what_does_not_end_in_time(tmp_path: Path) -> None:
    process = shell(STUBBORN, tmp_path)
    process.wait_ready(says(process, "ready"), 10)

    assert process.stop(grace_seconds=0.2) == -signal.SIGKILL
    assert running_members(process.pid) == []


def test_stop_ends_children_that_outlive_their_parent(tmp_path: Path) -> None:
    process = shell(f"sh -c \"{STUBBORN}\" & trap 'exit 0' TERM; while :; do sleep 0.05; done", tmp_path)
    process.wait_ready(says(process, "ready"), 10)
    assert len(running_members(process.pid)) >= 2

    assert process.stop() == 0
    assert running_members(process.pid) == []


def test_children_of_a_process_that_ended_by_itself_are_ended_too(tmp_path: Path) -> None:
    process = shell("sleep 60 & exit 5", tmp_path)

    assert process.wait(timeout_seconds=10) == 5
    assert running_members(process.pid) == []


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_code_and_log(tmp_path: Path) -> None:
    process = shell("echo no licence; exit 4", tmp_path)

    with pytest.raises(ProcessEnded) as failed:
        process.wait_ready(lambda: False, 10, "the shop to open")

    message = str(failed.value)
    assert "a script ended (exit code 4) while we waited for the shop to open" in message
    assert message.endswith("no licence")


def test_a_process_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    process = shell("sleep 60", tmp_path)

    with pytest.raises(ConditionNotMet, match=r"waited 0\.1 s for a script to be ready"):
        process.wait_ready(lambda: False, 0.1)

    assert not process.alive
    assert running_members(process.pid) == []


def test_waiting_in_vain_for_an_end_leaves_the_process_running(tmp_path: Path) -> None:
    process = shell("sleep 60", tmp_path)

    with pytest.raises(ConditionNotMet, match="a script"):
        process.wait(timeout_seconds=0.1)

    assert process.alive
    process.kill()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        ManagedProcess.start("nothing", ["no-such-program"], tmp_path / "x.log")


def test_a_recycled_number_is_not_taken_for_the_process_that_had_it() -> None:
    mine = ProcessIdentity.of(os.getpid())
    earlier = ProcessIdentity(os.getpid(), mine.began_at - 3600)

    earlier.end(signal.SIGKILL)  # would be the end of this test

    assert mine.alive
    assert not earlier.alive


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen(["sleep", "60"])
    identity = ProcessIdentity.of(child.pid)
    assert identity.alive

    child.kill()

    await_condition(lambda: not identity.alive, 30, "the process to be a zombie")
    child.wait()


STARTS_A_SLEEPER = """
import sys
from pathlib import Path
from sandbox.processes import ManagedProcess
sleeper = ManagedProcess.start("sleeper", ["sh", "-c", "sleep 61 & sleep 62"], Path(sys.argv[1]))
if sys.argv[2] == "leave":
    sleeper.leave_running()
print(sleeper.identity.pid, sleeper.identity.began_at)
"""


def started_by_a_program_that_ended(tmp_path: Path, then: str) -> ProcessIdentity:
    command = [sys.executable, "-c", STARTS_A_SLEEPER, str(tmp_path / "x.log"), then]
    pid, began_at = subprocess.check_output(command, text=True, timeout=30).split()
    return ProcessIdentity(int(pid), float(began_at))


def test_what_was_not_stopped_ends_when_the_program_does(tmp_path: Path) -> None:
    sleeper = started_by_a_program_that_ended(tmp_path, "forget")

    assert running_members(sleeper.pid) == []


def test_what_is_left_running_on_purpose_stays_until_somebody_ends_it(tmp_path: Path) -> None:
    sleeper = started_by_a_program_that_ended(tmp_path, "leave")
    was_alive = sleeper.alive

    sleeper.end()

    assert (was_alive, sleeper.alive) == (True, False)
    assert running_members(sleeper.pid) == []


REPLACED_WATCHDOG = """
import os, signal, sys
from pathlib import Path
from sandbox.processes import ManagedProcess, await_condition
from sandbox.watchdog import our_watchdog
def sleeper(name):
    return ManagedProcess.start(name, ["sleep", "60"], Path(sys.argv[1], "sleepers.log"))
older = sleeper("older")
killed = our_watchdog()
os.kill(killed.pid, signal.SIGKILL)
await_condition(lambda: not killed.alive, 30, "the watchdog to end")
younger = sleeper("younger")
assert set(our_watchdog().watched) == {older.pid, younger.pid}
our_watchdog().close()
print(older.kill(), younger.kill())
"""


def test_a_watchdog_that_was_killed_is_replaced_by_one_that_knows_everything(tmp_path: Path) -> None:
    """In a process of its own: a watchdog that closes ends all that its process has started, other tests' too."""
    command = [sys.executable, "-c", REPLACED_WATCHDOG, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (ran.stdout, ran.stderr) == ("-9 -9\n", "")

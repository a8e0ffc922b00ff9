"""`python -m worker.health` against real workers: stopped ones, ones that wait for a broker, and beat."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import process_environment
from sandbox.processes import ManagedProcess, await_condition
from sandbox.stack import ROOT, is_ready, start_beat
from sandbox.valkey import ValkeyServer
from worker.health import AGE_SECONDS_MAX, TOUCH_SECONDS

Look = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey that a test may stop."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> str:
    """In place of the one that all tests of a process share."""
    return own_valkey.url


@pytest.fixture
def health_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "health"
    folder.mkdir()
    return folder


@pytest.fixture
def look(health_dir: Path) -> Look:
    """Run the health check as a container would: a process of its own, which knows no broker and no database."""
    environment = {name: value for name, value in process_environment().items() if not name.startswith("CENTAVO_")}
    environment["CENTAVO_HEALTH_DIR"] = str(health_dir)

    def run(name: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "worker.health", name]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def beat(
    billing_database: str, stripe_double: str, health_dir: Path, tmp_path: Path
) -> Iterator[Callable[[], ManagedProcess]]:
    """Start beat; it is ended with the test."""
    del billing_database, stripe_double  # this process's environment names them
    started: list[ManagedProcess] = []

    def start() -> ManagedProcess:
        env = process_environment() | {"CENTAVO_HEALTH_DIR": str(health_dir)}
        process = start_beat(env, tmp_path)
        started.append(process)
        process.wait_ready(lambda: is_ready(process), 30)
        return process

    yield start
    for process in started:
        process.stop(grace_seconds=15)


def grow_old(health_dir: Path, name: str, age_seconds: float = 2 * AGE_SECONDS_MAX) -> None:
    """As if the process had last moved so long ago."""
    moved_at = time.time() - age_seconds
    os.utime(health_dir / f"centavo-{name}@{socket.gethostname()}.alive", (moved_at, moved_at))


def is_alive(look: Look, name: str) -> bool:
    return look(name).returncode == 0


def test_a_worker_that_runs_is_alive(
    start_a_worker: Callable[..., ManagedProcess], look: Look, health_dir: Path
) -> None:
    start_a_worker(name="usage", CENTAVO_HEALTH_DIR=str(health_dir))

    found = look("usage")

    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage is alive: it moved ")
    assert found.stdout.count("\n") == 1


def test_a_worker_that_was_never_started_is_not_alive(look: Look) -> None:
    found = look("usage")

    assert found.returncode == 1
    assert "usage has not shown itself here" in found.stdout


def test_a_main_process_that_hangs_is_noticed_and_so_is_its_recovery(
    start_a_worker: Callable[..., ManagedProcess], look: Look, health_dir: Path
) -> None:
    worker = start_a_worker(name="usage", CENTAVO_HEALTH_DIR=str(health_dir))
    worker.send_signal(signal.SIGSTOP)
    # Were anyone but the stopped process to touch the file, then within the next seconds, before it is too old.
    grow_old(health_dir, "usage", AGE_SECONDS_MAX - TOUCH_SECONDS - 1)

    await_condition(lambda: not is_alive(look, "usage"), 2 * TOUCH_SECONDS, "the check to notice")
    found = look("usage")
    worker.send_signal(signal.SIGCONT)

    assert found.returncode == 1
    assert "usage hangs or has ended: it last moved 3" in found.stdout
    await_condition(lambda: is_alive(look, "usage"), 2 * TOUCH_SECONDS, "the check to be green again")


def test_a_worker_is_alive_while_its_broker_is_away_and_after(
    start_a_worker: Callable[..., ManagedProcess], own_valkey: ValkeyServer, look: Look, health_dir: Path
) -> None:
    worker = start_a_worker(name="usage", CENTAVO_HEALTH_DIR=str(health_dir))
    own_valkey.stop()
    await_condition(lambda: "the broker is away" in worker.log_tail(200), 30, "the worker to notice")

    for _ in range(2):
        grow_old(health_dir, "usage")
        await_condition(lambda: is_alive(look, "usage"), 2 * TOUCH_SECONDS, "a sign of life without a broker")

    own_valkey.start()
    await_condition(lambda: worker.log_tail(400).count("Connected to") >= 2, 30, "the worker to connect again")
    grow_old(health_dir, "usage")
    await_condition(lambda: is_alive(look, "usage"), 2 * TOUCH_SECONDS, "a sign of life after the outage")


def test_a_worker_that_waits_for_its_broker_still_stops_when_told(
    start_a_worker: Callable[..., ManagedProcess], own_valkey: ValkeyServer, health_dir: Path
) -> None:
    worker = start_a_worker(name="usage", CENTAVO_HEALTH_DIR=str(health_dir))
    own_valkey.stop()
    await_condition(lambda: "the broker is away" in worker.log_tail(200), 30, "the worker to notice")

    worker.send_signal(signal.SIGTERM)

    assert worker.ended_within(20)


def test_beat_is_alive_with_its_broker_and_without(
    beat: Callable[[], ManagedProcess], own_valkey: ValkeyServer, look: Look, health_dir: Path
) -> None:
    process = beat()
    await_condition(lambda: is_alive(look, "beat"), 2 * TOUCH_SECONDS, "the first tick")
    own_valkey.stop()
    await_condition(lambda: "Message Error" in process.log_tail(200), 30, "beat to notice")

    grow_old(health_dir, "beat")

    await_condition(lambda: is_alive(look, "beat"), 2 * TOUCH_SECONDS, "a sign of life without a broker")


def test_beat_is_alive_when_it_starts_before_its_broker(
    beat: Callable[[], ManagedProcess], own_valkey: ValkeyServer, look: Look, health_dir: Path
) -> None:
    own_valkey.stop()
    process = beat()
    await_condition(lambda: "the broker is away" in process.log_tail(200), 30, "beat to notice")
    grow_old(health_dir, "beat")

    await_condition(lambda: is_alive(look, "beat"), 2 * TOUCH_SECONDS, "a sign of life without a broker")

    own_valkey.start()
    await_condition(lambda: "Sending due task" in process.log_tail(200), 30, "beat to tick")


def test_a_beat_that_hangs_is_noticed(beat: Callable[[], ManagedProcess], look: Look, health_dir: Path) -> None:
    process = beat()
    await_condition(lambda: is_alive(look, "beat"), 2 * TOUCH_SECONDS, "the first tick")
    process.send_signal(signal.SIGSTOP)
    grow_old(health_dir, "beat", AGE_SECONDS_MAX - TOUCH_SECONDS - 1)

    await_condition(lambda: not is_alive(look, "beat"), 2 * TOUCH_SECONDS, "the check to notice")
    process.send_signal(signal.SIGCONT)


def test_the_check_says_how_it_is_called() -> None:
    command = [sys.executable, "-m", "worker.health"]

    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 2
    assert "usage: python -m worker.health" in found.stderr

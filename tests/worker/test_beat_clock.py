"""Beat on a host whose clock is wrong: it is heard when it is behind by minutes, and goes on when it is set back."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from config.settings import Settings, process_environment
from sandbox.processes import ManagedProcess, await_condition
from sandbox.stack import is_ready, start_beat
from tests.conftest import WorkerStarter
from tests.elsewhen import host_ahead, step
from tests.looking import one
from worker.schedule import NOTED_SECONDS, schedule

AN_HOUR = timedelta(hours=1)


@pytest.fixture
def start_a_beat(billing_database: str, tmp_path: Path) -> Iterator[Callable[[dict[str, str]], ManagedProcess]]:
    """Start beat; it is killed with the test."""
    assert billing_database
    started: list[ManagedProcess] = []

    def start(environment: dict[str, str]) -> ManagedProcess:
        started.append(start_beat(process_environment() | environment, tmp_path))
        started[-1].wait_ready(lambda: is_ready(started[-1]), 30)
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_a_beat_that_is_minutes_behind_is_heard(
    start_a_beat: Callable[[dict[str, str]], ManagedProcess], start_a_worker: WorkerStarter, tmp_path: Path
) -> None:
    """Expiry is told by beat's clock: a tick must not be too old before it is said."""
    start_a_worker(queues="ticks", children=1)

    start_a_beat(host_ahead(tmp_path / "site", timedelta(minutes=-4)))

    await_condition(lambda: one("SELECT ticked_at IS NOT NULL FROM last_seen") == (True,), 30, "a tick to be heard")


def test_a_beat_whose_clock_is_set_back_begins_its_intervals_anew(
    start_a_beat: Callable[[dict[str, str]], ManagedProcess], broker: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(broker) as client:

        def ticks(number: int) -> bool:
            return bool(client.llen("ticks") >= number)

        beat = start_a_beat(host_ahead(tmp_path / "site", AN_HOUR))
        await_condition(lambda: ticks(3), 30, "ticks")
        step(tmp_path / "site", timedelta())
        client.delete("ticks")

        await_condition(lambda: ticks(10), 6 * NOTED_SECONDS, "ticks in a time that is told twice")
        assert beat.log_file.read_text().count("went back") == 1


@pytest.mark.parametrize("apart", [60, 300])
def test_ticks_are_good_for_longer_than_clocks_may_be_apart(apart: int) -> None:
    """Beat's behind Postgres' and a worker's ahead of it; and for no more than minutes beyond."""
    for tick in schedule(Settings(clocks_apart_seconds_max=apart)).values():
        if isinstance(tick["schedule"], float):
            assert tick["options"]["expires"] == 2 * apart + max(10, 5 * tick["schedule"])

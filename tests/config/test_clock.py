"""The clock: where it can be moved, who follows, and what it refuses."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from billing.errors import Rejected
from config import clock
from config.clock import ClockFixed, ClockGoesForward, ClockUnreadable
from config.settings import Settings, settings
from sandbox.stack import ROOT

A_DAY = timedelta(days=1)
A_MINUTE = timedelta(minutes=1)
SAY_THE_TIME = "import sys; from config import clock; [print(clock.now(), flush=True) for _ in sys.stdin]"

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Environment]:
    """Tell this process what kind of deployment it is in, and more; its home is a folder of the test's."""

    def tell(name: str, **more: str) -> None:
        for setting, value in {"ENVIRONMENT": name, "HOME": str(tmp_path), "CLOCK_FILE": "", **more}.items():
            monkeypatch.setenv(f"CENTAVO_{setting}", value)
        settings.cache_clear()

    yield tell
    settings.cache_clear()


@pytest.fixture
def clock_file(environment: Environment, tmp_path: Path) -> Path:
    """The one that a sandbox follows unless it is told another."""
    environment("sandbox")
    return tmp_path / "clock.json"


def is_ahead_by(expected: timedelta, moment: datetime | None = None) -> bool:
    return abs((moment or clock.now()) - datetime.now(UTC) - expected) < A_MINUTE


def test_the_clock_is_the_machines_until_it_is_moved(clock_file: Path) -> None:
    assert is_ahead_by(timedelta())
    assert not clock_file.exists()


def test_time_goes_on_from_where_it_was_moved(clock_file: Path) -> None:
    new_year = datetime(2099, 1, 1, tzinfo=UTC)

    offset = clock.move_to(new_year)
    first, second = clock.now(), clock.now()

    assert new_year <= first < second < new_year + A_MINUTE
    assert clock.offset() == offset
    assert clock.advance(A_DAY) == offset + A_DAY


def test_a_process_that_runs_follows_each_move(clock_file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SAY_THE_TIME], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for moved in (timedelta(), A_DAY, 2 * A_DAY):
            clock.set_offset(moved)
            process.stdin.write("what time is it?\n")
            process.stdin.flush()

            assert is_ahead_by(moved, datetime.fromisoformat(process.stdout.readline().strip()))
        process.stdin.close()


def test_it_goes_back_only_if_that_is_wanted(clock_file: Path) -> None:
    clock.advance(A_DAY)
    earlier = clock.now() - timedelta(hours=1)

    with pytest.raises(ClockGoesForward, match=rf"by {clock_file}; what was recorded .* or say --back"):
        clock.move_to(earlier)
    with pytest.raises(ClockGoesForward):
        clock.advance(timedelta(seconds=-1))
    assert clock.offset() == A_DAY

    clock.move_to(earlier, is_back=True)
    assert is_ahead_by(A_DAY - timedelta(hours=1))


def test_it_is_not_moved_to_where_a_calendar_ends(clock_file: Path) -> None:
    with pytest.raises(Rejected, match="36500 days at most"):
        clock.advance(timedelta(days=40_000))

    assert not clock_file.exists()


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "{}", '{"offset_seconds": "1"}', '{"offset_seconds": 1e999}', '{"offset_seconds": 1000000000000}'],
)
def test_a_file_that_says_no_offset_names_itself(clock_file: Path, said: str) -> None:
    """Nobody goes on with another time than the others; when it is mended, all do."""
    clock_file.write_text(said)
    with pytest.raises(ClockUnreadable, match=rf"^{clock_file} does not say .* or delete it"):
        clock.now()

    clock_file.write_text('{"offset_seconds": 86400}')
    assert is_ahead_by(A_DAY)


def test_a_file_that_cant_be_written_names_itself(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    clock_file = tmp_path / "gone" / "clock.json"
    environment("sandbox", CLOCK_FILE=str(clock_file))

    with pytest.raises(ClockFixed, match=f"^{clock_file} can't be written, so the clock stays"):
        clock.advance(A_DAY)


def test_production_refuses_to_be_told_a_clock(environment: Environment, clock_file: Path) -> None:
    clock.advance(A_DAY)
    environment("production", CLOCK_FILE=str(clock_file))

    with pytest.raises(ValidationError, match="moves the clock; unset it"):
        Settings()


def test_production_follows_no_file_and_moves_none(environment: Environment, clock_file: Path) -> None:
    """Not even one that lies in its home, or can't be read."""
    clock_file.write_text("nonsense")
    environment("production")

    assert is_ahead_by(timedelta())
    with pytest.raises(ClockFixed, match="in production no clock is moved"):
        clock.advance(A_DAY)
    with pytest.raises(ClockFixed):
        clock.set_offset(A_DAY)
    assert clock_file.read_text() == "nonsense"


def test_staging_follows_a_file_only_if_it_is_told_which(environment: Environment, clock_file: Path) -> None:
    clock.advance(A_DAY)
    environment("staging")

    assert is_ahead_by(timedelta())
    with pytest.raises(ClockFixed, match="CENTAVO_CLOCK_FILE is not set"):
        clock.advance(A_DAY)

    environment("staging", CLOCK_FILE=str(clock_file))
    assert is_ahead_by(A_DAY)

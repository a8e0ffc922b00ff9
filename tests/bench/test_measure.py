import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis
from rich.console import Console

from bench.measure import Drain, Figure, RedisQueue, alternate, figures_table, percentile, watch_drain, write_json


@pytest.fixture
def waiting_worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input is closed."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_subjects_take_turns_and_keep_a_value_per_round() -> None:
    order: list[str] = []

    def run(name: str, number: int) -> float:
        order.append(name)
        return 10.0 * len(name) + number

    figures = alternate({"a": lambda n: run("a", n), "bb": lambda n: run("bb", n)}, rounds=2)

    assert {"a": Figure((10.0, 11.0)), "bb": Figure((20.0, 21.0))} == figures
    assert order == ["a", "bb", "a", "bb"]


def test_a_figure_is_its_median_with_its_spread_and_compares_by_median() -> None:
    figure = Figure((90.0, 100.0, 120.0))

    assert (figure.median, figure.spread, figure.times(Figure((25.0,)))) == (100.0, 0.3, 4.0)


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert expected == percentile([float(value) for value in range(100, 0, -1)], share)


def test_a_queue_counts_what_waits_and_what_is_not_acknowledged_yet(broker_url: str) -> None:
    with Redis.from_url(broker_url) as client:
        client.rpush("usage", "a", "b")
        client.hset("taken", "tag", "c")

    with closing(RedisQueue(broker_url, "usage", unacked="taken")) as queue:
        assert queue.left() == 3


def test_a_drain_counts_the_events_of_the_messages_done_after_warm_up(
    waiting_worker: subprocess.Popen[bytes],
) -> None:
    counts = iter([10, 9, 8, 8, 3, 0, 0])

    drain = watch_drain(lambda: next(counts), messages=10, events=5_000, worker=waiting_worker, warm_up_share=0.2)

    assert drain.events == 4_000
    assert drain.seconds > 0


def test_a_message_between_queue_and_worker_does_not_end_a_drain(waiting_worker: subprocess.Popen[bytes]) -> None:
    counts = iter([10, 8, 8, 0, 1, 0, 0])

    watch_drain(lambda: next(counts), messages=10, events=10, worker=waiting_worker, warm_up_share=0.2)

    assert list(counts) == []


def test_a_drain_fails_when_its_worker_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as worker:
        worker.wait()

        with pytest.raises(RuntimeError, match="ended with status 3; 7 messages were left"):
            watch_drain(lambda: 7, messages=10, events=10, worker=worker)


def test_a_drain_fails_when_it_takes_too_long(waiting_worker: subprocess.Popen[bytes]) -> None:
    with pytest.raises(RuntimeError, match="too long; 7 messages are left"):
        watch_drain(lambda: 7, messages=10, events=10, worker=waiting_worker, timeout_seconds=0.05)


def test_a_rate_is_events_by_seconds() -> None:
    assert Drain(events=500, seconds=0.25).events_per_second == 2_000


def test_a_table_shows_each_subject_beside_its_multiple_of_the_baseline() -> None:
    figures = {"naive": Figure((900.0, 1_000.0, 1_100.0)), "centavo": Figure((30_000.0,))}
    shown = io.StringIO()

    Console(width=100, file=shown).print(figures_table("drain", "events/s", figures, baseline="naive"))

    rows = [line for line in shown.getvalue().splitlines() if "centavo" in line]
    assert len(rows) == 1
    assert "30,000" in rows[0]
    assert "30.00" in rows[0]


def test_figures_are_written_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "figures.json", {"drain": {"uniform": {"naive": 900.5}}})

    assert json.loads((tmp_path / "figures.json").read_text()) == {"drain": {"uniform": {"naive": 900.5}}}

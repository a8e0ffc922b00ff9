"""A journal that is damaged under a producer that lives: what can't be read holds nobody else up, and is told of."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from centavo import Producer, UsageEvent
from tests.sdk.support import Broker, event, eventually, run_program
from tests.sdk.test_sdk_journal import children_of, left_in


def damage(directory: Path, *keys: str) -> None:
    """As a disk does that gives back other bytes than it was given."""
    (path,) = directory.glob("*.events")
    content = path.read_bytes()
    for key in keys:
        content = content.replace(f'"{key}"'.encode(), b'"??"')
    path.write_bytes(content)


def truncated(directory: Path) -> None:
    (path,) = directory.glob("*.events")
    os.truncate(path, path.stat().st_size // 2)


def waiting_for(broker: Broker, directory: Path, **limits: float) -> Producer:
    """A producer in whose journal k0 to k5 wait, two in an envelope; the first is packed already."""
    producer = Producer(broker.url, journal=directory, envelope_events_max=2, **limits)  # type: ignore[arg-type]
    for number in range(6):
        producer.emit(event(f"k{number}"))
    eventually(lambda: producer.counters.failures >= 1)
    return producer


@pytest.mark.parametrize(
    ("harm", "sent"),
    [
        (lambda folder: damage(folder, "k3"), ["k0", "k1", "k2", "k4", "k5"]),
        (lambda folder: damage(folder, "k2", "k3"), ["k0", "k1", "k4", "k5"]),
        (lambda folder: damage(folder, "k2", "k3", "k4", "k5"), ["k0", "k1"]),
        (truncated, ["k0", "k1", "k2"]),
    ],
    ids=["one event", "an envelope", "all that is left", "cut in half"],
)
def test_all_others_are_sent(
    stopped_broker: Broker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], None],
    sent: list[str],
) -> None:
    with waiting_for(stopped_broker, tmp_path / "journal") as producer:
        harm(tmp_path / "journal")
        stopped_broker.start()

        assert producer.flush(10) == 0
        producer.emit(event("new"))
        assert producer.flush(10) == 0
        counters = producer.counters

    assert stopped_broker.keys() == [*sent, "new"]
    assert (counters.emitted, counters.published, counters.dropped) == (7, len(sent) + 1, 6 - len(sent))
    assert caplog.text.count("is damaged") == 6 - len(sent)


def test_what_is_sent_again_is_sent_without_it(broker: Broker, tmp_path: Path) -> None:
    """The first envelope can't be read at all any more, which does not hold up the second."""
    with Producer(broker.url, journal=tmp_path / "journal", envelope_events_max=2, resend_seconds=0.5) as producer:
        for number in range(4):
            producer.emit(event(f"k{number}"))
        assert producer.flush(10) == 0
        damage(tmp_path / "journal", "k0", "k1", "k2")

        eventually(lambda: producer.counters.resent >= 1)
        counters = producer.counters

    assert broker.keys()[:5] == ["k0", "k1", "k2", "k3", "k3"]
    assert (counters.unwatched, counters.dropped) == (2, 0)


def test_the_file_is_kept_when_a_process_ends_and_begins(stopped_broker: Broker, tmp_path: Path) -> None:
    with waiting_for(stopped_broker, tmp_path / "journal") as producer:
        damage(tmp_path / "journal", "k3")
        stopped_broker.start()
        assert producer.flush(10) == 0

    with Producer(stopped_broker.url, journal=tmp_path / "journal") as following:
        assert following.flush(10) == 0
    assert set(stopped_broker.keys()) == {"k0", "k1", "k2", "k4", "k5"}
    assert b'"??"' in next((tmp_path / "journal").glob("*.events")).read_bytes()


def test_a_fork_of_a_producer_that_nobody_refers_to_does_not_hold_its_lock(tmp_path: Path) -> None:
    """The thread alone kept it; in the child there is none."""
    ran = run_program(
        """
import signal
def emit():
    Producer("redis://127.0.0.1:1/0", journal=sys.argv[1]).emit(event("parent"))
emit()
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.closerange(1, 3)
    os.write(writing, b"x")
    signal.pause()
print(child, flush=True)
os.read(reading, 1)
os.kill(os.getpid(), signal.SIGKILL)
""",
        str(tmp_path),
    )
    try:
        assert [UsageEvent.model_validate_json(raw).key for raw in left_in(tmp_path)] == ["parent"]
    finally:
        for child in children_of(ran):
            os.kill(child, signal.SIGKILL)

"""The journal on disk: what `emit` has returned for is sent, whatever became of the process that emitted it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centavo import BufferFull, Producer, UsageEvent
from centavo.disk import DiskJournal
from centavo.journal import EventDamaged
from centavo.segments import frame, scan
from tests.sdk.support import Broker, event, eventually, run_program

NOBODY = 65534
PAYLOADS = st.lists(st.binary(max_size=60), max_size=20)


def in_frames(payloads: Iterable[bytes]) -> bytes:
    return b"".join(frame(payload) for payload in payloads)


def found_in(data: bytes) -> list[bytes]:
    return [data[offset : offset + length] for offset, length in scan(data).events]


def left_in(directory: Path) -> list[bytes]:
    """What a new process takes over, then lets go."""
    journal = DiskJournal(directory)
    found = [journal.read(kept) for kept in journal.take_over()]
    journal.close()
    return found


def await_next_millisecond() -> None:
    """Lanes are sorted by that in which they began."""
    now = time.time_ns() // 1_000_000
    eventually(lambda: time.time_ns() // 1_000_000 > now)


def files_in(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir())


class TestFrames:
    @given(PAYLOADS, st.data())
    def test_wherever_a_file_ends_every_event_that_was_whole_is_found(
        self, payloads: list[bytes], data: st.DataObject
    ) -> None:
        whole = in_frames(payloads)
        cut = data.draw(st.integers(0, len(whole)))
        lengths = [len(frame(payload)) for payload in payloads]
        taken = [payload for n, payload in enumerate(payloads) if sum(lengths[: n + 1]) <= cut]

        found = scan(whole[:cut])

        assert found_in(whole[:cut]) == taken
        assert (found.damaged, found.torn) == ([], cut - sum(map(len, map(frame, taken))))

    @given(st.lists(st.binary(min_size=1, max_size=60), min_size=3, max_size=10), st.data())
    def test_damage_in_the_middle_is_reported_and_costs_no_other_event(
        self, payloads: list[bytes], data: st.DataObject
    ) -> None:
        hurt = data.draw(st.integers(0, len(payloads) - 2))
        begins = len(in_frames(payloads[:hurt]))
        ends = begins + len(frame(payloads[hurt]))
        at = data.draw(st.integers(begins, ends - 1))
        damaged = bytearray(in_frames(payloads))
        damaged[at] ^= data.draw(st.integers(1, 255))

        found = scan(bytes(damaged))

        assert found_in(bytes(damaged)) == payloads[:hurt] + payloads[hurt + 1 :]
        assert found.damaged == [(begins, ends - begins)]

    @given(PAYLOADS, st.binary(min_size=1, max_size=40))
    def test_nothing_after_the_last_event_is_passed_over_in_silence(self, payloads: list[bytes], end: bytes) -> None:
        data = in_frames(payloads) + end

        found = scan(data)

        accounted = sum(length for _, length in found.damaged) + found.torn + len(in_frames(found_in(data)))
        assert accounted == len(data)


class TestTakingOver:
    def test_a_process_that_lives_keeps_its_own(self, tmp_path: Path) -> None:
        living = DiskJournal(tmp_path)
        living.append(b"mine")

        assert left_in(tmp_path) == []
        living.close()
        assert left_in(tmp_path) == [b"mine"]
        assert left_in(tmp_path) == [b"mine"]

    def test_oldest_first_and_gone_once_settled(self, tmp_path: Path) -> None:
        payloads = [b"%04d" % number * 50 for number in range(300)]
        for part in (payloads[:150], payloads[150:]):
            journal = DiskJournal(tmp_path, bytes_max=40_000)  # segments of 10,000
            for payload in part:
                journal.append(payload)
            journal.close()
            await_next_millisecond()
        journal = DiskJournal(tmp_path)
        taken = list(journal.take_over())
        assert [journal.read(kept) for kept in taken] == payloads

        random.Random(7).shuffle(taken)
        journal.settle(taken)

        assert files_in(tmp_path) == [".lock"]
        journal.close()
        assert files_in(tmp_path) == []

    def test_wherever_its_last_file_ends_what_was_written_before_is_taken_over(self, tmp_path: Path) -> None:
        journal = DiskJournal(tmp_path / "first", bytes_max=400)  # segments of 100 bytes
        payloads = [b"%02d" % number * 10 for number in range(10)]
        for payload in payloads:
            journal.append(payload)
        journal.close()
        last = max((tmp_path / "first").glob("*.events"))
        content = last.read_bytes()
        before = len(payloads) - len(scan(content).events)
        assert before > 0

        for cut in range(len(content) + 1):
            directory = tmp_path / f"{cut}"
            shutil.copytree(tmp_path / "first", directory)
            (directory / last.name).write_bytes(content[:cut])

            assert left_in(directory) == payloads[: before + cut // len(frame(payloads[0]))]
            assert left_in(directory) == payloads[: before + cut // len(frame(payloads[0]))]

    def test_damage_is_said_and_the_file_kept(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        journal = DiskJournal(tmp_path)
        for payload in (b"first", b"second", b"third"):
            journal.append(payload)
        journal.close()
        (segment,) = tmp_path.glob("*.events")
        content = segment.read_bytes()
        segment.write_bytes(content.replace(b"second", b"sec0nd")[:-1])

        journal = DiskJournal(tmp_path)
        taken = list(journal.take_over())
        assert [journal.read(kept) for kept in taken] == [b"first"]
        assert "is damaged: 34 bytes from byte 17" in caplog.text
        journal.settle(taken)
        journal.close()

        assert files_in(tmp_path) == [".damaged"]

    def test_damage_is_said_where_it_is_read(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        journal = DiskJournal(tmp_path)
        taken = [journal.append(payload) for payload in (b"first", b"second")]
        (segment,) = tmp_path.glob("*.events")
        os.truncate(segment, segment.stat().st_size - 1)

        assert journal.read(taken[0]) == b"first"
        with pytest.raises(EventDamaged):
            journal.read(taken[1])

        assert "is damaged: 18 bytes from byte 17" in caplog.text
        journal.settle(taken)
        journal.close()
        assert files_in(tmp_path) == [".damaged"]

    @pytest.mark.parametrize("has_lock", [True, False])
    def test_what_another_user_left_there_stays_and_stops_nobody(self, server_folder: Path, has_lock: bool) -> None:
        """As a producer of root's cron leaves it in a folder for everybody."""
        directory = server_folder / f"journal-{has_lock}"
        directory.mkdir()
        directory.chmod(0o777)
        theirs = DiskJournal(directory)
        theirs.append(b"theirs")
        theirs.close()
        if not has_lock:
            next(directory.glob("*.lock")).unlink()
        left = sorted(directory.iterdir())
        for path in left:
            path.chmod(0)

        ran = run_program(
            f"""
Producer("redis://127.0.0.1:1/0").close(0)  # loads what is needed
if os.getuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
for _ in range(2):
    producer = Producer("redis://127.0.0.1:1/0", journal=sys.argv[1])
    print(producer.counters.adopted)
    producer.emit(event("ours"))
    producer.close(0)
""",
            str(directory),
        )

        assert (ran.returncode, ran.stdout.split()) == (0, ["0", "1"])
        assert ran.stderr.count("can't be opened ([Errno 13] Permission denied") == 2
        assert set(left) < set(directory.iterdir())
        for path in left:
            path.chmod(0o600)
        assert left_in(directory)[0] == b"theirs"
        assert len(left_in(directory)) == 3

    def test_a_fork_neither_holds_the_parents_lock_nor_loses_it(self, tmp_path: Path) -> None:
        ran = run_program(
            """
import signal
from pathlib import Path
from centavo.disk import DiskJournal
producer = Producer("redis://127.0.0.1:1/0", journal=sys.argv[1])
producer.emit(event("parent"))
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.closerange(1, 3)
    producer.emit(event("child"))
    os.write(writing, b"x")
    signal.pause()
print(child, flush=True)
os.read(reading, 1)
assert list(DiskJournal(sys.argv[1]).take_over()) == []  # both live
os.kill(os.getpid(), signal.SIGKILL)
""",
            str(tmp_path),
        )
        try:
            assert (ran.returncode, ran.stderr) == (-signal.SIGKILL, "")
            assert [UsageEvent.model_validate_json(raw).key for raw in left_in(tmp_path)] == ["parent"]
        finally:
            for child in children_of(ran):
                os.kill(child, signal.SIGKILL)


def children_of(ran: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(line) for line in ran.stdout.split()]


class TestAProducer:
    def test_sigkilled_leaves_everything_to_the_next_one(self, broker: Broker, tmp_path: Path) -> None:
        program = """
producer = Producer("redis://127.0.0.1:1/0", journal=sys.argv[1])
number = 0
while True:
    producer.emit(event(str(number)))
    number += 1
    print(number, flush=True)
"""
        prelude = "import sys\nfrom centavo import Producer\nfrom tests.sdk.support import event\n"
        arguments = [sys.executable, "-c", prelude + program, str(tmp_path)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == 2000:
                    process.send_signal(signal.SIGKILL)
                    break
            emitted = max(2000, *map(int, process.stdout.read().split()), 0)

        with Producer(broker.url, journal=tmp_path) as producer:
            producer.emit(event("new"))
            assert producer.flush(20) == 0
            assert producer.counters.adopted in {emitted, emitted + 1}

        # The emit that was killed may or may not have written its event.
        assert broker.keys() in ([*map(str, range(n)), "new"] for n in (emitted, emitted + 1))

    def test_goes_on_while_the_broker_is_down_and_keeps_the_order(self, stopped_broker: Broker, tmp_path: Path) -> None:
        with Producer(stopped_broker.url, journal=tmp_path, buffer_events_max=10, block_seconds=0) as producer:
            for number in range(1700):
                producer.emit(event(str(number)))
            eventually(lambda: producer.counters.failures >= 2)
            stopped_broker.start()

            assert producer.flush(20) == 0
        assert [str(number) for number in range(1700)] == stopped_broker.keys()

    def test_that_ends_without_a_broker_loses_nothing(
        self, stopped_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        producer = Producer(stopped_broker.url, journal=tmp_path)
        producer.emit(event("left"))
        assert producer.close(timeout=0.2) == 1
        assert "wait in the journal for the next producer" in caplog.text
        stopped_broker.start()

        with Producer(stopped_broker.url, journal=tmp_path) as following:
            assert following.flush(20) == 0

        assert stopped_broker.keys() == ["left"]

    @pytest.mark.parametrize("policy", ["block", "raise", "drop"])
    def test_at_the_cap_does_as_it_is_told(self, stopped_broker: Broker, tmp_path: Path, policy: str) -> None:
        size = len(frame(event("000").to_wire()))
        full = {"journal": tmp_path, "journal_bytes_max": 10 * size, "block_seconds": 0.1, "on_full": policy}
        with Producer(stopped_broker.url, **full) as producer:  # type: ignore[arg-type]
            for number in range(10):
                producer.emit(event(f"{number:03}"))
            if policy == "drop":
                producer.emit(event("010"))
            else:
                with pytest.raises(BufferFull):
                    producer.emit(event("010"))
            assert (producer.counters.emitted, producer.counters.overflowed) == (10, int(policy == "drop"))
            stopped_broker.start()
            assert producer.flush(20) == 0
            producer.emit(event("011"))

        assert stopped_broker.keys() == [*(f"{number:03}" for number in range(10)), "011"]

    def test_whose_disk_is_full_takes_nothing_it_cannot_keep(self, broker: Broker, tmp_path: Path) -> None:
        ran = run_program(
            """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
producer = Producer(sys.argv[1], journal=sys.argv[2], linger_seconds=3600)
producer.emit(event("kept"))
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
try:
    producer.emit(event("refused"))
except OSError:
    assert producer.counters.emitted == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    producer.emit(event("after"))
""",
            broker.url,
            str(tmp_path),
        )

        assert (ran.returncode, ran.stderr) == (0, "")
        assert broker.keys() == ["kept", "after"]

    def test_a_signal_handler_may_emit_into_it(self, stopped_broker: Broker, tmp_path: Path) -> None:
        ran = run_program(
            """
import itertools, signal
producer = Producer("redis://127.0.0.1:1/0", journal=sys.argv[1])
numbers = itertools.count()
def emit_too(*_):
    producer.emit(event(f"handler {next(numbers)}"))
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
signal.signal(signal.SIGALRM, emit_too)
signal.setitimer(signal.ITIMER_REAL, 0.0003)
for number in range(5_000):
    producer.emit(event(f"main {number}"))
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(next(numbers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
            str(tmp_path),
        )

        handled = int(ran.stdout)
        assert handled > 0
        expected = [f"main {n}" for n in range(5_000)] + [f"handler {n}" for n in range(handled)]
        assert sorted(UsageEvent.model_validate_json(raw).key for raw in left_in(tmp_path)) == sorted(expected)

    def test_may_be_closed_by_a_signal_handler_in_the_middle_of_an_emit(self, tmp_path: Path) -> None:
        ran = run_program(
            """
import signal
producer = Producer("redis://127.0.0.1:1/0", journal=sys.argv[1])
emitted = 0
def end(*_):
    print(emitted, producer.close(timeout=0), flush=True)
    os._exit(0)
signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, 0.2)
while True:
    producer.emit(event(str(emitted)))
    emitted += 1
""",
            str(tmp_path),
        )

        emitted, left = map(int, ran.stdout.split())
        assert ran.returncode == 0
        assert left in {emitted, emitted + 1}
        # The emit that was interrupted may or may not have written its event.
        keys = [UsageEvent.model_validate_json(raw).key for raw in left_in(tmp_path)]
        assert keys in ([str(n) for n in range(emitted)], [str(n) for n in range(emitted + 1)])

    def test_keeps_what_has_no_receipt_and_lets_it_go_before_it_refuses_anything(
        self, broker: Broker, tmp_path: Path
    ) -> None:
        size = len(frame(event("000").to_wire()))
        bounds = {"journal_bytes_max": 20 * size, "on_full": "raise", "envelope_events_max": 5}
        with Producer(broker.url, journal=tmp_path, **bounds) as producer:  # type: ignore[arg-type]
            for number in range(0, 100, 5):
                for each in range(number, number + 5):
                    producer.emit(event(f"{each:03}"))
                assert producer.flush(20) == 0
            counters = producer.counters

        assert broker.keys() == [f"{number:03}" for number in range(100)]
        assert (counters.unreceipted > 0, counters.unreceipted + counters.unwatched) == (True, 100)
        kept = [UsageEvent.model_validate_json(raw).key for raw in left_in(tmp_path)]
        assert set(broker.keys()[-counters.unreceipted :]) <= set(kept)

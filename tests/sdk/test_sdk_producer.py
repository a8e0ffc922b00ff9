"""What a producer promises: nothing lost, nothing reordered, bounded memory, no waiting until it is full."""

import asyncio
import os
import signal
import statistics
import threading
import time
import tracemalloc
from collections.abc import Iterable

import pytest

from centavo import BufferFull, Counters, Producer, ProducerClosed, UsageEvent
from centavo.buffer import Buffer
from centavo.journal import MemoryJournal
from centavo.limits import Limits
from centavo.publisher import RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, RETRY_SPREAD, pause_seconds
from tests.sdk.support import Broker, event, eventually


def first_seen(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(keys))


class TestABrokerThatFails:
    def test_events_emitted_while_it_is_down_arrive_once_it_is_up_once_and_in_order(
        self, stopped_broker: Broker
    ) -> None:
        with Producer(stopped_broker.url) as producer:
            for number in range(1700):
                producer.emit(event(str(number)))
            eventually(lambda: producer.counters.failures >= 2)
            stopped_broker.start()

            assert producer.flush(timeout=20) == 0
            assert [str(number) for number in range(1700)] == stopped_broker.keys()
            assert [len(e["events"]) for e in stopped_broker.envelopes()] == [500, 500, 500, 200]

    def test_events_emitted_around_its_sigkill_all_arrive_in_order(self, broker: Broker) -> None:
        keys = [str(number) for number in range(4000)]
        with Producer(broker.url, envelope_events_max=20, linger_seconds=0.01) as producer:
            for number, key in enumerate(keys):
                producer.emit(event(key))
                if number == 1500:
                    eventually(lambda: producer.counters.published > 0)
                    broker.kill()
            eventually(lambda: producer.counters.failures >= 1)
            broker.start()

            assert producer.flush(timeout=20) == 0
            # An envelope whose acknowledgement was lost is sent again, as the same envelope.
            assert keys == first_seen(broker.keys())
            assert len(keys) <= len(broker.keys()) <= len(keys) + 20

    def test_a_broker_that_hangs_holds_up_neither_emit_nor_flush(self, broker: Broker) -> None:
        with Producer(broker.url, transport_options={"socket_timeout": 0.5}) as producer:
            producer.emit(event("before"))
            assert producer.flush() == 0
            os.kill(broker.pid, signal.SIGSTOP)
            began = time.monotonic()
            producer.emit(event("during"))
            assert producer.flush(timeout=0.2) == 1
            assert time.monotonic() - began < 0.5
            eventually(lambda: producer.counters.failures >= 1)
            os.kill(broker.pid, signal.SIGCONT)

            assert producer.flush(timeout=20) == 0
        assert first_seen(broker.keys()) == ["before", "during"]
        # The attempt that timed out may have arrived after all; the one after it was the same envelope.
        assert len({e["id"] for e in broker.envelopes()[1:]}) == 1

    def test_attempts_are_spaced(self, stopped_broker: Broker) -> None:
        with Producer(stopped_broker.url, linger_seconds=0) as producer:
            began = time.monotonic()
            producer.emit(event())
            eventually(lambda: producer.counters.failures == 4)

            assert time.monotonic() - began >= 3 * RETRY_SECONDS_MIN * (1 - RETRY_SPREAD)
            producer.close(timeout=0)

    def test_closing_without_a_broker_says_how_much_is_lost(
        self, stopped_broker: Broker, caplog: pytest.LogCaptureFixture
    ) -> None:
        producer = Producer(stopped_broker.url)
        for number in range(3):
            producer.emit(event(str(number)))

        assert producer.close(timeout=0.3) == 3
        assert (producer.counters.dropped, producer.counters.buffered) == (3, 0)
        (loss,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert loss.startswith(f"3 usage events were not sent to redis://:**@127.0.0.1:{stopped_broker.port}")

    def test_a_password_is_never_logged(self, stopped_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        producer = Producer(stopped_broker.url.replace("//", "//:open-sesame@"))
        producer.emit(event())
        producer.close(timeout=0.3)

        assert caplog.text
        assert "open-sesame" not in caplog.text


class TestTheNextAttempt:
    @pytest.mark.parametrize("outage_seconds", [0.5, 2.0, 5.0, 10.0, 25.0, 3600.0])
    def test_comes_soon_after_a_short_outage_and_seldom_in_a_long_one(self, outage_seconds: float) -> None:
        """A broker that was away for ten seconds is found within one; in an hour it is asked some 1,400 times."""
        failing_seconds, attempts = 0.0, 1
        while failing_seconds < outage_seconds:
            failing_seconds += pause_seconds(failing_seconds)
            attempts += 1

        assert failing_seconds - outage_seconds <= min(max(0.1, outage_seconds / 10), RETRY_SECONDS_MAX)
        assert attempts < 80 + outage_seconds / 2

    def test_does_not_come_at_one_moment_in_all_of_a_fleet(self) -> None:
        pauses = sorted(pause_seconds(60) for _ in range(1000))

        assert pauses[-1] <= RETRY_SECONDS_MAX
        assert pauses[900] - pauses[100] > RETRY_SECONDS_MAX / 10


class TestAFullBuffer:
    def test_emit_waits_then_refuses_and_says_what_to_do(self, stopped_broker: Broker) -> None:
        producer = Producer(stopped_broker.url, buffer_events_max=10, block_seconds=0.2)
        for number in range(10):
            producer.emit(event(str(number)))
        eventually(lambda: producer.counters.failures >= 1)
        began = time.monotonic()

        with pytest.raises(BufferFull, match=r"^10 usage events .* in 0\.2 s; .*refused.*emit the same event") as full:
            producer.emit(event("one too many"))

        assert 0.2 <= time.monotonic() - began < 2
        assert (full.value.events, full.value.waited_seconds) == (10, 0.2)
        assert producer.counters.emitted == 10
        producer.close(timeout=0)

    def test_bytes_fill_it_as_well_as_events(self, stopped_broker: Broker) -> None:
        size = len(event("00").to_wire())
        producer = Producer(stopped_broker.url, buffer_bytes_max=size * 5 + 1, block_seconds=0)
        for number in range(5):
            producer.emit(event(f"{number:02}"))

        with pytest.raises(BufferFull):
            producer.emit(event("05"))
        producer.close(timeout=0)

    def test_an_emit_that_waits_goes_on_as_soon_as_there_is_room(self, stopped_broker: Broker) -> None:
        with Producer(stopped_broker.url, buffer_events_max=10, block_seconds=60) as producer:
            for number in range(10):
                producer.emit(event(str(number)))
            waiting = threading.Thread(target=producer.emit, args=(event("10"),))
            waiting.start()
            waiting.join(0.1)
            assert waiting.is_alive()
            stopped_broker.start()
            waiting.join(20)

            assert not waiting.is_alive()
            assert producer.flush() == 0
        assert [str(number) for number in range(11)] == stopped_broker.keys()

    def test_a_refused_event_can_be_emitted_again(self, stopped_broker: Broker) -> None:
        with Producer(stopped_broker.url, buffer_events_max=1, block_seconds=0) as producer:
            refused = event("refused")
            producer.emit(event("taken"))
            with pytest.raises(BufferFull):
                producer.emit(refused)
            stopped_broker.start()
            producer.flush(20)
            producer.emit(refused)

        assert stopped_broker.keys() == ["taken", "refused"]

    def test_an_event_larger_than_the_whole_buffer_still_passes_alone(self, broker: Broker) -> None:
        with Producer(broker.url, buffer_bytes_max=10, block_seconds=10) as producer:
            producer.emit(event("first"))
            producer.emit(event("second"))

        assert broker.keys() == ["first", "second"]

    def test_memory_stays_near_the_bytes_of_the_events(self) -> None:
        encoded = [event(str(number)).to_wire() for number in range(20_000)]
        size = sum(map(len, encoded))
        buffer = Buffer(Limits(), MemoryJournal())
        tracemalloc.start()
        for each in encoded:
            buffer.put(bytes(bytearray(each)))  # an allocation of its own, as to_wire() makes one
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert size < taken < size + 20_000 * 60

    def test_told_to_raise_it_does_so_at_once(self, stopped_broker: Broker) -> None:
        producer = Producer(stopped_broker.url, buffer_events_max=1, block_seconds=60, on_full="raise")
        producer.emit(event("taken"))

        with pytest.raises(BufferFull):
            producer.emit(event("refused"))
        producer.close(timeout=0)

    def test_told_to_drop_it_counts_and_says_so(self, stopped_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        with Producer(stopped_broker.url, buffer_events_max=1, on_full="drop") as producer:
            for key in ("taken", "dropped", "dropped too"):
                producer.emit(event(key))
            assert (producer.counters.emitted, producer.counters.overflowed) == (1, 2)
            stopped_broker.start()
            assert producer.flush(20) == 0

        assert stopped_broker.keys() == ["taken"]
        assert [r.getMessage().partition(":")[0] for r in caplog.records if r.levelname == "ERROR"] == [
            f"{number} usage events were dropped" for number in (1, 2)
        ]

    def test_a_policy_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="on_full is"):
            Producer("redis://127.0.0.1:1/0", on_full="pray")  # type: ignore[arg-type]

    @pytest.mark.parametrize("limits", [{"envelope_events_max": 0}, {"buffer_bytes_max": -1}, {"block_seconds": -1}])
    def test_limits_that_cannot_work_are_refused(self, limits: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(limits))} is"):
            Producer("redis://127.0.0.1:1/0", **limits)  # type: ignore[arg-type]


class TestThreadsAndLoops:
    def test_events_of_many_threads_all_arrive_each_threads_in_order(self, broker: Broker) -> None:
        def emit_all(producer: Producer, name: int) -> None:
            for number in range(1000):
                producer.emit(event(f"{name}-{number}"))

        with Producer(broker.url, envelope_events_max=37) as producer:
            threads = [threading.Thread(target=emit_all, args=(producer, name)) for name in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        arrived = broker.keys()
        assert len(arrived) == 4000
        for name in range(4):
            own = [key for key in arrived if key.startswith(f"{name}-")]
            assert [f"{name}-{number}" for number in range(1000)] == own

    def test_emit_does_not_hold_up_an_event_loop_while_the_broker_is_down(self, stopped_broker: Broker) -> None:
        async def emit_all(producer: Producer) -> float:
            longest = 0.0
            for number in range(300):
                began = time.perf_counter()
                producer.emit(event(str(number)))
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - began)
            return longest

        with Producer(stopped_broker.url) as producer:
            assert asyncio.run(emit_all(producer)) < 0.25
            stopped_broker.start()
        assert [str(number) for number in range(300)] == stopped_broker.keys()

    def test_emit_costs_microseconds_with_the_broker_up_or_down(self, broker: Broker) -> None:
        events = [event(str(number)) for number in range(5000)]
        with Producer(broker.url) as producer:
            up = statistics.median(spent(producer, events))
            broker.kill()
            down = statistics.median(spent(producer, events))
            producer.close(timeout=0)

        # The figure proper is the benchmark's; this is ten times as much, for a busy machine.
        assert max(up, down) < 200e-6


def spent(producer: Producer, events: list[UsageEvent]) -> list[float]:
    seconds = []
    for each in events:
        began = time.perf_counter()
        producer.emit(each)
        seconds.append(time.perf_counter() - began)
    return seconds


class TestTheEnd:
    def test_a_closed_producer_refuses_events(self, broker: Broker) -> None:
        producer = Producer(broker.url)
        producer.emit(event("before"))

        assert producer.close() == 0
        with pytest.raises(ProducerClosed):
            producer.emit(event("after"))
        assert producer.close() == 0
        assert broker.keys() == ["before"]

    def test_closing_ends_the_thread(self, broker: Broker) -> None:
        before = set(threading.enumerate())
        producer = Producer(broker.url)
        producer.emit(event())
        (thread,) = set(threading.enumerate()) - before

        producer.close()

        eventually(lambda: not thread.is_alive())

    def test_a_producer_that_emits_nothing_connects_to_nothing(self) -> None:
        threads = threading.active_count()

        with Producer("redis://127.0.0.1:1/0") as producer:
            assert producer.flush() == 0
            assert threading.active_count() == threads
        assert producer.counters == Counters(0, 0, 0, 0, 0, 0)

    def test_the_counters_add_up(self, broker: Broker) -> None:
        with Producer(broker.url, envelope_events_max=4, linger_seconds=3600) as producer:
            for number in range(10):
                producer.emit(event(str(number)))
            eventually(lambda: producer.counters.envelopes == 2)

            assert producer.counters == Counters(
                emitted=10, published=8, buffered=2, dropped=0, envelopes=2, failures=0, unreceipted=8
            )


class TestWithoutReceipts:
    """As with workers that give none."""

    def test_a_full_memory_of_unreceipted_envelopes_holds_nobody_up(self, broker: Broker) -> None:
        with Producer(broker.url, envelope_events_max=1, unreceipted_bytes_max=5_000, block_seconds=0) as producer:
            for number in range(50):
                producer.emit(event(str(number)))
            assert producer.flush(20) == 0
            counters = producer.counters

        assert 0 < counters.unreceipted < 50
        assert (counters.published, counters.unreceipted + counters.unwatched) == (50, 50)

    def test_waiting_for_them_ends_and_says_what_is_missing(self, broker: Broker) -> None:
        with Producer(broker.url) as producer:
            producer.emit(event())

            assert producer.flush() == 0
            assert producer.flush(0.1, received=True) == 1


@pytest.mark.parametrize(("url", "complaint"), [("carrier-pigeon://loft", "carrier-pigeon"), ("", "no broker URL")])
def test_a_url_that_names_no_broker_is_refused_at_once(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Producer(url)

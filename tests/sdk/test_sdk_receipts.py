"""Which envelopes are sent again, and when: told in seconds that the test makes up."""

from hypothesis import given
from hypothesis import strategies as st

from centavo.batches import Batch, Unreceipted

RESEND_SECONDS = 600.0


class Sent:
    """Some batches that the broker took, one each second."""

    def __init__(self, number: int) -> None:
        self.waiting = Unreceipted(RESEND_SECONDS)
        self.batches = [Batch(count=1) for _ in range(number)]
        for second, batch in enumerate(self.batches):
            self.waiting.sent(batch, f"{second}", float(second))

    def resent(self, now: float) -> list[int]:
        """Which are sent again at this time, each reported as sent."""
        again = []
        while batch := self.waiting.due(now):
            again.append(self.batches.index(batch))
            self.waiting.sent(batch, f"{again[-1]} at {now}", now)
        return again


def test_without_any_receipt_only_the_oldest_is_sent_again_less_and_less_often() -> None:
    """Workers that give none, or a long queue: either way more of the same would not help."""
    sent = Sent(100)

    probes = [now for now in range(0, 100_000, 100) if sent.resent(float(now))]

    assert probes == [600, 1800, 4200, 9000, 18600, 37800, 76200]


def test_a_later_receipt_sends_what_was_passed_over_once_it_is_overdue() -> None:
    sent = Sent(10)
    sent.waiting.received("7")

    assert sent.resent(599.0) == []
    assert sent.resent(604.5) == [0, 1, 2, 3, 4]
    assert sent.resent(607.0) == [5, 6]


def test_the_receipt_of_a_probe_sends_all_that_went_before_it() -> None:
    """As after a broker was wiped, when nothing else is emitted."""
    sent = Sent(5)
    assert sent.resent(650.0) == [0]

    sent.waiting.received("0 at 650.0")

    assert sent.resent(651.0) == [1, 2, 3, 4]


def test_the_first_copy_of_a_probe_says_nothing_about_the_others() -> None:
    """The queue was long and nothing is lost: it must not grow for that."""
    sent = Sent(5)
    assert sent.resent(650.0) == [0]

    assert sent.waiting.received("0") is sent.batches[0]

    assert sent.waiting.received("0 at 650.0") is None
    assert sent.resent(651.0) == []


def test_after_a_reconnect_a_probe_leaves_as_soon_as_it_is_due() -> None:
    sent = Sent(3)
    assert (sent.resent(700.0), sent.resent(1500.0)) == ([0], [])

    sent.waiting.reconnected()

    assert sent.resent(1500.0) == [1]


def test_what_is_sent_again_waits_twice_as_long_each_time() -> None:
    sent = Sent(1)
    when = []
    for now in range(0, 20_000, 50):
        sent.waiting.sent(Batch(count=1), f"later {now}", float(now))
        sent.waiting.received(f"later {now}")
        when += [now] * len(sent.resent(float(now)))

    assert when == [600, 1800, 4200, 9000, 18600]


@given(st.lists(st.tuples(st.sampled_from(["send", "receipt", "look", "reconnect"]), st.integers(0, 900)), max_size=60))
def test_never_before_its_time_and_never_after_its_receipt(steps: list[tuple[str, int]]) -> None:
    waiting = Unreceipted(RESEND_SECONDS)
    now = 0.0
    ids: list[str] = []
    for step, number in steps:
        now += number
        if step == "send":
            ids.append(f"{len(ids)}")
            waiting.sent(Batch(count=1), ids[-1], now)
        elif step == "receipt" and ids:
            waiting.received(ids[number % len(ids)])
        elif step == "reconnect":
            waiting.reconnected()
        elif step == "look" and (batch := waiting.due(now)):
            assert now - batch.sent_at >= RESEND_SECONDS
            assert not batch.is_received
            ids.append(f"{len(ids)}")
            waiting.sent(batch, ids[-1], now)
        assert waiting.events == len(waiting.waiting())

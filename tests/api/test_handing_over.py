"""Events are handed over beside requests; when the server ends, what waits is handed over first."""

import threading

import pytest

from api.handing_over import WAITING_MAX, HandingOver


@pytest.fixture
def handed() -> list[str]:
    """The ids that were handed over, in order."""
    return []


def test_what_waits_is_handed_over_before_it_ends(handed: list[str]) -> None:
    handing_over = HandingOver(handed.append)
    for event_id in ("one", "two"):
        handing_over.add(event_id)

    handing_over.start()
    handing_over.close()

    assert handed == ["one", "two"]
    assert not handing_over._thread.is_alive()


def test_it_ends_though_nothing_comes_any_more(handed: list[str]) -> None:
    handing_over = HandingOver(handed.append)
    handing_over.start()

    handing_over.close(seconds=60)

    assert handed == []
    assert not handing_over._thread.is_alive()


def test_it_ends_with_a_full_line(handed: list[str]) -> None:
    """All of it is handed over."""
    is_taken, goes_on = threading.Event(), threading.Event()

    def hand_over(event_id: str) -> None:
        is_taken.set()
        assert goes_on.wait(60)
        handed.append(event_id)

    handing_over = HandingOver(hand_over)
    handing_over.start()
    handing_over.add("first")
    assert is_taken.wait(60)
    waiting = [str(number) for number in range(WAITING_MAX)]
    for event_id in waiting:
        handing_over.add(event_id)
    closing = threading.Thread(target=handing_over.close, args=(60,))
    closing.start()
    goes_on.set()
    closing.join()

    assert handed == ["first", *waiting]
    assert not handing_over._thread.is_alive()

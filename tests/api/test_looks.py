"""Looks: one at a time, kept a while, waited for within a bound."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.looks import KEPT_TIMES_ITS_COST, Look
from billing.errors import Unavailable


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_what_was_found_is_told_for_a_while_and_then_looked_for_again() -> None:
    watch, found = Watch(), iter(range(10))
    look = Look(lambda: next(found), kept_seconds=10, waited_seconds=5, tick=watch)
    seen = []

    for seconds in (0, 9.9, 0.1, 9.9, 0.1):
        watch.at += seconds
        seen.append(look.found())
    look.close()

    assert seen == [0, 0, 1, 1, 2]


def test_what_takes_long_is_looked_for_seldom() -> None:
    """A twentieth of the time at most, whatever it costs."""
    watch, found = Watch(), iter(range(10))

    def slowly() -> int:
        watch.at += 3
        return next(found)

    look = Look(slowly, kept_seconds=10, waited_seconds=5, tick=watch)
    seen = [look.found()]
    watch.at += 3 * KEPT_TIMES_ITS_COST - 1
    seen.append(look.found())
    watch.at += 1
    seen.append(look.found())
    look.close()

    assert seen == [0, 0, 1]


def test_a_failure_is_kept_as_well() -> None:
    """What is away is not asked by everybody who asks us."""
    watch, tries = Watch(), []

    def away() -> int:
        tries.append(watch.at)
        raise Unavailable("gone")

    look = Look(away, kept_seconds=10, waited_seconds=5, tick=watch)
    for seconds in (0, 5, 5):
        watch.at += seconds
        with pytest.raises(Unavailable, match="gone"):
            look.found()
    look.close()

    assert tries == [100, 110]


def test_many_who_ask_at_once_are_one_look_and_none_waits_beyond_the_bound() -> None:
    go, looks = threading.Event(), []

    def hanging() -> str:
        looks.append(1)
        go.wait(30)
        return "found"

    look = Look(hanging, kept_seconds=60, waited_seconds=0.2)

    def asked() -> str:
        try:
            return look.found()
        except TimeoutError:
            return "too long"

    with ThreadPoolExecutor(8) as pool:
        impatient = list(pool.map(lambda _: asked(), range(8)))
        go.set()
        patient = list(pool.map(lambda _: asked(), range(8)))
    look.close()

    assert impatient == ["too long"] * 8
    assert patient == ["found"] * 8
    assert looks == [1]

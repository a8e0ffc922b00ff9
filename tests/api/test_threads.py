"""Threads for questions: what runs in them is as if it were called."""

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import pytest

from api.threads import Threads

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(2)
    yield made
    made.close()


def test_it_runs_elsewhere_in_the_context_of_whoever_asks(threads: Threads) -> None:
    """Each in their own, and nothing of it stays in the thread."""

    def work() -> tuple[str, bool]:
        found = whose.get()
        whose.set("the thread's")
        return found, threading.current_thread() is threading.main_thread()

    async def of(name: str | None) -> tuple[str, bool]:
        if name is not None:
            whose.set(name)
        return await threads.run(work)

    async def story() -> list[tuple[str, bool]]:
        return list(await asyncio.gather(*(of(name) for name in ("ana", "bob", None, "eve", None))))

    assert [name for name, _ in asyncio.run(story())] == ["ana", "bob", "nobody's", "eve", "nobody's"]
    assert not any(is_main for _, is_main in asyncio.run(story()))


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no"), SystemExit(3), KeyboardInterrupt()])
def test_what_it_raises_is_raised_to_whoever_asked_and_the_thread_goes_on(
    threads: Threads, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    async def story() -> tuple[list[BaseException], int]:
        raised = []
        for _ in range(5):
            try:
                await threads.run(fail)
            except BaseException as one:  # noqa: BLE001 - whatever it is
                raised.append(one)
        return raised, await threads.run(lambda: 1)

    raised, after = asyncio.run(story())

    # A coroutine can't raise a StopIteration: asyncio would take it for a result.
    assert [one.__cause__ if isinstance(one, RuntimeError) else one for one in raised] == [error] * 5
    assert after == 1


def test_no_more_run_at_once_than_there_are_threads_and_the_rest_waits_its_turn(threads: Threads) -> None:
    lock, at_once, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    def work(number: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        both.wait(timeout=10)
        with lock:
            at_once -= 1
        return number

    async def story() -> list[int]:
        return list(await asyncio.gather(*(threads.run(partial(work, number)) for number in range(8))))

    assert asyncio.run(story()) == [*range(8)]
    assert most == 2


def test_whoever_is_cancelled_waits_no_longer_and_others_are_told(threads: Threads) -> None:
    may_end = threading.Event()

    async def story() -> int:
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def slow() -> None:
            loop.call_soon_threadsafe(has_begun.set)
            may_end.wait(10)

        waiting = asyncio.create_task(threads.run(slow))
        await has_begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other = await threads.run(lambda: 7)
        may_end.set()
        return other

    assert asyncio.run(story()) == 7


def test_what_ends_after_its_loop_ends_no_thread(threads: Threads) -> None:
    may_end = threading.Event()

    async def story() -> None:
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def slow() -> None:
            loop.call_soon_threadsafe(has_begun.set)
            may_end.wait(10)

        waiting = asyncio.create_task(threads.run(slow))
        await has_begun.wait()
        waiting.cancel()

    asyncio.run(story())
    may_end.set()

    assert [asyncio.run(threads.run(lambda: 7)) for _ in range(3)] == [7, 7, 7]


def test_closing_waits_for_what_was_begun_and_ends_the_threads() -> None:
    before = threading.active_count()
    threads, done = Threads(3), list[int]()

    async def story() -> None:
        waiting = [asyncio.create_task(threads.run(partial(done.append, number))) for number in range(20)]
        await asyncio.sleep(0)
        threads.close()
        await asyncio.gather(*waiting)

    asyncio.run(story())

    assert sorted(done) == [*range(20)]
    assert threading.active_count() == before

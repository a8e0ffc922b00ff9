"""Threads for questions: waiting for the database, beside the loop that serves connections."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Work(NamedTuple, Generic[T]):
    do: Callable[[], T]
    """In the context of whoever asked for it."""
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[tuple[T | None, BaseException | None]]"


class Threads:
    """So many threads, which take what there is to do from one line.

    The way there and back costs a tenth of what it does through anyio, where routes usually run; so many questions
    are as short as that way that it counts.
    """

    def __init__(self, number: int) -> None:
        self._line: SimpleQueue[_Work[Any] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"asked-{n}", daemon=True) for n in range(number)]
        for thread in self._threads:
            thread.start()

    async def run(self, do: Callable[[], T]) -> T:
        """What it returns, or raises, in one of the threads; in this context, so in the scope of this request.

        Whoever is cancelled waits no longer; what was begun goes on, and its outcome is forgotten.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = copy_context()
        self._line.put(_Work(lambda: context.run(do), loop, done))
        result, error = await done
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame, which the error's traceback holds, would hold it in turn
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the threads, once what stands in the line is done."""
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (work := self._line.get()) is not None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = work.do(), None
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                outcome = None, error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                work.loop.call_soon_threadsafe(_tell, work.done, outcome)
            # Nothing of it is kept until the next comes.
            del work, outcome


def _tell(done: "asyncio.Future[Any]", outcome: tuple[Any, BaseException | None]) -> None:
    if not done.done():
        done.set_result(outcome)

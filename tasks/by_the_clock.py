"""What time alone brings about is done only where this host's clock can be believed."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from config import clock
from services import clocks
from tasks.waiting import until_available

P = ParamSpec("P")
T = TypeVar("T")


def by_the_clock(task: Callable[P, T]) -> Callable[P, T]:
    """Compare the clocks before a task's work, once; where they are apart it fails, and nothing is done.

    What it would have done stands in rows, where a host whose clock is right finds it. Not for tasks that record
    usage: that goes on, and when it happened is said by whoever sends it.
    """

    @wraps(task)
    def compared(*args: P.args, **kwargs: P.kwargs) -> T:
        until_available(lambda: clocks.refuse_apart(clock.unmoved()))
        return task(*args, **kwargs)

    return compared

"""What happens to producers when their process forks or ends.

A fork copies memory but not threads: the events in a parent's buffer are sent by the parent, so the child
starts with an empty buffer and fresh locks. At the end of a process every producer that was not closed is
closed, with a few seconds to send what it holds.
"""

import atexit
import codecs
import os
import sys
import weakref
from typing import Any, Protocol

from centavo.events import Item, UsageEvent

EXIT_SECONDS_MAX = 5.0


class Living(Protocol):
    """What this module needs to know of a producer."""

    def start_over(self) -> None: ...

    def close(self, timeout: float = ...) -> int: ...


_alive: weakref.WeakSet[Living] = weakref.WeakSet()
_running: set[Living] = set()  # strong: a producer nobody refers to any more may still hold events


def born(producer: Living) -> None:
    _alive.add(producer)


def set_up_lazy_parts() -> None:
    """Use once, in the caller's thread, what sets itself up at its first use.

    A process that forks while another thread is at that leaves its child with a part half made, for good:
    pydantic then waits for a thread that is not there, and a host name's codec is never found again.
    """
    item = Item(category="-", provider="-", model="-", unit="-", quantity="1.5")
    UsageEvent(tenant_id="-", customer_id="-", items=(item,), metadata={"-": 1}).to_wire()
    codecs.lookup("idna")


def started(producer: Living) -> None:
    _running.add(producer)
    _hook_pools()


def ended(producer: Living) -> None:
    _running.discard(producer)


def close_all(*_: Any, **__: Any) -> None:
    """Close what still runs; harmless when repeated."""
    for producer in tuple(_running):
        producer.close(EXIT_SECONDS_MAX)


def _start_over_in_child() -> None:
    alive = tuple(_alive)  # nobody else may refer to those that run: gone, they would keep the parent's locks
    _running.clear()
    for producer in alive:
        producer.start_over()


def _hook_pools() -> None:
    """Pool processes end without running `atexit`: hook what they run instead, if this is one.

    Looked up rather than imported: a program without Celery must not pay for it.
    """
    if multiprocessing_util := sys.modules.get("multiprocessing.util"):
        multiprocessing_util.Finalize(None, close_all, exitpriority=0)
    if celery_signals := sys.modules.get("celery.signals"):
        celery_signals.worker_process_shutdown.connect(close_all, weak=False, dispatch_uid="centavo.close_all")


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_in_child)

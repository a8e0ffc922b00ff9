"""Where events are kept until nobody needs them any more: in the memory of the process, or on disk.

The buffer hands every event to its journal and goes by what it gets back, which is all it needs to have the
event again: in memory the event itself, on disk the place where it lies.
"""

from collections.abc import Iterable
from typing import Any, Protocol

#: What stands for an event in the buffer: whatever its journal can read it back from.
Kept = Any


class EventDamaged(OSError):
    """What is kept of an event is not what was written, and won't be again."""


class Journal(Protocol):
    """What the buffer asks of a journal. Every call comes under the buffer's lock, but for `read` and `sync`."""

    #: Whether what is in it outlives the process.
    durable: bool

    def take_over(self) -> Iterable[Kept]:
        """What dead processes left, oldest first. It stays kept until it is settled."""

    def append(self, event: bytes) -> Kept:
        """Keep this event. The event counts as emitted only once this returns; an error refuses it."""

    def has_room(self, size: int) -> bool:
        """Whether an event of so many bytes can be kept as well."""

    def size(self, kept: Kept) -> int:
        """How many bytes the event has."""

    def read(self, kept: Kept) -> bytes:
        """The event again. Raises `EventDamaged`, or another `OSError` where it may be read later."""

    def settle(self, kept: Iterable[Kept]) -> None:
        """Forget these: nobody will ask for them again."""

    def sync(self) -> None:
        """See to it that what was kept so far survives a power cut."""

    def close(self) -> None:
        """Let go of what is left, for another process to take over."""

    def for_child(self) -> "Journal":
        """The journal of a forked child, which leaves this one to the parent."""


def read_all(journal: Journal, kept: Iterable[Kept]) -> tuple[list[bytes], set[Kept]]:
    """These events again, and those that are damaged. Raises `OSError`."""
    events: list[bytes] = []
    damaged: set[Kept] = set()
    for one in kept:
        try:
            events.append(journal.read(one))
        except EventDamaged:  # the journal says so
            damaged.add(one)
    return events, damaged


class MemoryJournal:
    """Keeps nothing of its own: the buffer is the memory."""

    durable = False

    def take_over(self) -> Iterable[Kept]:
        return ()

    def append(self, event: bytes) -> Kept:
        return event

    def has_room(self, size: int) -> bool:
        del size
        return True

    def size(self, kept: Kept) -> int:
        return len(kept)

    def read(self, kept: Kept) -> bytes:
        return bytes(kept)

    def settle(self, kept: Iterable[Kept]) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass

    def for_child(self) -> "MemoryJournal":
        return MemoryJournal()

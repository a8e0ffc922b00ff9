"""Where events are kept until the broker has them.

Today that is the memory of the process, and what is in it dies with the process. A journal on disk can take
its place without a change elsewhere: the buffer tells its journal of every event it takes and of every event
the broker took, and a producer first sends what the journal still holds.
"""

from collections.abc import Iterable
from typing import Protocol


class Journal(Protocol):
    """What a producer asks of a journal; every call comes under the buffer's lock, in the order of events.

    A journal belongs to one process: the child of a fork goes on with a `MemoryJournal`.
    """

    def append(self, event: bytes) -> None:
        """Keep this event. The event counts as emitted only once this returns; an error refuses it."""

    def confirm(self, count: int) -> None:
        """Forget the `count` oldest events: the broker has them."""

    def replay(self) -> Iterable[bytes]:
        """The events that an earlier process kept and never confirmed, oldest first; asked for once.

        They stay kept (the buffer does not append them again) until they are confirmed.
        """


class MemoryJournal:
    """Keeps nothing of its own: the buffer is the memory."""

    def append(self, event: bytes) -> None:
        pass

    def confirm(self, count: int) -> None:
        pass

    def replay(self) -> Iterable[bytes]:
        return ()

"""The events between `emit` and the broker: bounded, in order, thread-safe.

Emitting threads append; one publishing thread takes batches from the other end. A batch stays here until the
broker has it, so whatever happens to the connection, nothing is lost and nothing changes its order. All the
work per event is done by the thread that emits it, under a lock that is never held for longer than a few
list operations; the publishing thread is woken once or twice per batch, not once per event.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, FRAME_BYTES, LINGER_SECONDS, Message
from centavo.errors import BufferFull, ProducerClosed
from centavo.journal import Journal

BUFFER_EVENTS_MAX = 100_000
BUFFER_BYTES_MAX = 64 * 1024 * 1024
BLOCK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How large envelopes and buffer may grow, and how long events and callers may wait."""

    envelope_events_max: int = ENVELOPE_EVENTS_MAX
    envelope_bytes_max: int = ENVELOPE_BYTES_MAX
    linger_seconds: float = LINGER_SECONDS
    buffer_events_max: int = BUFFER_EVENTS_MAX
    buffer_bytes_max: int = BUFFER_BYTES_MAX
    block_seconds: float = BLOCK_SECONDS

    def __post_init__(self) -> None:
        for name in ("envelope_events_max", "envelope_bytes_max", "buffer_events_max", "buffer_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("linger_seconds", "block_seconds"):
            if not 0 <= getattr(self, name) <= threading.TIMEOUT_MAX:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number of seconds, 0 or more")


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the events of this process so far: emitted = published + buffered + dropped.

    `envelopes` counts messages the broker took, `failures` attempts that it did not. `dropped` is what
    `close()` or the end of the process gave up on; it is 0 until then.
    """

    emitted: int
    published: int
    buffered: int
    dropped: int
    envelopes: int
    failures: int


@dataclass(eq=False, slots=True)
class Batch:
    """Events that travel together. `message` is set once packed, so that a second attempt sends the same."""

    events: list[bytes] = field(default_factory=list)
    message: Message | None = None


class Buffer:
    """Batches in the order in which they leave. The last one is open: events go there, and nowhere else.

    The lock is re-entrant, because a signal handler may emit, flush or close while the code it interrupts
    holds the lock, and may even give it up while it waits. So whoever changes something here does it in
    steps each of which leaves the buffer whole: an event enters by one `append` to the batch that is last
    at that instant, and a batch is sealed by one `append` of an empty batch behind it.
    """

    def __init__(self, limits: Limits, journal: Journal) -> None:
        self._limits = limits
        self._journal = journal
        lock = threading.RLock()
        self._lock = lock
        self._work = threading.Condition(lock)  # the publishing thread waits here for a batch,
        self._retry = threading.Condition(lock)  # and here between two attempts
        self._progress = threading.Condition(lock)  # callers wait here for room, or to see events leave
        self._hurried = False
        self._batches = deque([Batch()])
        self._open_bytes = FRAME_BYTES
        self._open_due_at = 0.0
        self._bytes = 0
        self._emitted = self._published = self._dropped = 0
        self._envelopes = self._failures = 0
        self._last_error: str | None = None
        self._closed = False
        with lock:
            for event in journal.replay():
                self._admit(event, len(event))

    @property
    def closed(self) -> bool:
        return self._closed

    # For the threads that emit

    def put(self, event: bytes) -> None:
        """Take this event; waits up to `block_seconds` for room. Raises `BufferFull`, `ProducerClosed`."""
        size = len(event)
        with self._lock:
            if self._closed:
                raise ProducerClosed
            if not self._has_room(size):
                self._wait_for_room(size)
            self._journal.append(event)
            self._admit(event, size)
            if self._closed:  # by a signal handler, in the middle of this
                raise ProducerClosed

    def flush(self, timeout: float) -> int:
        """Hurry until the broker has all events taken so far, or the time is up; returns how many it lacks."""
        with self._lock:
            target = self._emitted
            self._seal()
            self._hurry()
            self._progress.wait_for(lambda: self._published + self._dropped >= target, timeout)
            return max(target - self._published - self._dropped, 0)

    def close(self) -> None:
        """Take no more events; those already here can still be sent."""
        with self._lock:
            self._closed = True
            self._seal()
            self._work.notify()
            self._progress.notify_all()

    def abandon(self) -> int:
        """Give up on what is left, and say how much that is."""
        with self._lock:
            left = self._buffered()
            self._dropped += left
            self._batches = deque([Batch()])
            self._bytes = 0
            self._hurry()
            self._work.notify()
            self._progress.notify_all()
            return left

    def counters(self) -> Counters:
        with self._lock:
            return Counters(
                emitted=self._emitted,
                published=self._published,
                buffered=self._buffered(),
                dropped=self._dropped,
                envelopes=self._envelopes,
                failures=self._failures,
            )

    @property
    def last_error(self) -> str | None:
        """Why the latest attempt failed; None when it did not."""
        return self._last_error

    # For the thread that publishes

    def next_batch(self) -> Batch | None:
        """Wait for the oldest batch that is full, or has lingered; None once closed and empty.

        The batch stays at the head of the buffer until `confirm`.
        """
        with self._lock:
            while True:
                batch = self._batches[0]
                if len(self._batches) > 1:
                    if batch.events:
                        return batch
                    self._batches.popleft()
                elif not batch.events:
                    if self._closed:
                        return None
                    self._work.wait()
                elif (linger := self._open_due_at - time.monotonic()) > 0:
                    self._work.wait(linger)
                else:
                    self._seal()

    def confirm(self, batch: Batch) -> None:
        """The broker has this batch: forget it."""
        size = sum(map(len, batch.events))
        with self._lock:
            self._last_error = None
            self._envelopes += 1
            if self._batches[0] is not batch:
                return  # given up on in the meantime, and counted as dropped
            self._batches.popleft()
            self._published += len(batch.events)
            self._bytes -= size
            self._journal.confirm(len(batch.events))
            self._progress.notify_all()

    def fail(self, reason: str) -> None:
        """An attempt failed: the batch stays where it is."""
        with self._lock:
            self._failures += 1
            self._last_error = reason

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt; a flush or close in the meantime asks for it at once."""
        with self._lock:
            self._retry.wait_for(lambda: self._hurried, seconds)
            self._hurried = False

    # Under the lock

    def _admit(self, event: bytes, size: int) -> None:
        if self._open_bytes + size > self._limits.envelope_bytes_max:
            self._seal()
        self._batches[-1].events.append(event)
        self._bytes += size
        self._open_bytes += size + 1  # a comma stands between two events
        self._emitted += 1
        count = len(self._batches[-1].events)
        if count >= self._limits.envelope_events_max:
            self._seal()
        elif count == 1:
            self._open_due_at = time.monotonic() + self._limits.linger_seconds
            self._work.notify()

    def _seal(self) -> None:
        if self._batches[-1].events:
            self._open_bytes = FRAME_BYTES
            self._batches.append(Batch())
            self._work.notify()

    def _hurry(self) -> None:
        self._hurried = True
        self._retry.notify()

    def _buffered(self) -> int:
        return max(self._emitted - self._published - self._dropped, 0)

    def _has_room(self, size: int) -> bool:
        buffered = self._buffered()
        if buffered >= self._limits.buffer_events_max:
            return False
        # An event larger than the whole buffer still passes, alone: refusing it for ever would lose it.
        return self._bytes + size <= self._limits.buffer_bytes_max or not buffered

    def _wait_for_room(self, size: int) -> None:
        block_seconds = self._limits.block_seconds
        if not self._progress.wait_for(lambda: self._closed or self._has_room(size), block_seconds):
            raise BufferFull(
                events=self._buffered(),
                size=self._bytes,
                waited_seconds=block_seconds,
                last_error=self._last_error,
            )
        if self._closed:
            raise ProducerClosed

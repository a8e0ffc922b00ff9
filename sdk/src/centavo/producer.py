"""`Producer`: emit usage events and forget them."""

import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from centavo import lifecycle
from centavo.buffer import BLOCK_SECONDS, BUFFER_BYTES_MAX, BUFFER_EVENTS_MAX, Buffer, Counters, Limits
from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, LINGER_SECONDS, QUEUE
from centavo.events import UsageEvent
from centavo.journal import Journal, MemoryJournal

if TYPE_CHECKING:
    from centavo.publisher import Publisher

CLOSE_SECONDS_MAX = lifecycle.EXIT_SECONDS_MAX

logger = logging.getLogger("centavo")


class Producer:
    """Sends usage events to Centavo's workers through a broker, in envelopes, from a background thread.

    `emit` costs microseconds whether the broker is up or down, until the buffer is full. Make one producer
    per process and share it: it may be used from any thread and survives a fork (the child begins empty;
    the parent sends what the parent emitted). The connection and its thread are made at the first `emit`.

    `broker_url` is what the workers use: `redis://host:6379/0` or `amqp://user:password@host//`.
    An envelope leaves when it holds `envelope_events_max` events or `envelope_bytes_max` bytes, or
    `linger_seconds` after its first event. The buffer holds up to `buffer_events_max` events and
    `buffer_bytes_max` bytes of them; when it is full `emit` waits up to `block_seconds`, then raises
    `BufferFull`. `transport_options` go to kombu's transport, over the producer's own.

    Under asyncio: `emit` blocks only while the buffer is full. Where even that may not be, use
    `block_seconds=0`, or `await asyncio.to_thread(producer.emit, event)`.

    Raises `ValueError` for a URL or limit that cannot work.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        queue: str = QUEUE,
        envelope_events_max: int = ENVELOPE_EVENTS_MAX,
        envelope_bytes_max: int = ENVELOPE_BYTES_MAX,
        linger_seconds: float = LINGER_SECONDS,
        buffer_events_max: int = BUFFER_EVENTS_MAX,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
        block_seconds: float = BLOCK_SECONDS,
        transport_options: Mapping[str, Any] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._limits = Limits(
            envelope_events_max=envelope_events_max,
            envelope_bytes_max=envelope_bytes_max,
            linger_seconds=linger_seconds,
            buffer_events_max=buffer_events_max,
            buffer_bytes_max=buffer_bytes_max,
            block_seconds=block_seconds,
        )
        self._destination = (broker_url, queue, dict(transport_options or {}))
        self._address = self._publisher().address
        self._buffer = Buffer(self._limits, journal or MemoryJournal())
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._is_starting = False
        lifecycle.set_up_lazy_parts()
        lifecycle.born(self)
        if self._buffer.counters().buffered:
            self._start()  # the journal brought events of an earlier process

    def emit(self, event: UsageEvent) -> None:
        """Take this event; it is sent in the background, and sent again until the broker has it.

        Raises `BufferFull` when there was no room for `block_seconds`, and `ProducerClosed`: in both cases
        the event was not taken. Emit the same event again, not a copy: its key makes it charged once.
        """
        encoded = event.to_wire()
        if self._thread is None:
            self._start()
        self._buffer.put(encoded)

    def flush(self, timeout: float = CLOSE_SECONDS_MAX) -> int:
        """Send now what was emitted so far, waiting up to `timeout` seconds for the broker to take it.

        Returns how many of those events the broker does not have yet: 0 means all are sent. What is left
        stays in the buffer and is tried again.
        """
        return self._buffer.flush(timeout)

    def close(self, timeout: float = CLOSE_SECONDS_MAX) -> int:
        """Take no more events, send the rest within `timeout` seconds, disconnect.

        Returns how many events could not be sent; they are lost with this process, counted as `dropped` and
        reported as an error to the logger `centavo`. Repeating it is harmless. Called at exit if you do not.
        """
        deadline = time.monotonic() + timeout
        self._buffer.close()
        self._buffer.flush(timeout)
        dropped = self._buffer.abandon()
        if dropped:
            logger.error(
                "%d usage events were not sent to %s within %g s and are lost with this process (%s)",
                dropped,
                self._address,
                timeout,
                self._buffer.last_error or "the broker takes them too slowly",
            )
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0))
        lifecycle.ended(self)
        return dropped

    @property
    def counters(self) -> Counters:
        """What became of this process's events so far."""
        return self._buffer.counters()

    def start_over(self) -> None:
        """Forget the parent's events, thread and locks: called in the child of a fork, by `lifecycle`."""
        closed = self._buffer.closed
        self._buffer = Buffer(self._limits, MemoryJournal())
        self._thread = None
        self._starting = threading.RLock()
        self._is_starting = False
        if closed:
            self._buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        with self._starting:
            # A signal handler that emits may come in here between any two lines of its own thread's start, and
            # the lock lets it: a second background thread would send everything twice.
            if self._thread is not None or self._is_starting or self._buffer.closed:
                return
            self._is_starting = True
            try:
                self._start_thread()
            finally:
                self._is_starting = False

    def _start_thread(self) -> None:
        # The thread alone refers to its publisher, so a forked child never touches the parent's connection.
        publisher = self._publisher()
        thread = threading.Thread(target=publisher.run, args=(self._buffer,), name="centavo-producer", daemon=True)
        thread.start()
        self._thread = thread
        lifecycle.started(self)

    def _publisher(self) -> "Publisher":
        # kombu takes a while to import: only those who send pay for it.
        from centavo.publisher import Publisher

        return Publisher(*self._destination)

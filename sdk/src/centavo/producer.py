"""`Producer`: emit usage events and forget them."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from centavo import lifecycle
from centavo.buffer import Buffer
from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, LINGER_SECONDS, QUEUE
from centavo.events import UsageEvent
from centavo.journal import Journal, MemoryJournal
from centavo.limits import (
    BLOCK_SECONDS,
    BUFFER_BYTES_MAX,
    BUFFER_EVENTS_MAX,
    JOURNAL_BYTES_MAX,
    RESEND_SECONDS,
    UNRECEIPTED_BYTES_MAX,
    Counters,
    Limits,
    OnFull,
)
from centavo.shards import shard_of

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
    `BufferFull`; with `on_full="raise"` it raises at once, with `on_full="drop"` it lets the event go, counted
    and logged. `transport_options` go to kombu's transport, over the producer's own.

    Envelopes that the broker took are kept until a worker says that it recorded them (a *receipt*), up to
    `unreceipted_bytes_max` bytes of compressed messages. Those whose receipt is overdue by `resend_seconds` are
    sent again, as brokers lose messages: set it to twice the workers' `CENTAVO_VISIBILITY_TIMEOUT_SECONDS`.

    With `shards` of two or more, a customer's events go to one of the queues `usage.0`, `usage.1`, …, for workers
    that take some of these each (`centavo.shards`; the workers' `CENTAVO_USAGE_SHARDS` must be as large). Each
    shard has an envelope of its own that fills; every other limit is for all of them together. Workers charge
    events wherever they find them, so the number may change, also under a journal. On RabbitMQ a shard that no
    worker has declared yet goes to `usage`.

    `journal` is a directory in which events are kept as well, until nobody needs them any more: `emit` has
    written the event to a file there when it returns (it is synced with each envelope), and what a process leaves
    behind, whatever ended it, the next producer with this directory sends first. Processes may share it; the disk
    must be a local one. `journal_bytes_max` bounds each process's part of it, in place of `buffer_events_max`
    and `buffer_bytes_max`.

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
        on_full: OnFull = "block",
        resend_seconds: float = RESEND_SECONDS,
        unreceipted_bytes_max: int = UNRECEIPTED_BYTES_MAX,
        transport_options: Mapping[str, Any] | None = None,
        journal: str | os.PathLike[str] | None = None,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
        shards: int = 1,
    ) -> None:
        self._limits = Limits(
            envelope_events_max=envelope_events_max,
            envelope_bytes_max=envelope_bytes_max,
            linger_seconds=linger_seconds,
            buffer_events_max=buffer_events_max,
            buffer_bytes_max=buffer_bytes_max,
            block_seconds=block_seconds,
            on_full=on_full,
            resend_seconds=resend_seconds,
            unreceipted_bytes_max=unreceipted_bytes_max,
            shards=shards or 1,
        )
        self._shards = self._limits.shards
        self._destination = (broker_url, queue, dict(transport_options or {}), self._shards)
        self._address = self._publisher().address
        self._journal = _journal_in(journal, journal_bytes_max)
        self._buffer = Buffer(self._limits, self._journal)
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._is_starting = False
        lifecycle.set_up_lazy_parts()
        lifecycle.born(self)
        self._buffer.take_over()
        self._has_taken_over = True
        if self._buffer.counters().buffered:
            self._start()

    def emit(self, event: UsageEvent) -> None:
        """Take this event; it is sent in the background, and sent again until the broker has it.

        Raises `BufferFull` when there was no room for `block_seconds`, and `ProducerClosed`: in both cases
        the event was not taken. Emit the same event again, not a copy: its key makes it charged once.
        """
        encoded = event.to_wire()
        if self._thread is None:
            self._start()
        if self._shards == 1:
            self._buffer.put(encoded, 0)
        else:
            self._buffer.put(encoded, shard_of(event.tenant_id, event.customer_id, self._shards))

    def flush(self, timeout: float = CLOSE_SECONDS_MAX, *, received: bool = False) -> int:
        """Send now what was emitted so far, waiting up to `timeout` seconds for the broker to take it.

        Returns how many of those events the broker does not have yet: 0 means all are sent. What is left
        stays in the buffer and is tried again.

        With `received=True` it waits until workers have said that they charged or parked them, and returns for
        how many they have not. That takes a worker that runs and gives receipts; it is for tests and for the end
        of a batch job, not for a request.
        """
        return self._buffer.flush(timeout, received=received)

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
            self._say_what_is_left(dropped, timeout)
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0))
        self._buffer.let_go()
        lifecycle.ended(self)
        return dropped

    def _say_what_is_left(self, events: int, seconds: float) -> None:
        durable = self._journal.durable
        logger.log(
            logging.WARNING if durable else logging.ERROR,
            "%d usage events were not sent to %s within %g s and %s (%s)",
            events,
            self._address,
            seconds,
            "wait in the journal for the next producer" if durable else "are lost with this process",
            self._buffer.last_error or "the broker takes them too slowly",
        )

    @property
    def counters(self) -> Counters:
        """What became of this process's events so far."""
        return self._buffer.counters()

    def start_over(self) -> None:
        """Forget the parent's events, thread and locks: called in the child of a fork, by `lifecycle`."""
        closed = self._buffer.closed
        self._journal = self._journal.for_child()
        self._has_taken_over = False  # a child that emits nothing has no use for what others left
        self._buffer = Buffer(self._limits, self._journal)
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
        if not self._has_taken_over:
            self._has_taken_over = True
            self._buffer.take_over()
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


def _journal_in(directory: str | os.PathLike[str] | None, bytes_max: int) -> Journal:
    if directory is None:
        return MemoryJournal()
    try:
        from centavo.disk import DiskJournal
    except ImportError as error:  # no `fcntl`
        raise ValueError("a journal on disk needs file locks as Linux and macOS have them") from error
    return DiskJournal(directory, bytes_max)

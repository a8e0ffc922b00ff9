"""What can go wrong in a producer, and what to do about it.

CentavoError
├── BufferFull       the broker takes nothing and the buffer is full: emit again later, with the same key
├── ProducerClosed   the producer was closed: make a new one
└── UsageMalformed   a provider's usage numbers contradict each other: look at them before billing them
"""


class CentavoError(Exception):
    """Anything this package raises on purpose, apart from pydantic's `ValidationError`."""


class BufferFull(CentavoError):
    """The buffer is full and no room came free in time; the event was not taken.

    `events` and `bytes` say how much waits, `waited_seconds` how long this call waited, `last_error` why
    the broker took nothing (None when it is merely slower than the producer).
    """

    def __init__(self, *, events: int, size: int, waited_seconds: float, last_error: str | None) -> None:
        self.events = events
        self.bytes = size
        self.waited_seconds = waited_seconds
        self.last_error = last_error
        cause = f"the broker fails with: {last_error}" if last_error else "the broker takes them too slowly"
        super().__init__(
            f"{events} usage events ({size} bytes) wait to be sent and no room came free in "
            f"{waited_seconds:g} s; {cause}. This event was not taken: emit the same event again later, "
            f"or give the producer a larger buffer_events_max, buffer_bytes_max, journal_bytes_max or block_seconds."
        )


class ProducerClosed(CentavoError):
    """This producer was closed, by `close()` or because the process is ending; the event was not taken."""

    def __init__(self) -> None:
        super().__init__("this producer is closed and takes no more events; make a new Producer")


class UsageMalformed(CentavoError, ValueError):
    """A usage object lacks a number, or its numbers contradict each other; nothing was made of it."""

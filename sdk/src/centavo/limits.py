"""What a producer is told, and what it tells: bounds and counters."""

import threading
from dataclasses import dataclass
from typing import Literal

from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, LINGER_SECONDS
from centavo.shards import SHARDS_MAX

BUFFER_EVENTS_MAX = 100_000
BUFFER_BYTES_MAX = 64 * 1024 * 1024
BLOCK_SECONDS = 1.0
JOURNAL_BYTES_MAX = 256 * 1024 * 1024

#: Twice as long as a message may be away with a worker that died: `CENTAVO_VISIBILITY_TIMEOUT_SECONDS` is 300.
RESEND_SECONDS = 600.0
#: Of messages that wait in memory for a receipt; 500 events weigh some 20 KB there.
UNRECEIPTED_BYTES_MAX = 16 * 1024 * 1024

SIZES = ("envelope_events_max", "envelope_bytes_max", "buffer_events_max", "buffer_bytes_max", "unreceipted_bytes_max")

OnFull = Literal["block", "raise", "drop"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How large envelopes and buffer may grow, how long events and callers may wait, and what happens then.

    Those of an envelope are for each shard, which has its own; all others are for all shards together.
    """

    envelope_events_max: int = ENVELOPE_EVENTS_MAX
    envelope_bytes_max: int = ENVELOPE_BYTES_MAX
    linger_seconds: float = LINGER_SECONDS
    buffer_events_max: int = BUFFER_EVENTS_MAX
    buffer_bytes_max: int = BUFFER_BYTES_MAX
    block_seconds: float = BLOCK_SECONDS
    on_full: OnFull = "block"
    resend_seconds: float = RESEND_SECONDS
    unreceipted_bytes_max: int = UNRECEIPTED_BYTES_MAX
    shards: int = 1

    def __post_init__(self) -> None:
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("linger_seconds", "block_seconds"):
            if not 0 <= getattr(self, name) <= threading.TIMEOUT_MAX:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number of seconds, 0 or more")
        if not 0 < self.resend_seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"resend_seconds is {self.resend_seconds}; it must be a number of seconds above 0")
        if not 1 <= self.shards <= SHARDS_MAX:
            raise ValueError(f"shards is {self.shards}; it must be a number from 0 to {SHARDS_MAX}")
        if self.on_full not in {"block", "raise", "drop"}:
            raise ValueError(f'on_full is {self.on_full!r}; it must be "block", "raise" or "drop"')


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the events of this process so far: emitted = published + buffered + dropped.

    `envelopes` counts messages the broker took, `failures` attempts that it did not. `dropped` is what
    `close()` or the end of the process gave up on (with a journal on disk it waits there), and what a journal on disk
    that is damaged can't give back; else it is 0.
    Of the published, `received` are known to be charged or parked, `unreceipted` wait for that word, and
    `unwatched` were let go without it, for want of room: the broker had them, and nobody asks again.
    `resent` counts messages sent again for want of a receipt.
    `adopted` of the emitted were taken over from dead processes. `overflowed` counts what `on_full="drop"` let
    go; it was never taken, and is in no other number.
    """

    emitted: int
    published: int
    buffered: int
    dropped: int
    envelopes: int
    failures: int
    adopted: int = 0
    overflowed: int = 0
    received: int = 0
    unreceipted: int = 0
    unwatched: int = 0
    resent: int = 0

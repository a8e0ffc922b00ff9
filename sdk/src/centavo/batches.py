"""Batches, and those that the broker has and no worker has confirmed.

A worker that has recorded an envelope says so in a receipt, which names the message. Brokers lose messages,
and receipts too, so nothing waits for a receipt; what comes of a missing one is that the envelope is sent again.
"""

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from centavo.envelopes import FRAME_BYTES, Message, Stamp
from centavo.journal import Kept

#: An envelope is sent again after once, twice, four times … `resend_seconds`, up to 64 times as long.
BACK_OFF_MAX = 6


@dataclass(eq=False, slots=True)
class Batch:
    """Events that travel together. `stamp` is set once packed, so that a second attempt sends the same.

    Once the broker has it, one of `events` and `message` is enough to send it again, whichever is smaller.
    """

    events: list[Kept] = field(default_factory=list)
    shard: int = 0
    due_at: float = 0.0  # when it leaves though it is not full; 0 until it has an event
    stamp: Stamp | None = None
    message: Message | None = None
    count: int = 0  # from here on, once the broker has it
    message_ids: list[str] = field(default_factory=list)  # under which it was sent
    number: int = 0  # of its latest sending
    sent_at: float = 0.0
    is_received: bool = False


class Shard:
    """The batches for one queue, in the order in which they leave. The last one is open: events go there alone.

    Every change is a step that leaves it whole, whoever interrupts: see `Buffer`.
    """

    __slots__ = ("batches", "entered", "failed_at", "left", "number", "open_bytes")

    def __init__(self, number: int) -> None:
        self.number = number
        self.entered = 0  # events so far,
        self.left = 0  # and how many of them are here no more
        self.failed_at = 0.0  # when an attempt failed, since the last that did not
        self.empty()

    def empty(self) -> None:
        self.left = self.entered
        self.open_bytes = FRAME_BYTES
        self.batches = deque([Batch(shard=self.number)])

    def seal(self) -> bool:
        """Begin another batch behind the open one; False if that is empty."""
        if not self.batches[-1].events:
            return False
        self.open_bytes = FRAME_BYTES
        self.batches.append(Batch(shard=self.number))
        return True

    @property
    def oldest(self) -> Batch | None:
        """The batch that leaves next; None if there is none but the open one."""
        while len(self.batches) > 1:
            if self.batches[0].events:
                return self.batches[0]
            self.batches.popleft()
        return None

    @property
    def is_empty(self) -> bool:
        return len(self.batches) == 1 and not self.batches[0].events

    @property
    def due_at(self) -> float:
        """When the open batch leaves though it is not full."""
        batch = self.batches[-1]
        return batch.due_at if batch.events else float("inf")


@dataclass(eq=False, slots=True)
class _Sent:
    """What the queue of one shard was handed, in the order in which it was sent last, and how far it was taken."""

    batches: dict[Batch, None] = field(default_factory=dict)
    received_up_to: int = 0  # the latest sending of which there is a receipt
    probes: int = 0
    probed_at: float = float("-inf")

    @property
    def oldest(self) -> Batch | None:
        return next(iter(self.batches), None)


class Unreceipted:
    """Batches that the broker took. Used under the buffer's lock.

    Messages of one queue are taken in order, more or less. So a receipt for a later message tells that an earlier
    one of the same queue, of which nothing was heard for longer than any worker may keep it, is lost: it is sent
    again. Without such a receipt nobody can tell a lost message from a long queue, and sending all of it again would
    make the queue longer. Then only the oldest batch is sent again, less and less often, as a *probe*: its receipt
    tells about all others. One queue's receipts say nothing of another queue, which may be longer, or untaken.
    """

    def __init__(self, resend_seconds: float, shards: int = 1) -> None:
        self._resend_seconds = resend_seconds
        self._numbers = itertools.count(1)
        self._shards = tuple(_Sent() for _ in range(shards))
        self._sendings: dict[str, tuple[Batch, int]] = {}
        self.events = 0
        self.bytes = 0  # of messages kept in memory

    def __bool__(self) -> bool:
        return bool(self._sendings)

    def sent(self, batch: Batch, message_id: str, now: float) -> None:
        """The broker has this batch, in a message of this id."""
        batches = self._shards[batch.shard].batches
        if batch in batches:
            del batches[batch]
        else:
            self.events += batch.count
            self.bytes += len(batch.message.body) if batch.message else 0
        batches[batch] = None
        batch.number = next(self._numbers)
        batch.sent_at = now
        batch.message_ids.append(message_id)
        self._sendings[message_id] = batch, batch.number

    def received(self, message_id: str) -> Batch | None:
        """A receipt for this message; the batch it settles, None if that is known or nobody's."""
        batch, number = self._sendings.get(message_id, (None, 0))
        if batch is None:
            return None
        shard = self._shards[batch.shard]
        shard.received_up_to = max(shard.received_up_to, number)
        shard.probes = 0
        batch.is_received = True
        self.forget(batch)
        return batch

    def due(self, now: float) -> Batch | None:
        """A batch to send again now; the caller reports it `sent`."""
        return next((batch for shard in self._shards if (batch := self._due_of(shard, now))), None)

    def reconnected(self) -> None:
        """Who knows what the broker lost meanwhile: a probe may leave as soon as it is due."""
        for shard in self._shards:
            shard.probes = 0
            shard.probed_at = float("-inf")

    def give_up(self) -> Batch | None:
        """Forget the oldest batch; None if there is none."""
        oldest = [batch for shard in self._shards if (batch := shard.oldest)]
        if not oldest:
            return None
        batch = min(oldest, key=lambda one: one.number)
        self.forget(batch)
        return batch

    def forget(self, batch: Batch) -> None:
        """Nobody waits for a receipt for this batch any more."""
        del self._shards[batch.shard].batches[batch]
        for message_id in batch.message_ids:
            del self._sendings[message_id]
        self.events -= batch.count
        self.bytes -= len(batch.message.body) if batch.message else 0

    def waiting(self) -> list[Batch]:
        return [batch for shard in self._shards for batch in shard.batches]

    def holds_any(self, batches: Iterable[Batch]) -> bool:
        return any(batch in self._shards[batch.shard].batches for batch in batches)

    def _due_of(self, shard: _Sent, now: float) -> Batch | None:
        for batch in shard.batches:
            if now - batch.sent_at < self._resend_seconds:
                break
            if batch.number < shard.received_up_to and now - batch.sent_at >= self._patience(len(batch.message_ids)):
                return batch
        oldest = shard.oldest
        if oldest is None or oldest.number < shard.received_up_to:
            return None
        if now - max(oldest.sent_at, shard.probed_at) < self._patience(shard.probes + 1):
            return None
        shard.probes += 1
        shard.probed_at = now
        return oldest

    def _patience(self, sendings: int) -> float:
        return float(self._resend_seconds * 2 ** min(sendings - 1, BACK_OFF_MAX))

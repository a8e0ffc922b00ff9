"""The events between `emit` and the broker: bounded, in order, thread-safe.

Emitting threads append; one publishing thread takes batches from the other end. A batch stays here until the
broker has it, so whatever happens to the connection, nothing is lost and nothing changes its order. All the
work per event is done by the thread that emits it, under a lock that is never held for longer than a few
list operations; the publishing thread is woken once or twice per batch, not once per event.

Batches that the broker has stand aside until a worker's receipt comes (`batches.py`); they are in nobody's way.
"""

import logging
import threading
import time
from collections.abc import Iterable

from centavo.batches import Batch, Shard, Unreceipted
from centavo.envelopes import Message, celery_message, new_stamp, pack
from centavo.errors import BufferFull, ProducerClosed
from centavo.journal import Journal, Kept, read_all
from centavo.limits import Counters, Limits
from centavo.shards import shard_on_wire

#: How often receipts are looked for, and how often while somebody waits for them.
LOOK_SECONDS = 0.5
LOOK_SOON_SECONDS = 0.02

logger = logging.getLogger("centavo")


class Buffer:
    """Shards, each with batches in the order in which they leave; the bounds are for all of them together.

    The lock is re-entrant, because a signal handler may emit, flush or close while the code it interrupts
    holds the lock, and may even give it up while it waits. So whoever changes something here does it in
    steps each of which leaves the buffer whole: an event enters by one `append` to the batch that is last
    at that instant, and a batch is sealed by one `append` of an empty batch behind it.
    """

    def __init__(self, limits: Limits, journal: Journal) -> None:
        self._limits = limits
        self._journal = journal
        lock = self._lock = threading.RLock()
        self._work = threading.Condition(lock)  # the publishing thread waits here for a batch,
        self._retry = threading.Condition(lock)  # and here between two attempts
        self._progress = threading.Condition(lock)  # callers wait here for room, or to see events leave
        self._hurried = False
        self._shards = tuple(Shard(number) for number in range(limits.shards))
        self._wakes_at = float("inf")  # when the publishing thread looks by itself
        self._bytes = 0
        self._emitted = self._published = self._dropped = 0
        self._adopted = self._overflowed = self._received = self._unwatched = self._resent = 0
        self._unreceipted = Unreceipted(limits.resend_seconds, limits.shards)
        self._awaiting_receipts = self._envelopes = self._failures = 0
        self._last_error: str | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def take_over(self) -> None:
        """Take what dead processes left in the journal."""
        with self._lock:
            for kept in self._journal.take_over():
                self._adopted += 1
                self._admit(kept, self._journal.size(kept), self._shard_of(kept))

    # For the threads that emit

    def put(self, event: bytes, shard: int = 0) -> None:
        """Take this event into a shard; without room, do as `on_full` says. Raises `BufferFull`, `ProducerClosed`."""
        size = len(event)
        with self._lock:
            if self._closed:
                raise ProducerClosed
            if not self._has_room(size) and not self._make_room(size):
                return
            self._admit(self._journal.append(event), size, shard)
            if self._closed:  # by a signal handler, in the middle of this
                raise ProducerClosed

    def flush(self, timeout: float, *, received: bool = False) -> int:
        """Hurry until the broker has all events taken so far, or the time is up; returns how many it lacks.

        With `received`, until workers have said that they recorded them; returns for how many that is not said.
        """
        deadline = time.monotonic() + timeout
        self._journal.sync()
        with self._lock:
            # Each shard by itself: what entered another one later may leave it sooner.
            targets = [(shard, shard.entered) for shard in self._shards]
            self._seal_all()
            self._hurry()
            self._progress.wait_for(lambda: all(shard.left >= target for shard, target in targets), timeout)
            missing = sum(max(target - shard.left, 0) for shard, target in targets)
            return missing + self._wait_for_receipts(deadline) if received else missing

    def close(self) -> None:
        """Take no more events; those already here can still be sent."""
        with self._lock:
            self._closed = True
            self._seal_all()
            self._work.notify()
            self._progress.notify_all()

    def abandon(self) -> int:
        """Give up on what is left, and say how much that is."""
        with self._lock:
            left = self._buffered()
            self._dropped += left
            for shard in self._shards:
                shard.empty()
            self._bytes = 0
            self._hurry()
            self._work.notify()
            self._progress.notify_all()
            return left

    def let_go(self) -> None:
        """Leave what the journal still keeps to other processes."""
        with self._lock:
            self._journal.close()

    def counters(self) -> Counters:
        with self._lock:
            return Counters(
                emitted=self._emitted,
                published=self._published,
                buffered=self._buffered(),
                dropped=self._dropped,
                envelopes=self._envelopes,
                failures=self._failures,
                adopted=self._adopted,
                overflowed=self._overflowed,
                received=self._received,
                unreceipted=self._unreceipted.events,
                unwatched=self._unwatched,
                resent=self._resent,
            )

    @property
    def last_error(self) -> str | None:
        """Why the latest attempt failed; None when it did not."""
        return self._last_error

    # For the thread that publishes

    @property
    def is_finished(self) -> bool:
        """Closed, and nothing is left to be sent."""
        with self._lock:
            return self._closed and self._is_empty()

    def next_batch(self) -> Batch | None:
        """Wait for the oldest batch that is full, or has lingered; of a shard that fails only if there is no other.

        None when it is finished, or when it is time to look for receipts. The batch stays at the head of its
        shard until `confirm`.
        """
        with self._lock:
            while True:
                now = time.monotonic()
                for shard in self._shards:
                    if shard.due_at <= now:
                        shard.seal()
                ready = [batch for shard in self._shards if (batch := shard.oldest)]
                if ready:
                    return min(ready, key=lambda batch: (self._shards[batch.shard].failed_at, batch.due_at))
                if self._closed and self._is_empty():
                    return None
                if not self._wait_for_work(now) and self._unreceipted:
                    return None

    def message_of(self, batch: Batch) -> Message | None:
        """The message that carries this batch: the same each time it is sent. None if no event of it can be read."""
        if batch.message is None:
            self._journal.sync()
            batch.stamp = batch.stamp or new_stamp()
            events, damaged = read_all(self._journal, batch.events)
            if damaged:  # they would hold up all others for as long as this process lives
                with self._lock:
                    self._give_up(batch, damaged)
            if not events:
                return None
            batch.message = celery_message(pack(events, batch.stamp))
        return batch.message

    def confirm(self, batch: Batch) -> None:
        """The broker has this batch: from here on it waits for its receipt, without being in anybody's way."""
        size = sum(map(self._journal.size, batch.events))
        with self._lock:
            self._last_error = None
            self._envelopes += 1
            batches = self._shards[batch.shard].batches
            if batches[0] is not batch:
                return  # given up on in the meantime, and counted as dropped
            batches.popleft()
            self._shards[batch.shard].left += len(batch.events)
            self._shards[batch.shard].failed_at = 0.0
            self._published += len(batch.events)
            self._bytes -= size
            self._keep_until_received(batch)
            self._progress.notify_all()

    def received(self, message_ids: Iterable[str]) -> None:
        """Workers have recorded these: nobody needs them any more."""
        with self._lock:
            for message_id in message_ids:
                if batch := self._unreceipted.received(message_id):
                    self._received += batch.count
                    self._journal.settle(batch.events)
            self._progress.notify_all()

    @property
    def awaits_receipts(self) -> bool:
        with self._lock:
            return bool(self._unreceipted)

    @property
    def is_asked_for_receipts(self) -> bool:
        """Whether somebody waits for them."""
        return self._awaiting_receipts > 0

    def due_again(self) -> Batch | None:
        """A batch of which nothing was heard for so long that it is to be sent again; then `confirm_again`."""
        with self._lock:
            return self._unreceipted.due(time.monotonic())

    def confirm_again(self, batch: Batch, message_id: str) -> None:
        """The broker has this batch once more, in a message of this id."""
        with self._lock:
            self._resent += 1
            if self._journal.durable:
                batch.message = None
            if self._unreceipted.holds_any((batch,)):
                self._unreceipted.sent(batch, message_id, time.monotonic())

    def reconnected(self) -> None:
        with self._lock:
            self._unreceipted.reconnected()

    def fail(self, reason: str, shard: int = 0) -> None:
        """An attempt failed: the batch stays where it is, and other shards go before."""
        with self._lock:
            self._failures += 1
            self._shards[shard].failed_at = time.monotonic()
            self._last_error = reason

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt; a flush or close in the meantime asks for it at once."""
        self._journal.sync()
        with self._lock:
            self._retry.wait_for(lambda: self._hurried, seconds)
            self._hurried = False

    # Under the lock

    def _give_up(self, batch: Batch, damaged: set[Kept]) -> None:
        shard = self._shards[batch.shard]
        if shard.batches[0] is batch:
            shard.left += len(damaged)
            self._dropped += len(damaged)
            self._bytes -= sum(map(self._journal.size, damaged))
        elif not self._unreceipted.holds_any((batch,)):
            return  # all of it was given up meanwhile
        batch.events = [kept for kept in batch.events if kept not in damaged]
        if batch.count and not batch.events:  # the broker had them once
            self._unreceipted.forget(batch)
            self._unwatched += batch.count
        self._journal.settle(damaged)
        self._progress.notify_all()

    def _admit(self, kept: Kept, size: int, number: int) -> None:
        shard = self._shards[number]
        if shard.open_bytes + size > self._limits.envelope_bytes_max:
            self._seal(shard)
        shard.batches[-1].events.append(kept)
        shard.entered += 1
        self._bytes += size
        shard.open_bytes += size + 1  # a comma stands between two events
        self._emitted += 1
        batch = shard.batches[-1]
        is_new = bool(batch.events) and not batch.due_at
        if is_new:  # the full ones as well: what leaves first is decided by this
            batch.due_at = time.monotonic() + self._limits.linger_seconds
        if len(batch.events) >= self._limits.envelope_events_max:
            self._seal(shard)
        elif is_new and batch.due_at < self._wakes_at:  # it waits for another shard that long anyway
            self._work.notify()

    def _seal(self, shard: Shard) -> None:
        if shard.seal():
            self._work.notify()

    def _seal_all(self) -> None:
        for shard in self._shards:
            self._seal(shard)

    def _is_empty(self) -> bool:
        return all(shard.is_empty for shard in self._shards)

    def _shard_of(self, kept: Kept) -> int:
        if len(self._shards) == 1:
            return 0
        try:
            return shard_on_wire(self._journal.read(kept), len(self._shards))
        except OSError:
            return 0  # any will do; whoever packs it says what is wrong

    def _wait_for_work(self, now: float) -> bool:
        """Wait until a batch may be ready; False if only the time has come for the next look at receipts."""
        due_at = min(shard.due_at for shard in self._shards)
        look_seconds = self._look_seconds()
        self._wakes_at = min(due_at, float("inf") if look_seconds is None else now + look_seconds)
        try:
            return self._work.wait(None if self._wakes_at == float("inf") else max(self._wakes_at - now, 0))
        finally:
            self._wakes_at = float("inf")

    def _look_seconds(self) -> float | None:
        if not self._unreceipted:
            return None
        return LOOK_SOON_SECONDS if self._awaiting_receipts else LOOK_SECONDS

    def _keep_until_received(self, batch: Batch) -> None:
        assert batch.stamp is not None  # it was sent
        batch.count = len(batch.events)
        if self._journal.durable:
            batch.message = None
        else:
            batch.events = []
        self._unreceipted.sent(batch, batch.stamp.envelope_id, time.monotonic())
        while self._unreceipted.bytes > self._limits.unreceipted_bytes_max:
            self._let_one_go_unreceipted()

    def _let_one_go_unreceipted(self) -> bool:
        """Make room at the cost of what the broker has: nothing depends on a receipt, neither does `emit`."""
        batch = self._unreceipted.give_up()
        if batch is None:
            return False
        before, self._unwatched = self._unwatched, self._unwatched + batch.count
        self._journal.settle(batch.events)
        if before.bit_length() < self._unwatched.bit_length():  # the first, and whenever their number has doubled
            logger.warning(
                "%d usage events were sent and are no longer kept: no room to wait for their receipts", self._unwatched
            )
        return True

    def _wait_for_receipts(self, deadline: float) -> int:
        """How many events that the broker has are not received when the time is up."""
        waiting = self._unreceipted.waiting()
        self._awaiting_receipts += 1
        self._work.notify()
        try:
            left = max(deadline - time.monotonic(), 0)
            self._progress.wait_for(lambda: not self._unreceipted.holds_any(waiting), left)
        finally:
            self._awaiting_receipts -= 1
        return sum(batch.count for batch in waiting if not batch.is_received)

    def _hurry(self) -> None:
        self._hurried = True
        self._retry.notify()

    def _buffered(self) -> int:
        return max(self._emitted - self._published - self._dropped, 0)

    def _has_room(self, size: int) -> bool:
        if self._journal.durable:
            return self._journal.has_room(size)
        buffered = self._buffered()
        if buffered >= self._limits.buffer_events_max:
            return False
        # An event larger than the whole buffer still passes, alone: refusing it for ever would lose it.
        return self._bytes + size <= self._limits.buffer_bytes_max or not buffered

    def _make_room(self, size: int) -> bool:
        """Whether there is room after all; not if the event is to be dropped. Raises `BufferFull`, `ProducerClosed`."""
        while self._journal.durable and self._let_one_go_unreceipted():
            if self._has_room(size):
                return True
        if self._limits.on_full == "drop":
            self._overflowed += 1
            if self._overflowed & (self._overflowed - 1) == 0:  # the first, and whenever their number has doubled
                logger.error("%d usage events were dropped: no room (%s)", self._overflowed, self._why())
            return False
        seconds = self._limits.block_seconds if self._limits.on_full == "block" else 0
        if not self._progress.wait_for(lambda: self._closed or self._has_room(size), seconds):
            raise BufferFull(
                events=self._buffered(),
                size=self._bytes,
                waited_seconds=seconds,
                last_error=self._last_error,
            )
        if self._closed:
            raise ProducerClosed
        return True

    def _why(self) -> str:
        return self._last_error or "the broker takes them too slowly"

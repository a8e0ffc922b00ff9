"""Recording usage: one envelope in, every event of it charged exactly once or parked."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import sample

from billing.errors import DatabaseBusy, DatabaseSlow
from billing.fingerprints import FINGERPRINT_VERSION
from billing.payments import AlertKind
from billing.rating import ParkReason, unpriced_product
from config import faults
from config.logging import logger
from config.settings import settings
from db import parked as parked_rows
from db import usage as usage_rows
from db.alerts import Cause, raise_once
from db.parked import ParkedInput
from db.session import LOCK_TRIES_OF_PARTS, TRIES, Connection, in_transaction
from services.alone import WAITED_SECONDS_MAX
from services.books import accounts
from services.metering.envelopes import Received, Unusable, open_envelope
from services.metering.posting import NOTHING_POSTED, post
from services.metering.preparing import Prepared, prepare, settle

Guard = Callable[[Connection, Prepared], None]
"""Called when events are inserted, before their customers are locked: refuses all of it by raising."""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events of an envelope; `parked` counts what was not parked before."""

    received: int = 0
    charged: int = 0
    duplicates: int = 0
    parked: int = 0
    conflicts: int = 0
    payments_due: int = 0

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.received + other.received,
            self.charged + other.charged,
            self.duplicates + other.duplicates,
            self.parked + other.parked,
            self.conflicts + other.conflicts,
            self.payments_due + other.payments_due,
        )


def record_usage(envelope: str | bytes, now: datetime) -> Outcome:
    """Charge or park every event of an envelope, in one transaction for each 500 of them.

    Safe to repeat at any time: keys that are known are not charged again. Raises `DatabaseUnavailable`.
    """
    return record_all([envelope], now)


def record_all(envelopes: Sequence[str | bytes], now: datetime) -> Outcome:
    """The same for several envelopes, whose events share transactions."""
    opened = [open_envelope(envelope, settings().envelope_bytes_max) for envelope in envelopes]
    received = [event for one in opened for event in one.received]
    outcome = record(received, [piece for one in opened for piece in one.unusable], now)
    log.info("usage recorded", **{name: getattr(outcome, name) for name in Outcome.__slots__})
    return outcome


def record(
    received: Sequence[Received],
    unusable: Sequence[Unusable],
    now: datetime,
    *,
    is_deferred: bool = False,
    guard: Guard | None = None,
) -> Outcome:
    """The same for events that are read already.

    Deferred, what could be charged is recorded and waits for `services.metering.pending.settle`. A guard is asked when
    none of the keys was known.
    """
    outcome = Outcome()
    most = settings().envelope_slice_events
    for start in range(0, max(len(received), len(unusable)), most):
        some, bad = received[start : start + most], unusable[start : start + most]
        outcome += _recorded(_Recording(some, bad, now, is_deferred, guard))
    return outcome


def _recorded(transaction: "_Recording") -> Outcome:
    """What becomes of a transaction, or of parts of it, where one of its customers is held, or it takes too long."""
    number = len(transaction.received)
    try:
        return _committed(transaction, LOCK_TRIES_OF_PARTS if number > 1 else TRIES)
    except (DatabaseSlow, DatabaseBusy) as error:
        parts = transaction.by_customer()
        if len(parts) < 2 and isinstance(error, DatabaseBusy):
            raise
        log.warning("usage is recorded in parts", events=number, customers=len(parts), error=str(error))
        if len(parts) < 2:
            return _halved(transaction, error)
    return _each(parts)


def _each(parts: Sequence["_Recording"]) -> Outcome:
    """What becomes of each part; raises why one has to wait when all others are committed.

    In an order by chance: should time be over before all were tried, the next delivery comes to others.
    """
    outcome, waited = Outcome(), 0.0
    slow: list[tuple[_Recording, Exception]] = []
    busy: DatabaseBusy | None = None
    for part in sample(parts, len(parts)):
        began = time.perf_counter()
        try:
            outcome += _committed(part, LOCK_TRIES_OF_PARTS)
        except (DatabaseSlow, DatabaseBusy) as error:
            waited += time.perf_counter() - began
            if waited > WAITED_SECONDS_MAX:
                raise
            if isinstance(error, DatabaseBusy):
                busy = error
            else:
                slow.append((part, error))
    for part, why in slow:
        outcome += _halved(part, why)
    if busy is not None:
        raise busy
    return outcome


def _halved(transaction: "_Recording", error: Exception) -> Outcome:
    """What becomes of the halves of what took too long; of what is too little for that, why."""
    if len(transaction.received) < 2:
        raise error
    first, second = transaction.halves()
    return _recorded(first) + _recorded(second)


def _committed(transaction: "_Recording", lock_tries: int) -> Outcome:
    outcome = in_transaction(transaction, lock_tries=lock_tries)
    if transaction.locked_at is not None:
        locked_ms = round((time.perf_counter() - transaction.locked_at) * 1000, 1)
        log.debug("wallets were locked", events=len(transaction.received), locked_ms=locked_ms)
    faults.reached("usage.after_commit")
    return outcome


@dataclass(slots=True)
class _Recording:
    """One transaction of the usage path; it may run again from the start."""

    received: Sequence[Received]
    unusable: Sequence[Unusable]
    now: datetime
    is_deferred: bool
    guard: Guard | None
    locked_at: float | None = None

    def __call__(self, connection: Connection) -> Outcome:
        prepared = self._prepare(connection)

        known = self._insert(connection, prepared)
        charges = prepared.charges
        if known:
            charges = [c for c in charges if (c.event.tenant_id, c.event.key) not in known]
        elif self.guard is not None:
            self.guard(connection, prepared)
        payments_due, self.locked_at = post(connection, charges, self.now) if charges else NOTHING_POSTED

        parked = sum(1 for row in prepared.rows if row.status == "parked" and (row.tenant_id, row.key) not in known)
        if parked:
            _tell_of_unpriced(connection, prepared, known, self.now)
        parked += park_inputs(connection, prepared.unusable, self.now)
        faults.reached("usage.before_commit")
        return Outcome(
            received=len(self.received) + len(self.unusable),
            charged=len(charges),
            duplicates=prepared.duplicates,
            parked=parked,
            conflicts=prepared.conflicts,
            payments_due=payments_due,
        )

    def halves(self) -> tuple["_Recording", "_Recording"]:
        """The same in two."""
        middle = len(self.received) // 2
        first, second = self.received[:middle], self.received[middle:]
        return replace(self, received=first), replace(self, received=second, unusable=())

    def by_customer(self) -> list["_Recording"]:
        """The same, each customer's events by themselves, and what is none."""
        of_each: dict[tuple[str, str], list[Received]] = {}
        for one in self.received:
            of_each.setdefault((one.event.tenant_id, one.event.customer_id), []).append(one)
        parts = [replace(self, received=mine, unusable=()) for mine in of_each.values()]
        return [*parts, replace(self, received=())] if self.unusable else parts

    def _prepare(self, connection: Connection) -> Prepared:
        if self.guard is not None or self.is_deferred:
            # What is kept may be out of date, and only a charge is verified: not a refusal, and not a price that waits.
            accounts.forget((one.event.tenant_id, one.event.customer_id) for one in self.received)
        prepared = prepare(connection, self.received, self.now, settings().bounds) if self.received else Prepared()
        prepared.unusable += self.unusable
        if self.is_deferred:
            prepared.defer()
        return prepared

    def _insert(self, connection: Connection, prepared: Prepared) -> set[tuple[str, str]]:
        """Insert what is new; the keys that were known: duplicates, or other payloads under used keys."""
        if not prepared.rows:
            return set()
        rows = (prepared.rows, prepared.contexts)
        known = usage_rows.insert_if_new(connection, *rows, FINGERPRINT_VERSION, self.now, prepared.quota_ids)
        stands = usage_rows.known(connection, sorted(known)) if known else {}
        for identity, event in stands.items():
            settle(prepared, prepared.firsts[identity], event.fingerprint)
        for one in prepared.repeats:
            identity = (one.received.event.tenant_id, one.received.event.key)
            settle(prepared, one, (stands.get(identity) or prepared.firsts[identity]).fingerprint)
        return known


def _tell_of_unpriced(connection: Connection, prepared: Prepared, known: set[tuple[str, str]], now: datetime) -> None:
    """Say which products have no price, once while events wait for one. Who says the same at once, waits."""
    causes: dict[tuple[object, ...], Cause] = {}
    for row in prepared.rows:
        if row.park_reason == ParkReason.UNPRICED and (row.tenant_id, row.key) not in known:
            product = unpriced_product(row.park_detail or "")
            detail = f"{product} has no price, and events wait for one: add it, then replay what is parked"
            known_by = (row.tenant_id, AlertKind.UNPRICED, product, None)
            causes.setdefault(known_by, Cause(*known_by, product, f"{detail}; the first is {row.key}"))
    raise_once(connection, list(causes.values()), now)


def park_inputs(connection: Connection, inputs: Sequence[Unusable], now: datetime) -> int:
    """Keep inputs that can't be events, once per content; how many are new."""
    if not inputs:
        return 0
    times_seen = Counter(one.input_hash for one in inputs)
    by_hash = {one.input_hash: one for one in inputs}
    rows = [
        ParkedInput(
            digest, one.raw, one.reason, one.detail, one.tenant_id, one.customer_id, one.key, times_seen[digest]
        )
        for digest, one in by_hash.items()
    ]
    return parked_rows.park(connection, rows, now)

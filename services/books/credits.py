"""Value given to customers, and value whose time is over."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.errors import IdempotencyConflict, Rejected
from billing.grants import PRIORITIES, Source
from billing.money import COST_PLACES, DIGITS, written
from billing.payments import AlertKind
from billing.plans import DEFAULT_GRACE_HOURS
from billing.reasons import kind_of
from config.logging import logger
from db import grants as grant_rows
from db import wallets as rows
from db.session import LOCK_TRIES_OF_PARTS, Connection, in_transaction
from db.wallets import KeyedEntry
from services import alone
from services.books import catalogue
from services.books.ledger import Gift, Identity, Told, open_wallets, payable_debt, wallet_in, write

log = logger(__name__)

AMOUNT_DIGITS_MAX = 24
PRIORITY_MAX = 1000
#: Customers whose expired grants are worked in one transaction.
BROKEN_AT_ONCE = 500
#: What has expired may still be burned by events that come late.
GRACE = timedelta(hours=DEFAULT_GRACE_HOURS)
#: So that the grace, and the same moment in any zone, are in the calendar, too.
ENDS_BEFORE = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant as it stands in the ledger; not new when the same key had granted it before."""

    amount: Decimal
    balance_after: Decimal
    currency: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """Value to give: to whom, how much of what, why, and the caller's key for it.

    It pays for what occurs from `valid_from` on and before `expires_at` (None: without bound). Of several, the one
    with the smaller priority is burned first; without one, as its source has it.
    """

    tenant_id: str
    customer_id: str
    currency: str
    amount: Decimal
    source: str
    reason: str
    idempotency_key: str
    valid_from: datetime | None = None
    expires_at: datetime | None = None
    priority: int | None = None


def grant(asked: Grant, now: datetime) -> Granted:
    """Give credits once per idempotency key. Debt is paid first, by what arrives.

    Raises `WalletNotFound`, `IdempotencyConflict` (the key gave something else), `Rejected` (no such amount, source,
    priority or validity).
    """
    _check(asked, now)
    granted = in_transaction(lambda connection: _grant(connection, asked, now))
    if granted.is_new:
        log.info(
            "credits granted",
            tenant_id=asked.tenant_id,
            customer_id=asked.customer_id,
            amount=written(asked.amount),
            currency=asked.currency,
            source=asked.source,
            reason=asked.reason,
        )
    return granted


def _grant(connection: Connection, asked: Grant, now: datetime) -> Granted:
    identity = (asked.tenant_id, asked.customer_id)
    wallets = open_wallets(connection, [identity], now).get(identity, [])
    wallet = wallet_in(wallets, identity, asked.currency)
    before = _granted_before(connection, asked)
    if before is not None:
        return before

    told = Told(
        kind_of(Source(asked.source)).value, _contra(asked), asked.reason, idempotency_key=asked.idempotency_key
    )
    gift = _gift(connection, asked)
    entry = wallet.give(gift, told, payable_debt(connection, wallet, gift))
    write(connection, wallets)
    return Granted(asked.amount, entry.balance_after, asked.currency, is_new=True)


def _gift(connection: Connection, asked: Grant) -> Gift:
    named = f"grant\0{asked.tenant_id}\0{asked.idempotency_key}"
    return Gift(
        uuid.uuid5(catalogue.installation(connection), named),
        asked.amount,
        Source(asked.source),
        asked.reason,
        asked.priority,
        asked.valid_from,
        asked.expires_at,
        asked.expires_at and asked.expires_at + GRACE,
    )


def break_expired(now: datetime) -> int:
    """Take what remains of grants whose time is over, for some customers; how many, none when all is done.

    Their grace has passed as well, so no event may burn them any more. What is reserved stays, and is looked at again.
    """
    customers: list[Identity] = []

    def together(connection: Connection) -> int:
        customers[:] = grant_rows.to_break(connection, now, BROKEN_AT_ONCE)
        return _break_expired(connection, customers, now)

    return alone.worked(
        lambda: in_transaction(together, lock_tries=LOCK_TRIES_OF_PARTS),
        lambda identity: in_transaction(
            lambda connection: _break_expired(connection, [identity], now), lock_tries=LOCK_TRIES_OF_PARTS
        ),
        customers,
        lambda identity, error: alone.tell(identity, AlertKind.MONTH_FAILS, "grants can't be broken", error, now),
    )


def _break_expired(connection: Connection, customers: Sequence[Identity], now: datetime) -> int:
    opened = open_wallets(connection, customers, now)
    wallets = [wallet for mine in opened.values() for wallet in mine]
    if not wallets:
        return 0
    breaking = grant_rows.breaking(connection, [wallet.key for wallet in wallets], now)

    for wallet in wallets:
        for one in wallet.standing.grants:
            if one.grant_id in breaking:
                wallet.break_(one)
    write(connection, wallets)
    entries = sum(len(wallet.entries) for wallet in wallets)
    if entries:
        log.info("grants broken", customers=len(customers), entries=entries)
    return entries


def _granted_before(connection: Connection, asked: Grant) -> Granted | None:
    entry = rows.entry_by_idempotency_key(connection, asked.tenant_id, asked.idempotency_key)
    if entry is None:
        return None
    said = (_contra(asked), asked.amount, asked.reason, asked.customer_id, asked.currency)
    given = (entry.contra, entry.amount, entry.reason, entry.customer_id, entry.currency)
    if given != said or (entry.priority is not None and _validity_of(entry) != _validity_of_asked(asked)):
        raise IdempotencyConflict(
            idempotency_key=asked.idempotency_key, granted=written(entry.amount), to=entry.customer_id
        )
    return Granted(entry.amount, entry.balance_after, entry.currency, is_new=False)


def _validity_of(entry: KeyedEntry) -> tuple[datetime | None, datetime | None, int | None]:
    return entry.valid_from, entry.expires_at, entry.priority


def _validity_of_asked(asked: Grant) -> tuple[datetime | None, datetime | None, int | None]:
    priority = PRIORITIES[Source(asked.source)] if asked.priority is None else asked.priority
    return asked.valid_from, asked.expires_at, priority


def _contra(asked: Grant) -> str:
    return f"grants:{asked.source}"


def _check(asked: Grant, now: datetime) -> None:
    check_amount(asked.amount, "a grant is an amount above zero")
    if asked.source not in {source.value for source in Source}:
        raise Rejected(f"{asked.source!r} is no source; there are {', '.join(sorted(Source))}")
    if asked.priority is not None and not 0 <= asked.priority <= PRIORITY_MAX:
        raise Rejected(f"a priority lies between 0 and {PRIORITY_MAX}", priority=asked.priority)
    if asked.expires_at is not None and asked.expires_at <= max(now, asked.valid_from or now):
        raise Rejected("a grant ends later than now, and than it begins", expires_at=asked.expires_at.isoformat())
    if asked.expires_at is not None and asked.expires_at >= ENDS_BEFORE:
        raise Rejected(
            f"a grant ends before the year {ENDS_BEFORE.year}, or never: then leave its end out",
            expires_at=asked.expires_at.isoformat(),
        )


def check_amount(amount: Decimal, says: str) -> None:
    """Raises `Rejected`, saying so, for what is no amount above zero, or has more digits than are kept."""
    if not amount.is_finite() or amount <= 0:
        raise Rejected(says, amount=str(amount))
    # Neither what is beyond the context nor more digits than it has can be normalised.
    is_kept = amount.adjusted() < AMOUNT_DIGITS_MAX and len(amount.as_tuple().digits) <= DIGITS
    exponent = amount.normalize().as_tuple().exponent if is_kept else None
    if not isinstance(exponent, int) or -exponent > COST_PLACES:
        raise Rejected(f"an amount has at most {COST_PLACES} decimal places and 24 digits before", amount=str(amount))

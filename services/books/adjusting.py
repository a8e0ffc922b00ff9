"""Putting a wallet right by hand: value that is given, or taken away, with a reason and once per key."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.errors import IdempotencyConflict, InsufficientCredits, Rejected
from billing.grants import Source
from billing.money import written
from billing.reasons import EntryKind
from config.logging import logger
from db import wallets as rows
from db.session import Connection, in_transaction
from services.books.credits import Grant, Granted, check_amount, grant
from services.books.ledger import OpenWallet, Told, open_wallets, wallet_in, write

log = logger(__name__)

CONTRA = "adjustments"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """How much a wallet is to have more, or below zero less; why, and the caller's key for it."""

    tenant_id: str
    customer_id: str
    currency: str
    amount: Decimal
    reason: str
    idempotency_key: str
    into_debt: bool = False
    """Take more than is available, if need be."""


def adjust(asked: Adjustment, now: datetime) -> Granted:
    """Give or take value once per idempotency key, by an entry of kind `adjustment`.

    What is given is a grant of that source. What is taken comes from what would pay now, in its order: what is reserved
    or not there is refused, or taken as debt where that is said. Locks the customer's wallets. Raises `WalletNotFound`,
    `IdempotencyConflict` (the key moved something else), `InsufficientCredits`, `Rejected` (no such amount, no reason).
    """
    if not asked.reason:
        raise Rejected("an adjustment says why")
    if asked.amount.is_finite() and asked.amount > 0:
        what = (asked.currency, asked.amount, Source.ADJUSTMENT.value, asked.reason, asked.idempotency_key)
        return grant(Grant(asked.tenant_id, asked.customer_id, *what), now)
    check_amount(asked.amount.copy_negate(), "an adjustment is an amount above or below zero")
    taken = in_transaction(lambda connection: _take(connection, asked, now))
    if taken.is_new:
        log.info(
            "credits taken",
            tenant_id=asked.tenant_id,
            customer_id=asked.customer_id,
            amount=written(asked.amount),
            currency=asked.currency,
            reason=asked.reason,
        )
    return taken


def _take(connection: Connection, asked: Adjustment, now: datetime) -> Granted:
    identity = (asked.tenant_id, asked.customer_id)
    wallets = open_wallets(connection, [identity], now).get(identity, [])
    wallet = wallet_in(wallets, identity, asked.currency)
    before = _taken_before(connection, asked)
    if before is not None:
        return before

    available = _available(wallet, now)
    if not asked.into_debt and -asked.amount > available:
        raise InsufficientCredits(
            available=written(available), required=written(-asked.amount), unit=asked.currency, reason="insufficient"
        )

    told = Told(EntryKind.ADJUSTMENT.value, CONTRA, asked.reason, idempotency_key=asked.idempotency_key)
    entry = wallet.burn([(-asked.amount, now)], told)
    write(connection, wallets)
    return Granted(asked.amount, entry.balance_after, asked.currency, is_new=True)


def _available(wallet: OpenWallet, now: datetime) -> Decimal:
    standing = wallet.standing
    pays = sum((one.remaining for one in standing.grants if one.pays_for(now)), Decimal(0))
    return pays - standing.debt - standing.reserved


def _taken_before(connection: Connection, asked: Adjustment) -> Granted | None:
    entry = rows.entry_by_idempotency_key(connection, asked.tenant_id, asked.idempotency_key)
    if entry is None:
        return None
    said = (CONTRA, asked.amount, asked.reason, asked.customer_id, asked.currency)
    if (entry.contra, entry.amount, entry.reason, entry.customer_id, entry.currency) != said:
        raise IdempotencyConflict(
            idempotency_key=asked.idempotency_key, moved=written(entry.amount), of=entry.customer_id
        )
    return Granted(entry.amount, entry.balance_after, entry.currency, is_new=False)

"""Value given to customers."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.errors import IdempotencyConflict, Rejected, WalletNotFound
from billing.money import COST_PLACES, DIGITS, written
from config.logging import logger
from db import wallets as rows
from db.session import Connection, in_transaction
from db.wallets import Entry, WalletRow

log = logger(__name__)

AMOUNT_DIGITS_MAX = 24


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant as it stands in the ledger; not new when the same key had granted it before."""

    amount: Decimal
    balance_after: Decimal
    currency: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """Value to give: to whom, how much of what, why, and the caller's key for it."""

    tenant_id: str
    customer_id: str
    currency: str
    amount: Decimal
    source: str
    reason: str
    idempotency_key: str


def grant(asked: Grant, now: datetime) -> Granted:
    """Give credits once per idempotency key. Debt is paid first, by what arrives.

    Raises `WalletNotFound`, `IdempotencyConflict` (the key gave something else), `Rejected` (no such amount).
    """
    _check_amount(asked.amount)
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
    wallet = _wallet(connection, asked)
    before = _granted_before(connection, asked)
    if before is not None:
        return before
    balance = wallet.balance + asked.amount
    rows.receive(
        connection,
        Entry(
            asked.tenant_id,
            wallet.wallet_id,
            wallet.last_seq + 1,
            asked.amount,
            balance,
            "grant",
            _contra(asked),
            asked.reason,
            None,
            None,
            asked.idempotency_key,
            now,
            now,
        ),
    )
    return Granted(asked.amount, balance, asked.currency, is_new=True)


def _wallet(connection: Connection, asked: Grant) -> WalletRow:
    locked = rows.lock_of_customer(connection, asked.tenant_id, asked.customer_id)
    for wallet in locked:
        if wallet.currency == asked.currency:
            return wallet
    raise WalletNotFound(tenant_id=asked.tenant_id, customer_id=asked.customer_id, currency=asked.currency)


def _granted_before(connection: Connection, asked: Grant) -> Granted | None:
    entry = rows.entry_by_idempotency_key(connection, asked.tenant_id, asked.idempotency_key)
    if entry is None:
        return None
    amount, balance_after, contra, reason, customer_id, currency = entry
    said = (_contra(asked), asked.amount, asked.reason, asked.customer_id, asked.currency)
    if (contra, amount, reason, customer_id, currency) != said:
        raise IdempotencyConflict(idempotency_key=asked.idempotency_key, granted=written(amount), to=customer_id)
    return Granted(amount, balance_after, currency, is_new=False)


def _contra(asked: Grant) -> str:
    return f"grants:{asked.source}"


def _check_amount(amount: Decimal) -> None:
    if not amount.is_finite() or amount <= 0:
        raise Rejected("a grant is an amount above zero", amount=str(amount))
    # More digits than the context has would be rounded away before anyone could count them.
    is_exact = len(amount.as_tuple().digits) <= DIGITS
    exponent = amount.normalize().as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    if not is_exact or places > COST_PLACES or amount.adjusted() >= AMOUNT_DIGITS_MAX:
        raise Rejected(f"an amount has at most {COST_PLACES} decimal places and 24 digits before", amount=str(amount))

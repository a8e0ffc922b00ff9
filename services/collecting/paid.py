"""Money that has moved: what Stripe holds of a payment decides its state, and what a wallet has of it."""

from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from uuid import UUID

from billing.grants import Source
from billing.money import COST_PLACES, ZERO
from billing.payments import ENDS_WITH_A_CARD, PAID, AlertKind, PaymentState
from db import collecting
from db import payments as rows
from db import refunds as refund_rows
from db import tiers as tier_rows
from db import wallets as wallet_rows
from db.alerts import raise_alert
from db.payments import Move, PaymentRow
from db.session import Connection
from services.books.ledger import Gift, Told, open_wallets, write


def lock_with_wallets(connection: Connection, tenant_id: str, payment_id: UUID) -> PaymentRow | None:
    """A payment under its lock; before it, if it moves value, the wallets of its customer."""
    if owner := rows.wallet_owner(connection, tenant_id, payment_id):
        wallet_rows.lock_of_customer(connection, tenant_id, owner)
    return rows.lock(connection, tenant_id, payment_id)


def settle_paid(
    connection: Connection, payment: PaymentRow, refunded_minor: int, now: datetime, *, source: str, why: str
) -> PaymentState:
    """Bring a payment that was collected to where its money is now; once more changes nothing.

    `refunded_minor` is all that was given back by refunds so far. The caller holds the locks of
    `lock_with_wallets`. A wallet keeps the share of a top-up that has not gone back.
    """
    disputed_minor = rows.disputed_minor(connection, payment.tenant_id, payment.payment_id)
    state = _state(payment.amount_minor, refunded_minor, disputed_minor)
    given = _credit_due(payment, refunded_minor + disputed_minor)
    is_first = PaymentState(payment.state) not in PAID
    if not is_first and (state, refunded_minor, given) == (payment.state, payment.refunded_minor, payment.credit_given):
        return state
    rows.settle_paid(connection, payment, Move(state, why), refunded_minor, given, now, source=source)
    _move_value(connection, payment, given - payment.credit_given, is_first=is_first, now=now)
    if is_first:
        _release(connection, payment)
    if is_first and (payment.is_wished_void or payment.state == PaymentState.VOIDED):
        _give_back(connection, payment, state, now)
    elif payment.state == PaymentState.DISPUTED != state and _is_not_ours(connection, payment):
        # While the bank had it, it could not be given back; what was asked for before, Stripe has refused.
        refund_rows.owe_whole(connection, payment, "won", payment.void_reason or "the tier is owed no longer", now)
    return state


def _is_not_ours(connection: Connection, payment: PaymentRow) -> bool:
    return payment.is_wished_void or tier_rows.is_unowed(connection, payment)


def _state(amount_minor: int, refunded_minor: int, disputed_minor: int) -> PaymentState:
    if refunded_minor >= amount_minor:
        return PaymentState.REFUNDED
    if disputed_minor:
        return PaymentState.DISPUTED
    return PaymentState.PARTIALLY_REFUNDED if refunded_minor else PaymentState.SUCCEEDED


def _credit_due(payment: PaymentRow, returned_minor: int) -> Decimal:
    """What the wallet is to have of a top-up when so much of its price went back; rounded down once."""
    if payment.credit_amount is None:
        return ZERO
    kept = max(0, payment.amount_minor - returned_minor)
    share = payment.credit_amount * kept / payment.amount_minor
    return share.quantize(Decimal(1).scaleb(-COST_PLACES), ROUND_DOWN)


def _move_value(connection: Connection, payment: PaymentRow, amount: Decimal, *, is_first: bool, now: datetime) -> None:
    """Give the wallet the value of a top-up, or take back of it what went back of its price."""
    if not amount:
        return
    identity = (payment.tenant_id, payment.customer_id)
    # Its grant may have nothing left, and get something back.
    wallets = open_wallets(connection, [identity], now, with_ended=True)[identity]
    wallet = next(one for one in wallets if one.row.wallet_id == payment.wallet_id)
    kind = "purchase" if is_first else "refund" if amount < 0 else "reversal"
    told = Told(kind, f"stripe:{payment.currency.lower()}", payment_id=payment.payment_id)
    # The payment's id is its grant's. One that was bought before grants were kept has none of its own.
    bought = wallet.grants.get(str(payment.payment_id))
    if bought is None and amount > 0:
        wallet.give(Gift(payment.payment_id, amount, Source.PURCHASE, "top_up", payment_id=payment.payment_id), told)
    elif bought is None:
        wallet.burn([(-amount, now)], told)
    elif amount > 0:
        wallet.give_again(bought, amount, told)
    else:
        wallet.take_back(bought, -amount, told)
    write(connection, wallets)


def _release(connection: Connection, payment: PaymentRow) -> None:
    """A payment came in: the customer's others need not wait any more."""
    reasons = [reason.value for reason in ENDS_WITH_A_CARD]
    collecting.release(connection, payment.tenant_id, payment.customer_id, reasons)


def _give_back(connection: Connection, payment: PaymentRow, state: PaymentState, now: datetime) -> None:
    """A payment that was to be voided came in: it goes back; if a bank has it by now, when that gives it to us."""
    is_disputed = state is PaymentState.DISPUTED
    then = "it goes back if the dispute is won" if is_disputed else "it goes back"
    detail = f"{payment.kind} payment {payment.payment_id} was to be voided, and was collected; {then}"
    subject, customer = str(payment.payment_id), payment.customer_id
    raise_alert(connection, payment.tenant_id, AlertKind.VOIDED_BUT_PAID, subject, detail, now, customer_id=customer)
    if not is_disputed:
        refund_rows.owe_whole(connection, payment, "void", payment.void_reason or "voided", now)

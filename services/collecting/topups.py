"""Top-ups: value that a customer buys ahead, when they ask for it or when a wallet is low.

A top-up is a payment like any other; the wallet is credited when it has come in, and loses the value again when the
money goes back: `services.collecting.paid` does both.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from billing.currencies import check_payable
from billing.errors import IdempotencyConflict, Rejected, TopUpRuleNotFound, WalletNotFound
from billing.money import COST_PLACES, as_cost, in_minor_units, written
from billing.payments import AlertKind, PaymentKind, PaymentState
from billing.payments import payment_id as payment_id_of
from config.logging import logger
from db import history as history_rows
from db import owed as owed_rows
from db import topups as rows
from db import wallets as wallet_rows
from db.alerts import raise_alert
from db.owed import NewPayment
from db.session import Connection, in_transaction
from db.topups import BY_RULE, LowWallet, RuleRow
from db.wallets import WalletRow
from services.books import catalogue
from services.showing import shown

log = logger(__name__)

WHOLE_DIGITS_MAX = 24
KEY_CHARACTERS_MAX = 255
#: As much as a row keeps.
MINOR_MAX = 2**63 - 1
LOOKED_AT_ONCE = 500

_CURRENCY = re.compile("[A-Z]{3}")


FOR_EVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TopUp:
    """A top-up as it stands; not new when the same key had asked for it before."""

    payment_id: UUID
    credit_amount: Decimal
    amount_minor: int
    currency: str
    state: PaymentState
    is_new: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """What is bought for how much: `credit_amount` of a wallet for `amount_minor` of an ISO currency."""

    credit_amount: Decimal
    amount_minor: int
    currency: str


def request(
    tenant_id: str, customer_id: str, wallet_currency: str, offer: Offer, idempotency_key: str, now: datetime
) -> TopUp:
    """Let a customer buy value, once per key, for ever: the payment is due at once.

    Raises `WalletNotFound`, `IdempotencyConflict` (the key bought something else), `Rejected` (no such amounts).
    """
    _check(offer)
    check_payable(offer.currency)
    if not 0 < len(idempotency_key) <= KEY_CHARACTERS_MAX or "\0" in idempotency_key:
        raise Rejected(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters", given=len(idempotency_key))

    def work(connection: Connection) -> TopUp:
        # The wallets' locks: the same key at the same moment, before and after midnight of a first, is one payment.
        wallet = _wallet(connection, tenant_id, customer_id, wallet_currency)
        before = _asked_before(connection, wallet, offer, idempotency_key)
        if before is not None:
            return before
        payment = _payment(connection, wallet, f"request:{idempotency_key}", offer, now)
        owed_rows.fall_due(connection, [payment], now, source="person", why="a top-up was asked for")
        return TopUp(
            payment.payment_id, offer.credit_amount, offer.amount_minor, offer.currency, PaymentState.DUE, is_new=True
        )

    asked = in_transaction(work)
    if asked.is_new:
        log.info("top-up asked for", tenant_id=tenant_id, customer_id=customer_id, payment_id=str(asked.payment_id))
    return asked


def set_rule(
    tenant_id: str,
    customer_id: str,
    wallet_currency: str,
    threshold: Decimal,
    offer: Offer,
    monthly_cap_minor: int,
    now: datetime,
    *,
    is_active: bool = True,
) -> None:
    """Let a wallet top itself up: below `threshold` the offer is bought, for no more than the cap in a UTC month.

    A rule is set anew as a whole. It rests after one of its top-ups was given back or disputed, until it is set
    again. Raises `WalletNotFound`, `Rejected` (no such amounts, or a cap that allows nothing).
    """
    _check(offer)
    if is_active:
        check_payable(offer.currency)
    _check_value(threshold, "a threshold")
    _check_minor(monthly_cap_minor)
    if monthly_cap_minor < offer.amount_minor:
        raise Rejected(
            f"a cap of {in_minor_units(monthly_cap_minor, offer.currency)} a month allows no top-up of "
            f"{in_minor_units(offer.amount_minor, offer.currency)}; raise the cap"
        )

    def work(connection: Connection) -> None:
        wallet = _wallet(connection, tenant_id, customer_id, wallet_currency)
        amounts = (threshold, offer.credit_amount, offer.amount_minor, offer.currency, monthly_cap_minor)
        rows.set_rule(connection, RuleRow(tenant_id, wallet.wallet_id, *amounts, is_active, now))

    in_transaction(work)
    log.info("top-up rule set", tenant_id=tenant_id, customer_id=customer_id, is_active=is_active)


def rule_of(tenant_id: str, customer_id: str, wallet_currency: str) -> RuleRow:
    """The rule of a wallet. Raises `WalletNotFound`, `TopUpRuleNotFound`."""

    def work(connection: Connection) -> RuleRow:
        wallet_id = history_rows.wallets(connection, tenant_id, customer_id).get(wallet_currency)
        if wallet_id is None:
            raise WalletNotFound(tenant_id=tenant_id, customer_id=customer_id, currency=wallet_currency)
        for rule in rows.rules_of(connection, tenant_id, [wallet_id]):
            return rule
        raise TopUpRuleNotFound(customer_id=customer_id, currency=wallet_currency)

    return in_transaction(work)


def remove_rule(tenant_id: str, customer_id: str, wallet_currency: str) -> None:
    """Let a wallet top itself up no more; what fell due is collected. Raises `WalletNotFound`, `TopUpRuleNotFound`."""

    def work(connection: Connection) -> None:
        wallet = _wallet(connection, tenant_id, customer_id, wallet_currency)
        if not rows.remove_rule(connection, tenant_id, wallet.wallet_id):
            raise TopUpRuleNotFound(customer_id=customer_id, currency=wallet_currency)

    in_transaction(work)
    log.info("top-up rule removed", tenant_id=tenant_id, customer_id=customer_id)


def look_for_low_wallets(now: datetime) -> int:
    """Let every wallet that is below the threshold of its rule be topped up; how many payments fell due.

    None while a top-up of the wallet is under way or the customer is held, and never above the month's cap. Two
    sweeps at once do no harm: the rules are locked, and the payment's natural key counts the month's top-ups.
    """
    month = _month(now)

    def work(connection: Connection) -> int:
        keys = rows.lock_low(connection, month, LOOKED_AT_ONCE)
        low = rows.still_low(connection, month, keys) if keys else []
        bought = [_bought(connection, one, now) for one in low if _is_below_cap(one)]
        for one in low:
            if not _is_below_cap(one):
                _tell_cap(connection, one, now)
        why = "the wallet was below the threshold of its rule"
        return owed_rows.fall_due(connection, bought, now, source="rule", why=why) if bought else 0

    number = in_transaction(work)
    if number:
        log.info("wallets are topped up", payments=number)
    return number


def _is_below_cap(low: LowWallet) -> bool:
    return low.bought_minor + low.amount_minor <= low.monthly_cap_minor


def _bought(connection: Connection, low: LowWallet, now: datetime) -> NewPayment:
    # By currency, not by the wallet's id: a database that was rebuilt gives other ids, and must not buy again.
    reference = f"{BY_RULE}{low.wallet_currency}:{low.bought + 1}"
    offer = Offer(low.credit_amount, low.amount_minor, low.currency)
    return _payment(connection, low, reference, offer, now)


def _tell_cap(connection: Connection, low: LowWallet, now: datetime) -> None:
    balance = f"{low.wallet_currency} {written(low.balance)}"
    detail = (
        f"customer {low.customer_id} has {balance} left, and the rule may not buy more this month: "
        f"{in_minor_units(low.bought_minor, low.currency)} of {in_minor_units(low.monthly_cap_minor, low.currency)} "
        "are used"
    )
    subject = f"{low.customer_id} {low.wallet_currency}"
    raise_alert(connection, low.tenant_id, AlertKind.TOP_UP_CAP, subject, detail, now, customer_id=low.customer_id)


def _payment(
    connection: Connection, wallet: WalletRow | LowWallet, reference: str, offer: Offer, now: datetime
) -> NewPayment:
    month = _month(now)
    # Asked for under a key, it is the same in whatever month the caller repeats it; by rule, each month begins anew.
    since = month if reference.startswith(BY_RULE) else FOR_EVER
    natural = (wallet.tenant_id, wallet.customer_id, since, PaymentKind.TOP_UP, 0, 0)
    return NewPayment(
        wallet.tenant_id,
        payment_id_of(catalogue.installation(connection), *natural, reference),
        wallet.customer_id,
        month,
        PaymentKind.TOP_UP.value,
        0,
        0,
        offer.amount_minor,
        offer.currency,
        reference,
        wallet.wallet_id,
        offer.credit_amount,
    )


def _asked_before(connection: Connection, wallet: WalletRow, offer: Offer, idempotency_key: str) -> TopUp | None:
    before = rows.asked(connection, wallet.tenant_id, wallet.customer_id, f"request:{idempotency_key}")
    if before is None:
        return None
    bought = (before.wallet_id, before.credit_amount, before.amount_minor, before.currency)
    if bought != (wallet.wallet_id, offer.credit_amount, offer.amount_minor, offer.currency):
        raise IdempotencyConflict(
            idempotency_key=idempotency_key,
            bought=written(before.credit_amount),
            for_=in_minor_units(before.amount_minor, before.currency),
        )
    state = PaymentState(before.state)
    return TopUp(before.payment_id, before.credit_amount, before.amount_minor, before.currency, state, is_new=False)


def _wallet(connection: Connection, tenant_id: str, customer_id: str, currency: str) -> WalletRow:
    for wallet in wallet_rows.lock_of_customer(connection, tenant_id, customer_id):
        if wallet.currency == currency:
            return wallet
    raise WalletNotFound(tenant_id=tenant_id, customer_id=customer_id, currency=currency)


def _month(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _check(offer: Offer) -> None:
    _check_value(offer.credit_amount, "a top-up")
    if offer.credit_amount <= 0 or offer.amount_minor <= 0:
        raise Rejected(
            "a top-up buys something for something",
            credit_amount=str(offer.credit_amount),
            amount_minor=offer.amount_minor,
        )
    _check_minor(offer.amount_minor)
    if not _CURRENCY.fullmatch(offer.currency):
        raise Rejected(f"{offer.currency!r} is no currency to pay in; they look like BRL")


def _check_value(amount: Decimal, what: str) -> None:
    """What a wallet can't hold to the last digit is refused, not rounded."""
    if not amount.is_finite() or amount.adjusted() >= WHOLE_DIGITS_MAX or amount != as_cost(amount):
        raise Rejected(
            f"{what} has at most {COST_PLACES} decimal places and {WHOLE_DIGITS_MAX} digits before", amount=str(amount)
        )


def _check_minor(amount_minor: int) -> None:
    if amount_minor > MINOR_MAX:
        raise Rejected(f"{shown(amount_minor)} is more than is kept: at most {MINOR_MAX} minor units")

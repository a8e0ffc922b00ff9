"""What tests of collecting share: somebody who owes, and a look at what Stripe took."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import requests

from billing.payments import PaymentState
from config.settings import SANDBOX_STRIPE_KEY, settings
from payments.stripe_gateway import StripeGateway
from services.collecting import cards
from services.collecting.collect import collect
from services.collecting.gateways import gateway
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows

DAY = timedelta(days=1)
FEE = 10_000
GOOD, DECLINES = "pm_card_visa", "pm_card_chargeCustomerFail"


def owing(card: str | None = GOOD, *, tiers: int = 1, customer: str = "ana") -> list[UUID]:
    """A customer with a card who owes so many tiers: the payments, in the order of their tiers."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer(customer, plan="tiers-8m", currencies=("BRL",))
    if card is not None:
        pays_with(card, customer)
    record_usage(an_envelope(an_event(customer, [tokens(8_000_000 * tiers + 1)])), now)
    found = rows("SELECT payment_id FROM payments WHERE customer_id = %s ORDER BY tier", customer)
    assert len(found) == tiers
    return [payment_id for (payment_id,) in found]


def pays_with(card: str, customer: str = "ana") -> None:
    """Attach a card; one that Stripe would not attach is noted as if it had been."""
    attachable = card in {GOOD, DECLINES, "pm_card_authenticationRequired"}
    cards.attach(TENANT, customer, card if attachable else GOOD, gateway(), datetime.now(UTC))
    if not attachable:
        one("UPDATE customers SET default_payment_method_id = %s WHERE customer_id = %s RETURNING 1", card, customer)


def taken(payment_id: UUID, now: datetime | None = None) -> PaymentState | None:
    return collect(TENANT, payment_id, gateway(), now or datetime.now(UTC))


def at_stripe(path: str) -> Any:
    with requests.Session() as http:
        http.trust_env = False
        headers = {"Authorization": f"Bearer {SANDBOX_STRIPE_KEY}", "Stripe-Version": "2026-10-28.endive"}
        return http.get(f"{settings().stripe_api_base}{path}", headers=headers, timeout=15).json()


def captured() -> dict[UUID, tuple[int, int]]:
    """What Stripe took: (minor units, successes) of each payment."""
    taken_for = at_stripe("/_double/captured")["payments"]
    return {UUID(name): (said["amount_minor"], said["successes"]) for name, said in taken_for.items()}


def charges() -> int:
    """How often a card was tried."""
    return len(at_stripe("/v1/charges")["data"])


def later(seconds: int) -> None:
    """Move Stripe's clock: after a day it has forgotten every idempotency key."""
    with requests.Session() as http:
        http.trust_env = False
        http.post(f"{settings().stripe_api_base}/_double/clock", data={"offset_seconds": seconds}, timeout=15)


def payment(payment_id: UUID, columns: str = "state, attempts_made, due_at") -> tuple[Any, ...]:
    return one(f"SELECT {columns} FROM payments WHERE payment_id = %s", payment_id)


def due_again(payment_id: UUID) -> datetime:
    """When a payment is due next, by itself."""
    (at,) = payment(payment_id, "due_at")
    assert isinstance(at, datetime)
    return at


def attempts(payment_id: UUID) -> list[tuple[Any, ...]]:
    statement = "SELECT attempt, state, decline_class FROM payment_attempts WHERE payment_id = %s ORDER BY attempt"
    return rows(statement, payment_id)


def impatient(api_base: str | None = None) -> StripeGateway:
    """A gateway that does not try again by itself, to the double or to another address."""
    return StripeGateway(SANDBOX_STRIPE_KEY, api_base or settings().stripe_api_base, network_retries_max=0)

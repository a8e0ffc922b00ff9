"""What the demo bills: who the customers are, which events there are, and what must come of them.

The expectation is computed here in plain arithmetic from the trace alone, apart from the rules under test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from centavo import Item, UsageEvent
from sandbox.trace import TraceRow

TENANT = "demo"
TIER_PLAN, PREPAID_PLAN = "tiers-8m", "prepaid"
TIME_ZONE = "America/Sao_Paulo"
PROVIDER, MODEL = "openai", "gpt-4"
#: From the shipped catalogue "usd-per-unit": USD for each token.
PROMPT_PRICE, COMPLETION_PRICE = Decimal("0.00003"), Decimal("0.00006")
FIRST_CREDIT_USD = Decimal(1000)
GOOD_CARD, DECLINING_CARD = "pm_card_visa", "pm_card_chargeCustomerFail"
DECLINED_CUSTOMER = 2
INCLUDED_TOKENS = TIER_TOKENS = 8_000_000
FEE_MINOR, TIER_FEE_MINOR = 40_000, 10_000
#: After so many payments that were declined, what else a customer owes is not tried.
DECLINES_IN_A_ROW = 2
#: So many payments of a customer begin by themselves in a day.
PAYMENTS_A_DAY = 20


@dataclass(slots=True)
class Expected:
    """What one customer must end with."""

    plan: str
    events: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)

    @property
    def tiers(self) -> int:
        if self.plan != TIER_PLAN:
            return 0
        beyond = max(0, self.tokens - INCLUDED_TOKENS)
        return beyond // TIER_TOKENS + (1 if beyond % TIER_TOKENS else 0)


def customer_name(number: int) -> str:
    """The id of a customer of the demo."""
    return f"customer-{number}"


def number_of(customer_id: str) -> int:
    """Which customer of the demo this is."""
    return int(customer_id.rpartition("-")[2])


def plan_of(number: int) -> str:
    """Even customers are on the plan with tiers, odd ones prepaid."""
    return TIER_PLAN if number % 2 == 0 else PREPAID_PLAN


def currency_of(number: int) -> str:
    """The currency of a customer's wallet: that of the plan's payments, or that of the prices."""
    return "BRL" if plan_of(number) == TIER_PLAN else "USD"


def card_of(number: int) -> str:
    """The card of a customer: that of customer 2 declines."""
    return DECLINING_CARD if number == DECLINED_CUSTOMER else GOOD_CARD


def event_of(index: int, occurred_at: datetime, context: int, generated: int, customers: int) -> UsageEvent:
    """The usage event of a row of the trace."""
    return UsageEvent(
        tenant_id=TENANT,
        customer_id=customer_name(index % customers),
        key=f"trace-{index}",
        occurred_at=occurred_at,
        items=(
            Item(category="llm_prompt", provider=PROVIDER, model=MODEL, unit="token", quantity=Decimal(context)),
            Item(category="llm_completion", provider=PROVIDER, model=MODEL, unit="token", quantity=Decimal(generated)),
        ),
    )


def expectations(rows: Sequence[TraceRow], customers: int) -> dict[str, Expected]:
    """What every customer must end with, by id."""
    expected = {customer_name(number): Expected(plan_of(number)) for number in range(customers)}
    for index, row in enumerate(rows):
        one = expected[customer_name(index % customers)]
        one.events += 1
        one.tokens += row.context_tokens + row.generated_tokens
        if one.plan == PREPAID_PLAN:
            one.cost += row.context_tokens * PROMPT_PRICE + row.generated_tokens * COMPLETION_PRICE
    return expected


def expected_payments(customer_id: str, expected: Expected) -> dict[tuple[str, str], tuple[int, int]]:
    """A customer's payments by (kind, state): how many, and what they come to in minor units. The fee comes first."""
    if expected.plan != TIER_PLAN:
        return {}
    payments: dict[tuple[str, str], tuple[int, int]] = {}
    owed = [("subscription", FEE_MINOR), *[("tier", TIER_FEE_MINOR)] * expected.tiers]
    for place, (kind, amount_minor) in enumerate(owed):
        state = _state(place, card_of(number_of(customer_id)))
        number, total = payments.get((kind, state), (0, 0))
        payments[kind, state] = (number + 1, total + amount_minor)
    return payments


def _state(place: int, card: str) -> str:
    """What becomes of a customer's payment, by its place among all that they owe."""
    if card == DECLINING_CARD:
        return "retry_scheduled" if place < DECLINES_IN_A_ROW else "due"
    return "succeeded" if place < PAYMENTS_A_DAY else "awaiting_approval"

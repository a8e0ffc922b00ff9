"""The world of a run, as plain data: who is billed for what, at which prices, with which cards and grants.

Nothing of the project is imported here: the oracle reckons from this, and may share nothing with what it judges.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

TENANTS = ("alpha", "beta", "gamma")
EVERYBODY = ""
ZONES = ("UTC", "America/Sao_Paulo", "Asia/Tokyo")
GOOD, DECLINED = "pm_card_visa", "pm_card_chargeCustomerFail"
DECLINED_EACH = 12
TIERED, PREPAID = "chaos-tiers", "chaos-prepaid"
#: What comes late belongs to the month before, which must still be open.
GRACE_HOURS = 35 * 24
TIER_TOKENS = 8_000_000
TIER_FEE_MINOR = 10_000
TOKEN = "token"  # noqa: S105 - a unit
QUANTITY_MAX = Decimal(100_000_000)
AGE_MAX = timedelta(days=35)
AHEAD_MAX = timedelta(hours=1)

Product = tuple[str, str, str, str]
"""category, provider, model, unit"""


@dataclass(frozen=True, slots=True)
class PlanOf:
    """Included tokens and tiers; without a tier size every unit is paid from the wallet."""

    plan_id: str
    included_tokens: int
    tier_size: int | None
    tier_fee_minor: int


@dataclass(frozen=True, slots=True)
class PriceOf:
    """So much for each `per` units, or by rungs (up to, unit price); of one tenant, or of everybody."""

    scope: str
    product: Product
    currency: str
    unit_price: Decimal
    per: Decimal = Decimal(1)
    rungs: tuple[tuple[Decimal | None, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class CustomerOf:
    """Who is billed; `card` is what they pay tiers with."""

    tenant_id: str
    customer_id: str
    plan_id: str
    zone: str
    currencies: tuple[str, ...]
    card: str | None = None


@dataclass(frozen=True, slots=True)
class GrantOf:
    """Value given, under a key."""

    key: str
    tenant_id: str
    customer_id: str
    currency: str
    amount: Decimal
    source: str
    priority: int
    valid_from: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All that a run begins with."""

    seed: int
    began_at: datetime
    tokens_mean: int
    plans: tuple[PlanOf, ...]
    prices: tuple[PriceOf, ...]
    customers: tuple[CustomerOf, ...]
    grants: tuple[GrantOf, ...]

    @property
    def month_began_at(self) -> datetime:
        """Midnight of the first of this month, UTC."""
        return self.began_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


PLANS = (PlanOf(TIERED, TIER_TOKENS, TIER_TOKENS, TIER_FEE_MINOR), PlanOf(PREPAID, 0, None, 0))

#: Prices with a third in them, so that each line is rounded; a ladder; a tenant's own; two currencies.
PRICES = (
    PriceOf(EVERYBODY, ("llm_prompt", "openai", "gpt-4", TOKEN), "BRL", Decimal("0.17"), Decimal(3000)),
    PriceOf(EVERYBODY, ("llm_completion", "openai", "gpt-4", TOKEN), "BRL", Decimal("0.31"), Decimal(7000)),
    PriceOf(EVERYBODY, ("stt", "deepgram", "nova", "second"), "BRL", Decimal("0.000123456789012345")),
    PriceOf("gamma", ("stt", "deepgram", "nova", "second"), "BRL", Decimal("0.000100000000000007"), Decimal("1.1")),
    PriceOf(
        EVERYBODY,
        ("tts", "eleven", "turbo", "character"),
        "BRL",
        Decimal(0),
        Decimal(1000),
        ((Decimal(500), Decimal("0.3")), (Decimal(2000), Decimal("0.2")), (None, Decimal("0.0700000001"))),
    ),
    PriceOf(EVERYBODY, ("telephony", "twilio", "voice", "minute"), "USD", Decimal("0.013")),
)


def world(seed: int, began_at: datetime, customers: int, tokens_mean: int) -> World:
    """So many customers a tenant; every second one pays by tiers, every twelfth of those with a card that declines."""
    dice = random.Random(f"world {seed}")
    people: list[CustomerOf] = []
    grants: list[GrantOf] = []
    for tenant in TENANTS:
        for number in range(customers):
            is_tiered = number % 2 == 0
            card = (DECLINED if number % (2 * DECLINED_EACH) == DECLINED_EACH else GOOD) if is_tiered else None
            currencies = ("BRL", "USD") if number % 3 else ("BRL",)
            plan = TIERED if is_tiered else PREPAID
            one = CustomerOf(tenant, f"customer-{number:03d}", plan, dice.choice(ZONES), currencies, card)
            people.append(one)
            grants += _grants(one, dice, began_at)
    return World(seed, began_at, tokens_mean, PLANS, PRICES, tuple(people), tuple(grants))


def _grants(one: CustomerOf, dice: random.Random, began_at: datetime) -> list[GrantOf]:
    """A few with different orders, spans and sizes, so that many events burn several and some make debt."""
    month = began_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    given = []
    for number in range(dice.randrange(9)):
        source, priority = dice.choice((("promo", 20), ("promo", 5), ("purchase", 50), ("adjustment", 40)))
        since = dice.choice((None, None, month, began_at - timedelta(hours=1)))
        until = dice.choice((None, None, began_at + timedelta(days=2), began_at + timedelta(days=9, hours=number)))
        amount = Decimal(dice.randrange(1, 150_000_000)).scaleb(-5)
        key = f"{one.customer_id}-grant-{number}"
        currency = dice.choice(one.currencies)
        given.append(GrantOf(key, one.tenant_id, one.customer_id, currency, amount, source, priority, since, until))
    return given


def as_utc(text: str) -> datetime:
    """A moment as it stands in an event."""
    return datetime.fromisoformat(text).astimezone(UTC)

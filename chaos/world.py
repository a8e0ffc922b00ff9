"""The world of a run, as plain data: who is billed for what, at which prices, with which cards and grants.

Nothing of the project is imported here: the oracle reckons from this, and may share nothing with what it judges.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

TENANTS = ("alpha", "beta", "gamma")
EVERYBODY = ""
ZONES = ("UTC", "America/Sao_Paulo", "Asia/Tokyo")
GOOD, DECLINED = "pm_card_visa", "pm_card_chargeCustomerFail"
DECLINED_EACH = 12
TIERED, PREPAID = "chaos-tiers", "chaos-prepaid"
#: What comes late belongs to the month before, which must still be open.
GRACE_HOURS = 35 * 24
#: Whole months: what is older may be archived. The past of a run is two months before that.
MONTHS_MIN = 6
PAST_MONTHS = (MONTHS_MIN + 2, MONTHS_MIN + 1)
VETERANS = 2
TIER_TOKENS = 8_000_000
TIER_FEE_MINOR = 10_000
TOKEN = "token"  # noqa: S105 - a unit
QUANTITY_MAX = Decimal(100_000_000)
VAULT, OLD_GRANT = Decimal(120), Decimal(100)
USERS = 7
AGE_MAX = timedelta(days=35)
AHEAD_MAX = timedelta(hours=1)
SERVICE, FEATURES = "agent", ("chat", "voice")

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
    is_vault: bool = False
    """Whose value is moved by holds and what captures them, and by nothing else."""
    is_veteran: bool = False
    """Who has used nothing for months, and something before that."""


@dataclass(frozen=True, slots=True)
class QuotaOf:
    """A limit of a tenant's on what is counted together, from before the first event on. `''`: each of the scope."""

    tenant_id: str
    name: str
    scope: str
    subject: str = ""
    kind: str = "quota"
    per: str = "month"
    zone: str = "UTC"
    measure: str = "tokens"
    limit: Decimal = Decimal(0)
    is_hard: bool = False
    currency: str | None = None
    feature: str | None = None
    service_type: str | None = None


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
    quotas: tuple[QuotaOf, ...] = ()

    @property
    def busy(self) -> tuple[CustomerOf, ...]:
        """Whoever usage comes from by itself."""
        return tuple(one for one in self.customers if not one.is_vault and not one.is_veteran)

    @property
    def past_months(self) -> tuple[datetime, ...]:
        """The beginnings of the months of the past, UTC."""
        return tuple(months_before(self.month_began_at, months) for months in PAST_MONTHS)

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
    for tenant in TENANTS:
        vault = CustomerOf(tenant, "vault", PREPAID, "UTC", ("BRL",), is_vault=True)
        people.append(vault)
        grants.append(GrantOf("vault", tenant, vault.customer_id, "BRL", VAULT, "purchase", 50))
        for number in range(VETERANS):
            veteran = CustomerOf(tenant, f"veteran-{number}", PREPAID, "UTC", ("BRL",), is_veteran=True)
            people.append(veteran)
            # One pays for a part of the past; what is left of it is debt, until somebody gives something.
            grants.append(GrantOf(veteran.customer_id, tenant, veteran.customer_id, "BRL", OLD_GRANT, "promo", 20))
    quotas = _quotas(tokens_mean, customers)
    return World(seed, began_at, tokens_mean, PLANS, PRICES, tuple(people), tuple(grants), quotas)


def _quotas(tokens_mean: int, customers: int) -> tuple[QuotaOf, ...]:
    """Of each scope, measure and kind; most are reached in a run. One tenant has none: it must not notice.

    `typical` is what an event of a common size costs who is prepaid.
    """
    typical = Decimal(tokens_mean) * Decimal("0.00006")
    whole, each = 20 * customers, 25
    paulo, tokyo = ZONES[1:]
    cost = partial(QuotaOf, measure="cost", currency="BRL")
    chat, voice = FEATURES
    return (
        QuotaOf("alpha", "tokens", "tenant", limit=Decimal(whole * tokens_mean)),
        QuotaOf("alpha", "a day's events", "customer", per="day", zone=paulo, measure="events", limit=Decimal(each)),
        QuotaOf("alpha", "a user's", "user", zone=tokyo, limit=Decimal(99 * tokens_mean), is_hard=True),
        cost("alpha", "of org-a", "organization", "org-a", limit=typical * whole),
        cost("alpha", "voice", "tenant", kind="budget", limit=typical * whole / 4, feature=voice),
        cost("alpha", "chat", "customer", "customer-003", kind="budget", limit=typical, feature=chat),
        cost("alpha", "cap", "customer", "customer-001", kind="cap", limit=typical * each, is_hard=True),
        cost("alpha", "vault", "customer", "vault", kind="cap", limit=VAULT / 2, is_hard=True),
        QuotaOf(
            "beta",
            "agents",
            "tenant",
            per="day",
            zone=tokyo,
            measure="events",
            limit=Decimal(whole),
            service_type=SERVICE,
            is_hard=True,
        ),
        QuotaOf("beta", "user-3", "user", "user-3", per="day", zone=paulo, measure="events", limit=Decimal(each)),
        QuotaOf("beta", "far away", "organization", measure="events", limit=Decimal(10**9)),
    )


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


def months_before(first: datetime, months: int) -> datetime:
    """The first of the month so many months before that of a first."""
    number = first.year * 12 + first.month - 1 - months
    return first.replace(year=number // 12, month=number % 12 + 1)


def as_utc(text: str) -> datetime:
    """A moment as it stands in an event."""
    return datetime.fromisoformat(text).astimezone(UTC)

"""A year of several customers, random but for its seed, and a look at what must not change when it is archived."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.quotas import Measure, Per, Scope
from centavo import Item, UsageEvent
from db.prices import NewPrice
from services.books.credits import Grant, grant
from services.desk.prices import load_prices
from services.desk.quotas import Wanted, set_quota
from services.metering.rerating import Asked, Span, rerate
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import rows
from tests.services.correcting import a_ladder, a_price, seconds
from tests.services.monthly import everything

FIRST = datetime(2026, 1, 5, 12, tzinfo=UTC)
LAST = datetime(2026, 12, 10, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FALLS = a_ladder(("20", "3"), ("50", "2"), (None, "1"), per=Decimal(7), model="climbing")

#: What answers for the past, whatever is archived. Of the ledger, usage is told by its sum.
ANSWERS = {
    "wallets": "SELECT * FROM wallets ORDER BY wallet_id",
    "grants": "SELECT * FROM grants_remaining ORDER BY number",
    "events": """
        SELECT tenant_id, key, customer_id, status, occurred_at, recorded_at, charged_at, period_start, is_late, tokens,
            cost, currency, fingerprint, fingerprint_version, park_reason, voided_at, void_reason
        FROM usage_events ORDER BY key
    """,
    "used": """
        SELECT wallet_id, sum(amount) FROM ledger_entries WHERE kind IN ('usage', 'checkpoint')
        GROUP BY wallet_id ORDER BY wallet_id
    """,
    "entries": "SELECT * FROM ledger_entries WHERE kind NOT IN ('usage', 'checkpoint') ORDER BY wallet_id, seq",
    "corrections": "SELECT * FROM corrections ORDER BY correction_id",
    "statements": "SELECT * FROM statement_lines ORDER BY number, line",
    "periods": "SELECT customer_id, starts_at, tokens, events, tiers_reached FROM periods ORDER BY 1, 2",
    "payments": "SELECT * FROM payments ORDER BY payment_id",
}


def answers() -> dict[str, list[tuple[Any, ...]]]:
    return {what: rows(statement) for what, statement in ANSWERS.items()}


def used_long_ago(now: datetime) -> list[UsageEvent]:
    """What ana and bob have used 300 days ago and in the weeks since; every month is closed and stated by now."""
    began = now - 300 * DAY
    customers_of_all_kinds(began)
    events = []
    for n in range(40):
        at = began + n * DAY + HOUR
        each = [
            an_event("ana", [seconds(2), seconds(1, model="climbing")], key=f"ana{n}", occurred_at=at),
            an_event("bob", [tokens(1_000_000)], key=f"bob{n}", occurred_at=at),
        ]
        record_usage(an_envelope(*each), at)
        events += each
    everything(now)
    return events


def customers_of_all_kinds(now: datetime = FIRST) -> None:
    """Plans that debit, that have tiers, and that give credits; a price that climbs; quotas that count all of it."""
    catalogues(now)
    begun: NewPrice = a_price("1")
    load_prices([begun, FALLS], now)
    a_customer("ana", currencies=("USD",), credit="40", now=now)
    a_customer("bob", plan="tiers-8m", currencies=("BRL", "USD"), now=now)
    a_customer("tom", plan="free", currencies=("CREDIT", "USD"), credit="1", now=now)
    for wanted in (
        Wanted(TENANT, "tokens", Decimal(10**9), per=Per.DAY, time_zone="America/Sao_Paulo"),
        Wanted(TENANT, "dollars", Decimal(10**6), scope=Scope.CUSTOMER, measure=Measure.COST, currency="USD"),
        Wanted(TENANT, "events", Decimal(10**6), scope=Scope.USER, measure=Measure.EVENTS),
    ):
        set_quota(wanted, now)


@dataclass
class Past:
    """What several customers do, from January to December."""

    chance: random.Random
    at: datetime = FIRST
    number: int = 0
    grants: int = 0

    def live(self, until: datetime = LAST) -> None:
        customers_of_all_kinds()
        while self.at < until:
            self.at += self.chance.randrange(1, 12 * 24) * HOUR
            everything(self.at)
            self.chance.choice([self.use, self.use, self.use, self.use, self.give, self.void, self.rerate])()
        everything(until)

    def use(self) -> None:
        events = [self._event() for _ in range(self.chance.randrange(1, 8))]
        record_usage(an_envelope(*events), self.at)

    def _event(self) -> UsageEvent:
        """Now, or some days ago, when another period may have been."""
        self.number += 1
        quantity = Decimal(self.chance.randrange(1, 2_000)).scaleb(-2)
        customer = self.chance.choice(["ana", "ana", "bob", "tom"])
        items: Sequence[Item] = [seconds(quantity), seconds(quantity, model="climbing"), seconds(1)]
        if customer == "bob":
            items = [tokens(self.chance.randrange(1, 6_000_000)), *items][: self.chance.randrange(1, 3)]
        said = {"metadata": {"page": self.number}, "user_id": f"user {self.number}"}
        occurred_at = self.at - self.chance.choice([0, 0, 1, 30, 80, 300]) * HOUR
        return an_event(
            customer, items[: self.chance.randrange(1, 4)], key=f"e{self.number}", occurred_at=occurred_at, **said
        )

    def give(self) -> None:
        self.grants += 1
        ends = self.chance.choice([None, None, self.at + 5 * DAY, self.at + 60 * DAY])
        starts = self.chance.choice([None, None, self.at - 5 * DAY])
        customer = self.chance.choice(["ana", "bob", "tom"])
        amount = Decimal(self.chance.randrange(1, 6_000)).scaleb(-2)
        given = Grant(
            TENANT, customer, "USD", amount, "promo", "bonus", f"g{self.grants}", valid_from=starts, expires_at=ends
        )
        grant(given, self.at)

    def void(self) -> None:
        charged = rows("SELECT key FROM usage_events WHERE status = 'charged' ORDER BY key")
        if charged:
            void(TENANT, self.chance.choice(charged)[0], "a mistake", self.at)

    def rerate(self) -> None:
        """Some month at another price; the ladder, too."""
        month = self.chance.randrange(1, self.at.month + 1)
        prices = (a_price(f"1.{self.chance.randrange(1, 9)}", scope=TENANT), FALLS._replace(scope=TENANT))
        asked = Asked(TENANT, Span.month(f"2026-{month:02}"), prices[: self.chance.randrange(1, 3)])
        rerate(asked, self.at, is_applied=True)

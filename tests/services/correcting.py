"""What tests of corrections share: a month in which all is under control, and a look at what stands."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.prices import LadderSpan, Rung
from centavo import Item, UsageEvent
from db.prices import NewPrice
from services.books import customers
from services.books.credits import Grant, break_expired, grant
from services.cycle import closing, months, statements
from services.desk import prices
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, an_envelope, an_event, catalogues
from tests.looking import rows

OCTOBER = datetime(2026, 10, 10, 12, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 10, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 10, 12, tzinfo=UTC)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ANA = (TENANT, "ana")


def a_price(unit_price: str, *, model: str = "llama", unit: str = "second", **fields: Any) -> NewPrice:
    """What a unit of meta's costs everybody from the year's begin on; with rungs, a ladder over the period."""
    said: dict[str, Any] = {
        "scope": "",
        "category": "llm",
        "provider": "meta",
        "model": model,
        "unit": unit,
        "currency": "USD",
        "unit_price": Decimal(unit_price),
        "per": Decimal(1),
        "ladder": (),
        "ladder_span": LadderSpan.EVENT,
        "is_provider_default": False,
        "is_ended": False,
        "effective_from": BEGAN,
        "revision": 0,
        "description": None,
    }
    return NewPrice(**said | fields)


def a_ladder(*rungs: tuple[str | None, str], **fields: Any) -> NewPrice:
    """A ladder over the period."""
    ladder = tuple(Rung(None if top is None else Decimal(top), Decimal(price)) for top, price in rungs)
    return a_price("0", ladder=ladder, ladder_span=LadderSpan.PERIOD, **fields)


def seconds(quantity: str | int | Decimal, *, model: str = "llama") -> Item:
    return Item(category="llm", provider="meta", model=model, unit="second", quantity=Decimal(quantity))


def set_up(
    *listed: NewPrice, plan: str = "prepaid", currencies: tuple[str, ...] = ("USD",), now: datetime = OCTOBER
) -> None:
    """The catalogues, these prices, and ana since then; a second of llama costs 1 where nothing is listed."""
    catalogues(now)
    prices.load_prices(listed or [a_price("1")], now)
    customers.create_customers([customers.NewCustomer(*ANA, plan, "America/Sao_Paulo", currencies)], now)


def given(amount: str, key: str, now: datetime = OCTOBER, **validity: datetime | int | None) -> None:
    grant(Grant(*ANA, "USD", Decimal(amount), "promo", "bonus", key, **validity), now)  # type: ignore[arg-type]


def used(key: str, quantity: str | int, at: datetime = OCTOBER, **fields: Any) -> Outcome:
    """So many seconds, recorded a minute after they occurred."""
    event: UsageEvent = an_event("ana", [seconds(quantity)], key=key, occurred_at=at)
    return record_usage(an_envelope(event), fields.get("now", at + MINUTE))


def month_turns(now: datetime) -> None:
    """All that the month's ticks do, until nothing is left to do."""
    for tick in (months.turn_due, break_expired, closing.close_due, statements.issue_due):
        while True:
            done = tick(now)
            if not (done.customers if isinstance(done, months.Turned) else done):
                break


def remaining() -> dict[str, Decimal]:
    """What is left of each grant, by the key it was given under, and the debt."""
    found = rows(
        "SELECT coalesce(e.idempotency_key, g.reason), g.remaining FROM grants_remaining g LEFT JOIN ledger_entries e "
        "ON (e.parts ? g.grant_id::text OR e.grant_id = g.grant_id) AND e.kind = 'grant' AND "
        "e.idempotency_key IS NOT NULL AND e.amount = g.amount"
    )
    debts = rows("SELECT debt FROM wallets WHERE currency = 'USD'")
    return dict(found) | {"debt": debts[0][0]}


def corrections(columns: str = "kind, event_key, tokens, cost") -> list[tuple[Any, ...]]:
    return rows(f"SELECT {columns} FROM corrections ORDER BY correction_id")


def event(key: str, columns: str = "status, void_reason") -> tuple[Any, ...]:
    return rows(f"SELECT {columns} FROM usage_events WHERE key = %s", key)[0]

"""What a customer has, and whether it is enough: one statement, no lock, the same rules as usage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing.affordability import Refusal
from billing.balances import SourceBalance
from billing.errors import (
    CatalogueMalformed,
    CustomerNotFound,
    ItemsMalformed,
    PriceNotFound,
    Rejected,
    TenantNotFound,
    WalletNotFound,
)
from billing.grants import Source
from centavo import Item
from config.settings import settings
from services.books.credits import Grant, grant
from services.books.rates import Estimate
from services.collecting import guards
from services.cycle import subscriptions
from services.cycle.months import turn_due
from services.desk import overview
from services.desk.wallets import Purpose, Refill, Reset, balance, can_afford
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows
from tests.services.collecting import DECLINES, GOOD, due_again, owing, pays_with, taken

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, 3, tzinfo=UTC)  # midnight in São Paulo
DAY = timedelta(days=1)
MILLION = 1_000_000


def told(*values: object) -> tuple[object, ...]:
    """Decimals and whole numbers, to be compared as numbers."""
    return values


def setting(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"CENTAVO_{name}", str(value))
    settings.cache_clear()


def give(amount: str, source: str = "promo", currency: str = "USD", now: datetime = NOW, **more: Any) -> None:
    key = f"{source}:{amount}:{currency}:{now}"
    grant(Grant(TENANT, "ana", currency, Decimal(amount), source, "test", key, **more), now)


def used(dollars: int, occurred_at: datetime = NOW) -> None:
    """Usage of ana's: a multiple of three dollars."""
    event = an_event("ana", [tokens(dollars * 100_000 // 3)], occurred_at=occurred_at)
    record_usage(an_envelope(event), occurred_at)


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that this process sends meanwhile."""
    found: list[str] = []
    execute = psycopg.Connection.execute

    def noting(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(query if isinstance(query, str) else query.decode())
        return execute(self, query, *args, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(psycopg.Connection, "execute", noting)
    try:
        yield found
    finally:
        patch.undo()


def test_a_balance_says_what_is_there_where_from_and_until_when() -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW)
    give("10", expires_at=NOW + 3 * DAY)
    give("20", "purchase", now=NOW + DAY)
    give("5", "adjustment", now=NOW + DAY, valid_from=NOW + 9 * DAY)
    used(3, NOW + DAY)

    found = balance(TENANT, "ana", NOW + 2 * DAY)

    (wallet,) = found.wallets
    assert told(found.plan_id, found.plan_version, found.status, found.period_ends_at) == (
        "prepaid",
        1,
        "active",
        DECEMBER,
    )
    has = wallet.balance
    assert told(has.available, has.reserved, has.debt, has.upcoming, has.ended) == (27, 0, 0, 5, 0)
    assert has.sources == (
        SourceBalance(Source.PROMO, Decimal(7), NOW + 3 * DAY, Decimal(7)),
        SourceBalance(Source.PURCHASE, Decimal(20), None, Decimal(0)),
    )
    assert has.balance == one("SELECT balance FROM wallets")[0] == 32
    assert told(wallet.used_total, wallet.purchased_total, wallet.received_total) == (3, 20, 35)
    assert wallet.last_refill == Refill(NOW + DAY, Decimal(5), Source.ADJUSTMENT)
    assert told(wallet.is_low, wallet.low_below, wallet.next_reset) == (False, 1, None)
    assert wallet.worth == Estimate(Decimal(27), Decimal(1), None)


def test_what_is_over_or_not_yet_there_is_not_available() -> None:
    """It stands in the balance, for usage that comes late; whoever is asked now must not count on it."""
    catalogues(NOW)
    a_customer("ana", now=NOW)
    give("10", expires_at=NOW + DAY)
    later = NOW + 2 * DAY

    has = balance(TENANT, "ana", later).wallets[0].balance

    assert told(has.balance, has.available, has.ended) == (10, 0, 10)
    assert can_afford(TENANT, "ana", later, cost=Decimal(1)).reason is Refusal.INSUFFICIENT
    assert can_afford(TENANT, "ana", NOW, cost=Decimal(8)).is_affordable


def test_debt_is_below_zero_and_low() -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW)
    used(3)

    (wallet,) = balance(TENANT, "ana", NOW).wallets

    assert told(wallet.balance.available, wallet.balance.debt, wallet.is_low) == (-3, 3, True)
    assert wallet.last_refill is None


def test_free_credits_say_when_they_come_again() -> None:
    """Not after the end of a subscription; and on the plan that will hold then."""
    catalogues(NOW)
    a_customer("ana", plan="free", currencies=("CREDIT",), now=NOW)
    turn_due(NOW)

    (wallet,) = balance(TENANT, "ana", NOW).wallets
    assert wallet.balance.sources == (SourceBalance(Source.FREE, Decimal(10_000), DECEMBER, Decimal(0)),)
    assert wallet.next_reset == Reset(DECEMBER, Decimal(10_000))
    assert balance(TENANT, "ana", DECEMBER - DAY).wallets[0].balance.expiring_soon == 10_000
    late = balance(TENANT, "ana", DECEMBER).wallets[0]
    assert told(late.balance.available, late.balance.ended) == (0, 10_000), (
        "beat is late; the month has turned all the same"
    )
    assert late.next_reset == Reset(datetime(2027, 1, 1, 3, tzinfo=UTC), Decimal(10_000))

    subscriptions.change_plan(TENANT, "ana", "prepaid", NOW)
    assert balance(TENANT, "ana", NOW).wallets[0].next_reset is None
    subscriptions.end(TENANT, "ana", NOW)
    assert balance(TENANT, "ana", NOW).status == "active"
    assert balance(TENANT, "ana", DECEMBER).status == "ended"


def test_thresholds_and_rates_are_the_installations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By currency; a rate holds since its moment, and is read again when its file changes."""
    file = tmp_path / "rates.json"
    file.write_text(
        '{"rates": [{"currency": "CREDIT", "usd": "0.001", "effective_from": "2026-11-01T00:00:00Z"},'
        ' {"currency": "CREDIT", "usd": "0.002", "effective_from": "2026-11-19T00:00:00Z"},'
        ' {"currency": "CREDIT", "usd": "0.003", "effective_from": "2026-12-01T00:00:00Z"}]}'
    )
    setting(monkeypatch, LOW_BALANCE="20, CREDIT=50", USD_RATES=file, EXPIRING_SOON_DAYS=1)
    catalogues(NOW)
    a_customer("ana", currencies=("USD", "CREDIT", "BRL"), now=NOW)
    give("20", expires_at=NOW + DAY)
    give("49", currency="CREDIT", expires_at=NOW + 2 * DAY)

    found = {one.currency: one for one in balance(TENANT, "ana", NOW).wallets}

    assert {name: one.is_low for name, one in found.items()} == {"BRL": True, "CREDIT": True, "USD": False}
    assert found["CREDIT"].worth == Estimate(Decimal("0.098"), Decimal("0.002"), datetime(2026, 11, 19, tzinfo=UTC))
    assert found["BRL"].worth is None
    assert told(found["USD"].balance.expiring_soon, found["CREDIT"].balance.expiring_soon) == (20, 0)

    file.write_text('{"rates": [{"currency": "CREDIT", "usd": -1, "effective_from": "2026-11-01T00:00:00Z"}]}')
    with pytest.raises(CatalogueMalformed, match=r"the rates in .* can't be read: Input should be greater than 0"):
        balance(TENANT, "ana", NOW)


def test_who_is_not_there_is_named() -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW)

    with pytest.raises(TenantNotFound):
        balance("nobody", "ana", NOW)
    with pytest.raises(CustomerNotFound, match="customer_id='eva'"):
        balance(TENANT, "eva", NOW)
    with pytest.raises(WalletNotFound, match="customer ana has no wallet in BRL; there are: USD"):
        balance(TENANT, "ana", NOW, "BRL")


def test_a_question_is_one_statement_and_waits_for_nobody() -> None:
    """While another transaction holds the wallets, too."""
    catalogues(NOW)
    a_customer("ana", plan="tiers-8m", currencies=("USD",), credit="10", now=NOW)
    item = Item(category="telephony", provider="twilio", model="voice", unit="minute", quantity=Decimal(1))
    can_afford(TENANT, "ana", NOW, items=[tokens(1), item])  # reads the plan and the prices

    with psycopg.connect(settings().required("database_url")) as other:
        other.execute("SELECT FROM wallets FOR UPDATE")
        other.execute("SELECT FROM customers FOR UPDATE")
        with counted() as statements:
            balance(TENANT, "ana", NOW)
            can_afford(TENANT, "ana", NOW, cost=Decimal(1))
            can_afford(TENANT, "ana", NOW, items=[tokens(1), item])

    assert [statement.count("FROM customers c") for statement in statements] == [1, 1, 1]


def test_a_question_looks_only_at_the_customer() -> None:
    """Every table but the books of prices and quotas, which have one row, is found by an index."""
    catalogues(NOW)
    a_customer("ana", credit="10", now=NOW)
    with counted() as statements:
        balance(TENANT, "ana", NOW)
        can_afford(TENANT, "ana", NOW, cost=Decimal(1))  # the first: it looks for quotas
    said = {"tenant_id": TENANT, "customer_id": "ana", "now": NOW, "period_at": NOW, "day": NOW} | asdict(Purpose())
    asked = [statement for statement in statements if "FROM customers c" in statement]

    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("SET enable_seqscan = off")
        plans = [connection.execute(b"EXPLAIN " + statement.encode(), said).fetchall() for statement in asked]

    scanned = [str(line).strip() for plan in plans for (line,) in plan if "Seq Scan" in str(line)]
    assert ["FROM quotas" in statement for statement in asked] == [False, True]
    assert {line.partition(" on ")[2].partition(" ")[0] for line in scanned} == {"price_book", "quota_book"}


def test_a_cost_is_compared_with_its_buffer() -> None:
    """A fifth more, unless told otherwise."""
    catalogues(NOW)
    a_customer("ana", now=NOW, credit="12")

    enough = can_afford(TENANT, "ana", NOW, cost=Decimal(10))
    too_much = can_afford(TENANT, "ana", NOW, cost=Decimal("10.01"))
    exactly = can_afford(TENANT, "ana", NOW, cost=Decimal(12), buffer=Decimal(1))

    assert told(enough.is_affordable, enough.available, enough.required, enough.unit) == (True, 12, 12, "USD")
    assert told(too_much.is_affordable, too_much.required, too_much.reason) == (
        False,
        Decimal("12.012"),
        Refusal.INSUFFICIENT,
    )
    assert exactly.is_affordable


def test_items_are_rated_as_their_usage_would_be() -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW, credit="0.036")

    found = can_afford(TENANT, "ana", NOW, items=[tokens(1000)])

    assert told(found.is_affordable, found.available, found.required) == (True, Decimal("0.036"), Decimal("0.036"))
    assert not can_afford(TENANT, "ana", NOW, items=[tokens(1001)]).is_affordable
    with pytest.raises(PriceNotFound, match="gpt-99/token has no price"):
        can_afford(TENANT, "ana", NOW, items=[tokens(1, model="gpt-99")])


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({}, Rejected, "either a cost or items"),
        ({"cost": Decimal(1), "items": [tokens(1)]}, Rejected, "either a cost or items"),
        ({"cost": Decimal(-1)}, Rejected, "a number of at least 0"),
        ({"cost": Decimal("NaN")}, Rejected, "a number of at least 0"),
        ({"cost": Decimal("1e30")}, Rejected, "a number of at least 0"),
        ({"cost": Decimal("0." + "1" * 39)}, Rejected, "38 digits"),
        ({"cost": Decimal(1), "buffer": Decimal(0)}, Rejected, "a buffer lies between"),
        ({"cost": Decimal(1)}, Rejected, "has wallets in CREDIT, USD; say in which currency"),
        ({"cost": Decimal(1), "currency": "BRL"}, WalletNotFound, "no wallet in BRL"),
        ({"items": []}, ItemsMalformed, "1 to 64 items, not 0"),
        ({"items": [tokens(1)] * 65}, ItemsMalformed, "not 65"),
        ({"items": [tokens(100_000_001)]}, ItemsMalformed, r"items\[0\].quantity 100000001 is above 100000000"),
        ({"items": [tokens("1.5")]}, ItemsMalformed, "tokens are counted whole"),
    ],
)
def test_what_can_not_be_asked_says_why(asked: dict[str, Any], error: type[Exception], words: str) -> None:
    catalogues(NOW)
    a_customer("ana", currencies=("USD", "CREDIT"), now=NOW)

    with pytest.raises(error, match=words):
        can_afford(TENANT, "ana", NOW, **asked)


def on_tiers(used_tokens: int = 0) -> None:
    catalogues(NOW)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=NOW)
    turn_due(NOW)
    if used_tokens:
        record_usage(an_envelope(an_event("ana", [tokens(used_tokens)], occurred_at=NOW)), NOW)


def test_on_a_plan_with_tiers_the_period_answers() -> None:
    """What the fee covers and five tiers more; the wallet is empty, and is not asked."""
    on_tiers(3 * MILLION)

    found = can_afford(TENANT, "ana", NOW, items=[tokens(10 * MILLION)])

    assert told(found.is_affordable, found.unit, found.available, found.required) == (
        True,
        "token",
        45 * MILLION,
        12 * MILLION,
    )
    beyond = can_afford(TENANT, "ana", NOW, items=[tokens(38 * MILLION)])
    assert told(beyond.is_affordable, beyond.reason) == (False, Refusal.OPEN_TIERS)
    assert can_afford(TENANT, "ana", DECEMBER, items=[tokens(1)]).available == 48 * MILLION, "a new month"


def test_what_the_plan_does_not_cover_needs_a_wallet_too() -> None:
    on_tiers()
    call = Item(category="telephony", provider="twilio", model="voice", unit="minute", quantity=Decimal(1))

    with pytest.raises(WalletNotFound, match="priced in USD"):
        can_afford(TENANT, "ana", NOW, items=[tokens(1), call])
    a_customer("ana", plan="tiers-8m", currencies=("USD",), now=NOW)
    found = can_afford(TENANT, "ana", NOW, items=[tokens(1), call])

    assert [(check.unit, check.refusal) for check in found.checks] == [("token", None), ("USD", Refusal.INSUFFICIENT)]


def test_with_as_many_open_tiers_as_the_plan_bears_nothing_is_affordable() -> None:
    """The guard and the counter say the same; what is paid opens it again."""
    payments = owing(GOOD, tiers=5)
    now = datetime.now(UTC)

    refused = can_afford(TENANT, "ana", now, items=[tokens(1)])
    assert told(refused.is_affordable, refused.reason) == (False, Refusal.OPEN_TIERS)
    assert not guards.is_affordable(TENANT, "ana")

    taken(payments[0])
    assert can_afford(TENANT, "ana", now, items=[tokens(1)]).is_affordable


def test_a_held_customer_uses_up_what_is_covered_and_no_more() -> None:
    on_tiers(5 * MILLION)
    overview.hold(TENANT, "ana", "asks for an invoice", NOW)

    assert can_afford(TENANT, "ana", NOW, items=[tokens(2 * MILLION)]).is_affordable
    found = can_afford(TENANT, "ana", NOW, items=[tokens(3 * MILLION)])
    assert told(found.available, found.reason) == (3 * MILLION, Refusal.HELD)


def test_tiers_that_no_cap_lets_through_are_not_affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fee of the month is due today, and counts."""
    setting(monkeypatch, CUSTOMER_DAY_PAYMENTS_MAX=2)
    on_tiers()

    found = can_afford(TENANT, "ana", NOW, items=[tokens(16 * MILLION)])

    assert told(found.available, found.reason) == (16 * MILLION, Refusal.CAP_REACHED)
    setting(monkeypatch, CUSTOMER_DAY_PAYMENTS_MAX=20, CUSTOMER_DAY_MINOR_MAX=69_999)
    assert can_afford(TENANT, "ana", NOW, items=[tokens(1)]).available == 24 * MILLION


def fee_declined(card: str | None) -> datetime:
    """The fee of ana's month, tried with this card until nothing more is tried."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=now)
    if card:
        pays_with(card)
    turn_due(now)
    ((fee,),) = rows("SELECT payment_id FROM payments WHERE kind = 'subscription'")
    taken(fee, now)
    while one("SELECT state FROM payments WHERE payment_id = %s", fee)[0] == "retry_scheduled":
        taken(fee, due_again(fee))
    return now


@pytest.mark.parametrize("card", [None, DECLINES])
def test_a_fee_that_is_not_paid_stops_as_the_installation_says(
    monkeypatch: pytest.MonkeyPatch, card: str | None
) -> None:
    now = fee_declined(card)

    assert can_afford(TENANT, "ana", now, items=[tokens(1)]).reason is Refusal.FEE_UNPAID
    setting(monkeypatch, UNPAID_FEE_STOPS="never")
    assert can_afford(TENANT, "ana", now, items=[tokens(1)]).is_affordable


def test_a_fee_that_is_on_its_way_stops_only_where_it_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    on_tiers()

    assert can_afford(TENANT, "ana", NOW, items=[tokens(1)]).is_affordable
    setting(monkeypatch, UNPAID_FEE_STOPS="unpaid")
    assert can_afford(TENANT, "ana", NOW, items=[tokens(1)]).reason is Refusal.FEE_UNPAID
    assert can_afford(TENANT, "ana", DECEMBER, items=[tokens(1)]).reason is Refusal.FEE_UNPAID


def test_a_paused_subscription_covers_nothing() -> None:
    """Its period runs to its end; the next one has no fee, and covers nothing."""
    on_tiers()
    subscriptions.pause(TENANT, "ana", NOW + DAY)

    assert can_afford(TENANT, "ana", NOW + 2 * DAY, items=[tokens(1)]).is_affordable
    assert can_afford(TENANT, "ana", DECEMBER, items=[tokens(1)]).reason is Refusal.NOT_SUBSCRIBED
    assert balance(TENANT, "ana", NOW + 2 * DAY).status == "paused"

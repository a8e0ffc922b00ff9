"""What has happened, page by page and summed up."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import CursorMalformed, CustomerNotFound, Rejected, TenantNotFound, WalletNotFound
from config.settings import settings
from db.history import Active, Bucket, Collected, events_statement
from services.cursors import after, cursor
from services.cycle.months import turn_due
from services.desk.history import Asked, AskedEntries, Order, Page, Unit, aggregated, ledger, statistics, usage
from services.metering import voiding_usage
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows
from tests.services.collecting import pays_with, taken

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

real = pytest.mark.usefixtures("billing_database")


def told(*values: object) -> tuple[object, ...]:
    """Decimals and whole numbers, to be compared as numbers."""
    return values


def asked(customer: str | None = "ana", **more: Any) -> Asked:
    return Asked(TENANT, customer, more.pop("since", SINCE), more.pop("until", UNTIL), **more)


def all_pages(page: Callable[[str | None], Page[Any]]) -> list[Any]:
    """Every row of every page; each but the last is full."""
    found: list[Any] = []
    at: str | None = None
    while True:
        one_page = page(at)
        found += one_page.rows
        at = one_page.next
        if at is None:
            return found


def some_usage() -> None:
    """Two customers: charged by two features, one parked, one voided, one of October."""
    catalogues(NOW)
    a_customer("ana", credit="10", now=NOW)
    a_customer("eva", credit="10", now=NOW)
    events = [
        an_event("ana", key=f"a{n}", occurred_at=NOW - n // 2 * HOUR, feature="chat", service_type="model_inference")
        for n in range(5)
    ]
    events += [
        an_event("ana", key="voice", occurred_at=NOW, feature="voice", organization_id="org", user_id="u"),
        an_event("ana", [tokens(1, model="gpt-99")], key="parked", occurred_at=NOW - 3 * HOUR, feature="chat"),
        an_event("ana", key="october", occurred_at=NOW - timedelta(days=25)),
        an_event("eva", key="hers", occurred_at=NOW),
    ]
    record_usage(an_envelope(*events), NOW)
    voiding_usage.void(TENANT, "a4", "a mistake", NOW)


@real
def test_usage_comes_in_order_and_page_by_page_without_a_gap() -> None:
    """Equal moments do not break a page; late arrivals don't move what comes after a cursor."""
    some_usage()
    november = ["voice", "a1", "a0", "a3", "a2", "a4", "parked"]

    newest = all_pages(lambda at: usage(asked(), limit=2, at=at))
    oldest = all_pages(lambda at: usage(asked(), limit=3, at=at, order=Order.OLDEST))

    assert [row.key for row in newest] == november
    assert [row.key for row in oldest] == november[::-1]
    first = usage(asked(), limit=2)
    record_usage(an_envelope(an_event("ana", key="later", occurred_at=NOW + HOUR / 2)), NOW)
    assert [row.key for row in usage(asked(), limit=2, at=first.next).rows] == november[2:4]


@real
def test_usage_is_filtered_and_costs_what_it_costs_now() -> None:
    some_usage()

    def keys(**more: Any) -> set[str]:
        return {row.key for row in usage(asked(**more)).rows}

    assert keys(feature="voice") == {"voice"}
    assert keys(status="parked") == {"parked"}
    assert keys(service_type="model_inference", status="charged") == {"a0", "a1", "a2", "a3"}
    assert keys(organization_id="org", user_id="u") == {"voice"}
    assert keys(feature="' OR true --") == set()
    assert keys(since=NOW, until=NOW + HOUR) == {"a0", "a1", "voice"}
    assert keys(since=SINCE - timedelta(days=31), until=SINCE) == {"october"}
    assert {row.key for row in usage(asked(None)).rows} == keys() | {"hers"}
    costs = {row.key: (row.cost, row.tokens) for row in usage(asked()).rows}
    assert costs["a0"] == (Decimal("0.03"), 1000)
    assert told(*costs["a4"]) == told(*costs["parked"]) == (0, 0), "voided, and parked"


@real
def test_a_customers_page_reads_no_other_customers_events() -> None:
    """Both arms are found by an index."""
    some_usage()
    statement, said = events_statement(asked().span(), 50, after=(NOW, "k"), is_ascending=False)

    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(str(row[0]) for row in connection.execute(b"EXPLAIN " + statement, said))

    assert "Seq Scan" not in plan
    assert "usage_events_of_period" in plan
    assert "customer_id = 'ana'" in plan.split("usage_events_of_period")[1]


@real
def test_a_ledger_is_told_wallet_by_wallet_or_for_a_tenant() -> None:
    some_usage()
    whole = AskedEntries(TENANT, "ana", SINCE, UNTIL)

    hers = all_pages(lambda at: ledger(whole, limit=2, at=at, order=Order.OLDEST))
    usage_alone = all_pages(
        lambda at: ledger(AskedEntries(TENANT, "ana", SINCE, UNTIL, "USD", "usage"), limit=2, at=at)
    )
    everybodys = all_pages(lambda at: ledger(AskedEntries(TENANT, None, SINCE, UNTIL), limit=3, at=at))

    assert [row.seq for row in hers] == list(range(1, len(hers) + 1))
    assert hers[-1].balance_after == one("SELECT balance FROM wallets WHERE customer_id = 'ana'")[0]
    assert [row.seq for row in usage_alone] == [row.seq for row in hers if row.kind == "usage"][::-1]
    assert len(everybodys) == one("SELECT count(*) FROM ledger_entries")[0]
    assert {row.customer_id for row in everybodys} == {"ana", "eva"}


@real
def test_statistics_come_to_what_the_list_says() -> None:
    some_usage()

    found = statistics(asked(None))

    listed = usage(asked(None)).rows
    by_status = {group.name: group.events for group in found.groups if group.of == "status"}
    assert by_status == dict(Counter(row.status for row in listed)) == {"charged": 6, "parked": 1, "voided": 1}
    assert found.revenue() == {"USD": sum((row.cost for row in listed), Decimal(0))} == {"USD": Decimal("0.18")}
    assert (found.events, found.tokens) == (8, 6000)
    by_feature = {g.name: g.cost for g in found.groups if g.of == "feature" and g.currency}
    assert by_feature == {"chat": Decimal("0.12"), "voice": Decimal("0.03"), None: Decimal("0.03")}
    by_service = {g.name: g.cost for g in found.groups if g.of == "service_type" and g.currency}
    assert by_service == {"model_inference": Decimal("0.12"), None: Decimal("0.06")}
    assert found.active == Active(customers=2, organizations=1, users=1)
    assert found.collected == ()


@real
def test_payments_are_revenue_of_their_own() -> None:
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=now)
    pays_with("pm_card_visa")
    turn_due(now)
    for (payment,) in rows("SELECT payment_id FROM payments"):
        taken(payment, now)

    found = statistics(asked(since=now - HOUR, until=now + HOUR))

    assert found.collected == (Collected("subscription", "BRL", 1, 40_000),)
    assert (found.events, found.revenue()) == (0, {})


@real
def test_usage_is_summed_by_the_clock_of_a_zone() -> None:
    """The night of São Paulo is another day in UTC; what is voided or parked is not usage."""
    some_usage()
    at_night = datetime(2026, 11, 10, 1, tzinfo=UTC)
    record_usage(an_envelope(an_event("ana", key="night", occurred_at=at_night)), NOW)

    days = aggregated(asked(), Unit.DAY, "America/Sao_Paulo")
    hours = aggregated(asked(), Unit.HOUR)
    months = aggregated(asked(None), Unit.MONTH)

    cent = Decimal("0.03")
    assert days == [
        Bucket(datetime(2026, 11, 9, 3, tzinfo=UTC), "USD", 1, 1000, cent),
        Bucket(datetime(2026, 11, 20, 3, tzinfo=UTC), "USD", 5, 5000, 5 * cent),
    ]
    assert [(bucket.starts_at, bucket.events) for bucket in hours] == [(at_night, 1), (NOW - HOUR, 2), (NOW, 3)]
    assert months == [Bucket(SINCE, "USD", 7, 7000, 7 * cent)]


@real
def test_what_can_not_be_asked_says_why() -> None:
    some_usage()
    a_customer("two", currencies=("USD", "BRL"), now=NOW)
    page = usage(asked(), limit=2)

    for question, words in (
        (asked(until=SINCE), "ends after it begins, and is at most 366 days"),
        (asked(None, since=SINCE - timedelta(days=30)), "a span of a tenant .* at most 32 days"),
        (asked(since=SINCE.replace(tzinfo=None)), "with their zone"),
        (asked(feature="x" * 129), "feature has 1 to 128 characters"),
        (asked(feature="\0"), "no NUL"),
    ):
        with pytest.raises(Rejected, match=words):
            usage(question)
    for limit in (0, 201):
        with pytest.raises(Rejected, match=f"1 to 200 rows, not {limit}"):
            usage(asked(), limit=limit)
    for other in (asked("eva"), asked(feature="chat"), asked(until=NOW)):
        with pytest.raises(CursorMalformed, match="from another question"):
            usage(other, at=page.next)
    with pytest.raises(CursorMalformed):
        usage(asked(), at=page.next, order=Order.OLDEST)
    with pytest.raises(CustomerNotFound):
        usage(asked("nobody"))
    with pytest.raises(TenantNotFound):
        statistics(Asked("nobody", None, SINCE, UNTIL))
    with pytest.raises(Rejected, match="has wallets in BRL, USD; say in which"):
        ledger(AskedEntries(TENANT, "two", SINCE, UNTIL))
    with pytest.raises(WalletNotFound, match="no wallet in EUR; there are: BRL, USD"):
        ledger(AskedEntries(TENANT, "two", SINCE, UNTIL, "EUR"))
    with pytest.raises(Rejected, match="say whose"):
        ledger(AskedEntries(TENANT, None, SINCE, UNTIL, "USD"))
    with pytest.raises(Rejected, match="is not a time zone"):
        aggregated(asked(), Unit.DAY, "Mars/Olympus")
    with pytest.raises(Rejected, match="ask for days"):
        aggregated(asked(since=SINCE - timedelta(days=30)), Unit.HOUR)


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-(2**63) + 1, 2**63 - 1), st.text(max_size=100))
def test_a_cursor_comes_back_as_it_was(at: datetime, number: int, text: str) -> None:
    place = (at, number, text.replace("\0", ""))

    assert after(cursor(["q", None, 1], place), ["q", None, 1], (datetime, int, str)) == place


@given(st.text(max_size=200))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorMalformed):
        after(text, ["q"], (datetime, int))

"""Closing, and the statement of what is closed: it adds up, opens where the last one closed, and is never changed."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from billing.plans import LateEvents
from billing.statements import AccountKind, LineKind, Statement
from centavo import Item
from config.settings import settings
from services.books.adjusting import Adjustment, adjust
from services.books.credits import Grant, grant
from services.collecting import cards, refunds
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.cycle import closing, statements
from services.cycle.statement_pages import as_html, as_json, from_json
from services.cycle.statements import StatementNotFound
from services.metering.parked import replay
from tests.factories import TENANT, tokens
from tests.looking import one, parked_reasons, rows
from tests.services.monthly import (
    APRIL,
    DAY,
    FEBRUARY,
    FEE,
    GRACE,
    JANUARY,
    MARCH,
    PREPAID,
    a_plan,
    everything,
    joined,
    offered,
    stated,
    turned,
    used,
)

pytestmark = pytest.mark.usefixtures("billing_database")

SPEECH = Item(category="stt", provider="openai", model="whisper-1", unit="second", quantity=Decimal(60))
HOUR = timedelta(hours=1)
MIXED = replace(PREPAID, plan_id="monthly", free_credits=Decimal(10), free_credits_currency="USD")


def collected(now: datetime) -> None:
    for tenant_id, payment_id in claim_due(now):
        collect(tenant_id, payment_id, gateway(), now)


def told(statement: Statement) -> list[tuple[str, Decimal]]:
    """(kind, amount) of each line."""
    return [(line.kind.value, line.amount) for line in statement.lines]


def balances(statement: Statement) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
    return {(b.account.value, b.currency): (b.opening, b.closing) for b in statement.balances}


def test_a_statement_tells_fee_tiers_and_what_came_in_and_the_next_opens_with_what_is_owed() -> None:
    offered(a_plan())
    joined(JANUARY)
    cards.attach(TENANT, "ana", "pm_card_visa", gateway(), JANUARY)
    turned(JANUARY)
    collected(JANUARY)
    used(JANUARY + 5 * DAY, tokens(17_000_000))

    everything(FEBRUARY + GRACE)
    collected(FEBRUARY + GRACE + HOUR)
    everything(MARCH + GRACE)

    january, february = stated()
    assert (january.number, january.tokens, january.tiers, january.events) == (1, 17_000_000, 2, 1)
    assert told(january) == [
        ("fee", Decimal(400)),
        ("collected", Decimal(-400)),
        ("tier", Decimal(100)),
        ("tier", Decimal(100)),
        ("covered", Decimal(0)),
    ]
    assert balances(january)["due", "BRL"] == (Decimal(0), Decimal(200))
    assert told(february) == [
        ("collected", Decimal(-100)),
        ("collected", Decimal(-100)),
        ("fee", Decimal(400)),
        ("collected", Decimal(-400)),
    ]
    assert balances(february)["due", "BRL"] == (Decimal(200), Decimal(0))


def test_a_currency_without_cents_is_stated_as_it_is_collected() -> None:
    """Stripe is asked for 1000 yen as 1000."""
    offered(replace(PREPAID, plan_id="monthly", payment_currency="JPY", fixed_fee_minor=1000))
    joined(JANUARY, currencies=("USD",))
    everything(FEBRUARY + GRACE)

    (january,) = stated()

    assert rows("SELECT DISTINCT amount_minor, currency FROM payments") == [(1000, "JPY")]
    assert told(january) == [("fee", Decimal(1000))]
    assert balances(january)["due", "JPY"] == (Decimal(0), Decimal(1000))


def test_a_wallet_goes_from_statement_to_statement() -> None:
    """Grants, usage and breakage are lines; each opening balance is the last closing one."""
    offered(MIXED)
    joined(JANUARY)
    turned(JANUARY)
    grant(Grant(TENANT, "ana", "USD", Decimal(5), "promo", "welcome_bonus", "w"), JANUARY + DAY)
    used(JANUARY + 5 * DAY, tokens(100_000), SPEECH)
    used(FEBRUARY + 5 * DAY, tokens(100_000))

    everything(APRIL + GRACE)

    january, february, march = stated()
    by_product = [(line.about["model"], int(line.quantity or 0), line.events) for line in january.lines if line.events]
    assert by_product == [("gpt-4", 100_000, 1), ("whisper-1", 60, 1)]
    assert [kind for kind, _ in told(january)] == ["usage", "usage", "grant", "grant"]
    wallet = [balances(statement)["wallet", "USD"] for statement in (january, february, march)]
    assert [opening for opening, _ in wallet[1:]] == [closing for _, closing in wallet[:-1]]
    assert wallet[0][0] == 0
    assert one("SELECT count(*) FROM ledger_entries WHERE kind = 'breakage'") == (3,)


def test_what_a_subscription_gave_and_what_was_put_right_are_told_as_such() -> None:
    """A credit of a subscription among grants, an adjustment as one, whichever way it went."""
    offered(MIXED)
    joined(JANUARY)
    turned(JANUARY)
    given = (Decimal(5), "subscription", "subscription_refill", "s")
    grant(Grant(TENANT, "ana", "USD", *given), JANUARY + DAY)
    for amount in ("3", "-2"):
        asked = Adjustment(TENANT, "ana", "USD", Decimal(amount), "manual_adjustment", amount)
        adjust(asked, JANUARY + DAY)

    everything(FEBRUARY + GRACE)

    january = stated()[0]
    lines = [(line.kind.value, line.amount, line.about.get("source")) for line in january.lines]
    assert ("grant", Decimal(5), "subscription") in lines
    assert [line for line in lines if line[0] == "adjustment"] == [
        ("adjustment", Decimal(3), "adjustment"),
        ("adjustment", Decimal(-2), None),
    ]
    assert balances(january)["wallet", "USD"] == (Decimal(0), Decimal(16))


def test_an_event_that_comes_within_the_grace_is_in_the_statement_of_its_month() -> None:
    offered(a_plan())
    joined(JANUARY)
    turned(FEBRUARY)

    used(FEBRUARY - HOUR, tokens(1000), came=FEBRUARY + GRACE - HOUR)
    everything(FEBRUARY + GRACE)

    assert [statement.tokens for statement in stated()] == [1000]
    assert rows("SELECT is_late FROM usage_events") == [(False,)]


def test_one_that_comes_after_it_counts_in_the_current_month_and_is_marked() -> None:
    offered(a_plan())
    joined(JANUARY)
    everything(FEBRUARY + GRACE)

    used(FEBRUARY - HOUR, tokens(1000), came=FEBRUARY + GRACE)
    everything(MARCH + GRACE)

    assert [statement.tokens for statement in stated()] == [0, 1000]
    assert rows("SELECT is_late, period_start FROM usage_events") == [(True, FEBRUARY)]


def test_a_plan_may_say_that_a_person_decides_about_what_comes_late() -> None:
    offered(a_plan(late_events=LateEvents.PARK))
    joined(JANUARY)
    everything(FEBRUARY + GRACE)

    used(FEBRUARY - HOUR, tokens(1000), came=FEBRUARY + GRACE, key="late")
    parked = parked_reasons()
    replay(f"event:{TENANT}/late", FEBRUARY + GRACE + HOUR)

    assert parked == {"period_closed": 1}
    assert rows("SELECT status, is_late, period_start FROM usage_events") == [("charged", True, FEBRUARY)]


def test_a_shorter_grace_closes_earlier() -> None:
    offered(a_plan(grace_hours=1))
    joined(JANUARY)
    turned(FEBRUARY)

    closed = [closing.close_due(FEBRUARY + timedelta(minutes=minutes)) for minutes in (59, 60, 61)]

    assert closed == [0, 1, 0]


def test_a_month_before_one_that_is_closed_is_closed_too() -> None:
    """Its row was never there: it must not appear behind a statement that was issued."""
    offered(a_plan())
    joined(FEBRUARY)
    everything(MARCH + GRACE)

    used(FEBRUARY - DAY, tokens(1000), came=MARCH + GRACE)

    assert rows("SELECT starts_at FROM periods ORDER BY 1") == [(FEBRUARY,), (MARCH,)]
    assert rows("SELECT is_late, period_start FROM usage_events") == [(True, MARCH)]


def test_what_was_refunded_later_is_told_in_the_next() -> None:
    offered(a_plan())
    joined(JANUARY)
    cards.attach(TENANT, "ana", "pm_card_visa", gateway(), JANUARY)
    turned(JANUARY)
    collected(JANUARY)
    everything(FEBRUARY + GRACE)
    (payment_id,) = one("SELECT payment_id FROM payments WHERE period_start = %s", JANUARY)

    asked = refunds.refund(TENANT, payment_id, 15_000, "goodwill", "k", FEBRUARY + 5 * DAY)
    refunds.carry_out(TENANT, asked.refund_id, gateway(), FEBRUARY + 5 * DAY)
    everything(MARCH + GRACE)

    january, february = stated()
    of_payment = [line for line in february.lines if line.reference.get("payment_id") == str(payment_id)]
    assert [(line.kind, line.amount) for line in of_payment] == [
        (LineKind.VOIDED, Decimal(-150)),
        (LineKind.REFUNDED, Decimal(150)),
    ]
    assert balances(january)["due", "BRL"] == (Decimal(0), Decimal(0))
    assert balances(february)["due", "BRL"] == (Decimal(0), Decimal(FEE).scaleb(-2))


def test_two_closers_at_once_number_without_gaps() -> None:
    offered(a_plan())
    for number in range(30):
        joined(JANUARY, f"c{number:02}")
    turned(MARCH + GRACE)

    def close() -> None:
        while closing.close_due(MARCH + GRACE):
            pass
        while statements.issue_due(MARCH + GRACE):
            pass

    threads = [threading.Thread(target=close) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close()

    numbers = [number for (number,) in rows("SELECT number FROM statements ORDER BY number")]
    assert numbers == list(range(1, 61))
    assert one("SELECT count(DISTINCT (customer_id, period_start)) FROM statements") == (60,)


def test_a_number_is_given_back_by_a_statement_that_could_not_be_issued(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(a_plan())
    joined(JANUARY)
    joined(JANUARY, "bob")
    turned(FEBRUARY + GRACE)
    closing.close_due(FEBRUARY + GRACE)

    def fails(*_: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("db.statements.add", fails)
        issued = statements.issue_due(FEBRUARY + GRACE)
    alerts = rows("SELECT kind, subject FROM alerts ORDER BY subject")
    everything(FEBRUARY + GRACE)

    assert issued == 0
    assert alerts == [("statement_fails", "ana"), ("statement_fails", "bob")]
    assert rows("SELECT number, customer_id FROM statements ORDER BY number") == [(1, "ana"), (2, "bob")]


def test_a_statement_can_not_be_changed() -> None:
    offered(a_plan())
    joined(JANUARY)
    everything(FEBRUARY + GRACE)

    with psycopg.connect(settings().required("database_url")) as connection:
        for table in ("statements", "statement_lines", "statement_balances"):
            with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never changed"):
                connection.execute(f"UPDATE {table} SET number = 7")
            connection.rollback()


def test_a_statement_comes_as_json_and_as_a_page() -> None:
    offered(a_plan())
    joined(JANUARY)
    used(JANUARY + DAY, tokens(9_000_000))
    everything(FEBRUARY + GRACE)

    statement = statements.find(TENANT, 1)

    assert from_json(as_json(statement)) == statement
    assert "500,00" in as_html(statement, "pt-BR")
    with pytest.raises(StatementNotFound):
        statements.find(TENANT, 2)


def test_an_uncollected_top_up_is_no_debt() -> None:
    """A customer who asked for one and whose card was declined owes nothing for it."""
    from services.collecting.topups import Offer, request

    offered(a_plan())
    joined(JANUARY)
    request(TENANT, "ana", "USD", Offer(Decimal(20), 10_000, "BRL"), "k", JANUARY + DAY)

    everything(FEBRUARY + GRACE)

    (statement,) = stated()
    assert told(statement) == [("fee", Decimal(400))]
    assert {balance.account for balance in statement.balances} == {AccountKind.DUE, AccountKind.WALLET}

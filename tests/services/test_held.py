"""A customer who is held, or slow, waits; everybody else goes on at once, be they of the same tenant or another."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from billing.errors import DatabaseBusy, DatabaseSlow
from db.session import in_transaction
from services.books.credits import Grant, break_expired, grant
from services.cycle import closing, statements
from services.desk.credit_holds import HoldWish, expire_due, reserve
from services.desk.prices import load_prices
from services.metering import inbox, repricing
from services.metering.repricing import replay_priced
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, an_envelope, an_event, tokens
from tests.looking import one, parked_reasons, rows, wallet
from tests.services.held import held, impatient, slow
from tests.services.monthly import (
    DAY,
    FEBRUARY,
    GRACE,
    JANUARY,
    PREPAID,
    a_plan,
    everything,
    fees,
    joined,
    offered,
    turned,
)
from tests.services.test_parked import a_price

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _impatient(billing_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert billing_database
    impatient(monkeypatch)


def customers(*others: str, plan: str = "monthly", at: datetime = JANUARY) -> None:
    for name in ("ana", *others, "zoe"):
        joined(at, name, plan=plan, zone="UTC", currencies=("USD",))


def alerts() -> list[tuple[str, str]]:
    return [(kind, subject) for kind, subject in rows("SELECT kind, subject FROM alerts ORDER BY 1, 2")]


def test_months_turn_for_all_but_who_is_held() -> None:
    """Nobody is told: they turn some minutes later."""
    offered(a_plan())
    customers("held")
    turned(JANUARY)

    with held():
        turned(FEBRUARY + DAY)
        late = [len(fees(name)) for name in ("ana", "held", "zoe")]
    turned(FEBRUARY + DAY + timedelta(minutes=5))

    assert late == [2, 1, 2]
    assert len(fees("held")) == 2
    assert alerts() == []


def test_months_turn_for_all_but_who_takes_too_long() -> None:
    """A person is told, since this does not end by itself."""
    offered(a_plan())
    customers("slow")
    turned(JANUARY)

    with slow("periods"):
        turned(FEBRUARY + DAY)
        late = [len(fees(name)) for name in ("ana", "slow", "zoe")]
    turned(FEBRUARY + DAY + HOUR)

    assert late == [2, 1, 2]
    assert len(fees("slow")) == 2
    assert alerts() == [("month_fails", "slow")]


def test_periods_are_closed_but_for_who_is_held() -> None:
    offered(a_plan())
    customers("held")
    turned(FEBRUARY + GRACE)
    closed = "SELECT customer_id FROM periods WHERE closed_at IS NOT NULL ORDER BY 1"

    with held():
        assert [closing.close_due(FEBRUARY + GRACE) for _ in range(2)] == [2, 0]
        assert rows(closed) == [("ana",), ("zoe",)]
    assert closing.close_due(FEBRUARY + GRACE) == 1

    assert rows(closed) == [("ana",), ("held",), ("zoe",)]
    assert alerts() == []


def test_grants_are_broken_and_holds_expire_but_for_who_is_held() -> None:
    offered(replace(PREPAID, plan_id="monthly"))
    customers("held")
    for name in ("ana", "held", "zoe"):
        grant(Grant(TENANT, name, "USD", Decimal(9), "promo", "r", f"a:{name}", expires_at=JANUARY + DAY), JANUARY)
        grant(Grant(TENANT, name, "USD", Decimal(5), "promo", "r", f"b:{name}"), JANUARY)
        reserve(HoldWish(TENANT, name, f"hold:{name}", Decimal(3), "USD"), JANUARY + 2 * DAY)

    with held():
        assert [break_expired(FEBRUARY), break_expired(FEBRUARY)] == [2, 0]
        assert [expire_due(FEBRUARY), expire_due(FEBRUARY)] == [2, 0]
    assert [break_expired(FEBRUARY), expire_due(FEBRUARY)] == [1, 1]

    assert [wallet(name) for name in ("ana", "held", "zoe")] == [5, 5, 5]
    assert one("SELECT sum(reserved) FROM wallets") == (0,)


def an_envelope_of(*names: str, at: datetime, more: tuple[bytes, ...] = ()) -> bytes:
    events = [an_event(name, [tokens(1000)], key=f"{name}{n}", occurred_at=at) for n in range(3) for name in names]
    return an_envelope(*events, *more)


def test_usage_of_all_but_who_is_held_is_charged_at_once() -> None:
    """The envelope is not done until all of it is, and comes again: what was charged is known by then."""
    offered(replace(PREPAID, plan_id="monthly"))
    customers("held")
    turned(JANUARY)
    envelope = an_envelope_of("held", "ana", "zoe", at=JANUARY, more=(b'{"no":"event"}',))

    with held():
        for _ in range(2):
            with pytest.raises(DatabaseBusy):
                record_usage(envelope, JANUARY + HOUR)
            assert rows("SELECT customer_id, count(*) FROM usage_events GROUP BY 1 ORDER BY 1") == [
                ("ana", 3),
                ("zoe", 3),
            ]
            assert parked_reasons() == {"event_malformed": 1}
    outcome = record_usage(envelope, JANUARY + HOUR)

    assert outcome == Outcome(received=10, charged=3, duplicates=6)
    assert len({wallet(name) for name in ("ana", "held", "zoe")}) == 1


def test_usage_of_all_but_who_is_slow_is_charged_at_once() -> None:
    offered(replace(PREPAID, plan_id="monthly"))
    customers("slow")
    turned(JANUARY)
    envelope = an_envelope_of("slow", "ana", "zoe", at=JANUARY)

    with slow("wallets"), pytest.raises(DatabaseSlow):
        record_usage(envelope, JANUARY + HOUR)
    charged = rows("SELECT customer_id, count(*) FROM usage_events GROUP BY 1 ORDER BY 1")
    outcome = record_usage(envelope, JANUARY + HOUR)

    assert charged == [("ana", 3), ("zoe", 3)]
    assert outcome == Outcome(received=9, charged=3, duplicates=6)


def test_the_inbox_is_drained_but_for_who_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows of theirs come first, and however often one looks: nothing of it is taken for a killer."""
    offered(replace(PREPAID, plan_id="monthly"))
    customers("held")
    turned(JANUARY)
    monkeypatch.setattr(inbox, "ENVELOPE_EVENTS_MAX", 4)
    for name, number in (("held", 6), ("ana", 3), ("zoe", 3)):
        for n in range(number):
            event = an_event(name, [tokens(1000)], key=f"{name}{n}", occurred_at=JANUARY).to_wire().decode()
            one(
                "INSERT INTO usage_inbox (tenant_id, customer_id, event, written_at)"
                " VALUES (%s, %s, %s::jsonb, now()) RETURNING 1",
                TENANT,
                name,
                event,
            )

    with held():
        put_off: set[tuple[str, str]] = set()
        assert [inbox.drain(JANUARY + HOUR, put_off) for _ in range(3)] == [4, 2, 0]
        assert put_off == {(TENANT, "held")}
        for _ in range(5):
            assert inbox.drain(JANUARY + HOUR) == 0
        assert rows("SELECT customer_id, count(*) FROM usage_inbox GROUP BY 1") == [("held", 6)]
    assert [inbox.drain(JANUARY + HOUR) for _ in range(3)] == [4, 2, 0]

    assert parked_reasons() == {}
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (12,)
    assert one("SELECT count(*) FROM envelope_attempts") == (0,)


def test_what_has_its_price_now_is_charged_but_for_who_is_held() -> None:
    """Theirs is looked for once more by itself."""
    offered(replace(PREPAID, plan_id="monthly"))
    customers("held")
    turned(JANUARY)
    at = JANUARY + HOUR
    settled = at + repricing.SETTLES
    for moment in (at, settled):
        while replay_priced(moment):
            pass
    events = [
        an_event(name, [tokens(100, model="gpt-99")], key=f"{name}{n}", occurred_at=at)
        for name in ("ana", "held", "zoe")
        for n in range(2)
    ]
    record_usage(an_envelope(*events), settled)
    load_prices([a_price()], settled)
    charged = "SELECT customer_id, count(*) FROM usage_events WHERE status = 'charged' GROUP BY 1 ORDER BY 1"

    with held():
        put_off: set[tuple[str, str]] = set()
        while replay_priced(settled, put_off):
            pass
        assert rows(charged) == [("ana", 2), ("zoe", 2)]
        while replay_priced(settled + repricing.SETTLES):
            pass
    while replay_priced(settled + 2 * repricing.SETTLES):
        pass

    assert rows(charged) == [("ana", 2), ("held", 2), ("zoe", 2)]
    assert parked_reasons() == {}


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.customer_id LIKE 'b%' THEN RAISE EXCEPTION 'broken'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON statements FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def test_statements_that_fail_keep_nobody_elses_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are, and however often they are tried; mended, they come by themselves."""
    offered(a_plan())
    customers("b1", "b2", "b3", "b4")
    turned(FEBRUARY + GRACE)
    while closing.close_due(FEBRUARY + GRACE):
        pass
    monkeypatch.setattr(statements, "ISSUED_AT_ONCE", 2)
    in_transaction(lambda connection: connection.execute(REFUSE.encode()))

    assert [statements.issue_due(FEBRUARY + GRACE) for _ in range(3)] == [1, 1, 0]
    assert rows("SELECT customer_id FROM statements ORDER BY number") == [("ana",), ("zoe",)]
    assert alerts() == [("statement_fails", f"b{n}") for n in range(1, 5)]
    in_transaction(lambda connection: connection.execute("DROP FUNCTION refuse CASCADE"))
    everything(FEBRUARY + GRACE)

    assert one("SELECT array_agg(number ORDER BY number) FROM statements") == ([1, 2, 3, 4, 5, 6],)


def test_a_statement_that_takes_too_long_keeps_nobody_elses_back(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(a_plan())
    customers("slow")
    turned(FEBRUARY + GRACE)
    while closing.close_due(FEBRUARY + GRACE):
        pass
    monkeypatch.setattr("db.statements._PATIENCE", "SELECT 1")

    with slow("statements"):
        assert [statements.issue_due(FEBRUARY + GRACE) for _ in range(2)] == [2, 0]
        assert alerts() == [("statement_fails", "slow")]
    assert statements.issue_due(FEBRUARY + GRACE) == 1

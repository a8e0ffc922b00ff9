"""One envelope in: every event of it charged exactly once, or parked."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from billing.errors import DatabaseSlow
from config.settings import settings
from db import session
from services.books import customers, tenants
from services.books.catalogue_files import read_plans
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import entries, one, parked_reasons, rows, wallet

pytestmark = pytest.mark.usefixtures("billing_database")


def now() -> datetime:
    return datetime.now(UTC)


def test_an_event_is_rated_and_debited_once() -> None:
    """Two items at the prices of the catalogue; the ledger says so, and so does the wallet."""
    catalogues()
    a_customer("ana", credit="10")
    event = an_event("ana", [tokens(350), tokens(150, category="llm_completion")])

    outcome = record_usage(an_envelope(event), now())

    assert outcome == Outcome(received=1, charged=1)
    assert wallet("ana") == Decimal("9.9805")
    assert [(e.amount, e.balance_after) for e in entries("ana")] == [
        (Decimal(10), Decimal(10)),
        (Decimal("-0.0195"), Decimal("9.9805")),
    ]


def test_the_same_envelope_again_charges_nothing() -> None:
    """However often an envelope is delivered, the wallet is debited once."""
    catalogues()
    a_customer("ana", credit="10")
    envelope = an_envelope(*[an_event("ana") for _ in range(5)])
    record_usage(envelope, now())

    again = record_usage(envelope, now())

    assert again == Outcome(received=5, duplicates=5)
    assert wallet("ana") == Decimal("9.85")


def test_usage_goes_into_debt() -> None:
    """Usage has happened: it is recorded and debited although the wallet is empty."""
    catalogues()
    a_customer("ana")

    record_usage(an_envelope(an_event("ana", [tokens(1_000_000)])), now())

    assert wallet("ana") == Decimal(-30)


def test_the_same_key_with_another_payload_is_a_conflict() -> None:
    """The first payload owns its key; the second is parked, once, and never charged."""
    catalogues()
    a_customer("ana", credit="10")
    first, second = an_event("ana", key="k"), an_event("ana", [tokens(9999)], key="k")
    record_usage(an_envelope(first), now())

    outcome = record_usage(an_envelope(second), now())
    record_usage(an_envelope(second), now())

    assert outcome == Outcome(received=1, parked=1, conflicts=1)
    assert wallet("ana") == Decimal("9.97")
    assert parked_reasons() == {"key_conflict": 1}


def test_a_key_belongs_to_the_first_payload_also_when_that_was_parked() -> None:
    """An unpriced event owns its key: another payload under it is a conflict, not a charge."""
    catalogues()
    a_customer("ana", credit="10")
    record_usage(an_envelope(an_event("ana", [tokens(1, model="gpt-99")], key="k")), now())

    outcome = record_usage(an_envelope(an_event("ana", key="k")), now())

    assert outcome == Outcome(received=1, parked=1, conflicts=1)
    assert wallet("ana") == Decimal(10)
    assert parked_reasons() == {"key_conflict": 1, "unpriced": 1}


@pytest.mark.parametrize(
    ("used", "tiers"), [(8_000_000, 0), (8_000_001, 1), (16_000_000, 1), (16_000_001, 2), (40_000_000, 4)]
)
def test_each_tier_that_begins_lets_one_payment_fall_due(used: int, tiers: int) -> None:
    """The fee covers 8M tokens; each further 8M begun owes R$ 100.00, also when one event crosses several."""
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",))

    outcome = record_usage(an_envelope(an_event("ana", [tokens(used)])), now())

    assert outcome.payments_due == tiers
    owed = one("SELECT count(*), coalesce(sum(amount_minor), 0), count(DISTINCT tier) FROM payments")
    assert owed == (tiers, tiers * 10_000, tiers)
    assert wallet("ana", "BRL") == 0


def test_late_events_count_in_the_month_they_occurred_in() -> None:
    """While that month is open; its tokens do not count in this one."""
    november = datetime(2026, 11, 6, tzinfo=UTC)
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=november)
    this_month = an_event("ana", [tokens(5_000_000)], occurred_at=datetime(2026, 11, 5, tzinfo=UTC))
    last_month = an_event("ana", [tokens(5_000_000)], occurred_at=datetime(2026, 10, 31, tzinfo=UTC))

    outcome = record_usage(an_envelope(this_month, last_month), november)

    assert outcome == Outcome(received=2, charged=2)
    assert one("SELECT array_agg(tokens ORDER BY starts_at) FROM periods") == ([5_000_000, 5_000_000],)


def test_an_event_of_a_closed_month_counts_in_the_current_one_and_is_marked() -> None:
    """A closed period is never touched again."""
    october, november = datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 11, 6, tzinfo=UTC)
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=october)
    record_usage(an_envelope(an_event("ana", [tokens(7)], occurred_at=october)), october)
    one("UPDATE periods SET opened_at = starts_at, closed_at = ends_at RETURNING 1")

    record_usage(an_envelope(an_event("ana", [tokens(5)], occurred_at=october)), november)

    assert one("SELECT array_agg(tokens ORDER BY starts_at) FROM periods") == ([7, 5],)
    assert one("SELECT array_agg(is_late ORDER BY tokens) FROM usage_events") == ([True, False],)


def test_an_envelope_of_many_slices_is_charged_whole() -> None:
    """More than 500 events are worked in slices, a transaction each."""
    catalogues()
    a_customer("ana", credit="100")

    outcome = record_usage(an_envelope(*[an_event("ana") for _ in range(1203)]), now())

    assert outcome == Outcome(received=1203, charged=1203)
    assert wallet("ana") == Decimal("63.91")


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON usage_events FOR EACH ROW EXECUTE FUNCTION slow();
"""


def test_what_takes_longer_than_a_transaction_may_is_charged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same again would take as long again, for ever, and keep everybody waiting who is behind it."""
    catalogues()
    a_customer("ana", credit="10")
    envelope = an_envelope(*[an_event("ana") for _ in range(64)], b'{"no":"event"}')
    with psycopg.connect(settings().required("database_url")) as owner:
        owner.execute(SLOW.encode())
    monkeypatch.setattr(session, "LIMITS", session.LIMITS | {"statement_timeout": "300ms"})
    session.close()

    outcome = record_usage(envelope, now())

    assert outcome == Outcome(received=65, charged=64, parked=1)
    assert wallet("ana") == Decimal("8.08")


def test_one_event_that_takes_too_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogues()
    a_customer("ana", credit="10")
    with psycopg.connect(settings().required("database_url")) as owner:
        owner.execute(SLOW.replace("0.01", "10").encode())
    monkeypatch.setattr(session, "LIMITS", session.LIMITS | {"statement_timeout": "100ms"})
    session.close()

    with pytest.raises(DatabaseSlow):
        record_usage(an_envelope(*[an_event("ana") for _ in range(3)]), now())

    assert one("SELECT count(*) FROM usage_events") == (0,)


def test_an_envelope_of_two_tenants_debits_each_its_own() -> None:
    """Customers of the same name, in one transaction, whichever comes first."""
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bo", credit="10")
    tenants.create_tenant("zeta", "Zeta", now())
    tenants.load_plans("zeta", read_plans("default"), now())
    customers.create_customers([customers.NewCustomer("zeta", "ana", "prepaid", "UTC", ("USD",))], now())
    sizes = [("zeta", "ana", 300), (TENANT, "bo", 200), (TENANT, "ana", 100), ("zeta", "ana", 400)]
    events = [an_event(customer, [tokens(n)], tenant_id=tenant) for tenant, customer, n in sizes]

    outcome = record_usage(an_envelope(*events), now())

    assert outcome == Outcome(received=4, charged=4)
    assert rows("SELECT tenant_id, customer_id, used_total, last_seq FROM wallets ORDER BY 1, 2") == [
        (TENANT, "ana", Decimal("0.003"), 2),
        (TENANT, "bo", Decimal("0.006"), 2),
        ("zeta", "ana", Decimal("0.021"), 2),
    ]


def test_events_far_apart_in_time_wait_for_a_person() -> None:
    """More than an hour ahead is implausible, older than 35 days too old; a little ahead is fine."""
    catalogues()
    a_customer("ana")
    moment = now()
    ahead = an_event("ana", occurred_at=moment + timedelta(hours=2))
    old = an_event("ana", occurred_at=moment - timedelta(days=36))
    fine = an_event("ana", occurred_at=moment + timedelta(minutes=50))

    outcome = record_usage(an_envelope(ahead, old, fine), moment)

    assert outcome == Outcome(received=3, charged=1, parked=2)
    assert parked_reasons() == {"implausible": 1, "too_old": 1}

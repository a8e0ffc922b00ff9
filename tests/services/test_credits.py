"""Value given to customers: once per key, exactly, and on record."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from structlog.testing import capture_logs

from billing.errors import IdempotencyConflict, Rejected, WalletNotFound
from billing.grants import PRIORITIES, Change, Source
from billing.payments import PaymentState
from config.settings import settings
from sandbox.stripe_double.control import DoubleControl
from services.books.credits import GRACE, PRIORITY_MAX, Grant, Granted, break_expired, grant
from services.collecting.disputes import record
from services.collecting.gateways import gateway
from services.collecting.refunds import carry_out, refund
from services.collecting.topups import Offer, request
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import Entry, entries, one, rows, wallet
from tests.services.collecting import GOOD, payment, pays_with, taken
from tests.services.elsewhere import ended, started

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def a_grant(amount: str = "10", *, customer: str = "ana", currency: str = "USD", key: str = "k", **more: Any) -> Grant:
    said: dict[str, Any] = {"source": "promo", "reason": "new_user_bonus"} | more
    return Grant(TENANT, customer, currency, Decimal(amount), idempotency_key=key, **said)


def given(customer: str = "ana") -> dict[str, Decimal]:
    """What remains of each grant, the oldest first, by the reason it was given for."""
    found = rows(
        "SELECT g.reason, g.remaining FROM grants_remaining g JOIN wallets w USING (tenant_id, wallet_id)"
        " WHERE w.customer_id = %s ORDER BY g.number",
        customer,
    )
    return dict(found)


def moved(customer: str = "ana") -> list[tuple[str, dict[str, Decimal]]]:
    """What each entry did to which grants, by their reasons, and to debt."""
    names = dict(rows("SELECT grant_id::text, reason FROM credit_grants"))
    found = rows(
        "SELECT e.kind, e.amount, e.grant_id::text, e.parts FROM ledger_entries e"
        " JOIN wallets w USING (tenant_id, wallet_id) WHERE w.customer_id = %s ORDER BY e.seq",
        customer,
    )
    parts = [(kind, Change(grant_id, parts).of(amount)) for kind, amount, grant_id, parts in found]
    return [(kind, {names.get(name, name): Decimal(part) for name, part in one.items()}) for kind, one in parts]


def use(dollars: int, occurred_at: datetime = NOW, now: datetime | None = None) -> None:
    """Usage of ana's, a multiple of three dollars; recorded when it occurred unless told otherwise."""
    event = an_event("ana", [tokens(dollars * 100_000 // 3)], occurred_at=occurred_at)
    record_usage(an_envelope(event), now or occurred_at)


def amounts(**numbers: int) -> dict[str, Decimal]:
    return {name: Decimal(number) for name, number in numbers.items()}


def test_a_grant_raises_the_balance_and_is_on_record() -> None:
    catalogues()
    a_customer("ana")

    with capture_logs() as logs:
        granted = grant(a_grant("0.000000000001"), NOW)

    smallest = Decimal("0.000000000001")
    assert granted == Granted(smallest, smallest, "USD", is_new=True)
    assert entries("ana") == [Entry(1, "grant", smallest, smallest)]
    assert wallet("ana") == smallest
    assert one("SELECT contra, reason, idempotency_key, recorded_at FROM ledger_entries") == (
        "grants:promo",
        "new_user_bonus",
        "k",
        NOW,
    )
    assert [(log["event"], log["amount"]) for log in logs] == [("credits granted", "0.000000000001")]


def test_the_same_key_again_gives_nothing_and_answers_the_same() -> None:
    catalogues()
    a_customer("ana")
    first = grant(a_grant("10"), NOW)
    grant(a_grant("5", key="other"), NOW)

    again = grant(a_grant("10.000"), NOW)

    assert again == Granted(first.amount, first.balance_after, "USD", is_new=False)
    assert wallet("ana") == 15


@pytest.mark.parametrize(
    "changes", [{"amount": "11"}, {"customer": "bob"}, {"currency": "BRL"}, {"reason": "goodwill"}]
)
def test_the_same_key_for_something_else_is_a_conflict(changes: dict[str, str]) -> None:
    catalogues()
    for customer in ("ana", "bob"):
        a_customer(customer, currencies=("USD", "BRL"))
    grant(a_grant(), NOW)

    with pytest.raises(IdempotencyConflict, match="granted='10', to='ana'"):
        grant(a_grant(**changes), NOW)

    assert [row[0] for row in rows("SELECT balance FROM wallets WHERE balance <> 0")] == [10]


def test_the_same_key_from_another_source_is_a_conflict() -> None:
    catalogues()
    a_customer("ana")
    grant(a_grant(), NOW)

    with pytest.raises(IdempotencyConflict):
        grant(a_grant(source="purchase"), NOW)


def test_grants_of_one_key_in_several_processes_end_in_one_entry() -> None:
    """All wait for the customer's lock together, then one after the other."""
    catalogues()
    a_customer("ana")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(_url()) as holder, psycopg.connect(_url(), autocommit=True) as watcher:
        holder.execute("SELECT FROM wallets FOR UPDATE")
        processes = [started("grant", TENANT, "ana", "USD", "10", "k") for _ in range(2)]
        while all(process.poll() is None for process in processes):
            if watcher.execute(waiting).fetchone() == (2,):
                break

    results = [ended(process) for process in processes]

    assert sorted(said.split()[-1] for status, said in results if status == 0) == ["again", "new"]
    assert entries("ana") == [Entry(1, "grant", Decimal(10), Decimal(10))]


def test_one_key_for_two_customers_at_the_same_time_is_a_conflict() -> None:
    """Each holds its own customer's lock, so neither sees the other's entry before it is committed."""
    catalogues()
    for customer in ("ana", "bob"):
        a_customer(customer)
    failures: list[Exception] = []

    def to_ana() -> None:
        try:
            grant(a_grant(), NOW)
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = threading.Thread(target=to_ana)
    with psycopg.connect(_url()) as other, psycopg.connect(_url(), autocommit=True) as watcher:
        other.execute(
            "INSERT INTO credit_grants (tenant_id, grant_id, wallet_id, source, priority, amount, reason,"
            " created_at) SELECT tenant_id, gen_random_uuid(), wallet_id, 'promo', 20, 5, 'bonus', %s FROM wallets"
            " WHERE customer_id = 'bob'",
            (NOW,),
        )
        other.execute(
            "INSERT INTO ledger_entries SELECT tenant_id, wallet_id, 1, 5, 5, 'grant', 'grants:promo', 'bonus', NULL,"
            " NULL, 'k', %(now)s, %(now)s, grant_id FROM credit_grants",
            {"now": NOW},
        )
        other.execute(
            "UPDATE wallets w SET balance = 5, received_total = 5, last_seq = 1, open_grants = ("
            " SELECT json_build_array("
            " json_build_array(g.grant_id, '5', NULL, NULL, g.priority, g.number))::text FROM credit_grants g)"
            " WHERE customer_id = 'bob'"
        )
        thread.start()
        while thread.is_alive() and watcher.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount == 0:
            pass
    thread.join()

    assert wallet("ana") == 0
    with pytest.raises(IdempotencyConflict):
        raise failures[0]


def test_debt_is_paid_first_by_what_arrives() -> None:
    catalogues()
    a_customer("ana")
    record_usage(an_envelope(an_event("ana", [tokens(1_000_000)])), datetime.now(UTC))

    granted = grant(a_grant("50"), NOW)

    assert granted.balance_after == 20
    assert [int(entry.balance_after) for entry in entries("ana")] == [-30, 20]


def test_an_amount_that_no_wallet_can_hold_is_refused() -> None:
    """Rather than rounded: what was granted is what was asked for."""
    catalogues()
    a_customer("ana")

    for amount in (
        "0",
        "-1",
        "NaN",
        "Infinity",
        "1E24",
        "0.0000000000001",
        "1." + "0" * 69 + "1",
        "1E-400",
        "1E999999999999999999",
    ):
        with pytest.raises(Rejected, match="amount"):
            grant(a_grant(amount), NOW)

    assert entries("ana") == []


def test_the_largest_amount_is_held_exactly() -> None:
    catalogues()
    a_customer("ana")
    largest = Decimal("999999999999999999999999.999999999999")

    grant(a_grant(str(largest)), NOW)
    grant(a_grant("0.000000000001", key="other"), NOW)

    assert wallet("ana") == Decimal("1E24")


@pytest.mark.parametrize("changes", [{"customer": "nobody"}, {"currency": "EUR"}])
def test_there_must_be_a_wallet_to_give_to(changes: dict[str, str]) -> None:
    catalogues()
    a_customer("ana")

    with pytest.raises(WalletNotFound):
        grant(a_grant(**changes), NOW)


@pytest.mark.parametrize("source", Source)
def test_a_grant_has_the_priority_of_its_source_unless_told_otherwise(source: Source) -> None:
    catalogues()
    a_customer("ana")

    grant(a_grant(source=source.value), NOW)
    grant(a_grant(source=source.value, key="other", priority=0), NOW)

    assert rows("SELECT source, priority FROM credit_grants ORDER BY number") == [
        (source, PRIORITIES[source]),
        (source, 0),
    ]


def test_a_grant_keeps_from_when_until_when_and_how_long_late_usage_may_burn_it() -> None:
    """Half-open; what remains then is gone only when its grace has passed. It is the same however often it is asked."""
    catalogues()
    a_customer("ana")
    asked = a_grant("10", valid_from=NOW + DAY, expires_at=NOW + 2 * DAY)

    for _ in range(2):
        grant(asked, NOW)

    assert rows(
        "SELECT amount, remaining, paid_debt, valid_from, expires_at, breaks_at, reason, created_at"
        " FROM grants_remaining"
    ) == [(10, 10, 0, NOW + DAY, NOW + 2 * DAY, NOW + 2 * DAY + GRACE, "new_user_bonus", NOW)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "thin air"}, "is no source"),
        ({"priority": -1}, "a priority lies between"),
        ({"priority": PRIORITY_MAX + 1}, "a priority lies between"),
        ({"expires_at": NOW}, "ends later than now"),
        ({"expires_at": NOW + DAY, "valid_from": NOW + DAY}, "and than it begins"),
        ({"expires_at": datetime(9999, 12, 31, 23, tzinfo=UTC)}, "before the year 9999"),
        ({"expires_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))}, "before the year 9999"),
    ],
)
def test_a_grant_that_could_never_be_burned_as_asked_is_refused(changes: dict[str, Any], said: str) -> None:
    catalogues()
    a_customer("ana")

    with pytest.raises(Rejected, match=said):
        grant(a_grant(**changes), NOW)

    assert given() == {}


def test_usage_burns_what_is_free_and_what_ends_first_before_what_was_paid_for() -> None:
    """Each by one entry, which says what it took from which."""
    catalogues()
    a_customer("ana")
    grant(a_grant("9", source="purchase", reason="paid", key="1"), NOW)
    grant(a_grant("9", reason="later", key="2", expires_at=NOW + 2 * DAY), NOW)
    grant(a_grant("9", reason="sooner", key="3", expires_at=NOW + DAY), NOW)

    use(3)
    use(12)
    use(15)

    assert given() == amounts(paid=0, later=0, sooner=0)
    assert moved()[3:] == [
        ("usage", amounts(sooner=-3)),
        ("usage", amounts(sooner=-6, later=-6)),
        ("usage", amounts(later=-3, paid=-9, debt=3)),
    ]
    assert wallet("ana") == -3


def test_usage_outside_the_validity_of_a_grant_is_debt_and_the_grant_stays() -> None:
    """Too early and too late; on the first moment, and on the last one, it pays."""
    catalogues()
    a_customer("ana")
    grant(a_grant("30", reason="week", valid_from=NOW, expires_at=NOW + 7 * DAY), NOW)

    for moment in (NOW - TICK, NOW, NOW + 7 * DAY - TICK, NOW + 7 * DAY):
        use(3, moment)

    assert moved()[1:] == [
        ("usage", amounts(debt=3)),
        ("usage", amounts(week=-3)),
        ("usage", amounts(week=-3)),
        ("usage", amounts(debt=3)),
    ]
    assert (given(), wallet("ana")) == (amounts(week=24), Decimal(18))
    assert one("SELECT debt FROM wallets") == (6,)


def test_what_arrives_pays_debt_first_but_only_of_what_it_is_valid_for() -> None:
    """The rest is what remains of it; a grant that debt takes whole has nothing left, and has ended."""
    catalogues()
    a_customer("ana")
    use(30)

    grant(a_grant("7", reason="later", key="0", valid_from=NOW + DAY), NOW)
    grant(a_grant("12", reason="small", key="1", valid_from=NOW - DAY), NOW)
    grant(a_grant("20", reason="large", key="2"), NOW)

    assert moved()[1:] == [
        ("grant", amounts(later=7)),
        ("grant", amounts(small=0, debt=-12)),
        ("grant", amounts(large=2, debt=-18)),
    ]
    assert rows("SELECT reason, remaining, paid_debt, ended_at FROM grants_remaining ORDER BY number") == [
        ("later", 7, 0, None),
        ("small", 0, 12, NOW),
        ("large", 2, 18, None),
    ]
    assert one("SELECT balance, debt FROM wallets") == (9, 0)


def test_what_has_expired_is_gone_when_its_grace_has_passed_and_once() -> None:
    """Not a moment before; what remains of others stays."""
    catalogues()
    a_customer("ana")
    grant(a_grant("10", reason="week", key="1", expires_at=NOW + 7 * DAY), NOW)
    grant(a_grant("5", reason="ever", key="2"), NOW)
    use(3)
    gone_at = NOW + 7 * DAY + GRACE

    broken = [break_expired(now) for now in (gone_at - TICK, gone_at, gone_at, gone_at + DAY)]

    assert broken == [0, 1, 0, 0]
    assert moved()[2:] == [("usage", amounts(week=-3)), ("breakage", amounts(week=-7))]
    assert (given(), wallet("ana")) == (amounts(week=0, ever=5), Decimal(5))
    assert one("SELECT contra, occurred_at FROM ledger_entries WHERE kind = 'breakage'") == ("breakage", gone_at)
    assert one("SELECT ended_at FROM credit_grants WHERE reason = 'week'") == (gone_at,)


def test_usage_of_before_the_end_that_comes_within_the_grace_still_burns_the_grant() -> None:
    """Events come late; what they burn is not broken."""
    catalogues()
    a_customer("ana")
    grant(a_grant("10", reason="week", expires_at=NOW + 7 * DAY), NOW)
    gone_at = NOW + 7 * DAY + GRACE

    use(3, NOW + 7 * DAY - TICK, gone_at - TICK)
    break_expired(gone_at)

    assert moved()[1:] == [("usage", amounts(week=-3)), ("breakage", amounts(week=-7))]


def test_what_is_reserved_stays_of_an_expired_grant_until_it_is_released() -> None:
    """A second look does nothing meanwhile, though the grant is still there."""
    catalogues()
    a_customer("ana")
    grant(a_grant("10", reason="week", expires_at=NOW + DAY), NOW)
    gone_at = NOW + DAY + GRACE
    one("UPDATE wallets SET reserved = 4 RETURNING 1")

    while_reserved = [break_expired(gone_at) for _ in range(2)]
    left = given()
    one("UPDATE wallets SET reserved = 0 RETURNING 1")
    released = [break_expired(gone_at + DAY) for _ in range(2)]

    assert (while_reserved, left) == ([1, 0], amounts(week=4))
    assert (released, given()) == ([1, 0], amounts(week=0))
    assert [amount for kind, amount in moved() if kind == "breakage"] == [amounts(week=-6), amounts(week=-4)]


def test_all_that_has_expired_goes_customer_by_customer_and_wallet_by_wallet() -> None:
    """Several grants of a wallet, too: an entry for each."""
    catalogues()
    for customer in ("ana", "bob"):
        a_customer(customer, currencies=("USD", "CREDIT"))
        for number, currency in enumerate(("USD", "USD", "CREDIT")):
            key = f"{customer}:{number}"
            grant(a_grant("1", customer=customer, currency=currency, key=key, expires_at=NOW + DAY), NOW)

    assert [break_expired(NOW + DAY + GRACE) for _ in range(2)] == [6, 0]

    assert rows("SELECT DISTINCT balance, debt, last_seq FROM wallets ORDER BY last_seq") == [(0, 0, 2), (0, 0, 4)]


def bought(dollars: int) -> UUID:
    """A top-up of ana's that has come in."""
    top_up = request(TENANT, "ana", "USD", Offer(Decimal(dollars), 10_000, "BRL"), f"buy {dollars}", NOW)
    assert taken(top_up.payment_id, NOW) is PaymentState.SUCCEEDED
    return top_up.payment_id


def refunded(payment_id: UUID) -> None:
    asked = refund(TENANT, payment_id, None, "a test", "r", datetime.now(UTC))
    carry_out(TENANT, asked.refund_id, gateway(), datetime.now(UTC))


def disputed(payment_id: UUID, *, is_won: bool = False) -> None:
    """A dispute that the bank opens, or that it has opened and closes; noted twice, as webhooks come."""
    bank = DoubleControl(str(settings().stripe_api_base))
    if is_won:
        dispute_id = str(one("SELECT stripe_dispute_id FROM disputes")[0])
        bank.close_dispute(dispute_id, "won")
    else:
        dispute_id = bank.open_dispute(str(payment(payment_id, "stripe_payment_intent_id")[0]))
    for _ in range(2):
        record(TENANT, payment_id, gateway().retrieve_dispute(dispute_id), gateway(), datetime.now(UTC))


def test_a_top_up_is_a_purchase_and_its_refund_takes_what_it_still_has_and_then_makes_debt() -> None:
    """What was given and what was bought by others stays: only the money of this one goes back."""
    catalogues()
    a_customer("ana")
    pays_with(GOOD)
    grant(a_grant("3", reason="gift"), NOW)
    top_up = bought(12)
    use(9)
    grant(a_grant("30", reason="late gift", key="later"), NOW)

    refunded(top_up)

    assert one("SELECT grant_id, source, priority, payment_id FROM credit_grants WHERE reason = 'top_up'") == (
        top_up,
        "purchase",
        PRIORITIES[Source.PURCHASE],
        top_up,
    )
    assert moved() == [
        ("grant", amounts(gift=3)),
        ("purchase", amounts(top_up=12)),
        ("usage", amounts(gift=-3, top_up=-6)),
        ("grant", {"late gift": Decimal(30)}),
        ("refund", amounts(top_up=-6, debt=6)),
    ]
    assert given() == {"gift": 0, "top_up": 0, "late gift": 30}
    assert one("SELECT balance, debt FROM wallets") == (24, 6)


def test_a_dispute_that_is_won_gives_the_grant_back_and_pays_the_debt_that_it_made() -> None:
    catalogues()
    a_customer("ana")
    pays_with(GOOD)
    top_up = bought(12)
    use(9)

    disputed(top_up)
    taken_back = one("SELECT balance, debt FROM wallets"), given()
    disputed(top_up, is_won=True)

    assert taken_back == ((-9, 9), amounts(top_up=0))
    assert moved()[2:] == [("refund", amounts(top_up=-3, debt=9)), ("reversal", amounts(top_up=3, debt=-9))]
    assert (one("SELECT balance, debt FROM wallets"), given()) == ((3, 0), amounts(top_up=3))
    assert one("SELECT ended_at FROM credit_grants") == (None,)


def _url() -> str:
    return settings().required("database_url")


@pytest.mark.parametrize("other", [{"expires_at": NOW + timedelta(days=9)}, {"priority": 3}])
def test_the_same_key_with_another_validity_is_a_conflict(other: dict[str, Any]) -> None:
    """Whoever repeats a grant repeats all of it."""
    catalogues()
    a_customer()
    grant(a_grant(expires_at=NOW + timedelta(days=7)), NOW)

    with pytest.raises(IdempotencyConflict):
        grant(a_grant(**({"expires_at": NOW + timedelta(days=7)} | other)), NOW)

    assert not grant(a_grant(expires_at=NOW + timedelta(days=7)), NOW).is_new

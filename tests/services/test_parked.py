"""What is parked can be looked at and tried again: it is charged once, or stays, with the reason of today."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from billing.errors import ParkedNotFound, Rejected
from billing.prices import LadderSpan, Rung
from billing.rating import ParkReason
from centavo import Item, UsageEvent
from config.settings import settings
from db import parked as rows_of_parked
from db.prices import NewPrice
from db.session import in_transaction
from db.usage import CONTEXT_COLUMNS
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.desk.prices import load_prices
from services.metering import parked
from services.metering.intake import park_message
from services.metering.kept import event_of
from services.metering.parked import Replayed, replay, replay_all, show, waiting
from services.metering.usage import Outcome, record_usage
from tests.cli.conftest import ended, started
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import entries, one, parked_reasons, rows, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

STILL_PARKED = Replayed(tried=1, still_parked=1)
CHARGED = Replayed(tried=1, charged=1)
NOTHING = Replayed()


def now() -> datetime:
    return datetime.now(UTC)


def a_price(model: str = "gpt-99", currency: str = "USD", **fields: Any) -> NewPrice:
    """A price from 2025 on, of 0.01 a token unless told otherwise."""
    price = NewPrice(
        scope="",
        category="llm_prompt",
        provider="openai",
        model=model,
        unit="token",
        currency=currency,
        unit_price=Decimal("0.01"),
        per=Decimal(1),
        ladder=(),
        ladder_span=LadderSpan.EVENT,
        is_provider_default=False,
        is_ended=False,
        effective_from=datetime(2025, 1, 1, tzinfo=UTC),
        revision=0,
        description=None,
    )
    return price._replace(**fields)


def unpriced(key: str = "k", quantity: int = 100, **fields: Any) -> UsageEvent:
    return an_event("ana", [tokens(quantity, model="gpt-99")], key=key, **fields)


def park(*events: UsageEvent | bytes, at: datetime | None = None) -> None:
    """Record events of which none can be charged."""
    assert record_usage(an_envelope(*events), at or now()).charged == 0


def the_id() -> str:
    """The id of the one thing that is parked."""
    (found,) = waiting()
    return found.parked_id


def test_an_unpriced_event_is_charged_once_a_price_exists() -> None:
    """Its row becomes a charged one, with price and cost of each line; a second replay finds nothing."""
    catalogues()
    a_customer("ana", credit="10")
    event = unpriced(user_id="u", metadata={"a": [1, "b"]})
    park(event)
    load_prices([a_price()], now())

    results = [replay_all(now(), reason="unpriced"), replay_all(now(), reason="unpriced"), replay_all(now())]

    assert results == [CHARGED, NOTHING, NOTHING]
    assert wallet("ana") == 9
    assert [entry.amount for entry in entries("ana")] == [10, -1]
    assert one("SELECT status, cost, tokens, currency, is_late, park_reason, park_detail FROM usage_events") == (
        "charged",
        Decimal(1),
        100,
        "USD",
        False,
        None,
        None,
    )
    assert one(
        "SELECT items->0->>'cost', (items->0->>'price_id')::bigint IN (SELECT price_id FROM prices) FROM usage_events"
    ) == ("1", True)
    assert one("SELECT user_id, metadata FROM usage_events") == ("u", {"a": [1, "b"]})
    assert one("SELECT tokens, events FROM periods") == (100, 1)
    assert record_usage(an_envelope(event), now()) == Outcome(received=1, duplicates=1)


def test_what_still_cannot_be_charged_stays_with_the_reason_of_today() -> None:
    """First it has no price, then one in a currency that the customer has no wallet in."""
    catalogues()
    a_customer("ana", credit="10")
    park(unpriced())

    first = replay_all(now())
    load_prices([a_price(currency="EUR")], now())
    second = replay(the_id(), now())

    assert (first, second) == (STILL_PARKED, STILL_PARKED)
    assert parked_reasons() == {"currency_mismatch": 1}
    assert "EUR" in waiting()[0].detail
    assert wallet("ana") == 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"occurred_at": now() - timedelta(days=40)}, "too_old"),
        ({"occurred_at": now() + timedelta(hours=3)}, "implausible"),
        ({"items": [tokens(100_000_001)]}, "implausible"),
    ],
    ids=["too old", "too far ahead", "too much"],
)
def test_what_is_out_of_bounds_goes_by_its_id_alone(fields: dict[str, Any], reason: str) -> None:
    """A person has looked at it then. A replay of everything leaves it."""
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",))
    park(an_event("ana", **fields))
    assert parked_reasons() == {reason: 1}

    everything, by_id = replay_all(now()), replay(the_id(), now())

    assert (everything, by_id) == (NOTHING, CHARGED)
    assert one("SELECT status, is_late FROM usage_events") == ("charged", False)
    assert one("SELECT sum(tokens), sum(events) FROM periods") == (one("SELECT tokens FROM usage_events")[0], 1)
    with pytest.raises(ParkedNotFound):
        replay("event:acme/gone", now())


def test_a_replay_that_crosses_tiers_lets_their_payments_fall_due() -> None:
    """As recording it would have: 120 million tokens are fourteen tiers beyond the eight that are covered."""
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",))
    park(an_event("ana", [tokens(120_000_000)]))

    assert replay(the_id(), now()) == CHARGED

    assert one("SELECT count(*), min(tier), max(tier), sum(amount_minor) FROM payments") == (14, 1, 14, 140_000)


def test_a_replayed_event_counts_in_the_month_it_occurred_in() -> None:
    """While that month is open."""
    october, november = datetime(2026, 10, 31, 12, tzinfo=UTC), datetime(2026, 11, 2, 12, tzinfo=UTC)
    catalogues(october)
    a_customer("ana", credit="10", now=october)
    park(unpriced(occurred_at=october), at=october)
    record_usage(an_envelope(an_event("ana", occurred_at=november)), november)
    load_prices([a_price()], november)

    assert replay_all(november) == CHARGED

    assert rows("SELECT tokens, events FROM periods ORDER BY starts_at") == [(100, 1), (1000, 1)]
    assert one("SELECT is_late FROM usage_events WHERE key = 'k'") == (False,)


def test_a_replayed_event_of_a_closed_month_counts_in_this_one_and_is_late() -> None:
    """A closed month is never touched again."""
    october, november = datetime(2026, 10, 31, 12, tzinfo=UTC), datetime(2026, 11, 2, 12, tzinfo=UTC)
    catalogues(october)
    a_customer("ana", credit="10", now=october)
    park(unpriced(occurred_at=october), at=october)
    record_usage(an_envelope(an_event("ana", occurred_at=october)), october)
    one("UPDATE periods SET opened_at = starts_at, closed_at = ends_at RETURNING 1")
    load_prices([a_price()], november)

    assert replay_all(november) == CHARGED

    assert rows("SELECT tokens, events FROM periods ORDER BY starts_at") == [(1000, 1), (100, 1)]
    assert one("SELECT is_late, period_start FROM usage_events WHERE key = 'k'") == (
        True,
        datetime(2026, 11, 1, 3, tzinfo=UTC),
    )


def test_an_event_does_not_grow_too_old_while_it_waits_here() -> None:
    """It was in time when it came; that its price took two months is not its fault."""
    august, october = datetime(2026, 8, 20, tzinfo=UTC), datetime(2026, 10, 20, tzinfo=UTC)
    catalogues(august)
    a_customer("ana", credit="10")
    park(unpriced(occurred_at=august - timedelta(days=34)), at=august)
    load_prices([a_price()], october)

    one("UPDATE usage_events SET recorded_at = %s RETURNING 1", august)
    assert replay_all(october) == CHARGED
    assert wallet("ana") == 9


def test_a_ladder_goes_on_from_where_the_month_has_come() -> None:
    """A replayed event climbs from the quantities that were counted before it."""
    catalogues()
    a_customer("ana", credit="100")
    park(unpriced("first", 100), unpriced("second", 50))
    ladder = (Rung(Decimal(120), Decimal("0.1")), Rung(None, Decimal("0.01")))
    load_prices([a_price(unit_price=Decimal(0), ladder=ladder, ladder_span=LadderSpan.PERIOD)], now())

    assert replay_all(now()) == Replayed(tried=2, charged=2)

    assert wallet("ana") == 100 - (120 * Decimal("0.1") + 30 * Decimal("0.01"))


def test_an_event_of_an_unknown_customer_is_charged_once_there_is_one() -> None:
    """And no more when it is replayed or sent again."""
    catalogues()
    event = an_event("eva", key="e")
    park(event)
    parked_id = the_id()
    stranger = replay_all(now())
    a_customer("eva", credit="1")

    results = [replay_all(now(), reason="unknown_customer"), replay_all(now())]

    assert (stranger, *results) == (STILL_PARKED, CHARGED, NOTHING)
    assert record_usage(an_envelope(event), now()) == Outcome(received=1, duplicates=1)
    assert wallet("eva") == Decimal("0.97")
    assert parked_reasons() == {}
    with pytest.raises(ParkedNotFound):
        replay(parked_id, now())


def test_an_event_of_an_unknown_tenant_is_charged_once_there_is_one() -> None:
    """With plans and a customer of its own."""
    catalogues()
    park(an_event("eva", tenant_id="later"))
    assert parked_reasons() == {"unknown_tenant": 1}
    tenants.create_tenant("later", "Later", now())
    tenants.load_plans("later", read_plans("default"), now())
    create_customers([NewCustomer("later", "eva", "prepaid", currencies=("USD",))], now())

    assert replay_all(now(), reason="unknown_tenant") == CHARGED
    assert wallet("eva") == Decimal("-0.03")


def test_an_input_that_becomes_a_parked_event_is_parked_once() -> None:
    """The customer is known by now, the price is not: the event has its row, and the bytes are done with."""
    catalogues()
    park(unpriced())
    assert parked_reasons() == {"unknown_customer": 1}
    a_customer("ana")

    result = replay_all(now(), reason="unknown_customer")

    assert result == STILL_PARKED
    assert parked_reasons() == {"unpriced": 1}
    assert the_id() == "event:acme/k"


def test_a_key_conflict_stays_whoever_asks() -> None:
    """The first payload owns the key; the second is kept and never charged."""
    catalogues()
    a_customer("ana", credit="10")
    record_usage(an_envelope(an_event("ana", key="k")), now())
    park(an_event("ana", [tokens(9999)], key="k"))

    results = [replay_all(now()), replay(the_id(), now()), replay(the_id(), now())]

    assert results == [NOTHING, STILL_PARKED, STILL_PARKED]
    assert wallet("ana") == Decimal("9.97")
    assert parked_reasons() == {"key_conflict": 1}


def test_a_stranger_whose_key_was_used_meanwhile_is_a_conflict() -> None:
    """The key was free when it came, and is not any more."""
    catalogues()
    park(an_event("eva", key="k"))
    for name in ("ana", "eva"):
        a_customer(name, credit="10")
    record_usage(an_envelope(an_event("ana", key="k")), now())

    assert replay_all(now()) == STILL_PARKED
    assert parked_reasons() == {"key_conflict": 1}
    assert (wallet("ana"), wallet("eva")) == (Decimal("9.97"), Decimal(10))


def test_an_envelope_that_was_refused_as_a_whole_goes_event_by_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was larger than what is read; now more is: the good events are charged, the bad one parks on its own."""
    catalogues()
    a_customer("ana", credit="10")
    monkeypatch.setenv("CENTAVO_ENVELOPE_BYTES_MAX", "1024")
    settings.cache_clear()
    park(*(an_event("ana") for _ in range(10)), b'{"tenant_id":"acme"}')
    assert parked_reasons() == {"envelope_malformed": 1}
    still = replay(the_id(), now())
    monkeypatch.delenv("CENTAVO_ENVELOPE_BYTES_MAX")
    settings.cache_clear()

    results = [replay_all(now()), replay_all(now())]

    assert still == STILL_PARKED
    assert results == [Replayed(tried=1, charged=10, still_parked=1), STILL_PARKED]
    assert wallet("ana") == Decimal("9.7")
    assert parked_reasons() == {"event_malformed": 1}


@pytest.mark.parametrize("reason", [ParkReason.MESSAGE_UNREADABLE, ParkReason.TASK_UNKNOWN, ParkReason.EVENT_MALFORMED])
def test_what_is_no_event_stays_as_it_came(reason: ParkReason) -> None:
    """Also when there are envelopes inside: nobody has said that this is one."""
    catalogues()
    a_customer("ana")
    raw = an_envelope(an_event("ana"))
    park_message(raw, reason, "because", now())

    assert replay(the_id(), now()) == STILL_PARKED
    assert one("SELECT raw, reason, detail FROM parked_inputs") == (raw, reason, "because")
    assert one("SELECT count(*) FROM usage_events") == (0,)


def test_what_kills_workers_goes_by_its_id_alone() -> None:
    """A replay of everything would die of it, each time, before it came to the rest."""
    catalogues()
    a_customer("ana", credit="10")
    raw = an_event("ana").to_wire()
    park_message(raw, ParkReason.KILLS_WORKER, "a worker died 4 times", now())

    assert replay_all(now()) == NOTHING
    assert replay(the_id(), now()) == CHARGED
    assert wallet("ana") == Decimal("9.97")


def test_what_the_database_refuses_costs_the_others_nothing() -> None:
    """It stays, and so says who asks for it by its id."""
    catalogues()
    a_customer("ana", credit="10")
    park(unpriced("bad"), unpriced("good 1"), unpriced("good 2"))
    load_prices([a_price()], now())
    _refuse_entries_of("bad")

    result = replay_all(now())

    assert result == Replayed(tried=3, charged=2, still_parked=1)
    assert wallet("ana") == 8
    assert the_id() == "event:acme/bad"
    with pytest.raises(Rejected, match="not this one"):
        replay(the_id(), now())


def _refuse_entries_of(key: str) -> None:
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.status = 'charged' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON usage_events FOR EACH ROW "
            f"WHEN (OLD.key = '{key}') EXECUTE FUNCTION refuse()".encode()
        )


def test_everything_is_visited_once_over_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is charged leaves the list while it is walked, what stays does not; neither moves the next page."""
    catalogues()
    a_customer("ana", credit="10")
    park(*(an_event("ana", [tokens(1, model=f"model-{number % 3}")], key=f"k{number}") for number in range(11)))
    load_prices([a_price("model-1")], now())
    monkeypatch.setattr(parked, "PAGE", 2)
    seen: list[int] = []

    result = replay_all(now(), on_progress=lambda so_far: seen.append(so_far.tried))

    assert result == Replayed(tried=11, charged=4, still_parked=7)
    assert seen == list(range(1, 12))


def test_two_processes_that_replay_at_once_charge_once() -> None:
    """Both have read that it is parked, and meet at the customer's lock."""
    catalogues()
    a_customer("ana", credit="10")
    park(*(unpriced(f"k{number}") for number in range(5)))
    load_prices([a_price()], now())

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute("SELECT FROM wallets FOR UPDATE")
        processes = [started("parked", "replay", "--all") for _ in range(2)]
        _until_both_wait(lambda: all(process.poll() is None for process in processes))
    results = [ended(process) for process in processes]

    assert [result.status for result in results] == [0, 0], results
    charged = [int(result.out.split(" tried, ")[1].split()[0]) for result in results]
    assert sum(charged) == 5
    assert wallet("ana") == 5
    assert one("SELECT count(*) FROM ledger_entries WHERE kind = 'usage'") == (5,)


def test_two_processes_that_replay_a_strangers_event_charge_once() -> None:
    """Its key decides: the second to insert it finds it there."""
    catalogues()
    park(an_event("ana", key="k"))
    a_customer("ana", credit="10")

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute("SELECT FROM wallets FOR UPDATE")
        processes = [started("parked", "replay", "--all") for _ in range(2)]
        _until_both_wait(lambda: all(process.poll() is None for process in processes))
    results = [ended(process) for process in processes]

    assert sorted((result.status, result.out) for result in results) == [
        (0, "1 tried, 0 charged, 0 still parked\n"),
        (0, "1 tried, 1 charged, 0 still parked\n"),
    ]
    assert wallet("ana") == Decimal("9.97")
    assert parked_reasons() == {}


def _until_both_wait(are_alive: Callable[[], bool]) -> None:
    waiting_now = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(settings().required("database_url"), autocommit=True) as watcher:
        while are_alive() and watcher.execute(waiting_now).fetchone() != (2,):
            pass


def test_the_list_is_in_order_and_can_be_narrowed() -> None:
    """Oldest first; by reason, by tenant, and no more than asked for."""
    catalogues()
    a_customer("ana")
    for minutes, event in ((3, unpriced("old")), (2, an_event("eva", key="stranger")), (1, unpriced("new"))):
        park(event, at=now() - timedelta(minutes=minutes))

    assert [row.key for row in waiting()] == ["old", "stranger", "new"]
    assert [row.key for row in waiting("unpriced")] == ["old", "new"]
    assert [row.key for row in waiting(limit=1)] == ["old"]
    assert waiting(tenant_id="another") == []
    assert [(row.kind, row.customer_id, row.times_seen) for row in waiting()] == [
        ("event", "ana", 1),
        ("input", "eva", 1),
        ("event", "ana", 1),
    ]


def test_all_that_is_kept_is_shown() -> None:
    """Of an event its row, of bytes the bytes, how often and when they came."""
    catalogues()
    a_customer("ana")
    park(unpriced(metadata={"share": 0.1}))
    event = show("event:acme/k")
    replay_all(now())
    park(b'{"half":1}', b'{"half":1}')
    bytes_kept = show(waiting("event_malformed")[0].parked_id)

    assert (event["status"], event["park_reason"], event["cost"]) == ("parked", "unpriced", 0)
    assert event["metadata"] == {"share": Decimal("0.1")}
    assert event["items"][0]["quantity"] == "100"
    assert (bytes_kept["raw"], bytes_kept["reason"], bytes_kept["times_seen"]) == ('{"half":1}', "event_malformed", 2)
    assert bytes_kept["first_seen_at"] <= bytes_kept["last_seen_at"]


@pytest.mark.parametrize(
    "parked_id", ["", "event", "event:", "event:acme/", "event:acme/none", "input:", "input:%", "input:zz", "k"]
)
def test_an_id_that_is_none_is_not_found(parked_id: str) -> None:
    """A percent sign stands for nothing else."""
    catalogues()
    a_customer("ana")
    park(unpriced(), b"{}")

    with pytest.raises(ParkedNotFound):
        replay(parked_id, now())
    with pytest.raises(ParkedNotFound):
        show(parked_id)


def test_a_slash_in_a_tenant_or_a_key_is_no_hindrance() -> None:
    """Wherever it stands, the id leads to the event."""
    for tenant in ("a", "a/b"):
        tenants.create_tenant(tenant, tenant, now())
        tenants.load_plans(tenant, read_plans("default"), now())
        create_customers([NewCustomer(tenant, "ana", "prepaid", currencies=("USD",))], now())
    item = Item(category="llm", provider="p", model="m", unit="second", quantity=Decimal(1))
    park(an_event("ana", [item], tenant_id="a/b", key="c/d/e"), an_event("ana", [item], tenant_id="a", key="x"))

    assert show("event:a/b/c/d/e")["key"] == "c/d/e"
    park(an_event("ana", [item], tenant_id="a", key="b/c/d/e"))
    with pytest.raises(Rejected, match="more than one"):
        show("event:a/b/c/d/e")


def test_an_event_is_read_back_from_its_row_as_it_was() -> None:
    """With every field that it may have: the same event, under the same fingerprint."""
    catalogues()
    a_customer("ana")
    said: dict[str, Any] = {name: f"the {name}" for name in CONTEXT_COLUMNS}
    event = unpriced(metadata={"a": [1, {"b": None}], "n": 10**17}, **said)
    park(event)

    row = in_transaction(lambda connection: rows_of_parked.find_event(connection, TENANT, "k"))

    assert row is not None
    assert event_of(row) == event

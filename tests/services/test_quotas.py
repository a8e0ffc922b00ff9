"""Quotas: counted with the usage, once per event; checked and enforced; what begins after a change knows of it."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from billing.errors import AlreadyExists, CustomerNotFound, QuotaExceeded, QuotaNotFound, Rejected, TenantNotFound
from billing.quotas import Measure, Per, QuotaKind, Scope
from config.settings import settings
from db.session import in_transaction
from services.desk import history, quotas
from services.desk.quotas import Usage, Wanted
from services.metering import counting, parked
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
COUNTS = "SELECT subject, sum(used) FROM quota_counts GROUP BY subject ORDER BY subject"
OVER = "SELECT key FROM usage_events WHERE over_quota ORDER BY key"
SAID = "SELECT kind, split_part(detail, ' has ', 2) FROM alerts ORDER BY alert_id"


@pytest.fixture(autouse=True)
def _customers(billing_database: str) -> None:
    catalogues(BEFORE)
    for name in ("ana", "bob"):
        a_customer(name, credit="10", time_zone="UTC", now=BEFORE)


def a_quota(limit: int = 1000, *, set_at: datetime = BEFORE, **changes: Any) -> quotas.QuotaSet:
    wanted = Wanted(TENANT, changes.pop("name", "q"), Decimal(limit), **changes)
    return quotas.set_quota(wanted, set_at)


def use(*quantities: int, who: str = "ana", key: str = "k", at: datetime = NOW, **fields: Any) -> bytes:
    """Record events of so many tokens; the envelope, to send it again."""
    events = [
        an_event(who, [tokens(quantity)], key=f"{key}{number}", occurred_at=at, **fields)
        for number, quantity in enumerate(quantities)
    ]
    envelope = an_envelope(*events)
    record_usage(envelope, NOW)
    return envelope


@pytest.mark.parametrize(
    ("scope", "counts"),
    [
        (Scope.CUSTOMER, [("ana", 30), ("bob", 7)]),
        (Scope.USER, [("u1", 17), ("u2", 20)]),
        (Scope.ORGANIZATION, [("o1", 10)]),
        (Scope.TENANT, [("", 37)]),
    ],
)
def test_usage_counts_for_whom_it_was(scope: Scope, counts: list[tuple[str, int]]) -> None:
    a_quota(scope=scope)

    use(10, user_id="u1", organization_id="o1")
    use(20, key="l", user_id="u2")
    use(7, key="m", who="bob", user_id="u1")

    assert rows(COUNTS) == counts


@pytest.mark.parametrize(("measure", "used"), [("tokens", "3000"), ("events", "2"), ("cost", "0.09")])
def test_tokens_events_or_cost_are_counted(measure: str, used: str) -> None:
    a_quota(scope=Scope.CUSTOMER, measure=Measure(measure), currency="USD" if measure == "cost" else None)

    use(1000, 2000)

    assert rows(COUNTS) == [("ana", Decimal(used))]


def test_only_what_a_quota_is_for_counts() -> None:
    """One customer, one feature, one type of service; and nothing that was before the quota."""
    use(1, key="early", feature="chat", service_type="model_inference")
    a_quota(set_at=NOW, scope=Scope.CUSTOMER, subject="ana", feature="chat", service_type="model_inference")

    use(10, feature="chat", service_type="model_inference")
    use(20, key="l", feature="voice", service_type="model_inference")
    use(30, key="m", feature="chat")
    use(40, key="n", who="bob", feature="chat", service_type="model_inference")

    assert rows(COUNTS) == [("ana", 10)]
    assert rows("SELECT key FROM usage_events WHERE quota_ids IS NOT NULL") == [("k0",)]


def test_the_same_event_counts_once_however_often_it_comes() -> None:
    """In envelopes of their own, twice in one, and under a key that is another event's."""
    a_quota(scope=Scope.CUSTOMER)
    envelope = use(10, 20)

    record_usage(envelope, NOW)
    again = an_event("ana", [tokens(5)], key="k9", occurred_at=NOW)
    record_usage(an_envelope(again, again, an_event("ana", [tokens(999)], key="k0", occurred_at=NOW)), NOW)

    assert rows(COUNTS) == [("ana", 35)]


def test_an_event_counts_in_the_window_in_which_it_occurred() -> None:
    """By the quota's zone, whenever it comes: midnight in São Paulo is three in UTC."""
    a_quota(scope=Scope.TENANT, per=Per.DAY, time_zone="America/Sao_Paulo")

    use(1, at=datetime(2026, 11, 20, 3, tzinfo=UTC))
    use(2, key="l", at=datetime(2026, 11, 20, 2, 59, tzinfo=UTC))

    assert rows("SELECT window_start::text, used FROM quota_counts ORDER BY 1") == [
        ("2026-11-19", 2),
        ("2026-11-20", 1),
    ]


def test_usage_over_a_hard_quota_is_charged_and_marked() -> None:
    """It has happened. What crossed the limit is marked, what came before is not."""
    a_quota(50, scope=Scope.CUSTOMER, is_hard=True)

    use(20, 30, 1)
    use(2, key="l")

    assert rows(OVER) == [("k2",), ("l0",)]
    page = history.usage(history.Asked(TENANT, "ana", BEFORE, NOW + timedelta(hours=1)))
    assert {row.key for row in page.rows if row.is_over_quota} == {"k2", "l0"}
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (4,)
    assert rows(COUNTS) == [("ana", 53)]


def test_each_threshold_is_said_once_in_a_window() -> None:
    """However usage is cut, and although it went back below and came again; another limit has thresholds of its own."""
    a_quota(100, scope=Scope.CUSTOMER)

    use(79)
    use(1, key="l")
    void(TENANT, "l0", "a mistake", NOW)
    use(5, key="m")
    use(100, key="n")
    use(100, key="next", at=NOW - timedelta(days=25))
    a_quota(1000, scope=Scope.CUSTOMER)
    use(800, key="o")

    when = "in the month from 2026-11-01 on (UTC)"
    last = "in the month from 2026-10-01 on (UTC)"
    assert rows(SAID) == [
        ("quota_threshold", f"reached 80 %: 80 of 100 tokens {when}"),
        ("quota_threshold", f"reached 100 %: 184 of 100 tokens {when}"),
        ("quota_threshold", f"reached 80 %: 100 of 100 tokens {last}"),
        ("quota_threshold", f"reached 100 %: 100 of 100 tokens {last}"),
        ("quota_threshold", f"reached 80 %: 984 of 1000 tokens {when}"),
    ]
    assert one("SELECT count(DISTINCT customer_id), max(customer_id) FROM alerts") == (1, "ana")


def test_a_void_takes_back_what_was_counted() -> None:
    """From every quota that counted the event, also one that has ended; voided again, nothing more."""
    a_quota(scope=Scope.CUSTOMER)
    a_quota(name="t", scope=Scope.TENANT, measure=Measure.COST, currency="USD")
    a_quota(name="u", scope=Scope.USER, measure=Measure.EVENTS, subject="u1")
    use(1000, 2000, user_id="u1")
    quotas.end_quota(TENANT, "q", NOW)
    a_quota(name="later", scope=Scope.CUSTOMER, set_at=NOW)

    void(TENANT, "k0", "a mistake", NOW)
    void(TENANT, "k0", "a mistake", NOW)

    assert rows(
        "SELECT name, sum(used) FROM quota_counts JOIN quotas USING (tenant_id, quota_id) GROUP BY 1 ORDER BY 1"
    ) == [
        ("q", 2000),
        ("t", Decimal("0.06")),
        ("u", 1),
    ]


def test_what_was_parked_counts_when_it_is_charged() -> None:
    """By the quotas of then, in the window in which it occurred."""
    record_usage(an_envelope(an_event("ana", [tokens(10, model="gpt-99")], key="k", occurred_at=NOW)), NOW)
    a_quota(5, scope=Scope.CUSTOMER)
    unpriced = one("SELECT count(*) FROM quota_counts")
    _load_price("gpt-99")

    parked.replay_all(NOW + timedelta(minutes=5))
    parked.replay_all(NOW + timedelta(minutes=6))

    assert unpriced == (0,)
    assert rows(COUNTS) == [("ana", 10)]
    assert rows(OVER) == [("k",)]


def _load_price(model: str) -> None:
    new = one("SELECT price_id FROM prices WHERE model = 'gpt-4' AND unit = 'token' AND category = 'llm_prompt'")
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute(
            """INSERT INTO prices (scope, category, provider, model, unit, currency, unit_price, per, ladder,
                ladder_span, is_provider_default, is_ended, effective_from, revision, description, created_at)
            SELECT scope, category, provider, %s, unit, currency, unit_price, per, ladder, ladder_span, false, false,
                effective_from, 0, NULL, created_at FROM prices WHERE price_id = %s""",
            (model, new[0]),
        )


def test_a_quota_holds_for_the_next_transaction() -> None:
    """This process keeps quotas, and compares: set, changed and ended elsewhere, the next envelope knows."""
    use(1, key="before")
    a_quota(100, scope=Scope.CUSTOMER, set_at=NOW)
    use(60, key="l")
    a_quota(10, scope=Scope.CUSTOMER, set_at=NOW)
    use(1, key="m")
    quotas.set_cap(TENANT, "bob", Decimal("0.01"), "USD", NOW)
    use(1000, key="n", who="bob")
    quotas.set_cap(TENANT, "ana", Decimal("0.01"), "USD", NOW)
    use(1000, key="o")
    quotas.end_quota(TENANT, "q", NOW)
    use(1, key="p")

    assert rows("SELECT key, cardinality(quota_ids) FROM usage_events ORDER BY recorded_at, key") == [
        ("before0", None),
        ("l0", 1),
        ("m0", 1),
        ("n0", 2),
        ("o0", 2),
        ("p0", 1),
    ]
    assert rows(OVER) == [("m0",), ("n0",), ("o0",), ("p0",)]


def test_a_cap_that_is_changed_or_ended_holds_for_the_next_transaction() -> None:
    """What is kept of a customer's own quota is compared each time, also when it changed within one moment."""
    for limit in ("5", "0.05", "5"):
        quotas.set_cap(TENANT, "ana", Decimal(limit), "USD", BEFORE)
        use(1000, key=f"of-{limit}-{one('SELECT count(*) FROM usage_events')[0]}-")
    quotas.end_quota(TENANT, rows("SELECT name FROM quotas")[0][0], NOW)
    use(1000, key="ended")

    assert rows("SELECT key, cardinality(quota_ids), over_quota FROM usage_events ORDER BY key") == [
        ("ended0", None, None),
        ("of-0.05-1-0", 1, True),
        ("of-5-0-0", 1, None),
        ("of-5-2-0", 1, None),
    ]


def test_tenants_without_quotas_cost_no_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look for both revisions, of prices and of quotas, and no other word about quotas."""
    use(1, key="warm")

    assert _said_of_quotas(monkeypatch, lambda: use(1)) == [REVISIONS]


def test_what_a_customer_has_of_its_own_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of one who has none, that it has none; the others of its tenant having some."""
    quotas.set_cap(TENANT, "ana", Decimal(5), "USD", BEFORE)
    for who in ("ana", "bob"):
        use(1, key=f"warm-{who}", who=who)

    of_ana = _said_of_quotas(monkeypatch, lambda: use(1))
    of_bob = _said_of_quotas(monkeypatch, lambda: use(1, key="l", who="bob"))

    assert (len(of_ana), of_bob) == (2, [REVISIONS])
    assert "INSERT INTO quota_counts" in of_ana[1]


REVISIONS = "SELECT p.revision, q.revision FROM price_book p, quota_book q"


def _said_of_quotas(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> list[str]:
    """The statements about quotas and their counters in what is done; not the events' own, which name some."""
    said: list[str] = []
    execute = psycopg.Connection.execute

    def heard(self: Any, query: Any, *arguments: Any, **more: Any) -> Any:
        said.append(query if isinstance(query, str) else bytes(query).decode())
        return execute(self, query, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.Connection, "execute", heard)
        work()
    return [statement for statement in said if "quota" in statement and "INTO usage_events" not in statement]


def ask(**fields: Any) -> quotas.QuotaCheck:
    return quotas.check(Usage(TENANT, fields.pop("customer_id", "ana"), **fields), NOW)


def test_a_hard_quota_refuses_what_does_not_fit_any_more() -> None:
    a_quota(100, scope=Scope.CUSTOMER, is_hard=True)
    use(60)

    fits, too_much = ask(tokens=40), ask(tokens=41)

    assert (fits.is_allowed, too_much.is_allowed) == (True, False)
    (allowance,) = too_much.allowances
    assert [allowance.used, allowance.remaining, allowance.asked] == [Decimal(60), Decimal(40), Decimal(41)]
    assert allowance.resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert ask(customer_id="bob", tokens=41).is_allowed
    assert quotas.check(Usage(TENANT, "ana", tokens=41), datetime(2026, 12, 1, tzinfo=UTC)).is_allowed


def test_a_soft_quota_tells_and_lets_pass() -> None:
    a_quota(100, scope=Scope.CUSTOMER)

    answer = ask(tokens=101)

    assert answer.is_allowed
    assert [one.is_within for one in answer.allowances] == [False]


def test_a_check_asks_the_quotas_that_usage_would_count_in() -> None:
    """Of whom and of what it is for; of cost where that is told in the quota's currency."""
    wanted: dict[str, dict[str, Any]] = {
        "everyone": {"scope": Scope.TENANT, "measure": Measure.EVENTS},
        "users": {"scope": Scope.USER},
        "u1's": {"scope": Scope.USER, "subject": "u1"},
        "u2's": {"scope": Scope.USER, "subject": "u2"},
        "org": {"scope": Scope.ORGANIZATION},
        "chat": {"scope": Scope.CUSTOMER, "feature": "chat"},
        "voice": {"scope": Scope.CUSTOMER, "feature": "voice"},
        "dollars": {"scope": Scope.CUSTOMER, "measure": Measure.COST, "currency": "USD"},
    }
    for name, changes in wanted.items():
        a_quota(name=name, **changes)

    answer = ask(user_id="u1", feature="chat", tokens=5, cost=Decimal(2), currency="USD")

    asked = {one.quota.name: one.asked for one in answer.allowances}
    assert asked == {"everyone": 1, "users": 5, "u1's": 5, "chat": 5, "dollars": 2}


def test_a_check_is_one_statement_and_waits_for_nobody() -> None:
    """While usage holds counters and wallets."""
    a_quota(100, scope=Scope.CUSTOMER, is_hard=True)
    use(60)

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute("SELECT FROM wallets FOR UPDATE")
        holder.execute("SELECT FROM quota_counts FOR UPDATE")
        answer = ask(tokens=41)

    assert not answer.is_allowed


def test_enforcing_says_what_is_left() -> None:
    """For a hold: in the caller's transaction, by an error with the figures."""
    a_quota(100, scope=Scope.CUSTOMER, is_hard=True)
    use(60)

    in_transaction(lambda c: quotas.enforce(c, Usage(TENANT, "ana", tokens=40), NOW))
    with pytest.raises(QuotaExceeded, match="quota q leaves 40 of 100 tokens until 2026-12-01T00:00:00\\+00:00"):
        in_transaction(lambda c: quotas.enforce(c, Usage(TENANT, "ana", tokens=41), NOW))


def test_budgets_warn_and_refuse_nothing() -> None:
    quotas.set_budget(TENANT, "chat", Decimal("0.03"), "USD", BEFORE)
    quotas.set_budget(TENANT, "chat", Decimal("0.01"), "USD", BEFORE, customer_id="bob", per=Per.DAY)

    use(1000, feature="chat")

    figures = "0.03 of 0.03 USD in the month from 2026-11-01 on (UTC)"
    assert rows(SAID) == [
        ("budget_threshold", f"reached 80 %: {figures}"),
        ("budget_threshold", f"reached 100 %: {figures}"),
    ]
    assert ask(feature="chat", cost=Decimal(1), currency="USD").is_allowed
    assert rows(OVER) == []


def test_a_customers_own_cap_is_hard_and_by_the_customers_calendar() -> None:
    a_customer("eve", credit="1", now=BEFORE)

    cap = quotas.set_cap(TENANT, "eve", Decimal("0.03"), "USD", BEFORE).quota
    use(1000, who="eve")
    raised = quotas.set_cap(TENANT, "eve", Decimal(5), "USD", NOW)

    assert (cap.kind, cap.time_zone, cap.is_hard) == (QuotaKind.CAP, "America/Sao_Paulo", True)
    assert rows("SELECT kind, customer_id FROM alerts") == [("cap_threshold", "eve")] * 2
    assert (raised.is_new, raised.quota) == (False, replace(cap, limit=Decimal(5)))
    assert ask(customer_id="eve", cost=Decimal(1), currency="USD").is_allowed
    assert not ask(customer_id="eve", cost=Decimal(6), currency="USD").is_allowed


def test_the_same_name_for_something_else_is_refused() -> None:
    """Its counters would mean something else. After it has ended, the name is free."""
    a_quota(scope=Scope.CUSTOMER)

    with pytest.raises(AlreadyExists, match="its measure is tokens, not events"):
        a_quota(scope=Scope.CUSTOMER, measure=Measure.EVENTS)
    quotas.end_quota(TENANT, "q", NOW)

    assert a_quota(scope=Scope.CUSTOMER, measure=Measure.EVENTS).is_new
    assert [quota.measure for quota in quotas.quotas_of(TENANT)] == [Measure.EVENTS]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"tenant_id": "nobody"}, TenantNotFound),
        ({"scope": Scope.CUSTOMER, "subject": "nobody"}, CustomerNotFound),
        ({"subject": "ana"}, Rejected),
        ({"name": ""}, Rejected),
        ({"feature": "a\0b"}, Rejected),
        ({"measure": Measure.COST}, Rejected),
        ({"currency": "USD"}, Rejected),
        ({"limit": Decimal(-1)}, Rejected),
        ({"time_zone": "Mars"}, Rejected),
        ({"kind": QuotaKind.BUDGET}, Rejected),
        ({"kind": QuotaKind.CAP, "is_hard": True}, Rejected),
    ],
)
def test_what_is_no_quota_is_refused(changes: dict[str, Any], error: type[Rejected]) -> None:
    with pytest.raises(error):
        quotas.set_quota(replace(Wanted(TENANT, "q", Decimal(1)), **changes), NOW)

    assert rows("SELECT name FROM quotas") == []


def test_questions_about_nobody_are_told_so() -> None:
    with pytest.raises(QuotaNotFound):
        quotas.end_quota(TENANT, "q", NOW)
    with pytest.raises(TenantNotFound):
        quotas.check(Usage("nobody", "ana"), NOW)
    with pytest.raises(Rejected, match="not negative"):
        ask(tokens=-1)


def _at_once(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_workers_that_race_count_each_event_once() -> None:
    """The same envelopes to both, in opposite orders, with every scope counted: exact, and no deadlock."""
    for scope in Scope:
        a_quota(100, name=scope.value, scope=scope)
    envelopes = [
        an_envelope(
            *[
                an_event(
                    who, [tokens(1)], key=f"{number}-{who}-{n}", occurred_at=NOW, user_id=f"u{n}", organization_id="o"
                )
                for n in range(10)
                for who in ("ana", "bob")
            ]
        )
        for number in range(10)
    ]

    _at_once(
        lambda: [record_usage(envelope, NOW) for envelope in envelopes],
        lambda: [record_usage(envelope, NOW) for envelope in reversed(envelopes)],
    )

    by_name = rows("SELECT name, sum(used) FROM quota_counts JOIN quotas USING (tenant_id, quota_id) GROUP BY 1")
    assert dict(by_name) == {"customer": 200, "user": 200, "organization": 200, "tenant": 200}
    counting.look_again(NOW)
    assert one("SELECT count(*) FROM alerts WHERE subject LIKE 'organization#%%'") == (2,)
    assert one("SELECT count(*) FROM alerts WHERE subject LIKE 'tenant#%%'") == (2,)
    assert one("SELECT count(*) FROM usage_events WHERE over_quota") >= (100,)
    assert one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == (0,)


def test_two_workers_meet_at_a_tenants_quota_and_wait_for_nobody_else() -> None:
    """Each has customers of its own, so that only the counters are shared; nothing is lost, nothing said twice."""
    a_quota(100, scope=Scope.TENANT, is_hard=True)
    by_customer = [
        [
            an_envelope(*[an_event(who, [tokens(1)], key=f"{who}{n}-{m}", occurred_at=NOW) for m in range(5)])
            for n in range(20)
        ]
        for who in ("ana", "bob")
    ]

    _at_once(*[lambda own=own: [record_usage(envelope, NOW) for envelope in own] for own in by_customer])
    counting.look_again(NOW)

    assert rows(COUNTS) == [("", 200)]
    assert len(rows(SAID)) == 2
    assert not ask(tokens=1).is_allowed


def test_a_tenants_counter_makes_nobody_wait() -> None:
    """Another worker holds its stripe for as long as it likes."""
    a_quota(scope=Scope.TENANT)
    use(1)

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute(
            "INSERT INTO quota_counts SELECT tenant_id, quota_id, subject, window_start, 99, 5 FROM quota_counts"
        )
        use(2, key="l", who="bob")
        seen = one("SELECT sum(used) FROM quota_counts")
        holder.rollback()

    assert seen == (3,)


def test_thresholds_that_two_workers_reached_together_are_found_by_the_next_look() -> None:
    """Each saw only its own half of the tenant's counter; the look says what both have reached, once."""
    a_quota(100, scope=Scope.TENANT)
    use(20)
    with psycopg.connect(settings().required("database_url")) as other:
        other.execute(
            "INSERT INTO quota_counts SELECT tenant_id, quota_id, subject, window_start, 99, 40 FROM quota_counts"
        )
        use(40, key="l")
        unseen = rows(SAID)

    said = counting.look_again(NOW), counting.look_again(NOW)
    one("DELETE FROM quota_counts WHERE stripe = 99 RETURNING 1")

    assert (unseen, said) == ([], (2, 0))
    assert [kind for kind, _ in rows(SAID)] == ["quota_threshold"] * 2

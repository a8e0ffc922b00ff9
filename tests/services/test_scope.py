"""Services run for one tenant or customer: others do not exist there, whatever is asked for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from psycopg import errors

from billing.errors import BrokenInvariant, CustomerNotFound, DatabaseUnavailable, NotFound, OutOfScope, TenantNotFound
from centavo import Item
from db import scope
from db.scope import API_ROLE, as_everybody, as_tenant, refuse_unscoped
from db.session import Connection, in_transaction
from services.books import credits as grants
from services.books import tenants
from services.books.catalogue_files import read_plans, read_prices
from services.books.customers import NewCustomer, create_customers
from services.cycle import subscriptions
from services.desk import history, overview, quotes, wallets
from services.desk.history import Asked, AskedEntries
from services.desk.prices import load_prices
from services.metering import inbox
from services.metering.usage import Outcome, record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

OTHER = "other"
WHO = """
    SELECT current_user::text, current_setting('centavo.tenant_id', true), current_setting('centavo.customer_id', true)
"""


def now() -> datetime:
    return datetime.now(UTC)


def who() -> tuple[object, ...]:
    """For whom a transaction runs here."""

    def ask(connection: Connection) -> tuple[object, ...]:
        row = connection.execute(WHO.encode()).fetchone()
        assert row is not None
        return row

    return in_transaction(ask)


@pytest.fixture
def two_tenants(billing_database: str) -> None:
    """Ana and bob of acme, and an ana of another tenant, each with 10 USD."""
    assert billing_database
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bob", credit="20")
    tenants.create_tenant(OTHER, "Other", now())
    tenants.load_plans(OTHER, read_plans("default"), now())
    create_customers([NewCustomer(OTHER, "ana", "prepaid", "UTC", ("USD",))], now())


@pytest.fixture
def strict(billing_database: str) -> Iterator[None]:
    """A process that serves tenants; the fixtures around the test are none."""
    assert billing_database
    refuse_unscoped()
    yield
    refuse_unscoped(refused=False)


def balance_of(customer_id: str, tenant_id: str = TENANT) -> Decimal:
    (mine,) = wallets.balance(tenant_id, customer_id, now()).wallets
    return mine.balance.available


def test_a_transaction_runs_as_the_role_with_its_settings_and_the_next_one_does_not() -> None:
    """On the same connection of the pool: nothing of it stays there."""
    before = who()
    with as_tenant("acme", "ana"):
        assert who() == (API_ROLE, "acme", "ana")
        with as_tenant("acme", "ana"):
            assert who() == (API_ROLE, "acme", "ana")
    with as_tenant("acme"):
        assert who() == (API_ROLE, "acme", "")

    after = who()

    assert after[0] == before[0] != API_ROLE
    assert after[1:] == ("", "")


def test_a_transaction_that_fails_leaves_nothing_behind() -> None:
    def fail(connection: Connection) -> None:
        connection.execute("SELECT 1/0")

    with as_tenant("acme"), pytest.raises(errors.DivisionByZero):
        in_transaction(fail)

    assert who()[0] != API_ROLE


@pytest.mark.usefixtures("two_tenants")
def test_a_customer_asks_for_her_own_and_others_are_not_found() -> None:
    with as_tenant(TENANT, "ana"):
        assert balance_of("ana") == 10
        assert wallets.can_afford(TENANT, "ana", now(), items=[tokens(1000)]).is_affordable
        assert quotes.quote(TENANT, "ana", [tokens(1000)], now()).cost > 0
        assert history.ledger(AskedEntries(TENANT, "ana", now() - timedelta(days=1), now())).rows
        for tenant_id, customer_id in ((TENANT, "bob"), (TENANT, "nobody")):
            with pytest.raises(CustomerNotFound):
                wallets.balance(tenant_id, customer_id, now())
        with pytest.raises(TenantNotFound):
            wallets.balance(OTHER, "ana", now())
        assert overview.payments(None, None, None, 100) == []


@pytest.mark.usefixtures("two_tenants")
def test_a_tenant_does_all_of_its_business_and_nobody_elses() -> None:
    """Recording, granting, voiding, customers, lists: under the role, with the same outcome as without."""
    a_customer("metered", plan="tiers-8m", currencies=("BRL",))
    with as_tenant(TENANT):
        events = [an_event("ana", [tokens(100)], key="k"), an_event("metered", [tokens(9_000_000)])]
        foreign = an_event("ana", [tokens(100)], tenant_id=OTHER)
        outcome = record_usage(an_envelope(*events), now())
        again = record_usage(an_envelope(*events), now())
        void(TENANT, "k", "sent by mistake", now())
        grants.grant(grants.Grant(TENANT, "bob", "USD", Decimal(5), "promo", "bonus", "again"), now())
        create_customers([NewCustomer(TENANT, "eve", "prepaid", "UTC", ("USD",))], now())
        assert subscriptions.periods_of(TENANT, "metered")[0].tokens == 9_000_000
        day = timedelta(days=1)
        assert len(history.usage(Asked(TENANT, None, now() - day, now() + day)).rows) == 2
        assert {p.tenant_id for p in overview.payments(None, None, None, 100)} == {TENANT}
        with pytest.raises(NotFound):
            create_customers([NewCustomer(OTHER, "mine-now", "prepaid", "UTC", ("USD",))], now())
        with pytest.raises(OutOfScope):
            record_usage(an_envelope(foreign), now())

    assert outcome == Outcome(received=2, charged=2, payments_due=1)
    assert again == Outcome(received=2, duplicates=2)
    assert wallet("bob") == 25
    assert one("SELECT count(*) FROM usage_events WHERE tenant_id = %s", OTHER) == (0,)


@pytest.mark.usefixtures("two_tenants")
def test_each_tenant_is_quoted_its_own_prices() -> None:
    """A process keeps prices: those that one scope was shown are not another's, in whichever order they ask."""
    later = now() + timedelta(hours=2)
    own = read_prices("usd-per-unit")[0]._replace(scope=OTHER, unit_price=Decimal(7), effective_from=later)
    load_prices([own], now())
    product = {name: getattr(own, name) for name in ("category", "provider", "model", "unit")}
    item = Item(**product, quantity=Decimal(1))

    def quoted(tenant_id: str) -> Decimal:
        return quotes.quote(tenant_id, "ana", [item], later).cost

    expected = {tenant_id: quoted(tenant_id) for tenant_id in (TENANT, OTHER)}
    assert expected[OTHER] == 7 != expected[TENANT]

    for tenant_id in (TENANT, OTHER, TENANT):
        with as_tenant(tenant_id):
            assert quoted(tenant_id) == expected[tenant_id]
    assert {tenant_id: quoted(tenant_id) for tenant_id in (TENANT, OTHER)} == expected


@pytest.mark.usefixtures("two_tenants")
def test_a_sweep_in_a_scope_finds_only_what_is_in_it() -> None:
    """Even a statement that forgets to say whose rows it means."""
    one("SELECT set_config('centavo.tenant_id', %s, false), record_token_consumption('ana', 1)", TENANT)

    with as_tenant(OTHER):
        assert inbox.drain(now()) == 0

    assert inbox.drain(now()) == 1


def test_a_scope_only_narrows() -> None:
    """What runs for a customer can't be made to run for another by code further in."""
    with as_tenant("acme"):
        with as_tenant("acme", "ana"):
            assert who()[1:] == ("acme", "ana")
            for tenant_id, customer_id in (("acme", None), ("acme", "bob"), ("other", "ana")):
                with pytest.raises(OutOfScope), as_tenant(tenant_id, customer_id):
                    pass
        with pytest.raises(OutOfScope), as_everybody():
            pass
        assert who()[1:] == ("acme", "")


@pytest.mark.parametrize(("tenant_id", "customer_id"), [("", None), ("", "ana"), ("acme", "")])
def test_an_empty_name_is_no_scope(tenant_id: str, customer_id: str | None) -> None:
    """An empty customer would mean the whole tenant."""
    with pytest.raises(ValueError, match="empty name"), as_tenant(tenant_id, customer_id):
        pass


@pytest.mark.usefixtures("strict")
def test_a_process_that_serves_tenants_refuses_what_nobody_has_said_for_whom() -> None:
    """A scope does not reach a thread by itself: forgotten there, it is a refusal, and not everybody's rows."""
    with pytest.raises(BrokenInvariant, match="without a scope"):
        who()
    with as_tenant("acme"), ThreadPoolExecutor(1) as pool, pytest.raises(BrokenInvariant):
        pool.submit(who).result()
    with as_everybody():
        assert who()[0] != API_ROLE
        with as_tenant("acme"):
            assert who()[0] == API_ROLE


def test_without_the_role_the_caller_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "API_ROLE", "centavo_nowhere")

    with as_tenant("acme"), pytest.raises(DatabaseUnavailable, match="centavo migrate"):
        who()

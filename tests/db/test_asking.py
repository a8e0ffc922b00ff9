"""Questions on connections that keep their scope: nobody sees what the last one was shown."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import TransactionStatus

from billing.errors import BrokenInvariant, DatabaseUnavailable, OutOfScope
from config import clock
from config.settings import settings
from db import session
from db.scope import API_ROLE, as_everybody, as_tenant, refuse_unscoped
from db.session import Connection, ask, in_transaction
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from tests.factories import TENANT, a_customer, catalogues

pytestmark = pytest.mark.usefixtures("billing_database")

WHO = b"""
    SELECT current_user::text, current_setting('centavo.tenant_id', true), current_setting('centavo.customer_id', true)
"""


@pytest.fixture(autouse=True)
def customers(billing_database: str) -> Iterator[None]:
    """Ana and bob of acme, cid of another; and connections of this test's own."""
    assert billing_database
    catalogues()
    a_customer("ana")
    a_customer("bob")
    tenants.create_tenant("other", "Other", clock.now())
    tenants.load_plans("other", read_plans("default"), clock.now())
    create_customers([NewCustomer("other", "cid", "prepaid", "UTC", ("USD",))], clock.now())
    session.close()
    yield
    session.close()


def seen(connection: Connection) -> list[str]:
    found = connection.execute("SELECT customer_id FROM customers ORDER BY customer_id")
    return [str(customer_id) for (customer_id,) in found]


def who(connection: Connection) -> tuple[object, ...]:
    row = connection.execute(WHO).fetchone()
    assert row is not None
    return row


def connected(connection: Connection) -> int:
    return connection.info.backend_pid


def test_each_question_is_shown_what_its_scope_lets_through_on_one_connection() -> None:
    """By turns, and whoever asked before: tenants, customers, everybody."""
    pids = set()
    for _ in range(2):
        for scope, expected in (
            (as_tenant(TENANT, "ana"), ["ana"]),
            (as_tenant("other"), ["cid"]),
            (as_tenant(TENANT), ["ana", "bob"]),
            (as_everybody(), ["ana", "bob", "cid"]),
            (as_tenant("nobody"), []),
        ):
            with scope:
                assert ask(seen) == expected
                pids.add(ask(connected))
    assert ask(seen) == ["ana", "bob", "cid"]
    assert len(pids) == 1


def test_it_runs_as_the_role_and_says_its_scope_once() -> None:
    said: list[str] = []

    def traced(connection: Connection) -> tuple[object, ...]:
        said.append(str(connection.autocommit))
        return who(connection)

    with as_tenant(TENANT, "ana"):
        assert [ask(traced), ask(traced)] == [(API_ROLE, TENANT, "ana")] * 2
    with as_tenant(TENANT):
        assert ask(traced) == (API_ROLE, TENANT, "")
    assert ask(traced)[0] != API_ROLE
    assert set(said) == {"True"}


def test_transactions_know_nothing_of_it() -> None:
    """They have connections of their own: a scope that stays there would be the next one's."""
    before = in_transaction(who)
    with as_tenant(TENANT, "ana"):
        asked = ask(connected)

    assert in_transaction(who) == before
    assert in_transaction(connected) != asked


def test_a_question_that_fails_leaves_nothing_behind() -> None:
    def fail(connection: Connection) -> None:
        connection.execute("SELECT 1/0")

    for scope in (as_tenant(TENANT), as_everybody()):
        with scope, pytest.raises(errors.DivisionByZero):
            ask(fail)

    with as_tenant("other"):
        assert ask(seen) == ["cid"]


def test_what_a_scope_may_not_write_is_refused_there_too() -> None:
    with as_tenant(TENANT, "ana"), pytest.raises(OutOfScope):
        ask(
            lambda connection: connection.execute(
                "UPDATE tenants SET name = 'mine'; INSERT INTO installation DEFAULT VALUES"
            )
        )


def test_a_scope_that_could_not_be_taken_on_leaves_no_connection_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_tenant(TENANT):
        pid = ask(connected)
    with monkeypatch.context() as patched, as_tenant("other"):
        patched.setattr("db.scope.API_ROLE", "nobody_has_this_role")
        with pytest.raises(DatabaseUnavailable):
            ask(seen)

    with as_tenant("other"):
        assert ask(connected) != pid
        assert ask(seen) == ["cid"]


def test_without_a_scope_a_process_that_serves_tenants_asks_nothing() -> None:
    refuse_unscoped()
    try:
        with pytest.raises(BrokenInvariant):
            ask(seen)
        with as_tenant("other"):
            assert ask(seen) == ["cid"]
    finally:
        refuse_unscoped(refused=False)


def test_a_connection_that_breaks_is_replaced_and_its_scope_forgotten() -> None:
    with as_tenant(TENANT):
        pid = ask(connected)
        with psycopg.connect(settings().required("database_url")) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(DatabaseUnavailable):
            ask(seen)

        assert ask(seen) == ["ana", "bob"]
        assert ask(who)[0] == API_ROLE
        assert ask(connected) != pid


def test_a_question_that_is_broken_off_halfway_takes_its_connection_along() -> None:
    """As a signal would: what Postgres is still at is no business of the next question."""

    def broken_off(connection: Connection) -> None:
        connection.pgconn.send_query(b"SELECT pg_sleep(0)")
        raise KeyboardInterrupt

    with as_tenant(TENANT):
        pid = ask(connected)
        with pytest.raises(KeyboardInterrupt):
            ask(broken_off)
        assert ask(connected) != pid
        assert ask(seen) == ["ana", "bob"]


def test_a_transaction_that_somebody_left_open_is_not_the_next_ones() -> None:
    """Nothing is reset when a connection is given back: one that is not at rest is not given on."""
    with as_tenant(TENANT):
        pid = ask(connected)
        ask(lambda connection: connection.execute("BEGIN"))

        assert ask(connected) != pid
        assert ask(lambda connection: connection.info.transaction_status) is TransactionStatus.IDLE


def test_a_connection_that_is_at_rest_is_asked_again() -> None:
    with as_tenant(TENANT):
        assert len({ask(connected) for _ in range(5)}) == 1


def test_a_migration_between_two_questions_is_not_noticed() -> None:
    """What was prepared for the tables as they were goes with its connection."""

    def revision(connection: Connection) -> object:
        return connection.execute("SELECT revision FROM price_book").fetchone()

    before = [ask(revision) for _ in range(3)]
    in_transaction(lambda connection: connection.execute("ALTER TABLE price_book ALTER COLUMN revision TYPE numeric"))

    assert [ask(revision)] * 3 == before

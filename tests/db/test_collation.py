"""Text is compared byte by byte, also in a database that sorts as English does."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from db import wallets
from db.migrate import migrate
from db.session import in_transaction
from sandbox.postgres import PostgresServer
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.credits import Grant, grant
from services.books.customers import NewCustomer, create_customers
from services.metering.usage import Outcome, record_usage
from tests.conftest import OF_A_TEST_SERVER
from tests.factories import an_envelope, an_event, catalogues
from tests.looking import one, rows

LOCALE = "en_US.UTF-8"
#: In this order they are sorted by bytes; English has the second first.
TENANTS = ("B", "a")
COLLATED_OTHERWISE = """
SELECT c.relname, a.attname, a.attcollation::regcollation::text
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
    AND a.attcollation <> 0 AND a.attcollation <> '"C"'::regcollation
"""


@pytest.fixture(scope="module")
def english(server_folder: Path) -> Iterator[PostgresServer]:
    """A server that knows English, which this machine need not have installed."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip("localedef has no sources of locales here: install the system's package `locales`")
    locales = server_folder / "locales"
    locales.mkdir(mode=0o755)
    command = ["localedef", "--inputfile=en_US", "--charmap=UTF-8", str(locales / "en_US.utf8")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    server = PostgresServer(server_folder / "english", settings=OF_A_TEST_SERVER)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCPATH", str(locales))
        server.start()
    yield server
    server.destroy()


@pytest.fixture
def database(english: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, migrated database that sorts as English does."""
    name = f"english_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(english.uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE '{LOCALE}'".encode())
    migrate(english.uri(name))
    yield english.uri(name)
    english.drop_database(name)


def two_tenants(now: datetime) -> None:
    catalogues(now)
    for tenant_id, credit in zip(TENANTS, ("100", "7"), strict=True):
        tenants.create_tenant(tenant_id, tenant_id, now)
        tenants.load_plans(tenant_id, read_plans("default"), now)
        create_customers([NewCustomer(tenant_id, "ana", "prepaid", "UTC", ("USD",))], now)
        grant(Grant(tenant_id, "ana", "USD", Decimal(credit), "promo", "new_user_bonus", "first"), now)


def test_tenants_that_english_sorts_otherwise_are_charged_from_their_own_wallets(billing_database: str) -> None:
    now = datetime.now(UTC)
    two_tenants(now)

    outcome = record_usage(an_envelope(*(an_event(tenant_id=tenant_id) for tenant_id in TENANTS)), now)

    assert one("SELECT 'a' < 'B'") == (True,)
    assert outcome == Outcome(received=2, charged=2)
    assert rows('SELECT tenant_id, balance FROM wallets ORDER BY tenant_id COLLATE "C"') == [
        ("B", Decimal("99.97")),
        ("a", Decimal("6.97")),
    ]
    assert rows("SELECT tenant_id, balance_after FROM ledger_entries WHERE kind = 'usage' ORDER BY tenant_id") == [
        ("B", Decimal("99.97")),
        ("a", Decimal("6.97")),
    ]


def test_wallets_of_several_tenants_are_told_apart_by_name(billing_database: str) -> None:
    """However the answers are sorted."""
    two_tenants(datetime.now(UTC))
    keys = [(str(tenant_id), int(number)) for tenant_id, number in rows("SELECT tenant_id, wallet_id FROM wallets")]

    def balances(asked: list[tuple[str, int]]) -> list[Decimal]:
        return in_transaction(lambda connection: [locked[0] for locked in wallets.lock(connection, asked) or ()])

    assert balances(keys) == [*reversed(balances(keys[::-1]))]
    assert len({*balances(keys)}) == 2


def test_no_column_has_the_databases_own_collation(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute(COLLATED_OTHERWISE).fetchall() == []

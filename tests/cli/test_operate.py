"""`audit` and `status`: what is there, where, and whether it agrees."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from db.audit import CHECKS
from services.metering.usage import record_usage
from tests.cli.conftest import Command
from tests.conftest import OF_A_TEST_SERVER
from tests.elsewhen import centavo_there, host_ahead
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one


def record(*events: object) -> None:
    record_usage(an_envelope(*events), datetime.now(UTC))  # type: ignore[arg-type]


def test_the_audit_says_that_everything_agrees(centavo: Command, ana: str) -> None:
    """Every check by name; what is parked is counted and is no difference."""
    record(an_event(ana), an_event(ana, [tokens(1, model="gpt-99")]), b"nonsense")

    told, as_json = centavo("audit"), centavo("audit", "--json")

    assert (told.status, told.err, as_json.status, as_json.err) == (0, "", 0, "")
    assert told.out.endswith("0 differences\n")
    assert as_json.json["checks"] == dict.fromkeys(CHECKS, 0)
    assert {name: as_json.json[name] for name in ("differences", "parked", "shown")} == {
        "differences": 0,
        "parked": 2,
        "shown": [],
    }
    assert as_json.json["counts"]["charged"] == 1
    assert max(len(line) for line in told.out.splitlines()) <= 80


def test_the_audit_of_one_tenant_looks_at_nothing_else(centavo: Command, ana: str) -> None:
    """A name that nobody has is a mistake, not a tenant without differences."""
    record(an_event(ana))

    own, nobodys = centavo("audit", "--tenant", "acme", "--json"), centavo("audit", "--tenant", "nobody")

    assert (own.status, own.json["counts"]["events"], own.json["seconds"].keys()) == (0, 1, CHECKS.keys())
    assert (nobodys.status, nobodys.out) == (1, "")
    assert "nobody" in nobodys.err


def test_an_audit_that_could_write_is_refused(centavo: Command, ana: str, database: str) -> None:
    """A status of its own: nothing was found, for nothing was looked at."""
    refused = centavo("audit", "--json", CENTAVO_AUDIT_DATABASE_URL=database)

    assert (refused.status, refused.out) == (78, "")
    assert "could write" in refused.err


def test_the_audit_names_what_contradicts(centavo: Command, ana: str) -> None:
    """Exit status 1; the row, what it should be and what it is; a record of it in the log, as JSON."""
    record(an_event(ana))
    one("UPDATE periods SET tokens = tokens + 7 RETURNING 1")

    told, as_json = centavo("audit"), centavo("audit", "--json")

    assert (told.status, as_json.status) == (1, 1)
    assert told.out.endswith("1 differences\n")
    assert "1007" in told.out
    assert as_json.json["differences"] == 1
    assert as_json.json["shown"][0]["tenant_id"] == "acme"
    assert '"event": "balance inconsistency"' in told.err
    one("UPDATE periods SET tokens = tokens - 7 RETURNING 1")


def test_the_status_says_where_everything_is_and_how_far_behind(
    centavo: Command, ana: str, database: str, broker: str, stripe_double: str
) -> None:
    """Addresses, queues, counts and the age of the oldest payment that is due."""
    a_customer("rui", plan="tiers-8m", currencies=("BRL",))
    record(an_event(ana), an_event("rui", [tokens(20_000_000)]), an_event(ana, [tokens(1, model="gpt-99")]))
    one("UPDATE payments SET due_at = now() - interval '1 minute' WHERE tier = 1 RETURNING 1")
    with redis.Redis.from_url(broker) as client:
        client.lpush("usage", "a", "b", "c")

    told, as_json = centavo("status"), centavo("status", "--json").json

    assert as_json["addresses"] == {
        "database": database,
        "broker": broker,
        "stripe": stripe_double,
        "environment": "sandbox",
    }
    assert as_json["queues"] == {"usage": 3, "payments": 0, "ticks": 0}
    standing = as_json["database"]
    lag, version = standing.pop("payment_lag_seconds"), standing.pop("server_version")
    unsafe = standing.pop("unsafe_settings")
    assert standing.pop("clocks")["ahead_seconds"] == 0
    assert standing == {"charged": 2, "parked": {"unpriced": 1}, "payments": 2, "payments_waiting": 2}
    assert 60 <= lag < 120
    assert version.startswith("18.")
    assert unsafe == [name for name, value in sorted(OF_A_TEST_SERVER.items()) if value == "off"]
    words = " ".join(told.out.split())
    for said in (
        "clock this host is 0 s ahead of Postgres",
        "queue usage 3 messages",
        "events charged 2",
        "parked 1 unpriced",
        "payments 2, 2 of them waiting",
        "a crash may lose commits",
    ):
        assert said in words
    assert max(len(line) for line in told.out.splitlines()) <= 80


@pytest.mark.usefixtures("billing_database")
def test_the_status_shows_a_clock_that_is_wrong(tmp_path: Path) -> None:
    there = host_ahead(tmp_path / "site", timedelta(days=-365))

    told, as_json = centavo_there(there, "status"), centavo_there(there, "status", "--json")

    words = " ".join(told.stdout.split())
    assert re.search(r"clock this host is 31,53[56],\d{3} s behind Postgres; nothing is done here", words)
    seconds = json.loads(as_json.stdout)["database"]["clocks"]["ahead_seconds"]
    assert seconds == pytest.approx(-365 * 86_400, abs=30)


@pytest.mark.usefixtures("billing_database")
def test_logs_go_where_they_do_not_mix_with_results(centavo: Command) -> None:
    """To standard error, as JSON, when they are asked for; a person who asked for nothing sees none."""
    catalogues()
    a_customer("ana")
    grant = ("credits", "grant", "acme", "ana", "1", "--key")

    quiet, logged = centavo(*grant, "1"), centavo(*grant, "2", CENTAVO_LOG_LEVEL="INFO")

    assert quiet == (0, "USD 1 granted; balance after it 1\n", "")
    assert logged.out == "USD 1 granted; balance after it 2\n"
    assert '"event": "credits granted"' in logged.err


@pytest.mark.usefixtures("billing_database")
def test_the_status_shows_a_shard_that_nobody_is_told_to_take(centavo: Command, broker: str) -> None:
    with redis.Redis.from_url(broker) as client:
        client.lpush("usage.1", "a")
        client.lpush("usage.5", "a", "b")

    told, as_json = centavo("status", CENTAVO_USAGE_SHARDS="2"), centavo("status", "--json", CENTAVO_USAGE_SHARDS="2")

    assert as_json.json["queues"] == {"usage": 0, "usage.0": 0, "usage.1": 1, "payments": 0, "ticks": 0, "usage.5": 2}
    assert as_json.json["untaken"] == ["usage.5"]
    assert "queue usage.5 2 messages, and nobody takes them" in " ".join(told.out.split())

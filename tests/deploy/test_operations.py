"""docs/operations.md agrees with the settings, the compose file and the command line."""

import re
import shlex
import subprocess
import sys
from typing import Literal, get_args, get_origin

import annotated_types
import psycopg
import pytest
import stripe
from pydantic.fields import FieldInfo

from billing.payments import AlertKind
from config.settings import Settings
from payments.gateway import EVENT_TYPES
from sandbox.stack import ROOT
from tests.cli.conftest import Command
from tests.deploy.files import services, variables
from worker.schedule import LOOKS

TEXT = (ROOT / "docs" / "operations.md").read_text()


def table(first_column: str) -> dict[str, list[str]]:
    """The rows of the table that has this first column: the first cell, without ticks, to the others."""
    _, _, rest = TEXT.partition(f"| {first_column} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    return {first: others for first, *others in cells}


def default_of(field: FieldInfo) -> str:
    return "none" if field.default is None else str(field.default)


def allowed_by(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    match field.metadata:
        case []:
            return ""
        case [annotated_types.Ge(ge=low), annotated_types.Le(le=high)]:
            return f"{low} to {high}"
        case [annotated_types.MinLen(min_length=low)]:
            return f"at least {low} characters"
        case [annotated_types.Gt(gt=low)]:
            return f"more than {low}"
        case [annotated_types.Ge(ge=low), *digits]:
            return f"at least {low}" + "".join(f", with {one.decimal_places} decimals at most" for one in digits)
    raise AssertionError(f"say in words what {field.metadata} allows")


def test_every_setting_stands_there_in_order_with_its_default_and_its_bounds() -> None:
    expected = {
        f"CENTAVO_{name.upper()}": [default_of(field), allowed_by(field)]
        for name, field in Settings.model_fields.items()
    }

    actual = {name: cells[:2] for name, cells in table("setting").items()}
    assert list(actual.items()) == list(expected.items())


def test_every_setting_is_explained() -> None:
    assert [name for name, cells in table("setting").items() if len(cells[2]) < 10] == []


def test_every_variable_of_the_compose_file_stands_there_with_its_default() -> None:
    expected = {
        name: text if kind == "-" else "none" for name, ways in variables().items() for kind, text in sorted(ways)[:1]
    }

    assert {name: cells[0] for name, cells in table("variable").items()} == expected


def test_every_service_stands_there() -> None:
    assert set(table("service")) == set(services())


def commands() -> list[str]:
    """Each `centavo …` that the document tells to run."""
    words = "migrate|worker|beat|api|status|audit|parked|payments|holds|alerts|cards|clock|subscriptions|statements"
    words += "|webhooks|quotas"
    told = re.findall(rf"centavo ((?:{words})\b[^`\n]*)", TEXT)
    told += re.findall(r"run --rm (?:usage|migrate|payments) ?(\w.*)", TEXT)
    return sorted({command.strip() for command in told})


@pytest.mark.parametrize("command", commands())
def test_the_commands_that_it_tells_to_run_exist(command: str, forked: Command) -> None:
    assert forked(*shlex.split(command, comments=True), "--help").status == 0


def test_the_log_records_that_it_tells_to_look_for_are_written() -> None:
    rooms = ("services", "tasks", "worker", "api")
    sources = [path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py")]

    for record in (
        "balance inconsistency",
        "audited",
        "invariant checked",
        "waiting",
        "the broker is away",
        "stripe refuses our key",
        "stripe refuses our request",
        "webhook received",
        "webhook can't be worked",
        "request refused",
        "months turned",
        "grants broken",
        "holds expired",
        "periods closed",
        "statement issued",
    ):
        assert f"`{record}`" in TEXT
        written = re.compile(rf'\(\s*"{re.escape(record)}"')
        assert any(written.search(source) for source in sources), record


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_events_to_register_at_stripe_are_those_that_are_followed() -> None:
    (events,) = blocks("text")

    assert tuple(events.split()) == EVENT_TYPES


def test_the_version_to_register_is_the_one_that_the_stripe_library_speaks() -> None:
    assert re.findall(r"API version `([^`]*)`", TEXT) == [stripe.api_version]


def test_the_secrets_of_webhooks_are_written_as_they_are_read() -> None:
    (both,) = re.findall(r"`STRIPE_WEBHOOK_SECRETS=([^`]*,[^`]*)`", TEXT)

    assert Settings(stripe_webhook_secrets=both).webhook_secrets == ("whsec_new", "whsec_old")


def test_the_hours_at_which_missed_webhooks_are_fetched_are_those_of_beat() -> None:
    hours = [f"{hour:02}:{minute:02}" for hour in sorted(LOOKS.hour) for minute in sorted(LOOKS.minute)]

    assert f"at {', '.join(hours[:-1])} and {hours[-1]} UTC" in TEXT


def test_the_alerts_that_it_names_exist() -> None:
    (row,) = [cells for sign, cells in table("sign").items() if sign == "alerts that nobody has seen"]

    named = set(re.findall(r"`([a-z_]+)`", row[1]))
    assert named
    assert named <= {kind.value for kind in AlertKind}


@pytest.mark.parametrize("arguments", re.findall(r"^scripts/chaos (.*)$", TEXT, re.MULTILINE))
def test_the_chaos_that_it_tells_to_run_exists(arguments: str) -> None:
    command = [sys.executable, "-m", "chaos", *arguments.split(), "--help"]

    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


# A row each of what is to be found, and of what is not yet, or no longer.
_STANDING = """
SET LOCAL session_replication_role = replica;  -- a payment here stands for itself
INSERT INTO alerts (tenant_id, kind, subject, detail, raised_at, last_at, seen_at)
VALUES ('acme', 'refund_failed', 're_1', '', now(), now(), NULL),
    ('acme', 'cap_reached', 'ana', '', now(), now(), now());
INSERT INTO webhook_events (event_id, type, payload, created_at, received_at, source, due_at, worked_at)
SELECT 'evt_' || name, 'refund.failed', '{}', now(), now() - minutes * interval '1 minute', 'delivered',
    due_at, worked_at
FROM (VALUES ('lies', 11, now(), NULL), ('new', 9, now(), NULL), ('worked', 11, NULL, now()))
    AS e(name, minutes, due_at, worked_at);
WITH p AS (
    INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor,
        currency, state, due_at, attempts_made, stripe_payment_intent_id, created_at, updated_at)
    SELECT 'acme', gen_random_uuid(), name, now(), 'tier', 1, 0, 10000,
        'BRL', state, now(), 1, 'pi_' || name, now(), now()
    FROM (VALUES ('lies', 'unknown'), ('new', 'unknown'), ('sent', 'submitting')) AS e(name, state)
    RETURNING tenant_id, payment_id, customer_id
)
INSERT INTO payment_attempts (tenant_id, payment_id, attempt, state, idempotency_key, parameters, payment_method_id,
    started_at)
SELECT tenant_id, payment_id, 1, 'submitting', payment_id::text, '{}', 'pm_1',
    now() - CASE customer_id WHEN 'new' THEN 59 ELSE 61 END * interval '1 minute'
FROM p;
INSERT INTO month_turns (tenant_id, customer_id, due_at)
VALUES ('acme', 'turns late', now() - interval '11 minutes'), ('acme', 'turns', now() - interval '9 minutes'),
    ('acme', 'has ended', NULL);
INSERT INTO plans (tenant_id, plan_id, version, name, payment_currency, fixed_fee_minor, included_tokens,
    tier_fee_minor, created_at)
VALUES ('acme', 'plan', 1, 'Plan', 'BRL', 0, 0, 0, now());
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at,
    closed_at, statement_number)
SELECT 'acme', name, now() - interval '40 days', now() - ended * interval '1 hour', 'plan', 1, 'UTC', now(),
    now() - closed * interval '1 minute', number
FROM (VALUES ('closes late', 74, NULL, NULL), ('is in its grace', 72, NULL, NULL), ('is stated late', 80, 61, NULL),
    ('is stated', 80, 61, 1), ('has just closed', 74, 59, NULL)) AS e(name, ended, closed, number);
"""


def test_the_queries_find_what_they_are_said_to_find_and_nothing_else(database: str) -> None:
    latest, to_alert_on = blocks("sql")
    asked = [latest, *(query for query in to_alert_on.split(";") if query.strip())]
    with psycopg.connect(database) as connection:
        connection.execute(_STANDING)

        found = [connection.execute(query.encode()).fetchall() for query in asked]

    assert {row[0] for row in found[0]} == {"evt_lies", "evt_new", "evt_worked"}
    assert [row[:3] for row in found[1]] == [("acme", "refund_failed", 1)]
    assert [row[0] for row in found[2]] == ["evt_lies"]
    assert [row[2] for row in found[3]] == ["lies"]
    assert [[row[1] for row in rows] for rows in found[4:]] == [["turns late"], ["closes late"], ["is stated late"]]

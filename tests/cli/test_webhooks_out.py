"""`webhooks set`, `show`, `list`, `again` and `off`, as a person uses them."""

from datetime import UTC, datetime

from billing.payments import AlertKind
from db.alerts import raise_alert
from db.session import in_transaction
from tests.cli.conftest import Command
from tests.looking import one


def test_an_endpoint_is_set_shown_and_turned_off(centavo: Command, ana: str) -> None:
    first = centavo("webhooks", "set", "acme", "https://example.com/hooks")
    moved = centavo("webhooks", "set", "acme", "https://example.com/others")
    renewed = centavo("webhooks", "set", "acme", "https://example.com/others", "--new-secret")
    now = datetime.now(UTC)
    in_transaction(lambda c: raise_alert(c, "acme", AlertKind.QUOTA_THRESHOLD, "q", "80 %", now, customer_id=ana))

    listed, as_json = centavo("webhooks", "list", "acme"), centavo("webhooks", "list", "acme", "--json").json
    off, shown = centavo("webhooks", "off", "acme", "--reason", "they moved"), centavo("webhooks", "show", "acme")

    assert first.out.startswith("alerts of acme go to https://example.com/hooks\nthey are signed with whsec_")
    assert moved.out == "alerts of acme go to https://example.com/others\n"
    assert "they are signed with whsec_" in renewed.out
    assert listed.out.splitlines()[-1].split()[-4:] == ["quota_threshold", "due", "0", "–"]
    assert [row["state"] for row in as_json] == ["due"]
    assert off.out == "nothing is sent to acme\n"
    assert shown.out.startswith("alerts go to https://example.com/others\noff since")
    assert shown.out.endswith("UTC: they moved\n")
    assert "whsec" not in shown.out + centavo("webhooks", "show", "acme", "--json").out


def test_what_was_given_up_is_due_again(centavo: Command, ana: str) -> None:
    centavo("webhooks", "set", "acme", "https://example.com/hooks")
    now = datetime.now(UTC)
    in_transaction(lambda c: raise_alert(c, "acme", AlertKind.QUOTA_THRESHOLD, "q", "80 %", now, customer_id=ana))
    given_up = "UPDATE alert_deliveries SET state = 'given_up', due_at = NULL, finished_at = created_at RETURNING 1"
    one(given_up)

    again, no_id = centavo("webhooks", "again", "acme"), centavo("webhooks", "again", "acme", "the first")

    assert again.out == "1 messages are due again\n"
    assert "'the first' is no message" in no_id.err
    assert "has no webhook endpoint" in centavo("webhooks", "show", "beta").err

"""`api-keys create`, `list` and `revoke`, as a person uses them."""

from datetime import UTC, datetime
from uuid import UUID

from services.desk.access import principal_of
from tests.cli.conftest import Command
from tests.looking import rows


def test_a_key_is_made_shown_once_and_revoked(centavo: Command, ana: str) -> None:
    made = centavo("api-keys", "create", "acme", "web server", "--may", "billing.view", "--may", "billing.write")
    secret = made.out.splitlines()[-1]
    found = principal_of(secret, datetime.now(UTC))
    (listed,) = centavo("api-keys", "list", "acme", "--json").json

    revoked = centavo("api-keys", "revoke", "acme", listed["key_id"])

    assert found is not None
    assert (found[0].tenant_id, sorted(found[0].capabilities)) == ("acme", ["billing.view", "billing.write"])
    assert (listed["name"], listed["capabilities"]) == ("web server", ["billing.view", "billing.write"])
    assert revoked.out == f"key {listed['key_id']} is revoked\n"
    assert principal_of(secret, datetime.now(UTC)) is None
    shown = centavo("api-keys", "list", "acme").out
    assert "revoked" in shown
    assert secret not in shown
    assert [action for (action,) in rows("SELECT action FROM admin_acts ORDER BY act_id")] == [
        "api_key.create",
        "api_key.revoke",
    ]


def test_what_can_not_be_is_a_sentence(centavo: Command, ana: str) -> None:
    unknown = centavo("api-keys", "create", "nobody", "web", "--may", "billing.view")
    ended = centavo("api-keys", "create", "acme", "web", "--may", "billing.view", "--expires-at", "2020-01-01")
    missing = centavo("api-keys", "revoke", "acme", str(UUID(int=1)))

    assert "There is no such tenant" in unknown.err
    assert "a key ends later than now" in ended.err
    assert "There is no such key" in missing.err
    assert rows("SELECT name FROM api_keys") == []

"""What a server of its own writes into its log while secrets come in every place: none of them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing.access import Capability, Through
from config import clock
from config.settings import SANDBOX_STRIPE_KEY
from sandbox.processes import await_condition
from services.desk.access import Actor, create_key, revoke_key
from tests.api.asking import ADMIN, VIEW, Asker, as_, claims, new_key, secret_key, token, told
from tests.api.serving import Server, api_process
from tests.api.signed import SECRET as WEBHOOK_SECRET
from tests.api.signed import an_event, post, signature
from tests.api.test_access import FORGED
from tests.factories import a_customer, catalogues

METRICS_TOKEN = "the-token-of-the-monitor"


@pytest.fixture
def server(billing_database: str, webhook_secrets: None, jwt_keys: Path, tmp_path: Path) -> Iterator[Server]:
    """Logging all there is."""
    assert billing_database
    with api_process(tmp_path, METRICS_TOKEN=METRICS_TOKEN, LOG_LEVEL="DEBUG") as found:
        yield found


def test_no_secret_is_in_the_log_wherever_it_was_sent(server: Server, jwt_keys: Path) -> None:
    """As a bearer, in paths, queries, bodies, headers and cursors; of tokens that hold, and of those that don't."""
    catalogues()
    a_customer("ana", credit="10")
    by = Actor("root", Through.COMMAND_LINE)
    holding, revoked = (create_key("acme", name, [Capability.ADMIN], by, clock.now()) for name in ("web", "old"))
    revoke_key("acme", revoked.key_id, by, clock.now())
    root = token(claims("root", ADMIN))
    forged = [make() for make in FORGED.values()]
    secrets = [root, holding.secret, revoked.secret, "sk_live_aBcDeF123", "seti_1_secret_Zx9", METRICS_TOKEN]
    secrets += [bearer for bearer in forged if len(bearer) > 20]

    statuses = set()
    for bearer in [*secrets, *forged]:
        statuses.add(Asker(server.url, bearer).get("/v1/customers/ana/wallet").status)
        statuses.add(Asker(server.url, bearer).get("/metrics").status)
    asker = Asker(server.url, root)
    for secret in [one for one in secrets if one != METRICS_TOKEN]:
        usage = {"customer_id": "ana", "items": [], "metadata": {"token": secret}}
        answers = [
            asker.get(f"/v1/customers/{secret}/wallet"),
            asker.get(f"/v1/usage/{secret[:255]}/explain"),
            asker.get(f"/{secret}"),
            asker.get("/v1/usage", customer_id=secret[:255], cursor=secret, token=secret),
            asker.post("/v1/usage", usage, secret[:255]),
            asker.post("/v1/quotes", {"customer_id": secret[:255], "items": []}),
            asker.ask("POST", "/v1/usage", data=secret, headers={"Cookie": secret, "Idempotency-Key": new_key()}),
        ]
        statuses |= {answered.status for answered in answers}
    body = an_event()
    kept = post(server.url, body, signature(body)).status_code
    refused = post(server.url, body, signature(body, "whsec_of_somebody_else")).status_code
    server.process.stop(grace_seconds=15)

    log = server.log()
    assert statuses >= {200, 401, 404, 422}
    assert max(statuses) < 500
    assert (kept, refused) == (200, 400)
    assert log.count("request refused") > 50
    ours = [WEBHOOK_SECRET, SANDBOX_STRIPE_KEY, secret_key()["k"], signature(body).partition("v1=")[2]]
    assert [secret for secret in [*secrets, *ours] if secret in log] == []
    signatures = {secret.rpartition(".")[2][:20] for secret in secrets if secret.count(".") == 2} - {""}
    assert len(signatures) > 10
    assert [part for part in signatures if part in log] == []
    assert all(json.loads(line) for line in log.splitlines() if line.startswith("{"))


def test_the_process_serves_each_tenant_its_own(server: Server) -> None:
    """As it is deployed: in scopes, with its limits on connections, and nothing that the tests' own thread adds."""
    catalogues()
    a_customer("ana", credit="10")

    own = as_(server.url, VIEW).get("/v1/customers/ana/wallet")
    elsewhere = as_(server.url, VIEW, tenant_id="nobody").get("/v1/customers/ana/wallet")
    health = as_(server.url, VIEW).get("/health/detailed")

    assert (own.status, own.body["wallets"][0]["balance"]) == (200, "10")
    assert told(elsewhere) == (404, "unknown_tenant")
    assert (health.status, health.body["database"]["status"], health.body["stripe"]["status"]) == (200, "ok", "ok")
    assert Asker(server.url, METRICS_TOKEN).get("/metrics").status == 200


def test_a_revoked_key_is_refused_within_five_seconds(server: Server) -> None:
    """Asked for again and again, as a server does; `test_access.py` holds the bound to the tenth of a second."""
    catalogues()
    a_customer("ana", credit="10")
    by = Actor("root", Through.COMMAND_LINE)
    made = create_key("acme", "web", [Capability.VIEW], by, clock.now())
    asker = Asker(server.url, made.secret)
    assert asker.get("/v1/customers/ana/wallet").status == 200

    revoke_key("acme", made.key_id, by, datetime.now(UTC))

    await_condition(lambda: asker.get("/v1/customers/ana/wallet").status == 401, 6, "the key to be refused")

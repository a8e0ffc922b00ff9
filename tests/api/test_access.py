"""Who is let in, and to what: tokens, keys, capabilities, other tenants."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api import access, tokens
from billing.access import Capability, Principal, Through
from billing.errors import TooManyRequests, Unauthenticated
from config import clock
from config.settings import settings
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.desk.access import Actor, create_key, keys_of, principal_of, revoke_key
from tests.api.asking import (
    ADMIN,
    SECRET,
    VIEW,
    WRITE,
    Asker,
    as_,
    claims,
    keep_keys,
    new_key,
    public_key,
    rsa_key,
    secret_key,
    token,
    told,
)
from tests.api.serving import served_api
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows, wallet

ROOT = Actor("root", Through.COMMAND_LINE)
WALLET = "/v1/customers/ana/wallet"


@pytest.fixture
def ana(api: str) -> str:
    """The API, over a tenant with two customers."""
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bob", credit="5")
    return api


def unsigned(said: dict[str, Any], header: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in (header, said)]
    return ".".join([*parts, signature])


def tampered(text: str) -> str:
    header, _, signature = text.split(".")
    said = json.dumps(claims("root", ADMIN)).encode()
    return f"{header}.{base64.urlsafe_b64encode(said).decode().rstrip('=')}.{signature}"


#: What is no token of ours, by what is wrong with it.
FORGED: dict[str, Callable[[], str]] = {
    "no token at all": lambda: "nonsense",
    "empty parts": lambda: "..",
    "another secret": lambda: token(claims("root", ADMIN), b"another secret of 32 bytes or so."),
    "a secret for nobody": lambda: token(claims("root", ADMIN), kid="unknown"),
    "no key named": lambda: token(claims("root", ADMIN), kid=None),
    "alg none": lambda: unsigned(claims("root", ADMIN), {"alg": "none", "typ": "JWT", "kid": "first"}),
    "alg None": lambda: unsigned(claims("root", ADMIN), {"alg": "None", "typ": "JWT", "kid": "first"}),
    "no alg": lambda: unsigned(claims("root", ADMIN), {"typ": "JWT", "kid": "first"}),
    "another algorithm of the same secret": lambda: token(claims("root", ADMIN), algorithm="HS512"),
    "other claims under the signature": lambda: tampered(token(claims("ana"))),
    "expired": lambda: token(claims("root", ADMIN, exp=int(time.time()) - 60)),
    "never expires": lambda: token({k: v for k, v in claims("root", ADMIN).items() if k != "exp"}),
    "not valid yet": lambda: token(claims("root", ADMIN, nbf=int(time.time()) + 600)),
    "for others": lambda: token(claims("root", ADMIN, aud="elsewhere")),
    "for nobody": lambda: token({k: v for k, v in claims("root", ADMIN).items() if k != "aud"}),
    "of another issuer": lambda: token(claims("root", ADMIN, iss="https://evil.example")),
    "no tenant": lambda: token({k: v for k, v in claims("root", ADMIN).items() if k != "tenant_id"}),
    "a tenant that is no text": lambda: token(claims("root", ADMIN) | {"tenant_id": ["acme"]}),
    "a tenant with a NUL": lambda: token(claims("root", ADMIN, tenant_id="ac\0me")),
    "no subject": lambda: token({k: v for k, v in claims("root", ADMIN).items() if k != "sub"}),
    "capabilities that are no list": lambda: token(claims("root") | {"capabilities": ADMIN}),
    "too long": lambda: token(claims("root", ADMIN, padding="x" * 10_000)),
    "a key that nobody has": lambda: f"centavo_key_{'A' * 43}",
    "a key that is too long": lambda: f"centavo_key_{'A' * 1000}",
}


@pytest.mark.parametrize("wrong", FORGED)
def test_what_is_no_token_of_ours_is_refused_and_repeated_nowhere(
    ana: str, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bearer = FORGED[wrong]()

    answered = Asker(ana, bearer).get(WALLET)

    assert told(answered) == (401, "unauthenticated")
    assert answered.headers["WWW-Authenticate"] == "Bearer"
    assert bearer not in str(answered.body)
    said = capfd.readouterr()
    assert bearer not in said.out + said.err


def test_nobody_is_refused(ana: str) -> None:
    assert told(Asker(ana, None).get(WALLET)) == (401, "unauthenticated")


def test_a_public_key_is_not_taken_for_a_secret(ana: str, jwt_keys: Path) -> None:
    """The classic: an HS256 token signed with the text of the RSA public key that everybody may know."""
    issuer = rsa_key()
    keep_keys(jwt_keys, public_key(issuer))
    forms = (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1)
    texts = [issuer.public_key().public_bytes(Encoding.PEM, form) for form in forms]
    texts.append(json.dumps(public_key(issuer)).encode())
    seen = []

    for text in texts:
        # By hand: a library that is asked for this refuses.
        signing = unsigned(claims("root", ADMIN), {"alg": "HS256", "typ": "JWT", "kid": "second"}).rstrip(".")
        digest = hmac.new(text, signing.encode(), hashlib.sha256).digest()
        forged = f"{signing}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
        seen.append(told(Asker(ana, forged).get(WALLET)))

    assert seen == [(401, "unauthenticated")] * 3


def test_tokens_of_both_kinds_of_keys_are_taken(ana: str, jwt_keys: Path) -> None:
    issuer = rsa_key()
    keep_keys(jwt_keys, secret_key(), public_key(issuer))

    by_secret = token(claims("root", VIEW))
    by_issuer = token(claims("root", VIEW), issuer, algorithm="RS256", kid="second")

    assert [Asker(ana, one_).get(WALLET).status for one_ in (by_secret, by_issuer)] == [200, 200]


def test_keys_are_replaced_without_a_restart(ana: str, jwt_keys: Path) -> None:
    """Both hold while one follows the other; what was signed by the old one is refused once it is gone."""
    old = token(claims("root", VIEW))
    new = token(claims("root", VIEW), SECRET[::-1], kid="next")
    seen = []

    for keys in ([secret_key()], [secret_key(), secret_key("next", SECRET[::-1])], [secret_key("next", SECRET[::-1])]):
        keep_keys(jwt_keys, *keys)
        seen.append([Asker(ana, one_).get(WALLET).status for one_ in (old, new)])

    assert seen == [[200, 401], [200, 200], [401, 200]]


@pytest.mark.parametrize(
    "keys",
    [
        [secret_key(secret=b"short")],
        [secret_key(), secret_key()],
        [secret_key() | {"alg": "HS512"}],
        [secret_key() | {"alg": "none"}],
        [{"kty": "RSA", "kid": "first", "alg": "HS256", "n": "AQAB", "e": "AQAB"}],
        [{"kty": "oct"}],
    ],
)
def test_keys_that_protect_nothing_are_not_used(ana: str, jwt_keys: Path, keys: list[dict[str, str]]) -> None:
    """It is we who are at fault, so it is 503; and the file is repeated nowhere."""
    keep_keys(jwt_keys, *keys)

    answered = Asker(ana, token(claims("root", VIEW))).get(WALLET)

    assert told(answered) == (503, "unavailable")
    assert str(jwt_keys) not in str(answered.body)


def test_a_small_rsa_key_is_not_used(ana: str, jwt_keys: Path) -> None:
    issuer = rsa_key(1024)
    keep_keys(jwt_keys, public_key(issuer))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        said = token(claims("root", VIEW), issuer, algorithm="RS256", kid="second")

    assert told(Asker(ana, said).get(WALLET)) == (503, "unavailable")


def test_without_keys_there_are_no_tokens(ana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CENTAVO_API_JWT_KEYS")
    settings.cache_clear()

    assert told(as_(ana, VIEW).get(WALLET)) == (401, "unauthenticated")


#: Method, path, body; and who may: the capability, or `member` for the customer that one is.
ROUTES: list[tuple[str, str, Any, set[str]]] = [
    ("GET", WALLET, None, {VIEW, ADMIN, "member"}),
    ("POST", "/v1/customers/ana/affordability", {"cost": "1"}, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/customers/ana/summary", None, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/customers/ana/ledger", None, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/customers/ana/statements", None, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/usage?customer_id=ana", None, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/usage/aggregations?customer_id=ana", None, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/statistics?customer_id=ana", None, {VIEW, ADMIN, "member"}),
    ("GET", "/v1/prices", None, {VIEW, WRITE, ADMIN, "member"}),
    ("GET", "/v1/reconciliation", None, {VIEW, ADMIN}),
    ("GET", "/health/detailed", None, {VIEW, ADMIN}),
    ("GET", "/v1/acts", None, {ADMIN}),
    ("POST", "/v1/customers/ana/grants", {"currency": "USD", "amount": "1"}, {ADMIN}),
    (
        "POST",
        "/v1/customers/ana/top-ups",
        {"currency": "USD", "credit_amount": "1", "amount_minor": 100, "payment_currency": "BRL"},
        {ADMIN},
    ),
    ("POST", "/v1/usage/none/void", {"reason": "why"}, {ADMIN}),
    ("POST", "/v1/usage", {"customer_id": "ana", "items": []}, {WRITE, ADMIN}),
]


def test_each_route_is_for_those_who_may(ana: str) -> None:
    """Whoever may not, hears so before anything is looked at; whoever may, hears something else."""
    askers = {
        VIEW: as_(ana, VIEW),
        WRITE: as_(ana, WRITE),
        ADMIN: as_(ana, ADMIN),
        "member": as_(ana, subject="ana"),
        "another member": as_(ana, subject="bob"),
    }
    for method, path, body, may in ROUTES:
        allowed = set()
        for who, asker in askers.items():
            answered = asker.ask(method, path, json=body, headers={"Idempotency-Key": new_key()})
            assert answered.status < 500, (method, path, who, answered.body)
            if answered.status == 403:
                assert told(answered) == (403, "forbidden")
            else:
                allowed.add(who)
        everybody = may | ({"another member"} if path == "/v1/prices" else set())
        assert allowed == everybody, (method, path)


def test_a_member_sees_the_own_wallet_or_by_setting_the_tenants(ana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = as_(ana, subject="bob")
    before = [bob.get(f"/v1/customers/{customer}/wallet").status for customer in ("ana", "bob")]

    monkeypatch.setenv("CENTAVO_API_MEMBERS_SEE", "tenant")
    settings.cache_clear()
    after = [bob.get(f"/v1/customers/{customer}/wallet").status for customer in ("ana", "bob")]

    assert (before, after) == ([403, 200], [200, 200])


def test_a_member_may_be_another_customer_than_their_subject(ana: str) -> None:
    user = as_(ana, subject="user-17", customer_id="ana")

    assert user.get(WALLET).status == 200
    assert told(user.get("/v1/customers/user-17/wallet")) == (403, "forbidden")


@pytest.mark.parametrize("path", ["/v1/quotas/check", "/v1/customers/ana/affordability"])
def test_a_member_asks_for_no_other_user_and_no_organization(
    ana: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others used is told with what quotas leave."""
    member = as_(ana, subject="user-17", customer_id="ana")

    def status(asker: Asker, **purpose: str) -> int:
        question = {"customer_id": "ana"} if path == "/v1/quotas/check" else {"cost": "0.01"}
        return int(asker.post(path, question | purpose, None).status)

    purposes = {"user_id": "user-17"}, {"user_id": "user-18"}, {"organization_id": "org-1"}
    own = [status(member, **one) for one in purposes]
    monkeypatch.setenv("CENTAVO_API_MEMBERS_SEE", "tenant")
    settings.cache_clear()

    assert own == [200, 403, 403]
    assert [status(member, **one) for one in purposes] == [200, 200, 200]
    assert [status(as_(ana, VIEW), **one) for one in purposes] == [200, 200, 200]


def test_a_member_who_names_nobody_asks_for_the_own(ana: str) -> None:
    as_(ana, WRITE).post("/v1/usage", {"customer_id": "ana", "items": [AN_ITEM]}, "of-ana")
    as_(ana, WRITE).post("/v1/usage", {"customer_id": "bob", "items": [AN_ITEM]}, "of-bob")

    found = as_(ana, subject="bob").get("/v1/usage").body["events"]

    assert [event["key"] for event in found] == ["of-bob"]


def test_a_customer_who_is_not_there_is_no_news_to_a_stranger(ana: str) -> None:
    """Nobody learns by asking who else is there."""
    bob = as_(ana, subject="bob")
    answers = [bob.get(f"/v1/customers/{customer}/wallet") for customer in ("ana", "nobody")]

    assert [told(one_) for one_ in answers] == [(403, "forbidden")] * 2
    assert answers[0].body == answers[1].body


AN_ITEM = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1000"}


def test_another_tenants_things_are_not_there(ana: str) -> None:
    """By path, body, filter and cursor: the tenant is the caller's, whatever is said; and nothing moves."""
    root = as_(ana, ADMIN)
    for number in range(3):
        root.post("/v1/usage", {"customer_id": "ana", "items": [AN_ITEM]}, f"event-{number}")
    top_up = {"currency": "USD", "credit_amount": "1", "amount_minor": 100, "payment_currency": "BRL"}
    payment_id = root.post("/v1/customers/ana/top-ups", top_up, "theirs").body["payment_id"]
    cursor = root.get("/v1/usage", limit=1).body["next"]
    tenants.create_tenant("evil", "Evil", clock.now())
    tenants.load_plans("evil", read_plans("default"), clock.now())
    create_customers([NewCustomer("evil", "eve", "prepaid", "UTC", ("USD",))], clock.now())
    eve = as_(ana, ADMIN, subject="eve", tenant_id="evil")
    before = wallet("ana")

    seen = {
        "wallet": told(eve.get(WALLET)),
        "affordability": told(eve.post("/v1/customers/ana/affordability", {"cost": "1"})),
        "summary": told(eve.get("/v1/customers/ana/summary")),
        "ledger": told(eve.get("/v1/customers/ana/ledger")),
        "statements": told(eve.get("/v1/customers/ana/statements")),
        "statement": told(eve.get("/v1/customers/ana/statements/1")),
        "filter": told(eve.get("/v1/usage", customer_id="ana")),
        "statistics": told(eve.get("/v1/statistics", customer_id="ana")),
        "aggregations": told(eve.get("/v1/usage/aggregations", customer_id="ana")),
        "cursor": told(eve.get("/v1/usage", limit=1, cursor=cursor)),
        "event": told(eve.get("/v1/usage/event-0/explain")),
        "payment": told(eve.get(f"/v1/payments/{payment_id}/explain")),
        "quote": told(eve.post("/v1/quotes", {"customer_id": "ana", "items": [AN_ITEM]})),
        "body": told(eve.post("/v1/usage", {"customer_id": "ana", "items": [AN_ITEM]}, new_key())),
        "tenant in the body": told(
            eve.post("/v1/usage", {"tenant_id": TENANT, "customer_id": "ana", "items": [AN_ITEM]}, new_key())
        ),
        "grant": told(eve.post("/v1/customers/ana/grants", {"currency": "USD", "amount": "5"}, new_key())),
        "top-up": told(eve.post("/v1/customers/ana/top-ups", top_up, new_key())),
        "void": told(eve.post("/v1/usage/event-0/void", {"reason": "mine"}, new_key())),
    }

    unknown = (404, "unknown_customer")
    assert seen == {
        **dict.fromkeys(("wallet", "affordability", "summary", "ledger", "statements", "quote", "body"), unknown),
        **dict.fromkeys(("filter", "statistics", "aggregations"), unknown),
        "statement": (404, "unknown_statement"),
        "cursor": (400, "cursor_malformed"),
        "event": (404, "unknown_event"),
        "payment": (404, "unknown_payment"),
        "tenant in the body": (422, "invalid"),
        "grant": (404, "unknown_wallet"),
        "top-up": (404, "unknown_wallet"),
        "void": (404, "unknown_event"),
    }
    assert eve.get("/v1/usage").body["events"] == []
    assert {act["subject"] for act in eve.get("/v1/acts").body["acts"]} == {"eve"}
    assert {act["subject"] for act in root.get("/v1/acts").body["acts"]} == {"root"}
    assert wallet("ana") == before


def test_the_same_idempotency_key_of_another_tenant_is_another_key(ana: str) -> None:
    tenants.create_tenant("other", "Other", clock.now())
    tenants.load_plans("other", read_plans("default"), clock.now())
    create_customers([NewCustomer("other", "ana", "prepaid", "UTC", ("USD",))], clock.now())
    body = {"currency": "USD", "amount": "5"}

    ours = as_(ana, ADMIN).post("/v1/customers/ana/grants", body, "shared")
    theirs = as_(ana, ADMIN, tenant_id="other").post("/v1/customers/ana/grants", body, "shared")

    assert (ours.status, theirs.status) == (201, 201)
    assert (ours.body["balance_after"], theirs.body["balance_after"]) == ("15", "5")


def test_a_key_of_a_server_opens_what_its_scope_says(ana: str) -> None:
    made = create_key(TENANT, "web", [Capability.VIEW], ROOT, clock.now())
    server = Asker(ana, made.secret)

    assert server.get(WALLET).status == 200
    body = {"customer_id": "ana", "items": [AN_ITEM]}
    assert told(server.post("/v1/usage", body, new_key())) == (403, "forbidden")


def test_a_key_is_kept_by_its_hash_alone(ana: str) -> None:
    made = create_key(TENANT, "web", [Capability.VIEW], ROOT, clock.now())

    kept = one("SELECT api_keys::text, encode(secret_hash, 'escape') FROM api_keys")

    assert made.secret not in str(kept)
    assert made.secret not in repr(made)
    assert keys_of(TENANT)[0].name == "web"


def test_a_key_that_is_revoked_or_over_is_refused(ana: str) -> None:
    revoked = create_key(TENANT, "old", [Capability.VIEW], ROOT, clock.now())
    revoke_key(TENANT, revoked.key_id, ROOT, clock.now())
    past = clock.now() - timedelta(days=2)
    over = create_key(TENANT, "short", [Capability.VIEW], ROOT, past, past + timedelta(days=1))

    assert [told(Asker(ana, made.secret).get(WALLET)) for made in (revoked, over)] == [(401, "unauthenticated")] * 2


async def asked(seen: access.KeysSeen, secret: str) -> Principal | None:
    try:
        return await seen.principal(secret)
    except Unauthenticated:
        return None


@pytest.mark.usefixtures("billing_database")
def test_a_revoked_key_is_taken_for_five_seconds_at_most() -> None:
    """By a process that has just seen it; the bound is a figure of the documentation."""
    catalogues()
    moment = [100.0]
    seen = access.KeysSeen(lambda: moment[0])
    made = create_key(TENANT, "web", [Capability.VIEW], ROOT, clock.now())

    async def story() -> list[bool]:
        found = [await asked(seen, made.secret) is not None]
        revoke_key(TENANT, made.key_id, ROOT, clock.now())
        for later in (access.KEPT_SECONDS - 0.1, 0.2):
            moment[0] += later
            found.append(await asked(seen, made.secret) is not None)
        return found

    assert asyncio.run(story()) == [True, True, False]
    assert access.KEPT_SECONDS == 5


@pytest.mark.usefixtures("billing_database")
def test_what_is_kept_of_a_key_ends_with_the_key() -> None:
    """Within the five seconds, too: the database is asked again, and says no."""
    catalogues()
    made = create_key(TENANT, "web", [Capability.VIEW], ROOT, clock.now(), datetime.now(UTC) + timedelta(hours=1))
    seen = access.KeysSeen(lambda: 100.0)

    async def story() -> list[bool]:
        found = [await asked(seen, made.secret) is not None]
        digest, kept = next(iter(seen._kept.items()))
        seen._kept[digest] = kept._replace(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        revoke_key(TENANT, made.key_id, ROOT, clock.now())
        return [*found, await asked(seen, made.secret) is not None]

    assert asyncio.run(story()) == [True, False]


@pytest.mark.usefixtures("billing_database")
def test_who_makes_and_revokes_keys_stands_in_the_trail() -> None:
    catalogues()
    made = create_key(TENANT, "web", [Capability.VIEW, Capability.WRITE], ROOT, clock.now())
    revoke_key(TENANT, made.key_id, ROOT, clock.now())

    assert rows("SELECT subject, through, action, target, detail FROM admin_acts ORDER BY act_id") == [
        ("root", "command_line", "api_key.create", str(made.key_id), {"capabilities": [VIEW, WRITE]}),
        ("root", "command_line", "api_key.revoke", str(made.key_id), {}),
    ]
    assert principal_of(made.secret, clock.now()) is None


def test_what_an_administrator_asks_for_stands_in_the_trail_once(ana: str) -> None:
    """Refused or not; repeated, it is the same act."""
    root = as_(ana, ADMIN, subject="carla")
    body = {"currency": "USD", "amount": "5", "reason": "sorry"}
    for _ in range(2):
        root.post("/v1/customers/ana/grants", body, "g1")
    root.post("/v1/usage/none/void", {"reason": "why"}, "v1")

    acts = root.get("/v1/acts").body["acts"]

    assert [(act["subject"], act["through"], act["action"], act["target"], act["idempotency_key"]) for act in acts] == [
        ("carla", "token", "usage.void", "none", "v1"),
        ("carla", "token", "credits.grant", "ana", "g1"),
    ]
    assert acts[1]["detail"] == {"amount": "5", "currency": "USD", "source": "promo", "reason": "sorry"}
    paged = root.get("/v1/acts", limit=1).body
    assert root.get("/v1/acts", limit=1, cursor=paged["next"]).body["acts"] == acts[1:]


def test_who_asks_too_often_is_told_when_to_come_back(ana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_API_REQUESTS_PER_SECOND", "1")
    settings.cache_clear()
    with served_api() as url:
        root, other = as_(url, VIEW), as_(url, VIEW, subject="other")
        answers = [root.get(WALLET) for _ in range(6)]
        refused = [answered for answered in answers if answered.status != 200]
        of_another = other.get(WALLET)

    assert refused
    assert told(refused[-1]) == (429, "too_many_requests")
    assert refused[-1].headers["Retry-After"] == "1"
    assert of_another.status == 200


def test_a_bucket_fills_at_its_pace_and_no_further() -> None:
    moment = [0.0]
    limits = access.Limits(2, lambda: moment[0])
    caller = ("acme", "ana")

    def taken() -> int:
        for number in range(100):
            try:
                limits.take(caller)
            except TooManyRequests:
                return number
        return 100

    first = taken()
    moment[0] += 1
    after_a_second = taken()
    moment[0] += 1000
    after_long = taken()

    assert (first, after_a_second, after_long) == (4, 2, 4)


def test_a_token_can_do_what_its_issuer_does_not_know_of_no_more(ana: str, jwt_keys: Path) -> None:
    """Capabilities of other services are nothing here."""
    principal = tokens.principal_of(token(claims("root", VIEW, "mail.admin")))

    assert principal.capabilities == {Capability.VIEW}

"""Asking the API as applications do: with tokens of an issuer, or with keys."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from tests.factories import TENANT

SECRET = b"0123456789abcdef" * 4
AUDIENCE, ISSUER = "centavo", "https://issuer.example"

VIEW, WRITE, ADMIN = "billing.view", "billing.write", "billing.admin"


class Answered(NamedTuple):
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


def secret_key(kid: str = "first", secret: bytes = SECRET) -> dict[str, str]:
    """A shared secret, as a JWK."""
    k = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    return {"kty": "oct", "kid": kid, "alg": "HS256", "k": k}


def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    """An issuer's key."""
    return generate_private_key(public_exponent=65537, key_size=bits)


def public_key(key: RSAPrivateKey, kid: str = "second") -> dict[str, str]:
    """Its public half, as a JWK."""
    said: dict[str, str] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"kty": "RSA", "kid": kid, "alg": "RS256", "n": said["n"], "e": said["e"]}


def keep_keys(path: Path, *keys: Mapping[str, str]) -> None:
    """Write a JWK set, in one step."""
    replacement = path.with_suffix(".new")
    replacement.write_text(json.dumps({"keys": keys}))
    replacement.replace(path)


def claims(subject: str = "root", *capabilities: str, tenant_id: str = TENANT, **more: Any) -> dict[str, Any]:
    """What a token says, an hour long."""
    said = {"tenant_id": tenant_id, "sub": subject, "capabilities": [*capabilities], "exp": int(time.time()) + 3600}
    return said | {"aud": AUDIENCE, "iss": ISSUER} | more


def token(said: Mapping[str, Any], key: Any = SECRET, *, algorithm: str = "HS256", kid: str | None = "first") -> str:
    """A signed token."""
    return jwt.encode(dict(said), key, algorithm=algorithm, headers={"kid": kid} if kid else None)


class Asker:
    """A caller with a token, or whatever else is sent as one."""

    def __init__(self, url: str, bearer: str | None) -> None:
        self._url = url
        self._bearer = bearer

    def ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Answered:
        """One request. The path is sent as it is."""
        sent = {"Authorization": f"Bearer {self._bearer}"} if self._bearer is not None else {}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method, f"{self._url}{path}", headers=sent | dict(headers or {}), timeout=30, **more
            )
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answered(answer.status_code, answer.json() if is_json else answer.content, answer.headers)

    def get(self, path: str, **query: Any) -> Answered:
        return self.ask("GET", path, params=query)

    def post(self, path: str, body: Any, key: str | None = None) -> Answered:
        return self.ask("POST", path, json=body, headers={"Idempotency-Key": key} if key else None)

    def put(self, path: str, body: Any) -> Answered:
        return self.ask("PUT", path, json=body)

    def delete(self, path: str) -> Answered:
        return self.ask("DELETE", path)


def as_(url: str, *capabilities: str, subject: str = "root", tenant_id: str = TENANT, **more: Any) -> Asker:
    """Somebody of a tenant with these capabilities."""
    return Asker(url, token(claims(subject, *capabilities, tenant_id=tenant_id, **more)))


def new_key() -> str:
    """An idempotency key of nobody."""
    return secrets.token_hex(8)


def told(answered: Answered) -> tuple[int, str]:
    """Status and code of a problem, in the one shape that problems have."""
    body = answered.body
    assert answered.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    assert body["type"] == f"urn:centavo:problem:{body['code']}"
    assert body["status"] == answered.status
    assert body["title"]
    assert body["detail"]
    return answered.status, body["code"]

"""Tokens (JWT): who sends one, if one of our keys has signed it.

The keys are a JWK set (RFC 7517) in a file that is read again when it changes, so they are replaced without a restart:
add the new one, let the issuer sign with it, take the old one out. A token names its key (`kid`); the key, not the
token, says by which algorithm it was signed, so a token can talk nobody into `none`, nor into taking a public key for
a secret.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing.access import Capability, Principal, Through
from billing.errors import Unauthenticated, Unavailable
from centavo.events import Identifier, Name
from config import clock
from config.settings import settings

TOKEN_CHARACTERS_MAX = 8192
SECRET_BYTES_MIN = 32
RSA_BITS_MIN = 2048
#: By how much the clocks of the issuer and of this machine may differ.
LEEWAY_SECONDS = 5
VERIFIED_MAX = 10_000


class KeysUnreadable(Unavailable):
    """The file of the keys that sign tokens can't be read."""


class _Secret(BaseModel):
    """A secret that issuer and API share."""

    model_config = ConfigDict(extra="ignore")

    kty: Literal["oct"]
    kid: Annotated[str, Field(min_length=1)]
    alg: Literal["HS256"]
    k: str


class _Public(BaseModel):
    """The public half of an issuer's key."""

    model_config = ConfigDict(extra="ignore")

    kty: Literal["RSA"]
    kid: Annotated[str, Field(min_length=1)]
    alg: Literal["RS256"]
    n: str
    e: str


class _KeySet(BaseModel):
    keys: list[Annotated[_Secret | _Public, Field(discriminator="kty")]]


class _Claims(BaseModel):
    """What of a token is believed, once its signature is."""

    model_config = ConfigDict(extra="ignore", strict=True)

    tenant_id: Name
    sub: Identifier
    customer_id: Identifier | None = None
    capabilities: list[str] = []


class _Kept(NamedTuple):
    stamp: tuple[int, int, int]
    keys: dict[str, jwt.PyJWK]


_kept: dict[Path, _Kept] = {}


class _Verified(NamedTuple):
    """A token that was found good: until when, and by which keys and settings."""

    principal: Principal
    expires_at: int
    by: tuple[object, ...]


#: Of tokens by their hash: a signature is verified once. Whether a token is over, and whether keys or settings have
#: changed since, is looked at each time, so what is kept outlives neither.
_verified_before: dict[bytes, _Verified] = {}


def principal_of(token: str) -> Principal:
    """Whose token this is. Raises `Unauthenticated`, which never repeats it, and `KeysUnreadable`."""
    chosen = settings()
    if chosen.api_jwt_keys is None:
        raise Unauthenticated("this server takes no tokens; send an API key")
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise Unauthenticated(f"a token has at most {TOKEN_CHARACTERS_MAX} characters")
    stamp, keys = _keys_in(chosen.api_jwt_keys)
    by = (chosen.api_jwt_keys, stamp, chosen.api_jwt_audience, chosen.api_jwt_issuer)
    digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
    known = _verified_before.get(digest)
    if known is not None and known.by == by and known.expires_at > clock.unmoved().timestamp() - LEEWAY_SECONDS:
        return known.principal

    principal, expires_at = _principal(token, keys)

    if len(_verified_before) >= VERIFIED_MAX:
        _verified_before.clear()
    _verified_before[digest] = _Verified(principal, expires_at, by)
    return principal


def _principal(token: str, keys: dict[str, jwt.PyJWK]) -> tuple[Principal, int]:
    """Whose token this is and when it is over, if its signature is one of these keys'. Raises `Unauthenticated`."""
    chosen = settings()
    try:
        named = jwt.get_unverified_header(token).get("kid")
        key = keys.get(named) if isinstance(named, str) else None
        if key is None:
            raise Unauthenticated("this token is signed by no key of ours, or does not name it")
        said = _verified(token, key, chosen.api_jwt_audience, chosen.api_jwt_issuer)
        claims = _Claims.model_validate(said)
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("this token has expired; get a new one") from None
    except (jwt.PyJWTError, ValidationError, ValueError, TypeError):
        raise Unauthenticated("this token is not valid here") from None
    capabilities = frozenset(Capability(one) for one in claims.capabilities if one in set(Capability))
    whose = (claims.tenant_id, claims.sub, capabilities, Through.TOKEN, claims.customer_id or claims.sub)
    return Principal(*whose), int(said["exp"])


def _verified(token: str, key: jwt.PyJWK, audience: str | None, issuer: str | None) -> dict[str, Any]:
    required = ["exp", "sub", *(["aud"] if audience else []), *(["iss"] if issuer else [])]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        audience=audience,
        issuer=issuer,
        leeway=LEEWAY_SECONDS,
        options={"require": required, "verify_aud": audience is not None},
    )
    return claims


def _keys_in(path: Path) -> _Kept:
    """The keys of a file by their names; read once, and then only looked at."""
    try:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        kept = _kept.get(path)
        if kept is None or kept.stamp != stamp:
            kept = _kept[path] = _Kept(stamp, _read(path))
    except (OSError, ValueError, jwt.PyJWTError) as error:
        # Neither the file nor an error of the library that quotes it is for any log.
        said = _said(error) if isinstance(error, ValidationError | KeyRefused | OSError) else "it is no JWK set"
        raise KeysUnreadable(f"{path}: {said}; see CENTAVO_API_JWT_KEYS") from None
    return kept


class KeyRefused(ValueError):
    """A key that protects nothing."""


def _read(path: Path) -> dict[str, jwt.PyJWK]:
    said = _KeySet.model_validate(json.loads(path.read_bytes()))
    keys = {one.kid: jwt.PyJWK(one.model_dump()) for one in said.keys}
    if len(keys) != len(said.keys):
        raise KeyRefused("two keys have the same kid")
    for kid, key in keys.items():
        secret = key.key
        if isinstance(secret, bytes) and len(secret) < SECRET_BYTES_MIN:
            raise KeyRefused(f"the secret {kid} has less than {SECRET_BYTES_MIN} bytes")
        if isinstance(secret, RSAPublicKey) and secret.key_size < RSA_BITS_MIN:
            raise KeyRefused(f"the key {kid} has less than {RSA_BITS_MIN} bits")
    return keys


def _said(error: ValidationError | KeyRefused | OSError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return error.strerror or "it can't be read" if isinstance(error, OSError) else str(error)

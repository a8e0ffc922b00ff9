"""Webhooks that we send: who may be told, how a message is signed, and when it is tried again.

Signatures are those of https://www.standardwebhooks.com: HMAC-SHA256 over id, time and body, so that a receiver can
tell a message of ours, and an old one that somebody sends again.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

from billing.errors import Rejected

SECRET_PREFIX = "whsec_"  # noqa: S105 - the beginning of all of them
SECRET_BYTES = 32
URL_CHARACTERS_MAX = 2000


class DeliveryState(StrEnum):
    """What became of a message. The words are API."""

    DUE = "due"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


#: How long after each try that failed the next one comes; after the last of them it is given up.
AGAIN_AFTER = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
#: Whatever the number of its tries: others may have been in its way.
AGE_MAX = timedelta(days=4)
REST_MIN = timedelta(minutes=1)
REST_MAX = timedelta(hours=1)


def check_url(url: str) -> None:
    """Raises `Rejected` for an address that may not be told: only https, or this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise Rejected("this is no address of a webhook; it looks like https://example.com/hooks") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= URL_CHARACTERS_MAX
    if not host or not is_plain or parts.fragment:
        raise Rejected("this is no address of a webhook; it looks like https://example.com/hooks")
    if parts.username is not None or parts.password is not None:
        raise Rejected("the address of a webhook holds no user and no password; messages are signed")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise Rejected("webhooks go to https addresses only, or by http to this machine itself", host=host)


def secret_of(key: bytes) -> str:
    """A secret as people hand it on."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def signature(message_id: str, at: datetime, body: str, secrets: Sequence[str]) -> str:
    """The header `webhook-signature`: one for each secret, two while one is replaced.

    >>> from datetime import UTC
    >>> signature("msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), '{"test": 2432232314}',
    ...     ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    signed = f"{message_id}.{int(at.timestamp())}.{body}".encode()
    macs = [hmac.digest(_key(secret), signed, hashlib.sha256) for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs)


def again_at(tries: int, created_at: datetime, now: datetime) -> datetime | None:
    """When a message is tried again after so many tries that failed; None: it is given up."""
    if not 0 < tries <= len(AGAIN_AFTER) or now - created_at >= AGE_MAX:
        return None
    return now + AGAIN_AFTER[tries - 1]


def rests_until(failures: int, now: datetime) -> datetime:
    """How long an address that failed so many times in a row is left alone, whatever else is due for it."""
    doubled: int = 2 ** min(failures - 1, 10)
    return now + min(REST_MIN * doubled, REST_MAX)


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise Rejected("this is no secret of a webhook") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

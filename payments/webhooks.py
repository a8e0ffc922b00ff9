"""Webhooks: whether Stripe sent these bytes, and did so just now.

Source: https://docs.stripe.com/webhooks#verify-events
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import stripe

from payments.gateway import EventSnapshot, WebhookProblem, WebhookRefused
from payments.snapshots import event_of

#: How old, or how far ahead, the time of a signature may be.
TOLERANCE_SECONDS = 300


def verified(raw: bytes, signature: str | None, secrets: Sequence[str], now: datetime) -> EventSnapshot:
    """The event in the body of a request, if it was signed with one of the secrets within 300 s of `now`.

    `raw` is the body as it came: read as JSON and written again it would not match its signature. Several
    secrets are tried, so that one can be replaced while both sign. Raises `WebhookRefused`.
    """
    header = _readable(signature)
    text = _text(raw)
    if not any(_is_signed(text, header, secret) for secret in secrets):
        raise WebhookRefused(
            "no signature in the header Stripe-Signature was made with one of our webhook secrets",
            problem=WebhookProblem.SIGNATURE_WRONG,
        )
    _check_time(header, now)
    return _event(text)


def _readable(signature: str | None) -> str:
    if not signature:
        raise WebhookRefused(
            "the header Stripe-Signature is missing: this does not come from Stripe",
            problem=WebhookProblem.SIGNATURE_MISSING,
        )
    # Two times would leave it open which one was signed; the library can't compare what isn't ASCII.
    if not signature.isascii() or len(_times(signature)) != 1:
        raise WebhookRefused(
            "the header Stripe-Signature does not read t=…,v1=…", problem=WebhookProblem.SIGNATURE_WRONG
        )
    return signature


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise WebhookRefused("the body is not UTF-8, so it is not JSON", problem=WebhookProblem.NOT_JSON) from None


def _is_signed(text: str, header: str, secret: str) -> bool:
    try:
        # Without a tolerance: the library's lets the future pass, and reads the clock.
        stripe.WebhookSignature.verify_header(text, header, secret, tolerance=None)
    except stripe.SignatureVerificationError:
        return False
    return True


def _check_time(header: str, now: datetime) -> None:
    """Of a header whose signature is right, so that its time is a number."""
    behind = int(now.timestamp()) - int(_times(header)[0])
    if behind > TOLERANCE_SECONDS:
        raise WebhookRefused(
            f"signed {behind} s ago, more than {TOLERANCE_SECONDS}; a delivery is signed when it is sent",
            problem=WebhookProblem.STALE,
        )
    if behind < -TOLERANCE_SECONDS:
        raise WebhookRefused(
            f"signed {-behind} s in the future, more than {TOLERANCE_SECONDS}; compare the clocks",
            problem=WebhookProblem.FUTURE,
        )


def _times(header: str) -> list[str]:
    return [value for name, _, value in (part.partition("=") for part in header.split(",")) if name == "t"]


def _event(text: str) -> EventSnapshot:
    try:
        sent = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise WebhookRefused("the body is not JSON", problem=WebhookProblem.NOT_JSON) from None
    if not isinstance(sent, Mapping) or sent.get("object") != "event":
        raise _no_event("it says of itself that it is something else")
    try:
        return event_of(_keepable(sent))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise _no_event(f"{type(error).__name__}: {error}") from error


def _no_event(why: str) -> WebhookRefused:
    return WebhookRefused(f"the body is no event of Stripe's: {why}", problem=WebhookProblem.NOT_AN_EVENT)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _keepable(value: Any) -> Any:
    """JSON that Postgres takes: it keeps neither NUL nor half a character, which JSON can write."""
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        case dict():
            return {_keepable(name): _keepable(one) for name, one in value.items()}
        case list():
            return [_keepable(one) for one in value]
    return value

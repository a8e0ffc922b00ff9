"""Events as Stripe posts them: made here, signed by the stripe library."""

import json
import time
from typing import Any
from uuid import uuid4

import requests
import stripe

SECRET = "whsec_test"
PATH = "/webhooks/stripe"


def an_event(type_: str = "payment_intent.succeeded", about: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """The body of a delivery; about an intent of nobody unless told otherwise."""
    thing = about or {"id": "pi_of_nobody", "object": "payment_intent", "customer": None, "metadata": {}}
    event = {
        "id": f"evt_{uuid4().hex}",
        "object": "event",
        "type": type_,
        "created": int(time.time()),
        "data": {"object": thing},
        **fields,
    }
    return json.dumps(event, indent=2).encode()


def id_of(body: bytes) -> str:
    return str(json.loads(body)["id"])


def signature(body: bytes, secret: str = SECRET, *, ago: int = 0) -> str:
    """The header that Stripe would have made so many seconds ago."""
    at = int(time.time()) - ago
    return str(stripe.WebhookSignature.generate_signature_header(body.decode("latin-1"), secret, at))


def post(url: str, body: Any, header: str | None) -> requests.Response:
    """Deliver it."""
    headers = {"Content-Type": "application/json"} | ({"Stripe-Signature": header} if header is not None else {})
    with requests.Session() as session:
        session.trust_env = False
        return session.post(f"{url}{PATH}", data=body, headers=headers, timeout=15)

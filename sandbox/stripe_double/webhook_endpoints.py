"""Webhook endpoints: on this machine only. Source: https://docs.stripe.com/api/webhook_endpoints"""

import ipaddress
from urllib.parse import urlsplit

from sandbox.stripe_double.calls import EXPAND, PAGE, Call
from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.forms import Shape, array_of, metadata, text
from sandbox.stripe_double.objects import WebhookEndpoint
from sandbox.stripe_double.render_more import webhook_endpoint_json
from sandbox.stripe_double.state import Store, new_id

CREATE: Shape = {
    **EXPAND,
    "description": text,
    "enabled_events": array_of(text),
    "metadata": metadata,
    "url": text,
}
CREATE_REQUIRED = ("enabled_events", "url")
LIST: Shape = PAGE
ENDPOINTS_MAX = 16


def create(call: Call) -> Json:
    endpoint = add_endpoint(call.store, call.params["url"], new_id("whsec"), call.params["enabled_events"])
    endpoint.description = call.params.get("description")
    endpoint.metadata = call.params.get("metadata") or {}
    return {**call.show(webhook_endpoint_json(endpoint)), "secret": endpoint.secret}


def retrieve(call: Call) -> Json:
    return call.show(webhook_endpoint_json(call.store.webhook_endpoint(call.path_id)))


def list_(call: Call) -> Json:
    return call.page(call.store.webhook_endpoints.values(), webhook_endpoint_json)


def delete(call: Call) -> Json:
    endpoint = call.store.webhook_endpoint(call.path_id)
    remove_endpoint(call.store, endpoint.id)
    return {"id": endpoint.id, "object": "webhook_endpoint", "deleted": True}


def add_endpoint(store: Store, url: str, secret: str, enabled_events: list[str]) -> WebhookEndpoint:
    """Tell this address of everything that happens from now on; a 400 unless it is a loopback address."""
    if not is_loopback(url):
        message = f"Invalid URL: {url}. The double delivers by plain http to this machine's loopback addresses only."
        raise invalid_request(message, code="url_invalid", param="url")
    if len(store.webhook_endpoints) >= ENDPOINTS_MAX:
        raise invalid_request(f"You have reached the maximum of {ENDPOINTS_MAX} test webhook endpoints.")
    endpoint = WebhookEndpoint(new_id("we_1"), store.clock.now(), url, secret, enabled_events)
    store.webhook_endpoints[endpoint.id] = endpoint
    return endpoint


def remove_endpoint(store: Store, endpoint_id: str) -> None:
    """Tell it nothing more: no event waits for it."""
    del store.webhook_endpoints[endpoint_id]
    for event in store.events.values():
        event.waiting.discard(endpoint_id)


def is_loopback(url: str) -> bool:
    """Whether a URL is plain http to a loopback address, or to `localhost`."""
    try:
        split = urlsplit(url)
        host, _ = split.hostname or "", split.port
        return split.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False

"""One webhook on its way: signed as Stripe signs it, posted to this machine.

Source: https://docs.stripe.com/webhooks#verify-manually
"""

import asyncio
import hashlib
import hmac
from contextlib import closing
from urllib.parse import urlsplit

from sandbox.stripe_double.webhook_endpoints import is_loopback

OFF_SECONDS = {"stale": -600, "future": 600}
WRONG_SECRET = "whsec_not_this_endpoints"  # noqa: S105 - by design the wrong one


def signed(body: bytes, secret: str, signature: str, now: int) -> str:
    """The header `Stripe-Signature`, of this moment unless it is to be wrong."""
    timestamp = now + OFF_SECONDS.get(signature, 0)
    used = WRONG_SECRET if signature == "wrong_secret" else secret
    mac = hmac.new(used.encode(), b"%d." % timestamp + body, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


async def post(url: str, body: bytes, signature: str, timeout_seconds: float) -> int | None:
    """Post it, and give the status of the answer; None if there was none in time. Refuses what is no loopback."""
    if not is_loopback(url):
        raise ValueError(f"{url} is no loopback address; webhooks of the Stripe double stay on this machine.")
    try:
        return await asyncio.wait_for(_exchange(url, body, signature), timeout_seconds)
    except (OSError, TimeoutError, ValueError, IndexError):
        return None


async def _exchange(url: str, body: bytes, signature: str) -> int:
    split = urlsplit(url)
    # A name is not looked up: whatever the hosts file says of it, this stays here.
    host = "127.0.0.1" if split.hostname in {None, "localhost"} else split.hostname
    reader, writer = await asyncio.open_connection(host, split.port or 80)
    with closing(writer):
        target = (split.path or "/") + (f"?{split.query}" if split.query else "")
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {split.netloc}\r\nUser-Agent: a double of Stripe\r\n"
            f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            f"Stripe-Signature: {signature}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return int((await reader.readline()).split()[1])

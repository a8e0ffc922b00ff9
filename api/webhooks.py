"""`POST /webhooks/stripe`: verify, keep, answer; workers do the rest."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter, Request

from api.bodies import bounded_body
from api.errors import Busy
from api.handing_over import HandingOver
from config import clock
from config.settings import settings
from db.scope import as_everybody
from services.collecting.webhooks import Received, receive

#: Requests that may wait for the database, and for how long; Stripe waits little longer, and sends it again.
WAITING_MAX = 100
WAITING_SECONDS_MAX = 8

router = APIRouter(prefix="/webhooks")


class Receiving:
    """One thread with one connection to the database, so that neither blocks the event loop.

    An insert takes a millisecond or two, so one thread takes several times what Stripe sends; a second connection
    would be made anew for each request that needs it.
    """

    def __init__(self, handing_over: HandingOver) -> None:
        self.handing_over = handing_over
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="receiving")
        self._waiting = 0

    async def receive(self, raw: bytes, signature: str | None) -> Received:
        """Verify and keep a delivery. Raises what `services.collecting.webhooks.receive` raises, and `Busy`."""
        if self._waiting >= WAITING_MAX:
            raise Busy
        self._waiting += 1
        try:
            async with asyncio.timeout(WAITING_SECONDS_MAX):
                loop = asyncio.get_running_loop()
                received = await loop.run_in_executor(self._thread, _receive, raw, signature)
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting -= 1
        if received.is_new:
            self.handing_over.add(received.event_id)
        return received

    def close(self) -> None:
        self._thread.shutdown()
        self.handing_over.close()


def _receive(raw: bytes, signature: str | None) -> Received:
    """Of no tenant yet: whose it is, is found when it is worked."""
    with as_everybody():
        return receive(raw, signature, clock.now())


@router.post("/stripe")
async def stripe_webhook(request: Request) -> dict[str, bool]:
    """Take in an event of Stripe's. Anything but 200 makes Stripe send it again."""
    raw = await bounded_body(request, settings().webhook_bytes_max)
    receiving: Receiving = request.app.state.receiving
    await receiving.receive(raw, request.headers.get("stripe-signature"))
    return {"received": True}

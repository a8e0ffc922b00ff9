"""What goes wrong on purpose: which calls are met, and what becomes of them."""

import asyncio
import random
from dataclasses import dataclass, field

from sandbox.stripe_double.errors import Answer, ApiError, Json, key_in_flight
from sandbox.stripe_double.wishes import ANY, Fault

BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


class Dropped(Exception):
    """The connection ends without an answer."""


class Interrupted(Exception):
    """Something between the caller and Stripe answers in its place."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered {answer.status} before Stripe was reached")
        self.answer = answer


@dataclass
class ArmedFault:
    """A fault on the look-out."""

    id: int
    fault: Fault
    seen: int = 0
    hits: int = 0
    held: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.fault.seed)

    def meets(self, method: str, template: str) -> bool:
        """Whether it meets this call, which counts as seen if it matches."""
        fault = self.fault
        if fault.method not in {ANY, method} or fault.path not in {ANY, template}:
            return False
        self.seen += 1
        is_left = fault.times == 0 or self.hits < fault.times
        is_meant = self.seen >= fault.nth if fault.probability is None else self._random.random() < fault.probability
        self.hits += is_left and is_meant
        return is_left and is_meant

    async def hold(self) -> None:
        """Wait for the release."""
        self.held += 1
        try:
            await asyncio.wait_for(self._released.wait(), self.fault.seconds)
        except TimeoutError:
            pass
        finally:
            self.held -= 1

    def release(self) -> None:
        """Let go what is held now; what comes later is held again."""
        self._released.set()
        self._released = asyncio.Event()

    def shown(self) -> Json:
        counts = {"seen": self.seen, "hits": self.hits, "held": self.held}
        return {"id": self.id, **counts, "fault": self.fault.model_dump()}


class Faults:
    """The faults of one double, in the order in which they were added."""

    def __init__(self) -> None:
        self._armed: dict[int, ArmedFault] = {}
        self._added = 0

    def add(self, fault: Fault) -> int:
        self._added += 1
        self._armed[self._added] = ArmedFault(self._added, fault)
        return self._added

    def clear(self) -> None:
        """Forget them all, and let go what they hold."""
        self.release(None)
        self._armed.clear()

    def release(self, fault_id: int | None) -> None:
        """Let go what one fault holds, or what any does."""
        for armed in self._armed.values():
            if fault_id in {None, armed.id}:
                armed.release()

    def drawn(self, method: str, template: str) -> ArmedFault | None:
        """The fault that meets this call, if any."""
        return next((armed for armed in self._armed.values() if armed.meets(method, template)), None)

    def shown(self) -> list[Json]:
        return [armed.shown() for armed in self._armed.values()]


def at_the_front(fault: Fault, idempotency_key: str | None) -> None:
    """End a call before anything was looked at: nothing executes, nothing is kept under its key."""
    match fault.kind:
        case "drop_before":
            raise Dropped
        case "conflict":
            raise key_in_flight(idempotency_key or "none")
        case "bad_gateway":
            raise Interrupted(Answer(502, BAD_GATEWAY))
        case "unavailable":
            raise ApiError(503, "api_error", "Stripe is temporarily unavailable.")
        case "rate_limited":
            raise _rate_limited(fault)
        case _:
            return


async def after_commit(armed: ArmedFault) -> None:
    """What meets an answer on its way back, when its effect has long been there."""
    match armed.fault.kind:
        case "drop_after":
            raise Dropped
        case "delay_after":
            await asyncio.sleep(armed.fault.seconds)
        case "hold_after":
            await armed.hold()
        case "error_after" if not armed.fault.is_kept:
            raise server_error()
        case _:
            return


def server_error() -> ApiError:
    return ApiError(500, "api_error", "An unexpected error occurred.")


def _rate_limited(fault: Fault) -> ApiError:
    told = {} if fault.should_retry is None else {"Stripe-Should-Retry": str(fault.should_retry).lower()}
    message = "Too many requests hit the API too quickly. Send this one again later."
    return ApiError(429, "invalid_request_error", message, code="rate_limit", headers=told)

"""Idempotency keys: the first answer is kept for 24 hours and given again, whatever it was.

Source: https://docs.stripe.com/api/idempotent_requests. Kept is what execution answered, declines and other
errors included. Not kept is what was refused before: failed checks, a key in flight, a locked object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.stripe_double.errors import Answer, invalid_request, key_in_flight, key_reused

KEPT_SECONDS = 24 * 60 * 60
KEY_LENGTH_MAX = 255


@dataclass(frozen=True)
class Request:
    """What a key is bound to. The request's own id names it to whoever gets its answer again."""

    method: str
    path: str
    form: Mapping[str, Any]
    request_id: str


@dataclass
class _Use:
    request: Request
    claimed_at: int
    answer: Answer | None = None


class IdempotencyKeys:
    """The keys of one secret key's account."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def claim(self, key: str, request: Request, now: int) -> Answer | None:
        """The kept answer, marked as replayed; None if the caller is the first and shall execute."""
        if len(key) > KEY_LENGTH_MAX:
            raise invalid_request(f"An idempotency key has at most {KEY_LENGTH_MAX} characters.")
        use = self._uses.get(key)
        if use is None or (use.answer and now - use.claimed_at >= KEPT_SECONDS):
            self._uses[key] = _Use(request, now)
            return None
        if use.answer is None:
            raise key_in_flight(key)
        _refuse_other(key, use.request, request)
        told = {"Idempotent-Replayed": "true", "Original-Request": use.request.request_id}
        return Answer(use.answer.status, use.answer.body, {**use.answer.headers, **told})

    def keep(self, key: str, answer: Answer) -> None:
        self._uses[key].answer = answer

    def release(self, key: str) -> None:
        """Forget a claim that came to no execution."""
        if self._uses[key].answer is None:
            del self._uses[key]


def _refuse_other(key: str, first: Request, again: Request) -> None:
    if (first.method, first.path) != (again.method, again.path):
        raise key_reused(key, f"{first.method} {first.path}")
    if first.form != again.form:
        raise key_reused(key, "other parameters")

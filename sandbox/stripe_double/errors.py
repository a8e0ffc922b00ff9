"""Errors in Stripe's shape: `{"error": {"type", "code", "message", "param", …}}` with its HTTP status.

Source: https://docs.stripe.com/api/errors
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What goes back over the wire."""

    status: int
    body: Json | str  # text is HTML, from whatever stands between us and Stripe
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """A request that ends in an error. Raised while executing, it is saved under the idempotency key."""

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        told = {"type": error_type, "message": message, **facts}
        # Stripe leaves out what is null in an error, unlike in an object.
        self.error: Json = {name: value for name, value in told.items() if value is not None}

    def answer(self) -> Answer:
        return Answer(self.status, {"error": self.error}, self.headers)


def invalid_request(
    message: str, *, code: str | None = None, param: str | None = None, status: int = 400, **facts: Any
) -> ApiError:
    return ApiError(status, "invalid_request_error", message, code=code, param=param, **facts)


def unknown_parameter(name: str, known: Iterable[str]) -> ApiError:
    message = f"Received unknown parameter: {name}. Known to the double here: {', '.join(sorted(known)) or 'none'}."
    return invalid_request(message, code="parameter_unknown", param=name)


def missing_parameter(name: str) -> ApiError:
    return invalid_request(f"Missing required param: {name}.", code="parameter_missing", param=name)


def no_such(kind: str, object_id: str, param: str, *, status: int = 404) -> ApiError:
    return invalid_request(f"No such {kind}: '{object_id}'", code="resource_missing", param=param, status=status)


def unauthorized(message: str) -> ApiError:
    return ApiError(401, "invalid_request_error", message)


def key_in_flight(key: str) -> ApiError:
    message = f"A request with the idempotency key '{key}' is still being executed; send it again later."
    return ApiError(409, "invalid_request_error", message, code="idempotency_key_in_use")


def key_reused(key: str, difference: str) -> ApiError:
    message = f"The idempotency key '{key}' was first used with {difference}; a new request needs a new key."
    return ApiError(400, "idempotency_error", message)


def object_locked(object_id: str) -> ApiError:
    message = f"{object_id} is being changed by another request; send this one again later."
    retry = {"Stripe-Should-Retry": "true"}
    return ApiError(429, "invalid_request_error", message, code="lock_timeout", headers=retry)

"""Every error of the tree becomes one answer, and tells no more than it should."""

import json
from collections.abc import Iterator
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest

from api import errors as api_errors
from billing import errors
from billing.errors import (
    BrokenInvariant,
    CentavoError,
    Conflict,
    CustomerNotFound,
    DatabaseUnavailable,
    Forbidden,
    IdempotencyConflict,
    InsufficientCredits,
    Rejected,
    TooManyRequests,
    Unauthenticated,
)
from config.settings import SettingsMissing


def document(error: CentavoError) -> tuple[int, dict[str, Any], dict[str, str]]:
    response = api_errors.answered(error, "/v1/somewhere")
    return response.status_code, json.loads(bytes(response.body)), dict(response.headers)


def tree(kind: type[Rejected]) -> Iterator[type[Rejected]]:
    yield kind
    for one in kind.__subclasses__():
        yield from tree(one)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("no"), 400),
        (Unauthenticated(), 401),
        (InsufficientCredits(), 402),
        (Forbidden(), 403),
        (CustomerNotFound(), 404),
        (api_errors.BodyTooSlow(), 408),
        (IdempotencyConflict(), 409),
        (Conflict(), 409),
        (api_errors.BodyTooLarge(), 413),
        (TooManyRequests(), 429),
        (BrokenInvariant("ana has -1"), 500),
        (DatabaseUnavailable("password=secret"), 503),
        (SettingsMissing("CENTAVO_STRIPE_SECRET_KEY is not set"), 503),
    ],
)
def test_each_family_has_its_status(error: CentavoError, status: int) -> None:
    found, problem, _ = document(error)

    assert (found, problem["status"]) == (status, status)


def test_every_error_of_the_tree_has_a_status_and_a_code_of_its_own() -> None:
    """Whatever is raised on purpose is answered; and of those that callers see, no two share a code."""
    kinds = [kind for kind in tree(Rejected) if kind.__module__ == errors.__name__]

    codes = [kind.code for kind in kinds]

    assert len(codes) > 20
    assert sorted(codes) == sorted(set(codes))
    for kind in kinds:
        assert document(kind())[0] < HTTPStatus.INTERNAL_SERVER_ERROR


def test_the_fields_of_an_error_stand_beside_its_code() -> None:
    error = InsufficientCredits(available=Decimal("0.500"), required="0.54", unit="USD", status="mine", code="other")

    status, problem, headers = document(error)

    assert headers["content-type"] == "application/problem+json"
    assert problem == {
        "type": "urn:centavo:problem:insufficient_credits",
        "title": "What is available does not cover what is asked for.",
        "status": status,
        "detail": "What is available does not cover what is asked for.",
        "code": "insufficient_credits",
        "available": "0.5",
        "required": "0.54",
        "unit": "USD",
    }


@pytest.mark.parametrize("error", [DatabaseUnavailable("password=secret"), BrokenInvariant("secret", wallet="secret")])
def test_what_is_wrong_with_us_is_not_told(error: CentavoError) -> None:
    assert "secret" not in json.dumps(document(error)[1])


def test_who_is_to_come_back_is_told_when() -> None:
    assert document(DatabaseUnavailable())[2]["retry-after"] == "2"
    assert document(TooManyRequests(retry_after_seconds=7))[2]["retry-after"] == "7"

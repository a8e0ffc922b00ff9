"""The OpenAPI document is complete: a typed client can be made of it."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from api.errors import MEDIA_TYPE

METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method, path, methods[method]


def refs(value: Any) -> Iterator[str]:
    match value:
        case dict():
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for one in value.values():
                yield from refs(one)
        case list():
            for one in value:
                yield from refs(one)


def test_every_operation_has_a_name_and_says_what_it_does(document: dict[str, Any]) -> None:
    found = list(operations(document))
    names = [one["operationId"] for _, _, one in found]

    assert len(found) > 20
    assert sorted(names) == sorted(set(names))
    assert [name for name, (_, _, one) in zip(names, found, strict=True) if not one.get("summary")] == []
    assert all(name.isidentifier() for name in names)


def test_every_answer_has_a_shape(document: dict[str, Any]) -> None:
    for method, path, one in operations(document):
        good = {status: said for status, said in one["responses"].items() if status < "300"}
        assert good, (method, path)
        for status, said in good.items():
            if status == "204":
                assert "content" not in said
                continue
            shapes = [content.get("schema") for content in said["content"].values()]
            assert all(shapes), (method, path, status)


def test_every_operation_of_v1_describes_its_errors(document: dict[str, Any]) -> None:
    """And none speaks of the framework's own shape of errors."""
    for method, path, one in operations(document):
        if not path.startswith("/v1") or path == "/v1/info":
            continue
        statuses = {status for status in one["responses"] if status >= "400"}
        assert {"400", "401", "403", "422", "429", "500", "503"} <= statuses, (method, path)
        assert ("413" in statuses) == ("requestBody" in one), (method, path)
        for status in statuses:
            content = one["responses"][status]["content"]
            assert content == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}, (path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_what_moves_value_wants_a_key(document: dict[str, Any]) -> None:
    with_key = {
        path
        for method, path, one in operations(document)
        if any(said["name"] == "Idempotency-Key" and said["required"] for said in one.get("parameters", []))
    }

    assert with_key == {
        "/v1/usage",
        "/v1/usage/{key}/void",
        "/v1/usage/{key}/settle",
        "/v1/usage/{key}/cancel",
        "/v1/customers/{customer_id}/grants",
        "/v1/customers/{customer_id}/top-ups",
        "/v1/customers/{customer_id}/adjustments",
        "/v1/customers/{customer_id}/cards",
        "/v1/customers/{customer_id}/holds",
        "/v1/holds/{hold_id}/release",
        "/v1/customers",
        "/v1/customers/{customer_id}/subscription",
        "/v1/customers/{customer_id}/subscription/plan",
        "/v1/customers/{customer_id}/subscription/end",
        "/v1/customers/{customer_id}/subscription/pause",
        "/v1/customers/{customer_id}/subscription/resume",
        "/v1/prices",
        "/v1/prices/{price_id}/end",
        "/v1/payments/{payment_id}/retry",
        "/v1/payments/{payment_id}/approve",
        "/v1/payments/{payment_id}/void",
        "/v1/payments/{payment_id}/refunds",
    }


def test_everything_but_the_open_ones_wants_a_caller(document: dict[str, Any]) -> None:
    open_ones = {path for _, path, one in operations(document) if not one.get("security")}

    assert open_ones == {"/health", "/v1/info"}


def test_decimals_are_texts(document: dict[str, Any]) -> None:
    """No answer has a number with a point in it, and no question of ours wants one."""
    schemas = document["components"]["schemas"]
    numbers = {
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, said in schema.get("properties", {}).items()
        for one in [said, *said.get("anyOf", [])]
        if one.get("type") == "number"
    }

    # The producers' own contract takes both.
    assert numbers <= {"Item.quantity"}


def test_every_question_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    bodies = {
        one["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, one in operations(document)
        if "requestBody" in one
    }

    assert len(bodies) >= 6
    assert [name for name in sorted(bodies) if not schemas[name].get("examples")] == []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert {one.rpartition("/")[2] for one in refs(document)} <= schemas.keys()

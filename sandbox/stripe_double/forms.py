"""Form bodies with brackets (`metadata[tier]=1&expand[0]=latest_charge`): decoding, and checking parameters.

A shape says which parameters a route knows, and of which kind each one is. A kind is a function from what was
sent, and its name, to the value; it raises Stripe's 400.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from sandbox.stripe_double.errors import invalid_request, missing_parameter, unknown_parameter

Node = str | dict[str, "Node"]
Form = dict[str, Node]
Kind = Callable[[Node, str], Any]
Shape = Mapping[str, Kind]

NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
BRACKET = re.compile(r"\[([^\[\]]*)\]")
METADATA_KEYS_MAX, METADATA_KEY_LENGTH_MAX, METADATA_VALUE_LENGTH_MAX = 50, 40, 500


def decode(encoded: str) -> Form:
    """Turn a query or body into nested dicts; arrays are dicts whose keys are their indexes."""
    form: Form = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        _place(form, name, value)
    return form


def _place(form: Form, name: str, value: str) -> None:
    matched = NAME.fullmatch(name)
    if matched is None:
        raise invalid_request(f"Invalid parameter name: {name}", param=name)
    *path, last = [matched[1], *BRACKET.findall(matched[2])]
    node = form
    for step in path:
        inner = node.setdefault(step, {})
        if not isinstance(inner, dict):
            raise invalid_request(f"{name} is given both as a value and as an object", param=name)
        node = inner
    node[last or str(len(node))] = value


def checked(form: Form, shape: Shape, required: Collection[str] = ()) -> dict[str, Any]:
    """The parameters as values, or the 400 that Stripe would answer."""
    for name in form:
        if name not in shape:
            raise unknown_parameter(name, shape)
    for name in required:
        if name not in form:
            raise missing_parameter(name)
    return {name: shape[name](node, name) for name, node in form.items()}


def text(node: Node, name: str) -> str:
    if not isinstance(node, str):
        raise invalid_request(f"Invalid string: {name} is an object or an array", param=name)
    if not node:
        message = f"{name} was an empty string. Leave it out instead."
        raise invalid_request(message, code="parameter_invalid_empty", param=name)
    return node


def integer(node: Node, name: str) -> int:
    if not isinstance(node, str) or not re.fullmatch(r"-?[0-9]{1,18}", node):
        raise invalid_request(f"Invalid integer: {node}", code="parameter_invalid_integer", param=name)
    return int(node)


def boolean(node: Node, name: str) -> bool:
    if node not in {"true", "false"}:
        raise invalid_request(f"Invalid boolean: {node}", param=name)
    return node == "true"


def one_of(*choices: str) -> Kind:
    def chosen(node: Node, name: str) -> str:
        if not isinstance(node, str) or node not in choices:
            raise invalid_request(f"Invalid {name}: must be one of {', '.join(choices)}", param=name)
        return node

    return chosen


def array_of(kind: Kind) -> Kind:
    def listed(node: Node, name: str) -> list[Any]:
        if not isinstance(node, dict) or not all(key.isdecimal() for key in node):
            raise invalid_request(f"Invalid array: {name}", param=name)
        indexes = sorted(node, key=int)
        return [kind(node[index], f"{name}[{index}]") for index in indexes]

    return listed


def object_of(**shape: Kind) -> Kind:
    def named(node: Node, name: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            raise invalid_request(f"Invalid object: {name}", param=name)
        for key in node:
            if key not in shape:
                raise unknown_parameter(f"{name}[{key}]", [f"{name}[{known}]" for known in shape])
        return {key: shape[key](inner, f"{name}[{key}]") for key, inner in node.items()}

    return named


def metadata(node: Node, name: str) -> dict[str, str] | None:
    """What to merge; an empty value removes its key, and None (an empty `metadata`) removes them all."""
    if node == "":
        return None
    if not isinstance(node, dict) or len(node) > METADATA_KEYS_MAX:
        raise invalid_request(f"Invalid {name}: an object of up to {METADATA_KEYS_MAX} keys", param=name)
    for key, value in node.items():
        if not isinstance(value, str) or len(value) > METADATA_VALUE_LENGTH_MAX:
            raise invalid_request(f"Invalid {name}[{key}]: a string of up to 500 characters", param=name)
        if len(key) > METADATA_KEY_LENGTH_MAX:
            raise invalid_request(f"Invalid {name} key {key}: up to 40 characters", param=name)
    return {key: value for key, value in node.items() if isinstance(value, str)}


def created_range(node: Node, name: str) -> Callable[[int], bool]:
    """`created=T`, or `created[gte]=T` and its like, as a test of a timestamp."""
    if isinstance(node, str):
        exactly = integer(node, name)
        return lambda created: created == exactly
    bounds = object_of(gt=integer, gte=integer, lt=integer, lte=integer)(node, name)
    return lambda created: (
        created > bounds.get("gt", created - 1)
        and created >= bounds.get("gte", created)
        and created < bounds.get("lt", created + 1)
        and created <= bounds.get("lte", created)
    )

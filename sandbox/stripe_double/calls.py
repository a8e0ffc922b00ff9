"""One call as a handler sees it, and pages of lists."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sandbox.stripe_double.errors import Json, no_such
from sandbox.stripe_double.forms import Shape, array_of, created_range, integer, text
from sandbox.stripe_double.render import expanded
from sandbox.stripe_double.state import Store


class Listed(Protocol):
    """What can stand in a list."""

    id: str
    created: int


Item = TypeVar("Item", bound=Listed)

EXPAND: Shape = {"expand": array_of(text)}
PAGE: Shape = {**EXPAND, "limit": integer, "starting_after": text, "ending_before": text}
CREATED: Shape = {"created": created_range}


@dataclass(frozen=True)
class Call:
    """A request that passed every check: its path's id, its parameters as values, and what it acts on."""

    store: Store
    path: str
    path_id: str
    params: Mapping[str, Any]
    expand: list[str] = field(default_factory=list)

    def show(self, shown: Json) -> Json:
        """One object as the answer, expanded as asked."""
        return expanded(shown, self.store, self.expand)

    def page(self, items: Iterable[Item], render: Callable[[Item], Json]) -> Json:
        """A list as the answer: newest first, by Stripe's cursors."""
        in_range = self.params.get("created", lambda _created: True)
        newest_first = [item for item in reversed(list(items)) if in_range(item.created)]
        window = self._window(newest_first)
        limit = min(max(self.params.get("limit", 10), 1), 100)
        kept = window[-limit:] if "ending_before" in self.params else window[:limit]
        expand = [name.removeprefix("data.") for name in self.expand]
        data = [expanded(render(item), self.store, expand) for item in kept]
        return {"object": "list", "data": data, "has_more": len(window) > limit, "url": self.path}

    def _window(self, items: list[Item]) -> list[Item]:
        ids = [item.id for item in items]
        if after := self.params.get("starting_after"):
            return items[_position(ids, after, "starting_after") + 1 :]
        if before := self.params.get("ending_before"):
            return items[: _position(ids, before, "ending_before")]
        return items


def _position(ids: list[str], wanted: str, param: str) -> int:
    if wanted not in ids:
        raise no_such("object", wanted, param, status=400)
    return ids.index(wanted)

"""Which calls came, when, and how many in any second: kept within bounds, for tests to ask."""

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sandbox.stripe_double.errors import Json

CALLS_KEPT_MAX = 50_000
TOTAL = "total"


@dataclass
class LoggedCall:
    """One call. `at` is the double's clock; `monotonic` the machine's, in seconds; without a status, no answer went."""

    number: int
    method: str
    template: str
    path: str
    idempotency_key: str | None
    at: int
    monotonic: float
    status: int | None = None
    is_replayed: bool = False
    fault: str | None = None


class Traffic:
    """The log of calls, and what was counted of all of them."""

    def __init__(self) -> None:
        self._calls: deque[LoggedCall] = deque(maxlen=CALLS_KEPT_MAX)
        self._arrived = 0
        self._recent: dict[str, deque[float]] = {}
        self._most: Counter[str] = Counter()
        self._by_route: Counter[str] = Counter()
        self._by_status: Counter[str] = Counter()
        self._replayed: Counter[str] = Counter()

    def arrived(self, method: str, template: str, path: str, idempotency_key: str | None, at: int) -> LoggedCall:
        """Note a call that has just come."""
        self._arrived += 1
        call = LoggedCall(self._arrived, method, template, path, idempotency_key, at, time.monotonic())
        self._calls.append(call)
        for name in (TOTAL, f"{method} {template}"):
            self._note_rate(name, call.monotonic)
        return call

    def answered(self, call: LoggedCall) -> None:
        """Count a call whose end is known."""
        route = f"{call.method} {call.template}"
        self._by_route[route] += 1
        self._by_status[str(call.status) if call.status else "none"] += 1
        if call.is_replayed:
            self._replayed[route] += 1

    def counted(self) -> Json:
        counts = {"by_route": self._by_route, "by_status": self._by_status, "replayed": self._replayed}
        return {"total": self._by_route.total(), **counts}

    def calls(self, template: str | None = None, after: int = 0) -> Iterable[Json]:
        """The calls that are still kept, oldest first, of one path template and after a number if asked."""
        wanted = (call for call in self._calls if call.number > after and template in {None, call.template})
        return [asdict(call) for call in wanted]

    def rates(self) -> Json:
        """The most calls in any one second, in all and by route; and how many there were."""
        by_route = {name: most for name, most in self._most.items() if name != TOTAL}
        return {"calls": self._arrived, "per_second_max": self._most[TOTAL], "by_route": by_route}

    def _note_rate(self, name: str, monotonic: float) -> None:
        recent = self._recent.setdefault(name, deque())
        recent.append(monotonic)
        while recent[0] <= monotonic - 1:
            recent.popleft()
        self._most[name] = max(self._most[name], len(recent))

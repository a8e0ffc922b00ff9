"""Counting requests: how many, how long, by route and status, for `/metrics`."""

import time
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Seconds. The promise of questions is 40 ms; a body may take ten seconds to come.
BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10)

#: Whoever asks chooses the method and the path: no label is made of what is none of ours.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER, NO_ROUTE, NO_ANSWER = "other", "none", "none"


class Requests:
    """What is counted of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answered = Counter(
            "centavo_api_requests",
            f"Requests by route and status; the route `{NO_ROUTE}` is what was refused before it was known, and the "
            f"status `{NO_ANSWER}` what nobody waited for.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "centavo_api_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=registry,
        )
        self.under_way = Gauge(
            "centavo_api_requests_under_way",
            "Requests that are not answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )


class Measured:
    """Counts each request once it is over, whatever became of it."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = NO_ANSWER

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        begun = time.perf_counter()
        self._requests.under_way.inc()
        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = str(HTTPStatus.INTERNAL_SERVER_ERROR.value)
            raise
        finally:
            self._requests.under_way.dec()
            method = scope["method"] if scope["method"] in METHODS else OTHER
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self._requests.answered.labels(method, route, status).inc()
            self._requests.seconds.labels(method, route).observe(time.perf_counter() - begun)

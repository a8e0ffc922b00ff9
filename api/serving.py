"""Serving an application over HTTP, in this process."""

import gc
import sys

import uvicorn

from api.connections import BoundedConnection

GRACE_SECONDS = 10
CONNECTIONS_MAX = 500
#: A request makes some thousand objects, hardly any of them in a cycle.
GARBAGE_OBJECTS = 20_000


def serve(factory: str, host: str, port: int) -> None:
    """Serve an application until the process is told to end."""
    config = uvicorn.Config(
        factory,
        factory=True,
        http=BoundedConnection,
        ws="none",
        host=host,
        port=port,
        # Logs are ours: JSON, and no addresses of who asked.
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    config.load()
    _collect_garbage_rarely()
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(f"centavo: nothing could be served at {host}:{port}")


def _collect_garbage_rarely() -> None:
    """The application itself is never garbage: it is left out of every search for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)

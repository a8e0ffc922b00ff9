"""Serving an application over HTTP, in this process."""

import uvicorn

GRACE_SECONDS = 10
CONNECTIONS_MAX = 500


def serve(factory: str, host: str, port: int) -> None:
    """Serve an application until the process is told to end."""
    uvicorn.run(
        factory,
        factory=True,
        host=host,
        port=port,
        # Logs are ours: JSON, and no addresses of who asked.
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )

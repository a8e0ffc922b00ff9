"""Serving an application over HTTP, in this process or in several that share its address."""

import gc
import sys
import tempfile

import uvicorn
from uvicorn.supervisors import Multiprocess

from api.connections import BoundedConnection
from config import logging
from config.settings import count_together, settings

GRACE_SECONDS = 10
CONNECTIONS_MAX = 500
#: A child that does not answer the supervisor for so long is replaced. Uvicorn's own 5 s are met on a busy machine.
SILENT_SECONDS_MAX = 30
#: Of processes that share an address.
SHARING_LOOP = "api.accepting:Loop"
#: A request makes some thousand objects, hardly any of them in a cycle.
GARBAGE_OBJECTS = 20_000


class _Config(uvicorn.Config):
    """Loaded by the process that serves, which may be a child that knows nothing of its parent but this."""

    def load(self) -> None:
        super().load()
        logging.configure(settings().log_level)
        # The application itself is never garbage: it is left out of every search for good.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS, 20, 20)


def serve(factory: str, host: str, port: int) -> None:
    """Serve an application until the process is told to end, by as many processes as the setting says."""
    processes = settings().api_processes
    logging.configure(settings().log_level)
    config = _Config(
        factory,
        factory=True,
        http=BoundedConnection,
        loop="auto" if processes == 1 else SHARING_LOOP,
        ws="none",
        host=host,
        port=port,
        workers=processes,
        # Logs are ours: JSON, and no addresses of who asked.
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=SILENT_SECONDS_MAX,
    )
    has_served = _serve_here(config) if processes == 1 else _serve_by_several(config)
    if not has_served:
        sys.exit(f"centavo: nothing could be served at {host}:{port}")


def _serve_here(config: uvicorn.Config) -> bool:
    server = uvicorn.Server(config)
    server.run()
    return server.started


def _serve_by_several(config: uvicorn.Config) -> bool:
    """A process that ends by itself is begun anew; one that can't begin ends all."""
    with tempfile.TemporaryDirectory(prefix="centavo-api-") as folder:
        count_together(folder)
        supervisor = Multiprocess(config, sockets=[config.bind_socket()])
        supervisor.run()
    return all(process.exitcode != uvicorn.config.STARTUP_FAILURE for process in supervisor.processes)

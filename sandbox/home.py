"""The sandbox home: one folder with all that a running stack leaves for others to find.

``state.json`` in it (mode 0600) says where the stack is::

    {
      "database_url": "postgresql://…", "broker_url": "redis://…", "stripe_api_base": "http://…",
      "processes": {"postgres": {"pid": 4711, "began_at": 1795196400.52}, …},
      "started_at": "2026-11-20T15:00:00+00:00"
    }

``clock.json`` says how far its clock is moved, also when the stack is up again: see ``config.clock``.

``lock`` holds the number of the process that runs the stack, and is locked for as long as that process lives.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from config.settings import CLOCK_FILE
from sandbox.process_tree import ProcessIdentity

DEFAULT_PATH = Path(".centavo")


class SandboxAlreadyRunning(RuntimeError):
    """A stack runs in this home already; the message says which process, and what to do."""


class SandboxStateUnreadable(ValueError):
    """The state file is not one that this version wrote."""


@dataclass(frozen=True, slots=True)
class StackState:
    """Where a running stack is found. ``processes`` maps a name for people to each process of the stack.

    ``started_at`` has a zone.
    """

    database_url: str
    broker_url: str
    stripe_api_base: str
    started_at: datetime
    processes: Mapping[str, ProcessIdentity] = field(default_factory=dict)

    def running_processes(self) -> dict[str, ProcessIdentity]:
        """Those of its processes that still run; a recycled number does not count."""
        return {name: process for name, process in self.processes.items() if process.alive}


class SandboxHome:
    """The folder ``path``, made when something is first put into it."""

    def __init__(self, path: Path = DEFAULT_PATH) -> None:
        self.path = path.absolute()

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def clock_file(self) -> Path:
        return self.path / CLOCK_FILE

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def read(self) -> StackState | None:
        """The state as it was last written, of a stack that may have ended since; None when there is none.

        Raises ``SandboxStateUnreadable``.
        """
        try:
            return _from_json(self.state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise SandboxStateUnreadable(
                f"{self.state_file} can't be understood ({wrong!r}); delete it if no stack runs in {self.path}"
            ) from wrong

    def write(self, state: StackState) -> None:
        """Replaces the state in one step: readers see the old one or the new one, whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file with mode 0600.
        handle, name = tempfile.mkstemp(dir=self.path, prefix=".state-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({**asdict(state), "started_at": state.started_at.isoformat()}, file, indent=2)
            Path(name).replace(self.state_file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        """Forgets the state, once the stack has ended."""
        self.state_file.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether any process of the recorded stack still runs."""
        return self.running_state() is not None

    def running_state(self) -> StackState | None:
        """The state of the stack that runs here, or None."""
        state = self.read()
        return state if state is not None and state.running_processes() else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """This home is ours alone while the context lasts; the state of a stack that has ended is deleted.

        Raises ``SandboxAlreadyRunning`` when another process holds it, or when a stack that was left running
        still does. The system frees the lock when its holder dies, in whatever way.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take_lock(handle)
            self._refuse_if_left_running()
            self.clear()
            yield
        finally:
            os.close(handle)  # which frees it

    def _take_lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            pid = os.pread(handle, 32, 0).decode() or "unknown"
            raise SandboxAlreadyRunning(
                f"process {pid} already runs a stack in {self.path}; end it (Ctrl-C in its terminal, or "
                f"`kill {pid}`), or set CENTAVO_HOME to another folder"
            ) from held
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)

    def _refuse_if_left_running(self) -> None:
        state = self.read()
        running = state.running_processes() if state else {}
        if running:
            names = ", ".join(f"{name} (process {process.pid})" for name, process in running.items())
            pids = " ".join(str(process.pid) for process in running.values())
            raise SandboxAlreadyRunning(
                f"a stack that was left running is still up in {self.path}: {names}; end it with "
                f"`kill {pids}`, or set CENTAVO_HOME to another folder"
            )


def _from_json(text: str) -> StackState:
    fields = json.loads(text)
    return StackState(
        database_url=fields["database_url"],
        broker_url=fields["broker_url"],
        stripe_api_base=fields["stripe_api_base"],
        started_at=datetime.fromisoformat(fields["started_at"]),
        processes={name: ProcessIdentity(**process) for name, process in fields["processes"].items()},
    )

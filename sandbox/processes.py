"""Start, watch and end the processes of the sandbox.

Three promises: a process is up before anyone uses it, or an error shows what it wrote; ending one ends all that
it started; and nothing outlives us, however we go (see ``sandbox.watchdog``).
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandbox.process_tree import POLL_SECONDS, ProcessIdentity, is_running, kill_group, send_signal
from sandbox.watchdog import our_watchdog

# Holds the program back until the watchdog knows it: had we died in between, nobody would end it.
_GATE = 'read -r go && exec "$@" </dev/null'

# What is left running must not be collected: subprocess would warn of it.
_LEFT_RUNNING: list[subprocess.Popen[bytes]] = []


class ConditionNotMet(TimeoutError):
    """What was awaited did not happen in time, or no longer can."""


class ProcessEnded(ConditionNotMet):
    """The process that was awaited ended by itself."""


def await_condition(
    predicate: Callable[[], bool], timeout_seconds: float, what: str, *, log_file: Path | None = None
) -> None:
    """Returns as soon as ``predicate()`` is true, which is asked fifty times a second.

    Raises ``ConditionNotMet`` after ``timeout_seconds``: it names ``what`` and shows the end of ``log_file``.
    """
    deadline = time.monotonic() + timeout_seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise ConditionNotMet(f"waited {timeout_seconds:g} s for {what}, in vain{_quoted_tail(log_file)}")
        time.sleep(POLL_SECONDS)


def tail(log_file: Path, *, lines: int = 20, since_byte: int = 0) -> str:
    """The last lines of a log, of those written after its first ``since_byte`` bytes; empty without a log."""
    if not log_file.exists():
        return ""
    with log_file.open("rb") as log:
        log.seek(max(since_byte, log_file.stat().st_size - 65536))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def _quoted_tail(log_file: Path | None, since_byte: int = 0) -> str:
    if log_file is None:
        return ""
    text = tail(log_file, since_byte=since_byte) or "(nothing)"
    return f"\nThe end of {log_file}:\n{text}"


class ManagedProcess:
    """A child process, leader of its own session and process group, whose output goes to a log file.

    The child is reaped only when its whole group has ended. Until then the number of the group stays taken, so
    that no signal can reach a stranger.
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log_file: Path, log_starts_at_byte: int) -> None:
        self.name = name
        self.log_file = log_file
        self.identity = ProcessIdentity.of(popen.pid)
        self._popen = popen
        self._log_starts_at_byte = log_starts_at_byte

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        log_file: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> "ManagedProcess":
        """Starts ``command``, appending what it writes to ``log_file`` (made with its folder, mode 0600).

        ``env`` replaces the whole environment; without it ours is passed on. ``user`` is a system user to run
        as, for which we must be root. ``orphan_signal`` is what ends the process should we die first; its group
        gets SIGKILL a few seconds later. Raises ``FileNotFoundError`` when there is no such program.
        """
        _require_program(command[0])
        log_file.parent.mkdir(parents=True, exist_ok=True)
        watchdog = our_watchdog()
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            log_starts_at_byte = os.fstat(log).st_size
            popen = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, name, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=env,
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                start_new_session=True,
            )
        finally:
            os.close(log)
        watchdog.watch(popen.pid, orphan_signal)
        started = cls(name, popen, log_file, log_starts_at_byte)
        _open_gate(popen)
        return started

    @property
    def pid(self) -> int:
        """The number of the process, and of its group."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process itself runs; what it started may outlive it until ``stop`` or ``kill``."""
        return self._popen.returncode is None and is_running(self.pid)

    @property
    def exit_code(self) -> int | None:
        """What it ended with, as ``subprocess`` has it (-9: by SIGKILL); None before ``stop``, ``kill``, ``wait``."""
        return self._popen.returncode

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that this process wrote."""
        return tail(self.log_file, lines=lines, since_byte=self._log_starts_at_byte)

    def wait_ready(self, condition: Callable[[], bool], timeout_seconds: float, what: str | None = None) -> None:
        """Returns once ``condition()`` is true.

        When the process ends first (``ProcessEnded``), when time runs out (``ConditionNotMet``) or when the
        condition raises, what is left of the process is killed, and the error shows the end of its log.
        """
        awaited = what or f"{self.name} to be ready"

        def ready() -> bool:
            if not self.alive:
                raise self._ended_while(awaited)
            return condition()

        try:
            await_condition(ready, timeout_seconds, awaited, log_file=self.log_file)
        except BaseException:
            self.kill()
            raise

    def ended_within(self, seconds: float) -> bool:
        """Whether the process itself ended within this time. It is not reaped: ``stop`` still follows."""
        try:
            await_condition(lambda: not self.alive, seconds, f"{self.name} to end")
        except ConditionNotMet:
            return False
        return True

    def wait(self, timeout_seconds: float) -> int:
        """Waits until it ends by itself; then as ``stop``. Raises ``ConditionNotMet`` and leaves it running."""
        awaited = f"{self.name} (process {self.pid}) to end"
        await_condition(lambda: not self.alive, timeout_seconds, awaited, log_file=self.log_file)
        return self.kill()

    def send_signal(self, number: signal.Signals) -> None:
        """Signals the process itself, not what it started. Nothing happens when it has ended."""
        if self.alive:
            send_signal(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, grace_seconds: float = 10) -> int:
        """Asks it to end, waits, then kills whatever is left of its group. Returns the exit code.

        The signal goes to the process alone, because servers end their own children in their own way. May be
        repeated.
        """
        self.send_signal(number)
        self.ended_within(grace_seconds)
        return self.kill()

    def kill(self) -> int:
        """SIGKILLs the whole group, reaps, and returns the exit code. May be repeated."""
        if self._popen.returncode is None:
            kill_group(self.pid)
            our_watchdog().forget(self.pid)
            self._popen.wait()
        return self._popen.returncode

    def leave_running(self) -> None:
        """It stays when we end. Note its ``identity`` somewhere: nobody else will end it."""
        our_watchdog().forget(self.pid)
        _LEFT_RUNNING.append(self._popen)

    def _ended_while(self, awaited: str) -> ProcessEnded:
        code = self.kill()
        log = _quoted_tail(self.log_file, self._log_starts_at_byte)
        return ProcessEnded(f"{self.name} ended (exit code {code}) while we waited for {awaited}{log}")


def _open_gate(popen: subprocess.Popen[bytes]) -> None:
    assert popen.stdin is not None
    with popen.stdin as gate:
        gate.write(b"go\n")


def _require_program(program: str | Path) -> None:
    # The gate would only leave "not found" in the log.
    if shutil.which(program) is None:
        raise FileNotFoundError(f"there is no program {str(program)!r} that we could start; is it installed?")

"""Starting the double as a process of its own, so that its state outlives the workers that call it."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS_MAX = 15.0
STOP_SECONDS_MAX = 5.0
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class RunningDouble:
    """A double that serves at `base_url` until it is stopped."""

    base_url: str
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """End it, and wait until it is gone. Its state goes with it."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def command(ready_file: Path, port: int = 0) -> list[str]:
    """The command line that serves the double and writes its base URL to `ready_file`."""
    return [
        sys.executable,
        "-m",
        "sandbox.stripe_double",
        "--port",
        str(port),
        "--ready-file",
        str(ready_file),
    ]


def start(ready_file: Path, port: int = 0, cwd: Path | None = None) -> RunningDouble:
    """Start the double and wait until it serves; raises RuntimeError if it ends, or isn't ready in 15 s."""
    ready_file.unlink(missing_ok=True)
    process = subprocess.Popen(command(ready_file, port), stdout=subprocess.DEVNULL, cwd=cwd)
    give_up_at = time.monotonic() + READY_SECONDS_MAX
    while not ready_file.exists():
        if process.poll() is not None or time.monotonic() > give_up_at:
            process.kill()
            process.wait()
            raise RuntimeError(f"The Stripe double did not start (exit status {process.returncode}).")
        time.sleep(POLL_SECONDS)
    return RunningDouble(ready_file.read_text(encoding="utf-8"), process)

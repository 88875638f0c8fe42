"""What a command prints while it works: its own log lines on stderr, and a line where there are none for a while."""

import logging
import sys
import threading
import time
from pathlib import Path

QUIET_SECONDS = 4.0
PREFECT_CONSOLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"  # read when Prefect is imported; its server keeps all lines
_ROOM = Path(__file__).resolve().parents[1]


class Progress(logging.Handler):
    """Prints each step with the seconds since the start, and repeats a step that takes more than QUIET_SECONDS."""

    def __init__(self) -> None:
        """Start the clock."""
        super().__init__()
        self._start = self._last = time.monotonic()
        self._step = ""
        self._ended = threading.Event()

    def start(self, step: str) -> None:
        """Print the first step, and watch for silence from now on."""
        self.print_step(step)
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Print no more."""
        self._ended.set()

    def print_step(self, step: str) -> None:
        """Print what is done or begins now."""
        self._step = step
        self._print(step)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log line of this project's flows; Prefect's own lines on the same logger are left out."""
        if Path(record.pathname).is_relative_to(_ROOM):
            self.print_step(record.getMessage())

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            if time.monotonic() - self._last > QUIET_SECONDS:
                self._print(f"still running; last step: {self._step}")

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._last - self._start:5.0f} s  {text}", file=sys.stderr, flush=True)

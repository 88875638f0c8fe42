"""Progress output of a command on stderr: its own log lines, and a repeated line during long silences."""

import logging
import sys
import threading
import time
from pathlib import Path

QUIET_SECONDS = 4.0
PREFECT_CONSOLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"  # Prefect reads it at import; its server keeps all lines
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
        """Print the first step, and start watching for silence."""
        self.print_step(step)
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Stop watching for silence."""
        self._ended.set()

    def print_step(self, step: str) -> None:
        """Print a step that is done or starts now."""
        self._step = step
        self._print(step)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log line of this project's flows; skip Prefect's own lines on the same logger."""
        if Path(record.pathname).is_relative_to(_ROOM):
            self.print_step(record.getMessage())

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            if time.monotonic() - self._last > QUIET_SECONDS:
                self._print(f"still running; last step: {self._step}")

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._last - self._start:5.0f} s  {text}", file=sys.stderr, flush=True)

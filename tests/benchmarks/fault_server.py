"""An API that is to be broken: started, ended, asked what an operator asks."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from settings import ROOT
from tests.folders import isolated_environment
from tests.waiting import wait_for
from tests.web import WEB

DEADLINE = 60.0


@dataclass
class Server:
    """An API in a folder of its own, which can be started again on the same port."""

    folder: Path
    port: int
    bundles: Path  # that each server's are a copy of
    random: random.Random
    prefix: tuple[str, ...] = ()  # of its command
    given: dict[str, str] = field(default_factory=dict)  # its environment beside what each server has
    process: "subprocess.Popen[bytes] | None" = None
    broken: float = 0.0  # when the fault began
    printed: int = 0  # characters by then

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def models(self) -> Path:
        return self.folder / "deployment" / "models"

    @property
    def log(self) -> Path:
        return self.folder / "log" / "predictions.db"

    @property
    def kept_logs(self) -> list[Path]:
        """What was in each log that was deleted."""
        return list(self.folder.glob("kept *.db"))

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def start(self) -> None:
        """Serve with two processes. What they print is kept in a file."""
        given = {"WINE_PORT": str(self.port), "WINE_WORKERS": "2", "WINE_SERVING_MODELS": str(self.models)}
        given |= {"WINE_LOG_URL": f"sqlite:///{self.log}"} | self.given
        environment = isolated_environment(self.folder) | given
        command = [*self.prefix, sys.executable, "-m", "deployment.serve"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        wait_for(f"{self.address}/ready", self.process, seconds=180)

    def note_fault(self) -> None:
        """A fault begins."""
        self.broken, self.printed = time.monotonic(), len(self.output.read_text(errors="replace"))

    def send(self, number: int) -> None:
        """Send the server a signal and wait for its end; kill -9 goes to all of its processes."""
        assert self.process
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(timeout=DEADLINE)

    def list_workers(self) -> list[int]:
        """The processes that answer."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def read_refusal(self) -> str:
        """Why a model is not served, as /ready says."""
        return str(WEB.get(f"{self.address}/ready").json()["refused"])

    def read_words(self, subject: str) -> str:
        """What the server printed on a subject since the fault, each sentence once, without numbers of rows."""
        news = self.output.read_text(errors="replace")[self.printed :]
        lines = [line for line in news.splitlines() if subject in line]
        words = [re.sub(r"[1-9][\d,]* rows", "N rows", line).replace(str(self.folder), "FOLDER") for line in lines]
        return "; ".join(dict.fromkeys(words)) or f"nothing on the {subject}"

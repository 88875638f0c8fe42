"""Other programs that tests run: in the project's folder, their output kept as text."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from settings import ROOT
from tests.waiting import wait_for

PATH_HERE = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the programs of this environment first


def run_program(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code, and keep what it printed; `options` are subprocess.run's."""
    defaults: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120, "check": False}
    return subprocess.run(command, **(defaults | options))


def run_python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_program(sys.executable, *arguments, **{"timeout": 300} | options)


def run_module(
    module: str, environment: Mapping[str, str], *arguments: str, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command as users do, in a process of its own."""
    return run_python("-m", module, *arguments, env=environment, timeout=seconds)


def run_shell(script: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a script in a shell that stops at the first error; return what it prints."""
    done = run_program("bash", "-euc", script, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_python(*arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    """Start Python with its output in a pipe; `options` are those of subprocess.Popen."""
    defaults: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *arguments], **(defaults | options))


def read_line(process: "subprocess.Popen[str]") -> str:
    """Read the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@contextmanager
def serve(address: str, *command: str | Path, ending: int = signal.SIGTERM, **options: Any) -> Iterator[Any]:
    """A server from its first answer at an address to the end of the block, where all that it started ends too."""
    defaults: dict[str, Any] = {"cwd": ROOT, "start_new_session": True, "text": True}
    server = subprocess.Popen(command, **(defaults | options))
    try:
        wait_for(address, server, seconds=240)
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, ending)
            server.wait(timeout=60)

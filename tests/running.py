"""The project's commands and servers, run as a test needs them."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from typing import Any
from unittest.mock import patch

from commands import run_command
from settings import ROOT
from tests.waiting import free_port, wait_for


class Receiver(HTTPServer):
    """A server in the place of a chat's webhook, which keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.received: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/a-secret-word"


class Listener(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def run_here(module: str, environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in this process, which has imported what it needs; what it leaves is what a process would."""
    package = import_module(module)
    command = import_module(f"{module}.__main__") if hasattr(package, "__path__") else package
    output, errors = io.StringIO(), io.StringIO()
    argv, code = [module, *arguments], 0
    environs, words = patch.dict(os.environ, environment), patch.object(sys, "argv", argv)
    with environs, words, redirect_stdout(output), redirect_stderr(errors):
        try:
            run_command(command.main)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(argv, code, output.getvalue(), errors.getvalue())


@contextmanager
def run_api(
    environment: dict[str, str], python: str = sys.executable, **settings: object
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve as the command does, on a free port, for as long as the block lasts; yields address and process."""
    port = free_port()
    given = {f"WINE_{name.upper()}": str(value) for name, value in settings.items()} | {"WINE_PORT": str(port)}
    server = subprocess.Popen([python, "-m", "deployment.serve"], cwd=ROOT, env=environment | given)
    try:
        wait_for(f"http://127.0.0.1:{port}/ready", server)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.terminate()
        assert server.wait(timeout=20) in (0, -15, -9)  # -9: the test killed it


def run_at_once(
    script: str, arguments: Sequence[str], environment: dict[str, str]
) -> list[subprocess.CompletedProcess[str]]:
    """Run a script once an argument, all from the moment on that each has printed "ready" and reads a line."""
    pipe, processes = subprocess.PIPE, []
    for argument in arguments:
        command = [sys.executable, "-c", script, argument]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        )
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=300) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]

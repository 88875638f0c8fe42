"""Waiting for what another process, thread or page does: one helper, always with a deadline."""

import socket
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from deployment.api.server_process import find_free_ports
from tests.web import WEB

T = TypeVar("T")


def wait_until(ask: Callable[[], T], what: str, seconds: float = 30, every: float = 0.05) -> T:
    """Call `ask` until what it returns is true, and return that.

    An httpx.TransportError or OSError counts as "not yet": a server may not listen yet. AssertionError says what was
    waited for in vain.
    """
    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(every),
        retry=retry_if_result(lambda answer: not answer) | retry_if_exception_type((httpx.TransportError, OSError)),
    )
    try:
        return retrying(ask)
    except RetryError as error:
        raise AssertionError(f"waited {seconds:g} s, and it did not happen: {what}") from error


def wait_for(address: str, server: subprocess.Popen[Any], seconds: float = 60) -> None:
    """Wait until a server process answers without an error. An end of the process ends the waiting."""

    def answers() -> bool:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        WEB.get(address).raise_for_status()
        return True

    wait_until(answers, f"an answer from {address}", seconds)


def wait_for_port(port: int, seconds: float = 30) -> None:
    """Wait until something listens on a port of this machine."""

    def listens() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    wait_until(listens, f"somebody listens on port {port}", seconds)


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    return find_free_ports(1)[0]

"""How every command of this project ends: with an exit code that means one thing, and no bare traceback.

0 done · 1 a finding (a leak under --strict, a refused promotion) · 2 bad input or settings ·
3 a service or file it needs is not there.
"""

import os
import re
import select
import socket
import sys
from collections.abc import Callable

DONE, FINDING, BAD_INPUT, NOT_THERE = 0, 1, 2, 3


class RefusedError(Exception):
    """A check has refused what the user asked for. The text says why."""

    exit_code = FINDING


class BadInputError(Exception):
    """Data or settings that a user can correct. The text says what was wrong, where, and what to do."""

    exit_code = BAD_INPUT


class NotThereError(Exception):
    """A service, port or file that a command needs is not there. The text says what to do."""

    exit_code = NOT_THERE


def require_free_port(host: str, port: int, other: str) -> None:
    """Raise NotThereError if something listens on the port already; `other` says how to choose another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            problem = f"{host}:{port} cannot be used ({error.strerror})"
            raise NotThereError(f"{problem}: end what runs there, or {other}") from error


def hide_passwords(text: str) -> str:
    """The text with *** for the password of every address in it."""
    return re.sub(r"(://[^:/@\s]*:)(?!\d+[/?#])[^\s'\"]*@", r"\1***@", text)


def run_command(main: Callable[[], int]) -> None:
    """Run a command's main and leave Python with its exit code; a user's mistake is reported in one line."""
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except (RefusedError, BadInputError, NotThereError) as error:
        word = "refused" if isinstance(error, RefusedError) else "error"
        print(f"{word}: {hide_passwords(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell expects of a command stopped by ctrl-c
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # a closed end is reported without being asked for
        if not poll.poll(0):
            raise  # it was another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
        sys.exit(141)  # as a command that a shell ends because `head` has read enough

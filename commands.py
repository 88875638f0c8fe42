"""How every command of this project ends: one exit code for each kind of result, and no bare traceback.

0 done · 1 a finding (a leak under --strict, a refused promotion) · 2 bad input or settings ·
3 a service, file or folder that it needs is missing or fails · 4 a bug in this project, with its traceback.
"""

import errno
import os
import re
import select
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = str(Path(__file__).resolve().parent)
# Python imports first from the current folder, or from that of the script. Another settings.py there, or the file
# monitoring.py beside orchestration/flows.py, would shadow our modules.
if sys.path[0] not in ("", HERE):
    sys.path.append(sys.path.pop(0))

DONE, FINDING, BAD_INPUT, NOT_THERE, UNFORESEEN = 0, 1, 2, 3, 4
# Errors of these packages come from a store, a server or another program. By name: no command imports all of them.
OUTSIDE = ("botocore", "httpx", "mlflow", "prefect", "psycopg", "sqlalchemy", "sqlite3", "subprocess")
PLACES = "python -m settings lists places and addresses"
SPACE, ALLOW = "free some space on its disk", f"allow writing there, or name another place; {PLACES}"
ADVICE = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EACCES: ALLOW,
    errno.EPERM: ALLOW,
    errno.EROFS: ALLOW,
    errno.ENOENT: f"put it back, or name another place; {PLACES}",
}
DATABASE_ADVICE = {
    "database is locked": "end what else uses it, or try again later",
    "readonly database": f"allow writing to its file and folder; {PLACES}",
    "disk is full": SPACE,
}


class UserError(Exception):
    """An error whose message is all that a user needs: commands and notebooks show only this sentence."""

    def _render_traceback_(self) -> list[str]:
        """The text that IPython shows instead of a traceback."""
        return [f"error: {hide_passwords(str(self))}"]


class RefusedError(UserError):
    """A check refused the user's request. The message says why."""

    exit_code = FINDING


class BadInputError(UserError):
    """Data or settings that a user can correct. The message says what is wrong, where, and what to do."""

    exit_code = BAD_INPUT


class NotThereError(UserError):
    """A service, port or file that a command needs is missing. The message says what to do."""

    exit_code = NOT_THERE


def require(found: object, what: str) -> None:
    """Raise NotThereError ("this needs …") if a notebook does not find what the previous one writes."""
    if not found:
        raise NotThereError(f"this needs {what}")


def unreadable(path: Path, error: OSError, kind: str = "file") -> NotThereError:
    """The NotThereError for a file, or another kind of place, that the system cannot read."""
    problem = f"{path} cannot be read ({error.strerror})"
    return NotThereError(f"{problem}: see that it is a {kind}, that you may read it, and that its disk answers")


def require_free_port(host: str, port: int, other: str) -> None:
    """Raise NotThereError if the port is already in use; `other` says how to choose another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            problem = f"{host}:{port} cannot be used ({error.strerror})"
            raise NotThereError(f"{problem}: end what runs there, or {other}") from error


def hide_passwords(text: str) -> str:
    """Replace the password in every address of a text by ***."""
    return re.sub(r"(//[^:/@\s]*:)(?!\d+[/?#])[^\s'\"]*@", r"\1***@", text)


def run_command(main: Callable[[], int]) -> None:
    """Run a command's main and exit with its code; errors that a user can fix are reported in one line."""
    try:
        code = main()
        sys.stdout.flush()
    except (RefusedError, BadInputError, NotThereError) as error:
        word = "refused" if isinstance(error, RefusedError) else "error"
        print(f"{word}: {hide_passwords(str(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130  # the usual exit code after Ctrl-C: 128 + SIGINT
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again at exit
            sys.exit(141)  # 128 + SIGPIPE: the reader, such as `head`, has closed the pipe
        problem = explain_outside(error)
        if problem:
            print(f"error: {hide_passwords(problem)}", file=sys.stderr)
        else:
            traceback.print_exc()
        code = NOT_THERE if problem else UNFORESEEN
    sys.exit(code)


def explain_outside(error: BaseException) -> str:
    """Describe a failure outside this project, such as of a disk or a server, with advice; empty for other errors."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error}: make setup installs all that this project uses; install anything else into this environment"
    if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in OUTSIDE:
        return explain_outside(error.__cause__) if error.__cause__ else ""
    error = _find_database_error(error) or error
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    for problem, advice in DATABASE_ADVICE.items():
        if problem in text:
            return f"{text}: {advice}"
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    number = error.errno if isinstance(error, OSError) else None
    return f"{text}: {ADVICE.get(number or 0, f'see that it is there and answers, then try again; {PLACES}')}"


def _find_database_error(error: BaseException | None) -> BaseException | None:
    """The driver's own error, which SQLAlchemy's and then MLflow's error contain; None for others."""
    while error and not hasattr(error, "orig"):
        error = error.__cause__
    return getattr(error, "orig", None)


def _is_output_closed() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # poll always reports a closed pipe
    return bool(poll.poll(0))

"""What a message must say: the facts that a user needs from it, in any order, and never the words around them."""

import re
import subprocess

ERROR, REFUSED = "error: ", "refused: "  # how the last line of a command that did not do it begins


def naming(*facts: str) -> str:
    """A pattern for a text that has every one of these facts in it, in any order, in capitals or not.

    A fact is found as it stands and whole: "version 1" is not in "version 12", nor "red" in "red_wine".
    """
    return r"(?is)\A" + "".join(f"(?=.*{_whole(fact)})" for fact in facts)


def list_missing(text: str, *facts: str) -> list[str]:
    """The facts that a text does not have in it."""
    return [fact for fact in facts if not re.search(naming(fact), text)]


def find_lines(text: str, *facts: str) -> list[str]:
    """The lines of a text that have every one of these facts in them."""
    return [line for line in text.splitlines() if not list_missing(line, *facts)]


def assert_failed(done: subprocess.CompletedProcess[str], code: int, *facts: str) -> None:
    """Assert that a command ended with this code, and with a last line on stderr that has these facts in it."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").rpartition("\n")[2]
    assert last.startswith(REFUSED if code == 1 else ERROR), done.stderr
    assert list_missing(last, *facts) == [], last


def assert_failed_in_one_line(done: subprocess.CompletedProcess[str], code: int, *facts: str) -> None:
    """Assert the same, and that this line is all that stderr got."""
    assert_failed(done, code, *facts)
    assert done.stderr.count("\n") == 1, done.stderr


def _whole(fact: str) -> str:
    start, end = (r"\b" if re.match(r"\w", letter) else "" for letter in (fact[0], fact[-1]))
    return start + re.escape(fact) + end

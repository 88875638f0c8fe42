"""The users of the load test, for locust.

    make load      (deployment/load.py, which runs this file and judges the outcome)
    make load-ui

Of six questions one is GET /, two are wines and three are bodies that are no wine.
"""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar, cast

import gevent  # type: ignore[import-untyped]
import locust.stats
from locust import FastHttpUser, between, events, task
from locust.env import Environment

from commands import BadInputError
from deployment.load_test.questions import (
    Question,
    Wine,
    ask_for_refusal,
    ask_for_wine,
    find_fault,
    find_fault_in_greeting,
    read_rows,
)
from settings import load_settings

FAULTS = "unexpected.json"  # beside --json-file
SHOWN = 300  # characters of a body or an answer


class WineUser(FastHttpUser):
    """A user who asks, reads the answer for a moment and asks again, about ten times a second.

    FastHttpUser, as HttpUser spends about three times the processor time on a request: on two cores that
    also ran the API, four users without a pause got 2,476 answers a second to GET /, with HttpUser 849.
    On a machine that does both the other would measure itself.
    """

    wait_time = between(0, 0.2)  # a pause of random length: users of one rhythm would all ask at once
    network_timeout = connection_timeout = 10
    rows: ClassVar[list[Wine]] = []
    random: ClassVar[Random] = Random()
    key: ClassVar[str] = ""
    examples: ClassVar[dict[tuple[str, str], dict[str, str]]] = {}

    @task(1)
    def greet(self) -> None:
        """Ask where to go."""
        self.ask("GET", "/", "/", "", lambda status, _, text: find_fault_in_greeting(status, text))

    @task(2)
    def predict(self) -> None:
        """Ask for the grade of a wine."""
        self.post(ask_for_wine(self.rows, self.random))

    @task(3)
    def predict_no_wine(self) -> None:
        """Ask for the grade of what is no wine."""
        self.post(ask_for_refusal(self.rows, self.random))

    def post(self, question: Question) -> None:
        """Ask POST /predict; each kind of question is a line of its own in the statistics."""
        name = f"/predict, {question.kind}"
        self.ask("POST", "/predict", name, question.body, lambda *answer: find_fault(question, *answer))

    def ask(self, method: str, path: str, name: str, body: str, judge: Callable[[int, str, str], str | None]) -> None:
        """Ask once and keep the first example of each fault."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        with self.client.request(
            method, path, name=name, data=body or None, headers=headers, catch_response=True, allow_redirects=False
        ) as response:
            # Not response.text: where a header names no encoding it guesses one, for milliseconds.
            text = (response.content or b"").decode(errors="replace")
            content_type = (response.headers or {}).get("content-type", "")
            fault = judge(response.status_code, content_type, text) if response.status_code else "no answer"
            if fault is None:
                response.success()
                return
            response.failure(fault)
            answered = text if response.status_code else repr(response.error)
            example = {"asked": body[:SHOWN], "answered": answered[:SHOWN]}
            self.examples.setdefault((name, fault), example)


def measure_finely(response_time: float) -> int:
    """Keep tenths of a millisecond up to a second: locust's two digits take 104 ms for 100."""
    return cast("int", round(response_time, 1 if response_time < 1000 else -1))


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare_users(environment: Environment, **_: Any) -> None:
    """Read the settings and the wines once, before the clock starts."""
    locust.stats.bucket_response_time = measure_finely
    try:
        settings = load_settings()
        WineUser.rows = read_rows(settings.data, settings.downloads, settings.seed)
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    WineUser.random = Random(settings.seed)
    WineUser.key = settings.api_key.get_secret_value()
    if environment.parsed_options is not None and environment.parsed_options.headless:
        # Python would raise KeyboardInterrupt in whichever user is just asking, and print a traceback.
        gevent.signal_handler(signal.SIGINT, stop_users, environment)
    gevent.get_hub().loop.update_now()  # else the clock of --run-time started before the wines were read


def stop_users(environment: Environment) -> None:
    """End the test early; locust then writes its reports, as at the end."""
    assert environment.runner is not None
    environment.runner.quit()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write_faults(environment: Environment, **_: Any) -> None:
    """Write what was unexpected, how often and an example of each, beside the statistics."""
    if environment.parsed_options is None or not environment.parsed_options.json_file:
        return
    faults = [
        {"name": error.name, "fault": str(error.error), "times": error.occurrences}
        | WineUser.examples.get((error.name, str(error.error)), {"asked": "", "answered": ""})
        for error in environment.stats.errors.values()
    ]
    Path(environment.parsed_options.json_file).with_name(FAULTS).write_text(json.dumps(faults, indent=2))

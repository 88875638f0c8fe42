"""The users of the load test, for locust, and the gate at its end.

    make load      (deployment/load.py, which runs this file)
    make load-ui

Of six requests one is GET /, two are wines and three are bodies that are no wine.
"""

import signal
import sys
from random import Random
from typing import Any, ClassVar, cast

import gevent  # type: ignore[import-untyped]
import locust.stats
from locust import FastHttpUser, between, events, task
from locust.env import Environment

from commands import BadInputError
from deployment.api.origin import LOAD_TEST, ORIGIN
from deployment.load_test.gate import judge_run
from deployment.load_test.questions import (
    GREETING,
    Question,
    Wine,
    ask_for_refusal,
    ask_for_wine,
    find_fault,
    read_rows,
)
from settings import load_settings

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
        """Ask GET /."""
        self.ask(GREETING)

    @task(2)
    def predict(self) -> None:
        """Ask for the grade of a wine."""
        self.ask(ask_for_wine(self.rows, self.random))

    @task(3)
    def predict_no_wine(self) -> None:
        """Ask for the grade of what is no wine."""
        self.ask(ask_for_refusal(self.rows, self.random))

    def ask(self, question: Question) -> None:
        """Ask once; each kind of question is a line of its own, and keeps the first example of each fault."""
        method, path, name = ("POST", "/predict", f"/predict, {question.kind}")
        if question is GREETING:
            method, path, name = ("GET", "/", "/")
        headers = {"Accept": "application/json", "Content-Type": "application/json", ORIGIN: LOAD_TEST}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = question.body or None
        with self.client.request(
            method, path, name=name, data=body, headers=headers, catch_response=True, allow_redirects=False
        ) as response:
            # Not response.text: where a header names no encoding it guesses one, for milliseconds.
            text = (response.content or b"").decode(errors="replace")
            content_type = (response.headers or {}).get("content-type", "")
            fault = find_fault(question, response.status_code, content_type, text)
            if fault is None:
                response.success()
                return
            response.failure(fault)
            answered = text if response.status_code else repr(response.error)
            example = {"asked": question.body[:SHOWN], "answered": answered[:SHOWN]}
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
    WineUser.key = settings.find_key("predict_key")
    if environment.parsed_options is not None and environment.parsed_options.headless:
        # Python would raise KeyboardInterrupt in whichever user is just asking, and print a traceback.
        assert environment.runner is not None
        gevent.signal_handler(signal.SIGINT, environment.runner.quit)
    gevent.get_hub().loop.update_now()  # else the clock of --run-time started before the wines were read


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge(environment: Environment, **_: Any) -> None:
    """Decide whether a test without a page has passed."""
    if environment.parsed_options is not None and environment.parsed_options.headless:
        judge_run(environment, WineUser.examples, load_settings().load_p95)

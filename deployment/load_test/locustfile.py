"""The users of the load test, for locust, and the gate at its end.

    make load      (deployment/load.py, which runs this file)
    make load-ui

Of six requests, one is GET /, two send valid wines and three send invalid bodies.
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

SHOWN = 300  # characters of a request or response body


class WineUser(FastHttpUser):
    """A user who sends about ten requests per second, with a short pause after each response.

    FastHttpUser, because HttpUser needs about three times the CPU time per request: on two cores that also ran the API,
    four users without a pause got 2,476 responses per second from GET /, with HttpUser 849. With HttpUser on the API's
    machine, the test would measure itself.
    """

    wait_time = between(0, 0.2)  # random, so that users do not send requests all at once
    network_timeout = connection_timeout = 10
    rows: ClassVar[list[Wine]] = []
    random: ClassVar[Random] = Random()
    key: ClassVar[str] = ""
    examples: ClassVar[dict[tuple[str, str], dict[str, str]]] = {}

    @task(1)
    def greet(self) -> None:
        """Request GET /."""
        self.ask(GREETING)

    @task(2)
    def predict(self) -> None:
        """Request the grade of a wine."""
        self.ask(ask_for_wine(self.rows, self.random))

    @task(3)
    def predict_no_wine(self) -> None:
        """Request the grade of an invalid body."""
        self.ask(ask_for_refusal(self.rows, self.random))

    def ask(self, question: Question) -> None:
        """Send one request; each kind has its own line of results and the first example of each fault."""
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
            # Not response.text: if no header names an encoding, it spends milliseconds on guessing one.
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
    """Round to tenths of a millisecond up to one second: locust's two digits turn 104 ms into 100."""
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
        # Python would raise KeyboardInterrupt in any user that is sending a request, and print a traceback.
        assert environment.runner is not None
        gevent.signal_handler(signal.SIGINT, environment.runner.quit)
    gevent.get_hub().loop.update_now()  # else --run-time counts from before the wines were read


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge(environment: Environment, **_: Any) -> None:
    """Decide whether a headless test has passed."""
    if environment.parsed_options is not None and environment.parsed_options.headless:
        judge_run(environment, WineUser.examples, load_settings().load_p95)

"""Refusals: one format (RFC 9457) for every error in a request, with field and reason."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastapi import Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployment.api.schemas import Problem, Refusal
from deployment.prediction_log.log import LoggedRefusal

PROBLEM_JSON, REQUEST_ID = "application/problem+json", "X-Request-ID"
SCOPE_ID = "request_id"  # where the guard leaves the id of a request
MOST_ERRORS = 20  # listed per body; the others are counted
MOST_LETTERS = 100  # of a field's name, which may come from the request

REASONS = {  # by pydantic's error type; replaces its messages, which mention Python
    "missing": "is missing",
    "extra_forbidden": "unknown field",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be a text",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a whole number",
    "model_type": "send a JSON object",
    "too_short": "is empty",
    "too_long": "has more than {max_length} entries",
    "json_invalid": "this is not JSON ({error})",
}


class ProblemError(Exception):
    """A request that is refused."""

    def __init__(
        self,
        status: int,
        title: str,
        errors: Sequence[Refusal] = (),
        headers: Mapping[str, str] | None = None,
        more: int = 0,
    ) -> None:
        """Create a refusal: HTTP status, one sentence, the errors by field, response headers, further errors."""
        super().__init__(title)
        self.status = status
        self.title = title
        self.errors = errors
        self.wines = 1  # in the body
        self.headers = dict(headers or {})
        self.more = more

    def response(self, request_id: str) -> Response:
        """The HTTP response; the guard adds the header with the request id."""
        sentences = [f"{error.field}: {error.reason}" for error in self.errors]
        if self.more:
            sentences.append(f"and {self.more:,} more")
        detail = "; ".join(sentences) or self.title
        problem = Problem(
            title=self.title, status=self.status, detail=detail, instance=request_id, errors=list(self.errors)
        )
        return Response(problem.model_dump_json(), self.status, self.headers, PROBLEM_JSON)

    def log_entry(self, route: str, request_id: str) -> LoggedRefusal:
        """The entry for the prediction log."""
        errors = tuple((error.field, error.reason) for error in self.errors) or (("", self.title),)
        return LoggedRefusal(time.time(), request_id, route, self.status, errors, self.wines)


FAILURE = ProblemError(500, "Internal server error; see the server log")


@dataclass
class Refusals:
    """The errors in a body: the first ones, and how many more there are."""

    listed: list[Refusal] = field(default_factory=list)
    more: int = 0

    def add(self, place: str, reason: str) -> None:
        """Add one reason."""
        if len(self.listed) < MOST_ERRORS:
            self.listed.append(Refusal(field=place[:MOST_LETTERS] or "body", reason=reason))
        else:
            self.more += 1

    def add_errors(self, error: ValidationError, number: str = "", where: str = "") -> None:
        """Add each wrong field and its reason, without its value: JSON cannot represent NaN.

        A field is density, or 17.density for wine 17 of a batch.
        """
        if len(self.listed) == MOST_ERRORS:
            self.more += error.error_count()
            return
        for problem in error.errors(include_url=False, include_input=False):
            place = ".".join([*([number] if number else []), *map(str, problem["loc"])])
            reason = REASONS.get(problem["type"])
            text = reason.format(**problem.get("ctx", {})) if reason else problem["msg"]
            self.add(place, text + where)

    def require_none(self, title: str) -> None:
        """Raise ProblemError with the reasons, if there are any."""
        if self.listed:
            raise ProblemError(422, title, self.listed, more=self.more)


def refuse_body(error: ValidationError, title: str) -> ProblemError:
    """Refuse a body, with each wrong field and its reason."""
    refusals = Refusals()
    refusals.add_errors(error)
    return ProblemError(422, title, refusals.listed, more=refusals.more)


def refuse_field(name: str, reason: str, title: str) -> ProblemError:
    """Refuse a body because of one field."""
    return ProblemError(422, title, [Refusal(field=name, reason=reason)])


async def answer_error(request: Request, error: Exception) -> Response:
    """FastAPI's handler for all errors; Guard logs the traceback of a bug, and the client gets none."""
    if isinstance(error, HTTPException):  # an unknown path, or a method that the path does not allow
        error = ProblemError(error.status_code, str(error.detail), headers=error.headers)
    return (error if isinstance(error, ProblemError) else FAILURE).response(request.scope[SCOPE_ID])

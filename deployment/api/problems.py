"""Refusals: one shape (RFC 9457) for whatever is wrong with a request, with field and reason."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployment.api.schemas import Problem, Refusal

PROBLEM_JSON = "application/problem+json"
MOST_ERRORS = 20  # of one body; the rest are counted
MOST_LETTERS = 100  # of a field's name, which may come from the request

REASONS = {  # by pydantic's name for them, in place of its words, which speak of Python
    "missing": "is missing",
    "extra_forbidden": "unknown field",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be a text",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a whole number",
    "model_type": "send a JSON object",
    "list_type": "send a JSON array of wines",
    "too_short": "is empty",
    "too_long": "has more than {max_length} entries",
    "json_invalid": "this is not JSON ({error})",
}


class ProblemError(Exception):
    """A request that is refused."""

    def __init__(
        self, status: int, title: str, errors: list[Refusal] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Take the HTTP status, one sentence, the fields that were wrong, and headers such as Retry-After."""
        super().__init__(title)
        self.status = status
        self.title = title
        self.errors = errors or []
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The refusal as it is sent."""
        shown = self.errors[:MOST_ERRORS]
        sentences = [f"{error.field}: {error.reason}" for error in shown]
        if len(self.errors) > len(shown):
            sentences.append(f"and {len(self.errors) - len(shown):,} more")
        problem = Problem(title=self.title, status=self.status, detail="; ".join(sentences) or self.title, errors=shown)
        return Response(problem.model_dump_json(), self.status, self.headers, PROBLEM_JSON)


FAILURE = ProblemError(500, "Internal server error; see the server log")


def refuse_body(error: ValidationError, title: str = "The body is not a wine") -> ProblemError:
    """Refuse a body with each field that was wrong."""
    return ProblemError(422, title, list_refusals(error))


def list_refusals(error: ValidationError, *row: int) -> list[Refusal]:
    """Name each wrong field, of a row of a table if one is given, and why.

    The value itself stays out: NaN has no form in JSON.
    """
    problems = error.errors(include_url=False, include_input=False)
    return [Refusal(field=name_field((*row, *p["loc"])), reason=explain(dict(p))) for p in problems]


def explain(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems in plain words."""
    context = problem.get("ctx", {})
    return REASONS[problem["type"]].format(**context) if problem["type"] in REASONS else str(problem["msg"])


def name_field(place: tuple[int | str, ...]) -> str:
    """Name the place of a problem: density, or 17.density for the 17th wine of a batch."""
    return ".".join(str(part + 1 if isinstance(part, int) else part) for part in place)[:MOST_LETTERS] or "body"


async def answer_problem(_: Request, error: Exception) -> Response:
    """FastAPI's handler of ProblemError."""
    assert isinstance(error, ProblemError)
    return error.response()


async def answer_http_error(_: Request, error: Exception) -> Response:
    """FastAPI's handler of a path that is not there, or a method that a path does not know."""
    assert isinstance(error, HTTPException)
    return ProblemError(error.status_code, str(error.detail), headers=error.headers).response()


async def answer_failure(_: Request, error: Exception) -> Response:  # noqa: ARG001
    """FastAPI's handler of a mistake of ours: Guard logs its traceback, the caller gets none."""
    return FAILURE.response()

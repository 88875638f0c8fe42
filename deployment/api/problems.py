"""Refusals: one shape (RFC 9457) for whatever is wrong with a request, with field and reason."""

from collections.abc import Mapping, Sequence

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
        self, status: int, title: str, errors: Sequence[Refusal] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        """Take the HTTP status, one sentence, the fields that were wrong, and headers such as Retry-After."""
        super().__init__(title)
        self.status = status
        self.title = title
        self.errors = errors
        self.wines = 1  # in the body
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The refusal as it is sent."""
        shown = list(self.errors[:MOST_ERRORS])
        sentences = [f"{error.field}: {error.reason}" for error in shown]
        if len(self.errors) > len(shown):
            sentences.append(f"and {len(self.errors) - len(shown):,} more")
        problem = Problem(title=self.title, status=self.status, detail="; ".join(sentences) or self.title, errors=shown)
        return Response(problem.model_dump_json(), self.status, self.headers, PROBLEM_JSON)


FAILURE = ProblemError(500, "Internal server error; see the server log")


def refuse_body(error: ValidationError, title: str) -> ProblemError:
    """Refuse a body with each field that was wrong, and why; its value stays out, as NaN has no form in JSON."""
    refusals = []
    for problem in error.errors(include_url=False, include_input=False):
        # density, or 17.density for the 17th wine of a batch
        place = ".".join(str(part + 1 if isinstance(part, int) else part) for part in problem["loc"])
        reason = REASONS.get(problem["type"])
        text = reason.format(**problem.get("ctx", {})) if reason else problem["msg"]
        refusals.append(Refusal(field=place[:MOST_LETTERS] or "body", reason=text))
    return ProblemError(422, title, refusals)


async def answer_error(_: Request, error: Exception) -> Response:
    """FastAPI's handler of all errors; the traceback of a mistake of ours is logged by Guard, the caller gets none."""
    if isinstance(error, HTTPException):  # an unknown path, or a method that a path does not take
        error = ProblemError(error.status_code, str(error.detail), headers=error.headers)
    return (error if isinstance(error, ProblemError) else FAILURE).response()

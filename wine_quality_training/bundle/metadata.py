"""The metadata of a pickled model: facts.json, typed."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from commands import BadInputError, NotThereError
from wine_quality_training.bundle.decision import DecisionRule
from wine_quality_training.bundle.profile import Profile


@dataclass(frozen=True)
class KnownAnswer:
    """A wine and its prediction by the model when it was pickled; a regressor has no probabilities."""

    wine: dict[str, float]
    prediction: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of a pickled model.

    `files` has the digest of each file, added on writing. `compiled` is a sentence: how the compiled form was proved,
    or why there is none. Monitoring compares live traffic with `profiles` (profile.py). `fills` has the value for a
    blank cell of each measurement. `decision` is the rule that decides a grade; None decides for the likeliest.
    `grade_sets` has the threshold of each level (grade_sets.py), ascending; empty for a regressor or an old bundle.
    """

    name: str
    version: str
    run_id: str
    model: str
    protocol: str
    features: tuple[str, ...]
    versions: dict[str, str]
    data_source: str
    data_fingerprint: str
    metrics: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    answers: tuple[KnownAnswer, ...]
    files: dict[str, str]
    compiled: str = ""
    profiles: tuple[Profile, ...] = ()
    fills: dict[str, float] = field(default_factory=dict)
    decision: DecisionRule | None = None
    grade_sets: dict[str, float] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")


_FORM = TypeAdapter(ModelMetadata)


def dump_metadata(metadata: ModelMetadata) -> str:
    """Metadata as JSON for read_metadata, with each list on one line."""
    text = json.dumps(_FORM.dump_python(metadata, mode="json", by_alias=True), indent=2)
    return re.sub(r"\[[^][{}]*\]", lambda numbers: "[" + " ".join(numbers[0][1:-1].split()) + "]", text) + "\n"


def read_metadata(path: Path) -> ModelMetadata:
    """Read metadata. Raises NotThereError if the file does not exist, BadInputError if it is not valid."""
    try:
        return _FORM.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotThereError(f"there is no model in {path.parent}, {path.name} is missing: run make pipeline") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInputError(f"{path} cannot be read: {where + ': ' if where else ''}{first['msg']}") from error

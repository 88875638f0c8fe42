"""A serving bundle: one folder with the pickled pipeline and the facts that make it safe to load.

    <bundle>/model.pkl     the fitted scikit-learn Pipeline
    <bundle>/facts.json    features, versions, data, metrics, run, a few answers, SHA-256 of each file

A pickle can run anything when it is read, so all that can be checked is checked before a byte of it
is: the files in the folder, their digests, the features and the library versions. That keeps out a
damaged, mixed-up or mismatched bundle; it is no signature, so load only bundles you have written.
"""

import hashlib
import json
import os
import pickle
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from commands import BadInputError, NotThereError
from wine_data.schema import FEATURES, WineQuality, feature_frame

MODEL_FILE, FACTS_FILE, CURRENT = "model.pkl", "facts.json", "current"
EXACT = ("scikit-learn",)  # another version may unpickle to a model that answers otherwise
SAME_MINOR = ("python", "numpy")


@dataclass(frozen=True)
class KnownAnswer:
    """A wine and what the model said of it when it was bundled."""

    wine: dict[str, float]
    prediction: int
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Facts:
    """All that is known of a bundled model: facts.json, typed."""

    name: str
    version: str
    run_id: str
    model: str
    features: tuple[str, ...]
    versions: dict[str, str]
    data_source: str
    data_fingerprint: str
    metrics: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    answers: tuple[KnownAnswer, ...]
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the pipeline, and its facts."""

    pipeline: Pipeline
    facts: Facts


def library_versions() -> dict[str, str]:
    """The versions that a pickle depends on, of this Python."""
    packages = {package: version(package) for package in ("scikit-learn", "numpy", "pandas")}
    return {"python": platform.python_version(), **packages}


def write_bundle(folder: Path, pipeline: Pipeline, training_side: pd.DataFrame, **facts: Any) -> Facts:
    """Write a bundle whole or not at all.

    Args:
        folder: the bundle's folder. One that is there already is moved aside, not overwritten.
        pipeline: a fitted classifier.
        training_side: the wines it was fitted on, for the ranges and the known answers.
        facts: name, version, run_id, model, data_source, data_fingerprint and metrics of Facts.

    Raises:
        OSError: the disk is full or may not be written; what was there before is intact.
    """
    pickled = pickle.dumps(pipeline, protocol=5)
    complete = Facts(
        features=FEATURES,
        versions=library_versions(),
        ranges=_find_ranges(training_side),
        answers=_answer_some(pipeline, training_side),
        files={MODEL_FILE: hashlib.sha256(pickled).hexdigest()},
        **facts,
    )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_file(partial / MODEL_FILE, pickled)
        _write_file(partial / FACTS_FILE, json.dumps(asdict(complete), indent=2).encode() + b"\n")
        if folder.exists():
            folder.rename(_free_name(folder))
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return complete


def select_bundle(models: Path, version: str) -> None:
    """Make one bundle of a folder the one that serves, in one step."""
    partial = models / f".{CURRENT}.partial"
    _write_file(partial, version.encode() + b"\n")
    partial.replace(models / CURRENT)


def load_current(models: Path) -> Bundle:
    """Load the bundle that `current` names. Raises NotThereError where no model was exported yet."""
    try:
        version = (models / CURRENT).read_text().strip()
    except FileNotFoundError as error:
        raise NotThereError(f"there is no model in {models} yet: run make pipeline") from error
    return load_bundle(models / version)


def load_bundle(folder: Path) -> Bundle:
    """Check a bundle, and unpickle it only if every check passes.

    Raises:
        NotThereError: the folder is not there.
        BadInputError: a file is missing, damaged or too many, or the bundle was written for other
            features or by other library versions.
    """
    facts = read_facts(folder)
    _refuse_unless(facts.features == FEATURES, folder, f"was fitted on the features {', '.join(facts.features)}")
    for library, here in library_versions().items():
        there = facts.versions.get(library, "none")
        problem = f"was pickled under {library} {there}, and here is {here}: run make pipeline"
        _refuse_unless(_fits(library, there, here), folder, problem)
    present = {path.name for path in folder.iterdir()} - {FACTS_FILE}
    _refuse_unless(present == set(facts.files), folder, f"should hold {_list(facts.files)} and holds {_list(present)}")
    contents = {name: (folder / name).read_bytes() for name in facts.files}
    for name, digest in facts.files.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        _refuse_unless(found == digest, folder, f"has a changed {name}: SHA-256 {found[:12]}…, not {digest[:12]}…")
    return Bundle(pickle.loads(contents[MODEL_FILE]), facts)


def read_facts(folder: Path) -> Facts:
    """Read and check the form of a bundle's facts.json; nothing is unpickled."""
    try:
        facts = json.loads((folder / FACTS_FILE).read_text())
        facts["features"] = tuple(facts["features"])
        facts["ranges"] = {name: (low, high) for name, (low, high) in facts["ranges"].items()}
        facts["answers"] = tuple(KnownAnswer(**answer) for answer in facts["answers"])
        return Facts(**facts)
    except FileNotFoundError as error:
        raise NotThereError(f"{folder} holds no bundle ({FACTS_FILE} is missing): run make pipeline") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInputError(f"{folder / FACTS_FILE} cannot be read: {error}") from error


def _find_ranges(wines: pd.DataFrame) -> dict[str, tuple[float, float]]:
    table = feature_frame(wines)
    return {name: (float(table[name].min()), float(table[name].max())) for name in FEATURES}


def _answer_some(pipeline: Pipeline, wines: pd.DataFrame, count: int = 8) -> tuple[KnownAnswer, ...]:
    """Ask the model of a few complete wines, spread over the table, so that a server can check its answers."""
    complete = feature_frame(wines).dropna()
    some = complete.iloc[np.linspace(0, len(complete) - 1, count).astype(int)]
    wines_as_dicts = some.to_dict("records")
    answers = zip(wines_as_dicts, pipeline.predict(some), pipeline.predict_proba(some), strict=True)
    return tuple(
        KnownAnswer(
            wine=WineQuality.model_validate(wine).model_dump(),
            prediction=int(prediction),
            probabilities=dict(zip(map(str, pipeline.classes_.tolist()), row.tolist(), strict=True)),
        )
        for wine, prediction, row in answers
    )


def _fits(library: str, wanted: str, found: str) -> bool:
    if library in EXACT:
        return wanted == found
    if library in SAME_MINOR:
        return wanted.split(".")[:2] == found.split(".")[:2]
    return True


def _refuse_unless(fine: bool, folder: Path, problem: str) -> None:
    if not fine:
        raise BadInputError(f"the bundle {folder} is refused: it {problem}")


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _free_name(folder: Path) -> Path:
    taken = [path.name for path in folder.parent.iterdir()]
    return next(
        folder.with_name(f"{folder.name}.before-{number}")
        for number in range(1, len(taken) + 2)
        if f"{folder.name}.before-{number}" not in taken
    )


def _write_file(path: Path, content: bytes) -> None:
    """Write and force to disk, so that a rename never publishes a file that a power cut empties."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

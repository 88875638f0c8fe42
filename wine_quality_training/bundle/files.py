"""A pickled model with the metadata that makes it safe to load: as a serving bundle, or as a candidate.

    <models>/<version>/model.pkl     a serving bundle is one folder: the fitted scikit-learn Pipeline
    <models>/<version>/model.onnx    the same model compiled, where it could be (compilation.py)
    <models>/<version>/facts.json    features, versions, data, metrics, run, a few answers, SHA-256 of each file
    <models>/current                 names the bundle that serves

    <models>/rfr.pkl, rfr.json       a candidate, as the training command leaves it

A pickle can run anything when it is read, so all that can be checked is checked before a byte of it
is: the files in the folder, their digests, the features and the library versions. That keeps out a
damaged, mixed-up or mismatched bundle; it is no signature, so load only bundles you have written.

Where a compiled form is enough, the pickle is left unread, and scikit-learn need not be installed.
"""

import errno
import hashlib
import itertools
import os
import pickle
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomic_files import write_atomically
from commands import BadInputError, NotThereError
from wine_data.schema import FEATURES
from wine_quality_training.bundle.metadata import ModelMetadata, dump_metadata, read_metadata

if TYPE_CHECKING:  # serving a compiled model needs no scikit-learn
    from sklearn.pipeline import Pipeline

MODEL_FILE, COMPILED_FILE, METADATA_FILE, CURRENT = "model.pkl", "model.onnx", "facts.json", "current"
EXACT = ("scikit-learn", "xgboost")  # another version may unpickle to a model that answers otherwise
SAME_MINOR = ("python", "numpy")
XGBOOST = "xgboost-cpu" if sys.platform == "linux" else "xgboost"  # the same library under two names


@dataclass(frozen=True)
class Compiled:
    """The compiled form of a model, and how it was proved; without content, why there is none."""

    content: bytes | None
    proof: str


NOT_COMPILED = Compiled(None, "no compiled form was made")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the pipeline, its metadata, and the compiled form if there is one."""

    pipeline: "Pipeline"
    metadata: ModelMetadata
    compiled: bytes | None = None


@dataclass(frozen=True)
class CompiledBundle:
    """A bundle of which only the compiled form was read."""

    compiled: bytes
    metadata: ModelMetadata


def pickle_model(pipeline: "Pipeline") -> bytes:
    """The pickle of a fitted pipeline."""
    return pickle.dumps(pipeline)


def unpickle_model(pickled: bytes) -> "Pipeline":
    """The pipeline of a pickle whose digest has been checked."""
    return pickle.loads(pickled)


def write_bundle(models: Path, pickled: bytes, metadata: ModelMetadata, compiled: Compiled = NOT_COMPILED) -> Path:
    """Write the serving bundle of a pickled pipeline, whole or not at all, and return its folder.

    The folder is named for the version. Nothing is ever written over: where that name is taken, by a
    store that was forgotten since, the next free of <version>-2, <version>-3, … is used.

    Raises:
        OSError: the disk is full or may not be written; what was there before is intact.
    """
    models.mkdir(parents=True, exist_ok=True)
    _sweep_partials(models)
    partial = Path(tempfile.mkdtemp(prefix=f".{metadata.version}.partial-", dir=models))
    try:
        contents = {MODEL_FILE: pickled} | ({COMPILED_FILE: compiled.content} if compiled.content else {})
        for name, content in contents.items():
            _write_file(partial / name, content)
        _write_file(
            partial / METADATA_FILE,
            dump_metadata(_add_digests(replace(metadata, compiled=compiled.proof), contents)).encode(),
        )
        partial.chmod(0o755)
        return _move_to_free_name(partial, models / metadata.version)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_candidate(folder: Path, short_name: str, pipeline: "Pipeline", metadata: ModelMetadata) -> Path:
    """Write <short_name>.pkl with <short_name>.json beside it, each whole or not at all; return the pickle's path.

    A pair that was torn apart between the two is refused when it is loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pickled = pickle_model(pipeline)
    path = folder / f"{short_name}.pkl"
    contents = {
        path: pickled,
        path.with_suffix(".json"): dump_metadata(_add_digests(metadata, {path.name: pickled})).encode(),
    }
    partials = {target: target.with_name(f".{target.name}.partial-{os.getpid()}") for target in contents}
    try:
        for target, partial in partials.items():
            _write_file(partial, contents[target])
        for target, partial in partials.items():
            partial.replace(target)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    return path


def find_bundle(models: Path, version: str, run_id: str) -> Path | None:
    """Find the intact bundle of one version of one run, or None."""
    for path in sorted(models.glob(f"{version}*/{METADATA_FILE}")):
        try:
            metadata = read_metadata(path)
            if (metadata.version, metadata.run_id) == (version, run_id):
                _read_checked(path.parent, metadata)
                return path.parent
        except (BadInputError, NotThereError):
            continue
    return None


def select_bundle(folder: Path) -> None:
    """Make one bundle of a models folder the one that serves, in one step."""
    write_atomically(folder.with_name(CURRENT), f"{folder.name}\n")


def serves(folder: Path) -> bool:
    """Say whether `current` names this bundle."""
    current = folder.with_name(CURRENT)
    return current.is_file() and current.read_text().strip() == folder.name


def find_current(models: Path) -> Path:
    """The folder of the bundle that `current` names. Raises NotThereError where no model was exported yet."""
    try:
        return models / (models / CURRENT).read_text().strip()
    except FileNotFoundError as error:
        raise NotThereError(f"there is no model in {models} yet: run make pipeline") from error


def load_current(models: Path) -> Bundle:
    """Load the bundle that `current` names. Raises NotThereError where no model was exported yet."""
    return load_bundle(find_current(models))


def load_bundle(folder: Path) -> Bundle:
    """Check a bundle, and unpickle it only if every check passes.

    Raises:
        NotThereError: the folder is not there, or scikit-learn is not installed.
        BadInputError: a file is missing, damaged or too many, or the bundle was written for other
            features or by other library versions.
    """
    metadata, contents = _read_bundle(folder)
    return Bundle(_unpickle_checked(folder, metadata, contents, MODEL_FILE), metadata, contents.get(COMPILED_FILE))


def load_compiled(folder: Path) -> CompiledBundle | None:
    """Check a bundle and read its compiled form, or None where it has none; errors as in load_bundle."""
    metadata, contents = _read_bundle(folder)
    return CompiledBundle(contents[COMPILED_FILE], metadata) if COMPILED_FILE in contents else None


def load_candidate(path: Path) -> Bundle:
    """Check a candidate's pickle by the metadata beside it, and unpickle it; errors as in load_bundle."""
    metadata = read_metadata(path.with_suffix(".json"))
    _require_features(path.parent, metadata)
    return Bundle(_unpickle_checked(path.parent, metadata, _read_checked(path.parent, metadata), path.name), metadata)


def _read_bundle(folder: Path) -> tuple[ModelMetadata, dict[str, bytes]]:
    metadata = read_metadata(folder / METADATA_FILE)
    present = {path.name for path in folder.iterdir()} - {METADATA_FILE}
    _refuse_unless(
        present == set(metadata.files), folder, f"should hold {_list(metadata.files)} and holds {_list(present)}"
    )
    _require_features(folder, metadata)
    return metadata, _read_checked(folder, metadata)


def _require_features(folder: Path, metadata: ModelMetadata) -> None:
    _refuse_unless(metadata.features == FEATURES, folder, f"was fitted on the features {', '.join(metadata.features)}")


def _unpickle_checked(
    folder: Path, metadata: ModelMetadata, contents: Mapping[str, bytes], model_file: str
) -> "Pipeline":
    """Unpickle contents whose digests are right, if this Python has the libraries that pickled them."""
    _refuse_unless(model_file in metadata.files, folder, f"names no digest for {model_file}")
    if _find_version("scikit-learn") == "none":
        raise NotThereError(
            f"{folder} has only a pickle to answer with ({metadata.compiled}), and scikit-learn is not installed "
            "here: install requirements.txt, or promote a model that could be compiled"
        )
    for library in ("python", "scikit-learn", "numpy", "pandas", *metadata.versions):
        there, here = metadata.versions.get(library, "none"), _find_version(library)
        problem = f"was pickled under {library} {there}, and here is {here}: run make pipeline"
        _refuse_unless(_fits(library, there, here), folder, problem)
    return unpickle_model(contents[model_file])


def _read_checked(folder: Path, metadata: ModelMetadata) -> dict[str, bytes]:
    contents = {name: _read_file(folder / name) for name in metadata.files}
    for name, digest in metadata.files.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        _refuse_unless(found == digest, folder, f"has a changed {name}: SHA-256 {found[:12]}…, not {digest[:12]}…")
    return contents


def _add_digests(metadata: ModelMetadata, contents: Mapping[str, bytes]) -> ModelMetadata:
    return replace(metadata, files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})


def _move_to_free_name(partial: Path, folder: Path) -> Path:
    """Rename a finished folder; a folder that holds something is never replaced by a rename."""
    for name in itertools.chain([folder.name], (f"{folder.name}-{number}" for number in itertools.count(2))):
        try:
            return partial.rename(folder.with_name(name))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise AssertionError("there is always a free name")


def _find_version(library: str) -> str:
    """The version of this Python or of an installed library; "none" where there is none."""
    if library == "python":
        return platform.python_version()
    try:
        return version(XGBOOST if library == "xgboost" else library)
    except PackageNotFoundError:
        return "none"


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


def _sweep_partials(models: Path) -> None:
    """Remove what killed writers left; a day is longer than any writer lives."""
    for path in models.glob(".*.partial-*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > 86_400:
            shutil.rmtree(path, ignore_errors=True)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; the model is refused: run make pipeline") from error


def _write_file(path: Path, content: bytes) -> None:
    """Write and force to disk, so that a rename never publishes a file that a power cut empties."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

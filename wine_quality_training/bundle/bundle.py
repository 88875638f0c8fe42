"""A pickled model with its metadata, which is checked before loading: a serving bundle or a candidate.

    <models>/<version>/model.pkl     a serving bundle is one folder: the fitted scikit-learn Pipeline
    <models>/<version>/model.onnx    the same model compiled, if that is possible (compilation.py)
    <models>/<version>/facts.json    features, versions, data, metrics, run, a few answers, SHA-256 of each file
    <models>/current                 names the bundle that serves

    <models>/rfr.pkl, rfr.json       a candidate, as the training command writes it

A pickle can run any code when it is loaded, so everything else is checked first: the files in the folder, their
digests, the features and the library versions. These checks refuse a damaged, mixed-up or mismatched bundle. They are
not a signature, so load only bundles you have written. If the compiled form is enough, the pickle is not loaded and
scikit-learn need not be installed.
"""

import errno
import hashlib
import itertools
import pickle  # nosec B403  # read by unpickle_model alone
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from atomic_files import list_old_partials, open_atomically, write_atomically
from commands import BadInputError, NotThereError
from wine_data.schema import FEATURES
from wine_quality_training.bundle.metadata import ModelMetadata, dump_metadata, read_metadata

if TYPE_CHECKING:  # serving a compiled model needs no scikit-learn
    from sklearn.pipeline import Pipeline

MODEL_FILE, COMPILED_FILE, METADATA_FILE, CURRENT = "model.pkl", "model.onnx", "facts.json", "current"
XGBOOST = "xgboost-cpu" if sys.platform == "linux" else "xgboost"  # the same library under two names
# How many parts of a version must be equal; None: all parts, because another version may predict differently.
EQUAL_PARTS = {"python": 2, "numpy": 2, "scikit-learn": None, "xgboost": None}


@dataclass(frozen=True)
class Compiled:
    """The compiled form of a model and its proof; without content, `proof` says why there is none."""

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
    """A bundle from which only the compiled form was read."""

    compiled: bytes
    metadata: ModelMetadata


def pickle_model(pipeline: "Pipeline") -> bytes:
    """The pickle of a fitted pipeline."""
    return pickle.dumps(pipeline)


def unpickle_model(pickled: bytes) -> "Pipeline":
    """The pipeline of a pickle; the caller has checked its digest, features and versions."""
    return pickle.loads(pickled)  # nosec B301  # the docstring says what was checked


def find_mismatch(metadata: ModelMetadata) -> str:
    """Describe the first library whose version differs from the pickle's; "" if it can be unpickled."""
    for library, parts in EQUAL_PARTS.items():
        there, here = metadata.versions.get(library, "none"), _find_version(library)
        is_needed = library != "xgboost" or there != "none"
        if is_needed and there.split(".")[:parts] != here.split(".")[:parts]:
            return f"was pickled under {library} {there}, and here is {here}"
    return ""


def write_bundle(models: Path, pickled: bytes, metadata: ModelMetadata, compiled: Compiled = NOT_COMPILED) -> Path:
    """Write the serving bundle of a pickled pipeline atomically, and return its folder.

    The folder is named after the version. It never replaces another: if the name is taken, the next free one of
    <version>-2, <version>-3, … is used. Raises OSError if the disk is full or not writable.
    """
    models.mkdir(parents=True, exist_ok=True)
    for path in list_old_partials(models):
        shutil.rmtree(path, ignore_errors=True)
    contents = {MODEL_FILE: pickled} | ({COMPILED_FILE: compiled.content} if compiled.content else {})
    described = _dump_with_digests(replace(metadata, compiled=compiled.proof), contents)
    with tempfile.TemporaryDirectory(prefix=f".{metadata.version}.partial-", dir=models) as partial:
        for name, content in {**contents, METADATA_FILE: described}.items():
            write_atomically(Path(partial, name), content)
        Path(partial).chmod(0o755)  # only the owner can read a temporary folder
        return _move_to_free_name(Path(partial), models / metadata.version)


def write_candidate(folder: Path, short_name: str, pipeline: "Pipeline", metadata: ModelMetadata) -> Path:
    """Write <short_name>.pkl and then <short_name>.json, each atomically; return the pickle's path.

    The JSON file holds the pickle's digest, which shows whether the two belong together.
    """
    path = folder / f"{short_name}.pkl"
    with open_atomically(path) as file:
        pickle.dump(pipeline, file)  # straight to the file: a forest fitted on 100,000 wines takes a gigabyte
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(path.with_suffix(".json"), dump_metadata(replace(metadata, files={path.name: digest})))
    return path


def find_bundle(models: Path, version: str, run_id: str) -> Path | None:
    """Find the intact bundle of one version of one run, or None."""
    for path in sorted(models.glob(f"{version}*/{METADATA_FILE}")):
        try:
            metadata = read_metadata(path)
            if (metadata.version, metadata.run_id) == (version, run_id):
                _read_bundle(path.parent)
                return path.parent
        except (BadInputError, NotThereError):
            continue
    return None


def select_bundle(folder: Path) -> None:
    """Make a bundle the one that serves from its models folder, atomically."""
    write_atomically(folder.with_name(CURRENT), f"{folder.name}\n")


def serves(folder: Path) -> bool:
    """Whether `current` names this bundle."""
    current = folder.with_name(CURRENT)
    return current.is_file() and current.read_text().strip() == folder.name


def find_current(models: Path) -> Path:
    """The folder of the bundle that `current` names.

    Raises:
        NotThereError: no model was exported yet.
        BadInputError: `current` does not name a folder beside it.
    """
    try:
        name = (models / CURRENT).read_text().strip()
    except FileNotFoundError as error:
        raise NotThereError(
            f"there is no model in {models} yet: run make pipeline. If its gate refuses the model, it prints what to do"
        ) from error
    if Path(name).name != name or name in ("", ".."):
        raise BadInputError(f"{models / CURRENT} names {name!r}, which is no bundle in {models}: run make pipeline")
    return models / name


def load_current(models: Path) -> Bundle:
    """Load the bundle that `current` names. Raises NotThereError if no model was exported yet."""
    return load_bundle(find_current(models))


def load_bundle(folder: Path) -> Bundle:
    """Check a bundle, and unpickle it only if every check passes.

    Raises:
        NotThereError: the folder does not exist, or scikit-learn is not installed.
        BadInputError: a file is missing, damaged or unexpected, or the features or library versions differ.
    """
    metadata, contents = _read_bundle(folder)
    return Bundle(_unpickle_checked(folder, metadata, contents), metadata, contents.get(COMPILED_FILE))


def load_compiled(folder: Path) -> CompiledBundle | None:
    """Check a bundle and read its compiled form; None if it has none. Raises the errors of load_bundle."""
    metadata, contents = _read_bundle(folder)
    return CompiledBundle(contents[COMPILED_FILE], metadata) if COMPILED_FILE in contents else None


def _read_bundle(folder: Path) -> tuple[ModelMetadata, dict[str, bytes]]:
    metadata = read_metadata(folder / METADATA_FILE)
    present = {path.name for path in folder.iterdir()} - {METADATA_FILE}
    if present != set(metadata.files):
        raise _refusal(folder, f"should hold {_list(metadata.files)} and holds {_list(present)}")
    return metadata, _read_checked(folder, metadata)


def _read_checked(folder: Path, metadata: ModelMetadata) -> dict[str, bytes]:
    """Read all files of a model, and check its features and their digests."""
    if metadata.features != FEATURES:
        raise _refusal(folder, f"was fitted on the features {', '.join(metadata.features)}")
    contents = {}
    for name, digest in metadata.files.items():
        try:
            contents[name] = (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise BadInputError(f"{folder / name} is missing; the model is refused: run make pipeline") from error
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != digest:
            raise _refusal(folder, f"has a changed {name}: SHA-256 {found[:12]}…, not {digest[:12]}…")
    return contents


def _unpickle_checked(folder: Path, metadata: ModelMetadata, contents: Mapping[str, bytes]) -> "Pipeline":
    """Unpickle contents with checked digests, if the installed libraries match those that pickled them."""
    if MODEL_FILE not in metadata.files:
        raise _refusal(folder, f"names no digest for {MODEL_FILE}")
    if _find_version("scikit-learn") == "none":
        raise NotThereError(
            f"{folder} has no compiled model ({metadata.compiled}), and its pickle needs scikit-learn, which is not "
            "installed here: install requirements.txt, or promote a model that could be compiled"
        )
    mismatch = find_mismatch(metadata)
    if mismatch:
        raise _refusal(folder, f"{mismatch}: run make pipeline")
    return unpickle_model(contents[MODEL_FILE])


def _dump_with_digests(metadata: ModelMetadata, contents: Mapping[str, bytes]) -> bytes:
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return dump_metadata(replace(metadata, files=files)).encode()


def _move_to_free_name(partial: Path, folder: Path) -> Path:
    """Rename a finished folder to the next free name; a rename never replaces a folder that is not empty."""
    name, numbers = folder.name, itertools.count(2)
    while True:
        try:
            return partial.rename(folder.with_name(name))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        name = f"{folder.name}-{next(numbers)}"


def _find_version(library: str) -> str:
    """The version of Python or of a library; "none" if the library is not installed."""
    if library == "python":
        return platform.python_version()
    try:
        return version(XGBOOST if library == "xgboost" else library)
    except PackageNotFoundError:
        return "none"


def _refusal(folder: Path, problem: str) -> BadInputError:
    return BadInputError(f"the bundle {folder} is refused: it {problem}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"

"""Whatever bytes a stranger or a broken disk gives a reader, it reads them or refuses them in words.

Each reader gets a valid content with parts cut out, repeated and overwritten, and noise.
"""

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from commands import BadInputError
from deployment.api.callers import Callers
from deployment.api.limits import unpack_body
from deployment.api.predict import read_explain
from deployment.api.problems import ProblemError
from deployment.api.wines import fill_wine, read_csv, read_json
from tests.test_bodies import FILLS, PLAIN, lay_out
from tests.test_schema import WINE
from wine_data.table.rows import read_table
from wine_data.table.wines import read_wines
from wine_quality_training.bundle.metadata import read_metadata

TABLE = lay_out(";", [PLAIN, PLAIN]).encode()
WINES = pd.DataFrame([WINE | {"quality": 6}] * 3)
JSON = json.dumps([WINE, WINE]).encode()
PIECES = [
    b",",
    b";",
    b'"',
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"1e999",
    b"[" * 300,
    b"{" * 300,
    b"9" * 5000,
]
PIECES += [b"\x1f\x8b", b"PAR1", "\u2028٣½".encode(), b"\\ud800", b"sep=\t\n", b"-", b"NaN", b"null", b"'"]


@dataclass(frozen=True)
class Edit:
    """Some bytes of a content are replaced."""

    place: float  # of the content's length
    removed: int
    inserted: bytes
    times: int

    def apply(self, content: bytes) -> bytes:
        """Edit it."""
        at = int(self.place * len(content))
        return content[:at] + self.inserted * self.times + content[at + self.removed :]


EDITS = st.lists(
    st.builds(
        Edit,
        st.floats(0, 1),
        st.integers(0, 40),
        st.sampled_from(PIECES)
        | st.binary(max_size=8)
        | st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace")),
        st.integers(0, 3),
    ),
    max_size=6,
)


def write_parquet() -> bytes:
    file = io.BytesIO()
    WINES.to_parquet(file)
    return file.getvalue()


def list_readers(bundle: Path, folder: Path) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """By name, a valid content and what reads it; files are written into the folder."""
    csv = WINES.to_csv(index=False).encode()

    def read_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / name
        return lambda content: path.write_bytes(content) and read(path)

    return {
        "wines.csv": (csv, read_file("wines.csv", read_wines)),
        "wines.csv.gz": (gzip.compress(csv), read_file("wines.csv.gz", read_wines)),
        "wines.parquet": (write_parquet(), read_file("wines.parquet", read_wines)),
        "facts.json": ((bundle / "facts.json").read_bytes(), read_file("facts.json", read_metadata)),
        "a table": (TABLE, partial(read_csv, most=40, fills={})),
        "a table with blanks": (TABLE, partial(read_csv, most=40, fills=FILLS)),
        "an array": (JSON, partial(read_json, most=40, fills=FILLS)),
        "a wine": (json.dumps(WINE).encode(), partial(fill_wine, fills=FILLS)),
        "a packed body": (gzip.compress(JSON), lambda body: unpack_body(body, {b"content-encoding": b"gzip"}, 99_999)),
        "any table": (TABLE, lambda content: list(read_table(content, "it").rows)),
        "a query": (b"explain=true", read_explain),
        "a key": (b"Bearer key", lambda sent: Callers("key").require_key("/predict", [(b"authorization", sent)])),
        "a host": (b"localhost:80", lambda sent: Callers().require_host("::1", [(b"host", sent)])),
    }


NAMES = ["wines.csv", "wines.csv.gz", "wines.parquet", "facts.json", "a table", "a table with blanks", "an array"]
NAMES += ["a wine", "a packed body", "any table", "a query", "a key", "a host"]


def attack_reader(content: bytes, read: Callable[[bytes], object], cases: int, chance: int) -> Counter[str]:
    """Give a reader so many broken contents, which the seed `chance` chooses; count those that it read and refused."""
    counts = Counter[str]()

    @seed(chance)
    @settings(max_examples=cases, suppress_health_check=list(HealthCheck), database=None)
    @given(EDITS | st.binary(max_size=200))
    def attack(edits: list[Edit] | bytes) -> None:
        broken = edits if isinstance(edits, bytes) else content
        for edit in edits if isinstance(edits, list) else []:
            broken = edit.apply(broken)
        try:
            read(broken)
            counts["read"] += 1
        except (ProblemError, BadInputError):
            counts["refused"] += 1

    attack()
    return counts


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_reads_anything_or_refuses_it_in_words(name: str, bundles: Path, tmp_path: Path) -> None:
    content, read = list_readers(bundles / "1", tmp_path)[name]
    read(content)  # as it is, it is good
    assert attack_reader(content, read, 300, random.randrange(1_000_000)).total() >= 100

"""The bodies of requests to wines: dialects of tables, blanks, bounds on what is made of them, gzip."""

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from deployment.api.limits import unpack_body
from deployment.api.problems import ProblemError
from deployment.api.wines import Fills, Wines, fill_wine, read_csv, read_json
from tests.messages import list_missing
from tests.test_schema import WINE
from wine_data.schema import FEATURES, MEASUREMENTS, SEEN

FILLS = {name: sum(SEEN[name]) / 2 for name in MEASUREMENTS}
VALUES = tuple(float(WINE[name]) for name in FEATURES)
TITLES = [name.replace("_", " ").capitalize() for name in MEASUREMENTS]


def lay_out(separator: str, rows: Sequence[Sequence[object]], header: list[str] | None = None) -> str:
    header = header or [*MEASUREMENTS, "red_wine"]
    return "\n".join(separator.join(map(str, row)) for row in [header, *rows]) + "\n"


PLAIN = [WINE[name] for name in FEATURES]
COMMA = [str(value).replace(".", ",") for value in PLAIN]


@pytest.mark.parametrize(
    "body",
    [
        lay_out(",", [PLAIN]).encode(),
        lay_out(";", [PLAIN]).encode(),
        lay_out("\t", [PLAIN]).encode("utf-16"),
        lay_out(";", [COMMA]).encode(),
        lay_out(",", [[*PLAIN[:-1], "white"]], [*TITLES, "type"]).encode("utf-8-sig"),
        lay_out(",", [[*PLAIN[:-1], 0]], [*TITLES, "is_red"]).encode(),
        lay_out("|", [["White wine", *PLAIN[:-1]]], ["Colour", *MEASUREMENTS]).encode(),
        lay_out(";", [[*PLAIN, "schön"]], [*FEATURES, "Anmerkung"]).encode("latin-1"),
        ("# from the laboratory\nsep=;\n" + lay_out(";", [PLAIN])).encode(),
    ],
)
def test_a_table_of_any_dialect_is_read_as_files_are(body: bytes) -> None:
    assert read_csv(body, most=3, fills={}).values == [VALUES]


def test_what_of_a_table_was_not_used_or_left_out_is_noted() -> None:
    body = lay_out(";", [[*PLAIN, 9], [""] * 13, [*PLAIN, 9]], [*FEATURES, "taste"]).encode()
    wines = read_csv(body, most=3, fills={})
    assert len(wines.values) == 2
    assert list_missing("; ".join(wines.notes), "semicolons", "not used: taste", "blank rows between wines: 1") == []


def refuse(read: Callable[[], object]) -> dict[str, str]:
    """The reasons of a refusal, by field."""
    with pytest.raises(ProblemError) as refusal:
        read()
    assert refusal.value.status == 422
    return {error.field: error.reason for error in refusal.value.errors}


@pytest.mark.parametrize(
    ("cells", "field", "facts"),
    [
        ([*PLAIN, 1], "2", ("13", "12", "row 3")),
        (PLAIN[:5], "2", ("5", "12", "row 3")),
        ([*PLAIN[:-1], "pink"], "2.red_wine", ("pink", "red", "white", "row 3")),
        ([*PLAIN[:-1], ""], "2.red_wine", ("missing", "row 3")),
        (["?", *PLAIN[1:]], "2.fixed_acidity", ("missing", "row 3")),
        (["7 g", *PLAIN[1:]], "2.fixed_acidity", ("number", "row 3")),
        (["1e999", *PLAIN[1:]], "2.fixed_acidity", ("finite", "row 3")),
        (["-1", *PLAIN[1:]], "2.fixed_acidity", ("at least 0", "row 3")),
    ],
)
def test_a_bad_row_or_cell_is_refused_with_its_row(cells: list[object], field: str, facts: tuple[str, ...]) -> None:
    reasons = refuse(partial(read_csv, lay_out(",", [PLAIN, cells, PLAIN]).encode(), 3, {}))
    assert list(reasons) == [field]
    assert list_missing(reasons[field], *facts) == []


def test_all_faults_of_a_row_are_named() -> None:
    row = ["x", *PLAIN[1:7], "7", *PLAIN[8:-1], "pink"]
    assert set(refuse(partial(read_csv, lay_out(",", [row, row]).encode().replace(b"pink", b"1", 1), 3, {}))) == {
        "1.fixed_acidity",
        "1.density",
        "2.fixed_acidity",
        "2.density",
        "2.red_wine",
    }


@pytest.mark.parametrize(
    ("header", "facts"),
    [
        ([*FEATURES[:-1], "country"], ("colour", "type")),
        (["density", *FEATURES[1:]], ("density", "more than once")),
        (["x", *FEATURES[1:]], ("fixed_acidity",)),
        ([*FEATURES, *(f"more {number}" for number in range(600))], ("612",)),
    ],
)
def test_a_bad_header_is_one_refusal(header: list[str], facts: tuple[str, ...]) -> None:
    reasons = refuse(partial(read_csv, lay_out(",", [PLAIN] * 3, header).encode(), 3, {}))
    assert list(reasons) == ["header"]
    assert list_missing(reasons["header"], *facts) == []
    assert "--type" not in reasons["header"]


def write_blank(form: str, blank: dict[str, None]) -> bytes:
    wine: dict[str, object] = {**WINE, **blank}
    cells: list[object] = ["" if wine[name] is None else wine[name] for name in FEATURES]
    return json.dumps([wine]).encode() if form == "json" else lay_out(",", [cells]).encode()


def read(form: str, body: bytes, fills: Fills) -> Wines:
    return read_json(body, 3, fills) if form == "json" else read_csv(body, 3, fills)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_blanks_are_filled_only_where_there_are_means(form: str) -> None:
    body = write_blank(form, {"pH": None, "alcohol": None})
    assert set(refuse(lambda: read(form, body, {}))) == {"1.pH", "1.alcohol"}
    wines = read(form, body, FILLS)
    assert wines.filled == [("pH", "alcohol")]
    assert dict(zip(FEATURES, wines.values[0], strict=True)) == WINE | {"pH": FILLS["pH"], "alcohol": FILLS["alcohol"]}
    nothing = write_blank(form, dict.fromkeys(MEASUREMENTS))
    assert len(refuse(lambda: read(form, nothing, FILLS))) == len(MEASUREMENTS)


def test_a_field_that_is_not_there_is_not_filled() -> None:
    body = json.dumps({name: value for name, value in (WINE | {"density": None}).items() if name != "pH"}).encode()
    assert set(refuse(lambda: fill_wine(body, FILLS))) == {"pH"}
    assert fill_wine(json.dumps(WINE | {"density": None}).encode(), FILLS)[1] == ("density",)


HUGE = {
    "numbers": (read_json, b"[" + b"1," * 2_400_000 + b"1]"),
    "lists": (read_json, b"[" + b"[]," * 1_600_000 + b"[]]"),
    "objects": (read_json, b"[" + b"{}," * 1_600_000 + b"{}]"),
    "fields": (read_json, b"[{" + b",".join(b'"%d":1' % number for number in range(400_000)) + b"}]"),
    "names": (read_csv, b",".join(b"x%d" % number for number in range(600_000)) + b"\n1\n"),
    "brackets": (read_csv, b"(" * 4_000_000),
    "digits": (read_csv, lay_out(",", [PLAIN]).encode() + b"1" * 120_000 + b"x," + b",".join([b"1"] * 11)),
    "wrong cells": (read_csv, lay_out(",", [["x"] * 11 + [1]] * 4_999).encode()),
    "wrong values": (read_json, json.dumps([dict.fromkeys(FEATURES, "x")] * 4_999).encode()),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_body_that_is_no_batch_costs_little(kind: str) -> None:
    read_body, body = HUGE[kind]
    tracemalloc.start()
    start = time.process_time()
    reasons = refuse(lambda: read_body(body, 5_000, {}))
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5  # traced, which takes several times as long
    assert peak < 40_000_000
    assert len(reasons) <= 20
    assert all(len(reason) < 1_000 for reason in reasons.values())


def test_the_reasons_that_are_not_listed_are_counted() -> None:
    with pytest.raises(ProblemError) as refusal:
        read_csv(lay_out(",", [["x"] * 11 + [1]] * 40).encode(), 50, {})
    assert b"and 420 more" in bytes(refusal.value.response("id").body)


def test_gzip_is_unpacked_within_bounds() -> None:
    headers = {b"content-encoding": b"GZIP"}
    packed = gzip.compress(b"a" * 50)
    assert unpack_body(packed + packed, headers, 100) == b"a" * 100
    for body, status in ((packed * 3, 413), (packed[:-1], 422), (b"[]", 422), (gzip.compress(b"0" * 10**8), 413)):
        with pytest.raises(ProblemError) as refusal:
            unpack_body(body, headers, 100)
        assert refusal.value.status == status
    with pytest.raises(ProblemError) as refusal:
        unpack_body(b"[]", {b"content-encoding": b"br"}, 100)
    assert (refusal.value.status, list_missing(refusal.value.title, "br", "gzip")) == (415, [])
    with pytest.raises(ProblemError):
        read_csv(gzip.compress(lay_out(",", [PLAIN]).encode()), 3, {})

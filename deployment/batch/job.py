"""Score one part of a file, on any thread or worker: read, check, predict, write."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from deployment.batch.chunks import Chunk, read_chunk, require_rows
from deployment.batch.rows import SAME, check_rows, score_rows
from deployment.batch.storage import Location, exists, join, open_file, read_whole, write_whole
from deployment.predictor import Predictor, load_predictor_for_files


@dataclass(frozen=True)
class Options:
    """Options: the colour of all wines in a file without a colour column, and whether to explain predictions."""

    wine_type: str = ""
    explain: bool = False


@dataclass(frozen=True)
class Job:
    """The data that a worker needs to score a chunk."""

    wines: Location
    bundle: Path
    folder: Location
    digest: str
    options: Options = Options()

    def name_answers(self, chunk: Chunk) -> Location:
        """The file of a part's predictions; if it exists, the part is done."""
        return join(self.folder, f"answers/part-{chunk.number:05d}.parquet")

    def name_refused(self, chunk: Chunk) -> Location:
        """The file of a part's refused rows; it exists only if there are any."""
        return join(self.folder, f"refused/part-{chunk.number:05d}.csv")


def score_chunk(job: Job, chunk: Chunk) -> tuple[int, int]:
    """Score one part, unless its predictions exist; return the numbers of scored and refused rows."""
    answers, refused = job.name_answers(chunk), job.name_refused(chunk)
    if not exists(answers):
        predictor, sink, reasons = load_predictor_once(job.bundle), pa.BufferOutputStream(), dict[int, str]()
        found = 0
        with ExitStack() as stack:
            writer = None
            for raw in read_chunk(job.wines, chunk, job.options.wine_type):
                checked = check_rows(raw, predictor.metadata.fills)
                reasons |= checked.refusals
                found += len(checked.wines) + len(checked.refusals) + checked.blank
                table = score_rows(predictor, checked, job.digest, job.options.explain)
                writer = writer or stack.enter_context(_open_writer(sink, table.schema))
                writer.write_table(table)
        require_rows(found, chunk.rows, chunk.first_row, job.wines)
        if reasons:
            _write_refusals(refused, reasons)
        write_whole(answers, sink.getvalue())  # last: this file marks the part as complete
    return _count_rows(job, chunk)


def _open_writer(sink: pa.BufferOutputStream, schema: pa.Schema) -> parquet.ParquetWriter:
    """Open a Parquet writer; dictionary encoding takes longest, so only columns with few values have it."""
    return parquet.ParquetWriter(sink, schema, compression="zstd", use_dictionary=["prediction", *SAME, "warnings"])


def _count_rows(job: Job, chunk: Chunk) -> tuple[int, int]:
    with open_file(job.name_answers(chunk)) as file:
        scored = parquet.ParquetFile(file).metadata.num_rows
    refused = job.name_refused(chunk)
    return scored, csv.read_csv(pa.BufferReader(read_whole(refused))).num_rows if exists(refused) else 0


@lru_cache(maxsize=1)
def load_predictor_once(bundle: Path) -> Predictor:
    """The predictor of a bundle, loaded once per process."""
    return load_predictor_for_files(bundle)


def _write_refusals(path: Location, reasons: dict[int, str]) -> None:
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table({"row": list(reasons), "reason": list(reasons.values())}), sink)
    write_whole(path, sink.getvalue())

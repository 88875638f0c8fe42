"""One part of a file scored, wherever that is: read, checked, answered, written."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from deployment.batch_parts import Part, read_part
from deployment.batch_rows import SAME, check_rows, score_rows
from deployment.engine import Engine, load_engine_for_files
from deployment.places import Place, exists, join, open_file, read_whole, write_whole


@dataclass(frozen=True)
class Job:
    """What a part needs to be scored anywhere: the file, the bundle, the folder of the answers, their digest."""

    wines: Place
    bundle: Path
    folder: Place
    digest: str

    def name_answers(self, part: Part) -> Place:
        """The file of a part's answers; where it is, the part is done."""
        return join(self.folder, f"answers/part-{part.number:05d}.parquet")

    def name_refused(self, part: Part) -> Place:
        """The file of the rows of a part that are no wines; it is there only if there are any."""
        return join(self.folder, f"refused/part-{part.number:05d}.csv")


def score_part(job: Job, part: Part) -> tuple[int, int]:
    """Score one part, if its answers are not there yet; return how many rows were wines, and how many were not."""
    answers, refused = job.name_answers(part), job.name_refused(part)
    if not exists(answers):
        engine, sink, reasons = load_engine_once(job.bundle), pa.BufferOutputStream(), dict[int, str]()
        with ExitStack() as stack:
            writer = None
            for cells in read_part(job.wines, part):
                checked = check_rows(cells)
                reasons |= checked.refusals
                table = score_rows(engine, checked, job.digest)
                writer = writer or stack.enter_context(_open_writer(sink, table.schema))
                writer.write_table(table)
        if reasons:
            _write_refusals(refused, reasons)
        write_whole(answers, sink.getvalue())  # last: where it is, all is there
    return _count_rows(job, part)


def _open_writer(sink: pa.BufferOutputStream, schema: pa.Schema) -> parquet.ParquetWriter:
    """Looking for repeated values takes longer than all else, so only columns that have but a few are searched."""
    return parquet.ParquetWriter(sink, schema, compression="zstd", use_dictionary=["prediction", *SAME, "warnings"])


def _count_rows(job: Job, part: Part) -> tuple[int, int]:
    with open_file(job.name_answers(part)) as file:
        scored = parquet.ParquetFile(file).metadata.num_rows
    refused = job.name_refused(part)
    return scored, csv.read_csv(pa.BufferReader(read_whole(refused))).num_rows if exists(refused) else 0


@lru_cache(maxsize=1)
def load_engine_once(bundle: Path) -> Engine:
    """The engine of a bundle, loaded once in a process."""
    return load_engine_for_files(bundle)


def _write_refusals(path: Place, reasons: dict[int, str]) -> None:
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table({"row": list(reasons), "reason": list(reasons.values())}), sink)
    write_whole(path, sink.getvalue())

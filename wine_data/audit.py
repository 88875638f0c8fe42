"""What is wrong with the wines: above all, wines that stand on both sides.

    python -m wine_data.audit [--strict]

A leak is a finding; it stops nothing by itself. With --strict the command ends with exit code 1.
"""

import argparse
from dataclasses import dataclass

from commands import DONE, FINDING, run_command
from settings import load_settings
from wine_data.schema import MEASUREMENTS, TYPE
from wine_data.sources import WineData, load_wines

WINE = [TYPE, *MEASUREMENTS]


@dataclass(frozen=True)
class Audit:
    """Counts of the published pair."""

    train_rows: int
    train_distinct: int
    validation_rows: int
    validation_complete: int
    validation_in_train: int
    blanks: dict[str, int]

    @property
    def leaks(self) -> bool:
        """Whether any complete validation wine stands in the train file."""
        return self.validation_in_train > 0

    def sentences(self) -> list[str]:
        """The findings in plain words."""
        share = self.validation_in_train / self.validation_complete if self.validation_complete else 0.0
        blanks = ", ".join(f"{column} {count}" for column, count in self.blanks.items()) or "none"
        return [
            f"The train file holds {self.train_distinct:,} distinct wines in {self.train_rows:,} rows.",
            f"{self.validation_in_train:,} of the {self.validation_complete:,} complete validation rows "
            f"({share:.1%}) stand in the train file, value for value.",
            f"Blank cells in the validation file: {blanks}.",
        ]


def audit_wines(data: WineData) -> Audit:
    """Count repeats, overlap and blanks of the published pair."""
    complete = data.validation.dropna(subset=WINE)
    train_wines = data.train[WINE].drop_duplicates()
    both = complete[WINE].merge(train_wines, how="inner", on=WINE)
    blanks = data.validation[list(MEASUREMENTS)].isna().sum()
    return Audit(
        train_rows=len(data.train),
        train_distinct=len(train_wines),
        validation_rows=len(data.validation),
        validation_complete=len(complete),
        validation_in_train=len(both),
        blanks={str(column): int(count) for column, count in blanks[blanks > 0].items()},
    )


def main() -> int:
    """Audit the wines and print what was found."""
    parser = argparse.ArgumentParser(description="Say what is wrong with the wines.")
    parser.add_argument("--strict", action="store_true", help="end with exit code 1 when wines stand on both sides")
    strict = parser.parse_args().strict
    settings = load_settings()
    data = load_wines(settings.data, settings.seed)
    audit = audit_wines(data)
    print(f"Wines from {data.source}, fingerprint {data.fingerprint[:12]}")
    print("\n".join(audit.sentences()))
    print("Next: python -m wine_quality_training.train shows what the overlap does to a score")
    return FINDING if strict and audit.leaks else DONE


if __name__ == "__main__":
    run_command(main)

"""Find problems in the wines: above all, wines that are in both files.

    python -m wine_data.audit [--strict]

Prints and plots the findings of checks.py. With --strict the command ends with exit code 1 if there is a leak.
"""

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from commands import DONE, FINDING, run_command
from settings import load_settings
from wine_data.sources.load import load_wines

if TYPE_CHECKING:
    from wine_data.audit.checks import Audit


def tabulate_audit(audit: "Audit") -> Table:
    """The audit as a table for a terminal: one row per finding, and one per check that found nothing."""
    from wine_data.audit.checks import CHECKS

    table = Table("check", "file", "count", "of", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[2].justify = table.columns[3].justify = "right"
    for check in CHECKS:
        found = [finding for finding in audit.findings if finding.check.startswith(check)]
        for finding in found:
            table.add_row(finding.check, finding.where, f"{finding.count:,}", f"{finding.total:,}")
        if not found:
            table.add_row(check, "", "none", "")
    return table


def main() -> int:
    """Audit the wines, print and plot the findings."""
    parser = argparse.ArgumentParser(description="Find leaks, repeats and errors in the wines.")
    parser.add_argument("--strict", action="store_true", help="end with exit code 1 if wines are in both files")
    strict = parser.parse_args().strict
    settings = load_settings()

    from wine_data.audit.checks import audit_wines
    from wine_data.audit.figure import plot_audit

    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url, settings.wine_type)
    audit = audit_wines(data)
    console = Console(highlight=False, soft_wrap=True)
    console.print(data.introduce() + "\n")
    console.print("\n".join(audit.sentences()) + "\n")
    console.print(tabulate_audit(audit))
    settings.audit_figure.parent.mkdir(parents=True, exist_ok=True)
    plot_audit(data.train, data.validation).savefig(settings.audit_figure)
    console.print(f"\nFigure: {settings.audit_figure}")
    console.print("Next: python -m wine_quality_training.train shows how the overlap changes a score")
    return FINDING if strict and audit.leaks else DONE


if __name__ == "__main__":
    run_command(main)

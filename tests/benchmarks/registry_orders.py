"""Use the registry in random orders beside a model of its rules, and count where they differ.

    python -m tests.benchmarks.registry_orders     (--orders N, default 200; --actions N, default 40; --seed S)

Hypothesis chooses the actions of each order: register, judge, promote, refuse, roll back, export, kill, reload, and an
alias moved by hand. After each, the alias, the records and the served model are those of the model. This takes a
quarter of an hour. Exit code 1: there is a difference; the shortest order that shows it is printed.
"""

import logging
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result


def main() -> int:
    """Run the orders, and write the table."""
    arguments = parse_arguments(__doc__, orders=200, actions=40, seed=0)

    from tests.test_faults import make_template
    from tests.test_registry_states import run_machine

    logging.disable()  # MLflow reports every step that fails on purpose
    counts, differences = Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="wine-orders-") as name:
        template = make_template(Path(name) / "template")
        try:
            run_machine(template, arguments.orders, arguments.actions, counts, arguments.seed)
        except Exception:
            differences = 1  # Hypothesis ends at the first
            traceback.print_exc()
    rows = [make_row(what, "", f"{count:,}") for what, count in counts.items()]
    rows.append(make_row("orders in which registry and model differed", "0", str(differences)))
    command = f"registry_orders --orders {arguments.orders} --actions {arguments.actions} --seed {arguments.seed}"
    publish_result("registry_orders", command, rows)
    return FINDING if differences else DONE


if __name__ == "__main__":
    run_command(main)

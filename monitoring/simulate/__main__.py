"""Simulate traffic with a chosen drift: send wines of the twin to a running API, and tasters' grades later.

    python -m monitoring.simulate --drift shift --feature alcohol --size 1 --wines 1000 --labels 0.5

drifts.py describes the effect of each drift on wines and grades.
"""

import argparse

from rich.console import Console
from rich.progress import Progress

from commands import DONE, BadInputError, run_command
from monitoring.simulate.drifts import DRIFTING, DRIFTS, Drift
from settings import load_settings
from wine_data.schema import MEASUREMENTS


def parse_arguments() -> argparse.Namespace:
    """Read the command's arguments. Raises BadInputError for an impossible number."""
    parser = argparse.ArgumentParser(
        description="Send generated wines with a drift to a running API, and later the grades of simulated tasters."
    )
    add = parser.add_argument
    add("--drift", choices=DRIFTS, default="none", help="kind of drift (none)")
    add(
        "--feature",
        choices=MEASUREMENTS,
        default=DRIFTING,
        help=f"measurement that a shift or a unit changes ({DRIFTING})",
    )
    add(
        "--size",
        type=float,
        default=1.0,
        help="size of the drift: standard deviations, share of red wines, or grades (1)",
    )
    add("--wines", type=int, default=1000, help="number of wines (1000)")
    add("--labels", type=float, default=0.0, help="share of answers that tasters grade (0)")
    add("--delay", type=int, default=200, help="number of wines after which a grade is sent (200)")
    add("--rate", type=float, default=0.0, help="wines per second (default: as fast as one connection allows)")
    add("--seed", type=int, default=0, help="seed of the wines and of which are graded (0)")
    add("--address", help="address of the API (http://127.0.0.1:8000; WINE_PORT sets the port)")
    arguments = parser.parse_args()
    if arguments.wines < 1 or arguments.delay < 0 or arguments.rate < 0 or not 0 <= arguments.labels <= 1:
        given = ", ".join(f"--{name} {getattr(arguments, name):g}" for name in ("wines", "labels", "delay", "rate"))
        raise BadInputError(f"{given}: wines must be 1 or more, labels from 0 to 1, delay and rate 0 or more")
    return arguments


def main() -> int:
    """Sample wines, send them, and print the result."""
    arguments, settings = parse_arguments(), load_settings()
    drift = Drift(arguments.drift, arguments.feature, arguments.size)
    address = arguments.address or f"http://127.0.0.1:{settings.port}"

    from monitoring.simulate.traffic import Traffic, sample_drifted, send_wines

    wines = sample_drifted(drift, arguments.wines, arguments.seed)
    traffic = Traffic(arguments.labels, arguments.delay, arguments.rate, arguments.seed)
    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=console) as progress:
        bar = progress.add_task(f"Asking for wines, drift: {arguments.drift}", total=len(wines))
        keys = settings.find_key("predict_key"), settings.find_key("feedback_key")
        sent = send_wines(address, wines, traffic, keys, lambda: progress.advance(bar))
    console.print(f"{sent.answered:,} wines answered, {sent.refused:,} refused, {sent.graded:,} graded by tasters")
    console.print("Next: make monitor")
    return DONE


if __name__ == "__main__":
    run_command(main)

"""Traffic with a chosen drift: wines of the twin asked of a running API, with tasters' grades that come late.

    python -m monitoring.simulate --drift shift --feature alcohol --size 1 --wines 1000 --labels 0.5

What each drift does to wines and grades, drifts.py says.
"""

import argparse

from rich.console import Console
from rich.progress import Progress

from commands import DONE, BadInputError, run_command
from monitoring.simulate.drifts import DRIFTING, DRIFTS, Drift
from settings import load_settings
from wine_data.schema import MEASUREMENTS


def parse_arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description="Ask a running API for wines of the twin with a drift, and send it tasters' grades, late."
    )
    parser.add_argument("--drift", choices=DRIFTS, default="none")
    parser.add_argument("--feature", choices=MEASUREMENTS, default=DRIFTING, help=f"of a shift or a unit ({DRIFTING})")
    parser.add_argument(
        "--size", type=float, default=1.0, help="standard deviations, share of red wines, or grades (1)"
    )
    parser.add_argument("--wines", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--labels", type=float, default=0.0, help="share of answers that tasters grade (0)")
    parser.add_argument("--delay", type=int, default=200, help="wines after which a grade comes (200)")
    parser.add_argument("--rate", type=float, default=0.0, help="wines a second (as fast as one connection goes)")
    parser.add_argument("--seed", type=int, default=0, help="decides which wines, and which are graded (0)")
    parser.add_argument("--address", help="the API's (http://127.0.0.1:8000, by WINE_PORT)")
    arguments = parser.parse_args()
    for name, fine in (
        ("wines", arguments.wines > 0),
        ("labels", 0 <= arguments.labels <= 1),
        ("delay", arguments.delay >= 0),
        ("rate", arguments.rate >= 0),
    ):
        if not fine:
            raise BadInputError(f"--{name} {getattr(arguments, name):g} makes no sense")
    return arguments


def main() -> int:
    """Sample, send, and report the result."""
    arguments, settings = parse_arguments(), load_settings()
    drift = Drift(arguments.drift, arguments.feature, arguments.size)

    from monitoring.simulate.traffic import Traffic, sample_drifted, send_wines

    wines = sample_drifted(drift, arguments.wines, arguments.seed)
    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=console) as progress:
        bar = progress.add_task(f"Asking for wines, drift: {arguments.drift}", total=len(wines))
        sent = send_wines(
            arguments.address or f"http://127.0.0.1:{settings.port}",
            wines,
            Traffic(arguments.labels, arguments.delay, arguments.rate, arguments.seed),
            settings.api_key.get_secret_value(),
            lambda: progress.advance(bar),
        )
    console.print(f"{sent.answered:,} wines answered, {sent.refused:,} refused, {sent.graded:,} graded by tasters")
    console.print("Next: make monitor")
    return DONE


if __name__ == "__main__":
    run_command(main)

"""The result of the last pipeline run, in Markdown: the job summary in GitHub Actions.

    python -m orchestration.summary [--folder FOLDER]    (make summary)

Appends to the file that GITHUB_STEP_SUMMARY names; prints if it is not set.
"""

import argparse
import os
from pathlib import Path

from commands import DONE, run_command
from settings import load_settings


def main() -> int:
    """Summarise the last run of the pipeline."""
    parser = argparse.ArgumentParser(description="Print the result of the last run of the pipeline, in Markdown.")
    parser.add_argument(
        "--folder", type=Path, help="also write the summary, the figures and the model cards into this folder"
    )
    folder, settings = parser.parse_args().folder, load_settings()

    from orchestration.summary.outcome import summarise

    summary = summarise(settings, folder)
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if file:
        with Path(file).open("a") as page:
            page.write(summary)
    else:
        print(summary, end="")
    return DONE


if __name__ == "__main__":
    run_command(main)

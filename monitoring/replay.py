"""Compare a challenger with the champion on the wines in the prediction log.

    python -m monitoring.replay VERSION [--days 7]

reads the log and runs the version in this process, so the service has no load and no client sees its predictions. The
gate's verdict on the version, by `registry promote` or a release, shows the last result.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from commands import DONE, BadInputError, NotThereError, run_command
from settings import Settings, load_settings
from wine_data.schema import FEATURES, GRADES, RATERS, ROW, ROWS, TARGET

if TYPE_CHECKING:
    import pandas as pd

    from deployment.predictor import Predictor
    from experiment_tracking.registry.paired import Difference

DAYS = 7.0
FEWEST_GRADED = 30  # with fewer, a difference is not meaningful
SHOWN = 5


@dataclass
class Replay:
    """The predictions of a challenger and of the champion for the same wines.

    Attributes:
        period: when the wines were logged, in words.
        moved: counts by the champion's grade and the challenger's.
        furthest: those whose expected quality differs most: request id, then the champion's and the challenger's.
        graded: distinct wines that tasters graded; `differences` compares both models on them, and is empty if there
            are fewer than FEWEST_GRADED.
    """

    champion: str
    challenger: str
    period: str = ""
    answers: int = 0
    moved: Counter[tuple[int, int]] = field(default_factory=Counter)
    furthest: list[tuple[str, float, float]] = field(default_factory=list)
    graded: int = 0
    differences: "tuple[Difference, ...]" = ()

    @property
    def agreement(self) -> float:
        """The share of predictions with the same grade."""
        return sum(count for (ours, theirs), count in self.moved.items() if ours == theirs) / self.answers

    def sentences(self) -> list[str]:
        """The result as sentences."""
        names = f"version {self.challenger} and version {self.champion}, which serves"
        logged = f"{self.answers:,} {ROWS}, logged {self.period}"
        first = f"{names}, give the same grade to {self.agreement:.1%} of {logged}"
        changed = [(pair, count) for pair, count in self.moved.most_common() if pair[0] != pair[1]][:SHOWN]
        moves = ", ".join(f"{ours} becomes {theirs} {count:,} times" for (ours, theirs), count in changed)
        quality = [
            f"{one.measure} {one.challenger:.3f} against {one.rival:.3f}, {one.gain:+.3f} "
            f"(95 %: {one.gain - 1.96 * one.deviation:+.3f} to {one.gain + 1.96 * one.deviation:+.3f})"
            for one in self.differences
        ]
        graded = f"on {self.graded:,} {ROWS} that {RATERS} graded: {', '.join(quality)}"
        few = f"{RATERS} graded {self.graded:,} of these {ROWS}: {FEWEST_GRADED} are needed to compare the quality"
        return [first, *([f"most often {moves}"] if moves else []), graded if quality else few]


def replay_log(settings: Settings, version: str, days: float = DAYS, now: float | None = None) -> Replay:
    """Run a registered version, by number or alias, on the wines that the serving model predicted in the last days.

    Raises:
        NotThereError: there is no such version, no serving model, no log, or no prediction of that model in that time.
        BadInputError: the version is the serving model, or cannot be read here.
    """
    import pandas as pd

    from deployment.prediction_log.reader import iterate_answers
    from deployment.prediction_log.windows import select_model
    from deployment.predictor import Predictor
    from experiment_tracking.registry.versions import find_version, load_version
    from wine_quality_training.bundle.bundle import METADATA_FILE, find_current
    from wine_quality_training.bundle.metadata import read_metadata

    serving = read_metadata(find_current(settings.serving_models) / METADATA_FILE)
    found = find_version(version)
    if (found.number, found.run_id) == (serving.version, serving.run_id):
        raise BadInputError(
            f"version {found.number} serves already: choose another of python -m experiment_tracking.registry list"
        )
    now = time.time() if now is None else now
    period = f"in the {days:g} days before {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC"
    replay, predictor, graded = Replay(serving.version, found.number, period), None, []
    for part in iterate_answers(settings.log_url, now - days * 86_400, now):
        logged = select_model(part, serving.version, serving.run_id)
        logged = logged[logged[[*FEATURES, "expected_quality"]].notna().all(axis="columns")]
        if len(logged):
            predictor = predictor or Predictor(load_version(found))  # takes seconds, so only if the log has predictions
            add_part(replay, predictor, logged)
            graded.append(logged[logged[TARGET].notna()])
    if predictor is None:
        raise NotThereError(
            f"version {serving.version} answered no {ROW} in the last {days:g} days: use --days, or make simulate"
        )
    compare_graded(replay, pd.concat(graded), predictor)
    return replay


def record_replay(replay: Replay) -> None:
    """Store the result on the challenger's version, for the gate's verdict."""
    from experiment_tracking.registry.versions import note_replay

    note_replay(replay.challenger, replay.champion, replay.sentences())


def add_part(replay: Replay, predictor: "Predictor", logged: "pd.DataFrame") -> None:
    """Run the challenger on some logged wines, and add its predictions."""
    places, expected = predictor.decide(predictor.predict_probabilities(logged[list(FEATURES)].to_numpy("float64")))
    theirs = [predictor.grades[place] for place in places.tolist()]
    replay.answers += len(logged)
    replay.moved.update(zip(logged["prediction"].tolist(), theirs, strict=True))
    rows = zip(logged["request_id"], logged["expected_quality"].tolist(), expected.tolist(), strict=True)
    replay.furthest = sorted([*replay.furthest, *rows], key=lambda row: -abs(row[2] - row[1]))[:SHOWN]


def compare_graded(replay: Replay, graded: "pd.DataFrame", predictor: "Predictor") -> None:
    """Compare both models on the graded wines of the log, as the gate does: each wine counts once."""
    import numpy as np
    import pandas as pd

    from experiment_tracking.registry.paired import Answers, compare_answers, number_wines

    replay.graded = int(number_wines(graded).max(initial=-1)) + 1
    if replay.graded < FEWEST_GRADED:
        return
    probabilities = predictor.predict_probabilities(graded[list(FEATURES)].to_numpy("float64"))
    grades = np.array(predictor.grades)
    logged = pd.DataFrame(map(json.loads, graded["probabilities"])).fillna(0)
    theirs = Answers(grades[predictor.decide(probabilities)[0]], probabilities @ (grades[:, None] <= np.array(GRADES)))
    shares = logged.to_numpy("float64") @ (logged.columns.astype(int).to_numpy()[:, None] <= np.array(GRADES))
    ours = Answers(graded["prediction"].to_numpy(), shares)
    wines = graded.assign(**{TARGET: graded[TARGET].clip(GRADES[0], GRADES[-1])})
    _, replay.differences = compare_answers(wines, theirs, ours)


def parse_arguments() -> argparse.Namespace:
    """Read the command's arguments. Raises BadInputError for an impossible number of days."""
    parser = argparse.ArgumentParser(
        description=f"Score the {ROWS} of the prediction log with a registered version, and compare it with the "
        "champion."
    )
    parser.add_argument("version", metavar="VERSION", help="number or alias, such as challenger")
    parser.add_argument("--days", type=float, default=DAYS, help=f"score the {ROWS} of so many days ({DAYS:g})")
    arguments = parser.parse_args()
    if not arguments.days > 0:
        raise BadInputError(f"--days is {arguments.days:g}: it must be more than 0")
    return arguments


def main() -> int:
    """Replay the log, and print the result."""
    arguments, settings = parse_arguments(), load_settings()

    from rich.console import Console

    from experiment_tracking.runs.store import open_store

    console = Console(highlight=False, soft_wrap=True)
    open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    with console.status(f"Scoring the logged {ROWS} again"):
        replay = replay_log(settings, arguments.version, arguments.days)
    console.print("\n".join(replay.sentences()))
    console.print("largest differences in expected quality:")
    for request_id, ours, theirs in replay.furthest:
        console.print(f"    {request_id}: {ours:.2f}, and {theirs:.2f} by version {replay.challenger}")
    record_replay(replay)
    console.print(f"Next: python -m experiment_tracking.registry promote {replay.challenger}")
    return DONE


if __name__ == "__main__":
    run_command(main)

"""How like the real wines the twin is, against all distinct real wines.

    python -m tests.benchmarks.twin_fidelity FOLDER

FOLDER holds the real files. Prints the figures and writes them to results/twin_fidelity.json.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from commands import DONE, run_command
from tests.benchmarks.results import render_result, write_result
from wine_data.schema import FEATURES, GRADES, MEASUREMENTS, TARGET, feature_frame
from wine_data.sources.load import read_folder

if TYPE_CHECKING:
    import pandas as pd

    from wine_data.split import Split


SEEDS = (1, 2, 3)
ROWS = 20_000  # enough that the draw adds little to the distance


def measure_fidelity(split: "Split") -> dict[str, float]:
    """Take the worst of three seeds for each figure, the mean for the model's R2."""
    import pandas as pd
    from scipy.stats import ks_2samp

    from wine_data.twin.sample import sample_twin

    real = pd.concat([split.train, split.holdout], ignore_index=True)
    twins = [sample_twin(ROWS, seed) for seed in SEEDS]
    columns = [*FEATURES, TARGET]
    shares = [twin[TARGET].value_counts(normalize=True) for twin in twins]
    real_shares = real[TARGET].value_counts(normalize=True)
    return {
        "distance": max(ks_2samp(real[name], twin[name]).statistic for twin in twins for name in MEASUREMENTS),
        "correlation": max((real[columns].corr() - twin[columns].corr()).abs().to_numpy().max() for twin in twins),
        "share": max(abs(real_shares.get(g, 0) - share.get(g, 0)) for share in shares for g in GRADES),
        "r2_real": _score_holdout(split.train, split.holdout),
        "r2_twin": float(
            np.mean([_score_holdout(sample_twin(len(split.train), seed), split.holdout) for seed in SEEDS])
        ),
        "seconds": _time_million(),
    }


def _score_holdout(wines: "pd.DataFrame", holdout: "pd.DataFrame") -> float:
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.metrics import r2_score

    model = ExtraTreesRegressor(300, random_state=0, n_jobs=-1).fit(feature_frame(wines), wines[TARGET])
    return float(r2_score(holdout[TARGET], model.predict(feature_frame(holdout))))


def _time_million() -> float:
    from wine_data.twin.sample import sample_twin

    start = time.perf_counter()
    sample_twin(1_000_000, seed=1)
    return time.perf_counter() - start


def list_rows(figures: dict[str, float]) -> list[dict[str, Any]]:
    """Set each figure beside its goal."""
    ratio = figures["r2_twin"] / figures["r2_real"]
    return [
        {"figure": "largest Kolmogorov-Smirnov distance of a column", "goal": "<= 0.03",
         "measured": f"{figures['distance']:.3f}"},
        {"figure": "largest error of a correlation", "goal": "<= 0.07", "measured": f"{figures['correlation']:.3f}"},
        {"figure": "largest error of a grade's share", "goal": "<= 1 point",
         "measured": f"{100 * figures['share']:.1f} points"},
        {"figure": "R2 on the real holdout: trained on the twin / on real wines", "goal": ">= 0.8",
         "measured": f"{figures['r2_twin']:.2f} / {figures['r2_real']:.2f} = {ratio:.2f}"},
        {"figure": "time for one million wines", "goal": "< 10 s", "measured": f"{figures['seconds']:.1f} s"},
    ]  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure how like the real wines the synthetic twin is.")
    parser.add_argument("folder", type=Path, help="folder with the real files")
    folder = parser.parse_args().folder

    from wine_data.split import split_wines

    split = split_wines(*read_folder(folder, seed=42), folds=5, seed=42)
    path = write_result(
        "twin_fidelity", "python -m tests.benchmarks.twin_fidelity FOLDER", list_rows(measure_fidelity(split))
    )
    print(render_result("twin_fidelity"))
    print(f"\nWritten to {path.name}. Next: copy the table into wine_data/README.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)

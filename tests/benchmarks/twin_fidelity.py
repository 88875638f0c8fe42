"""How like the real wines the twin is, against all distinct real wines.

    python -m tests.benchmarks.twin_fidelity FOLDER

FOLDER holds the real files. Prints the figures and writes them to results/twin_fidelity.json.
"""

from typing import TYPE_CHECKING

import numpy as np

from commands import run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result, time_work
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
    of_twins = [_score_holdout(sample_twin(len(split.train), seed), split.holdout) for seed in SEEDS]
    return {
        "distance": max(ks_2samp(real[name], twin[name]).statistic for twin in twins for name in MEASUREMENTS),
        "correlation": max((real[columns].corr() - twin[columns].corr()).abs().to_numpy().max() for twin in twins),
        "share": max(abs(real_shares.get(g, 0) - share.get(g, 0)) for share in shares for g in GRADES),
        "r2_real": _score_holdout(split.train, split.holdout),
        "r2_twin": float(np.mean(of_twins)),
    }


def _score_holdout(wines: "pd.DataFrame", holdout: "pd.DataFrame") -> float:
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(300, random_state=0, n_jobs=-1).fit(feature_frame(wines), wines[TARGET])
    return float(model.score(feature_frame(holdout), holdout[TARGET]))


def main() -> int:
    """Measure, set each figure beside its goal, print, write."""
    folder = parse_arguments(__doc__, "folder").folder

    from wine_data.split import split_wines
    from wine_data.twin.sample import sample_twin

    found = measure_fidelity(split_wines(*read_folder(folder, seed=42), folds=5, seed=42))
    seconds = time_work(lambda: sample_twin(1_000_000, seed=1))
    twin, real = found["r2_twin"], found["r2_real"]
    both = f"{twin:.2f} / {real:.2f} = {twin / real:.2f}"
    rows = [
        make_row("largest Kolmogorov-Smirnov distance of a column", "<= 0.03", f"{found['distance']:.3f}"),
        make_row("largest error of a correlation", "<= 0.07", f"{found['correlation']:.3f}"),
        make_row("largest error of a grade's share", "<= 1 point", f"{100 * found['share']:.1f} points"),
        make_row("R2 on the real holdout: trained on the twin / on real wines", ">= 0.8", both),
        make_row("time for one million wines", "< 10 s", f"{seconds:.1f} s"),
    ]
    return publish_result("twin_fidelity", "twin_fidelity FOLDER", rows)


if __name__ == "__main__":
    run_command(main)

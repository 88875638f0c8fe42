"""How often the gate lets in a challenger without gain, and how often one with gain.

    python -m tests.benchmarks.gate_power FOLDER [--series N] [--challengers N] [--repetitions N] [--seed N]

FOLDER holds the published pair. What an ExtraTreesClassifier answers in cross-validation to wines of each grade gives
the shares from which holdouts of 1,060 wines and a champion's answers are drawn. A challenger answers as the champion
does, but to three wines in ten anew from the same shares: it has the same kappa in the long run. One with gain knows
the grade of some of these three, so it gains kappa and, by the way, accuracy. Each of --series holdouts is asked
about --challengers without gain, one after the other, by the gate's bootstrap and limits. The power is over
--repetitions holdouts, where the challengers before had no gain and did not get in.

About two minutes on a busy core. Goes to results/gate_power.json.
"""

from typing import TYPE_CHECKING

from commands import run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result

if TYPE_CHECKING:
    import numpy as np

    from tests.benchmarks.gate_study import World

WINES, GAINS, PLACES = 1_060, (0.03, 0.06), (1, 10, 50)


def learn_world(folder: str, seed: int) -> "World":
    """What a forest answers to the published wines that it has not seen."""
    from settings import load_settings
    from tests.benchmarks.gate_study import World
    from wine_data.schema import TARGET
    from wine_data.sources.load import load_wines
    from wine_data.split import split_wines
    from wine_quality_training.evaluate import evaluate_leak_free
    from wine_quality_training.models import make_model

    data = load_wines(folder, seed, load_settings().downloads, "")
    split = split_wines(data.train, data.validation, 5, seed)
    table = evaluate_leak_free("a forest", make_model("ExtraTreesClassifier", seed), split).predictions["cv"]
    return World.learn(table[TARGET].to_numpy(), table["prediction"].to_numpy())


def measure_errors(
    world: "World", series: int, challengers: int, random: "np.random.Generator"
) -> list[dict[str, str]]:
    """Count the series in which a challenger without gain gets in."""
    from tests.benchmarks.gate_study import find_admissions

    found = [find_admissions(world, WINES, challengers, random) for _ in range(series)]
    wrong, by_five = (sum(bool(each[part]) for each in found) for part in (0, 1))
    name = f"series of {challengers} challengers without gain in which one gets in"
    return [
        make_row(name, f"<= 5 % of {series}", f"{wrong} ({100 * wrong / series:.1f} %)"),
        make_row("the same by kappa alone, at 5 % each time", "", f"{by_five} ({100 * by_five / series:.1f} %)"),
    ]


def measure_power(world: "World", repetitions: int, random: "np.random.Generator") -> list[dict[str, str]]:
    """How often challengers with gain get in, and how often the margins let one pass that is the same."""
    import numpy as np

    from experiment_tracking.registry.paired import COMPARED
    from experiment_tracking.registry.questions import level_of, name_ordinal
    from tests.benchmarks.gate_study import judge, sample_differences

    levels = {f"as the {name_ordinal(place)}": level_of(place) for place in PLACES}
    levels["as the 2nd after one that got in"] = level_of(2, level_of(1))
    rows = []
    for gain in GAINS:
        differences = list(sample_differences(world, WINES, world.find_right(gain), repetitions, random))
        for place, level in levels.items():
            shares = [all(one.passed for one in judge(each, WINES, level)) for each in differences]
            name = f"a gain of {gain} gets in, {place} (level {100 * level:.2g} %)"
            rows.append(make_row(name, "", f"{100 * np.mean(shares):.0f} %"))
    same = list(sample_differences(world, WINES, 0.0, repetitions, random))
    for part, measure in enumerate(COMPARED):
        gains = [each[part].gain for each in same]
        rows.append(make_row(f"no gain: standard deviation of the difference in {measure}", "", f"{np.std(gains):.4f}"))
    for part, measure in enumerate(COMPARED[1:], start=1):
        share = np.mean([judge(each, WINES, 0.05)[part].passed for each in same])
        rows.append(make_row(f"no gain: passes by {measure}", "", f"{100 * share:.0f} %"))
    return rows


def main() -> int:
    """Simulate, print and write."""
    amounts = {"series": 200, "challengers": 200, "repetitions": 1000, "seed": 42}
    plan = parse_arguments(__doc__, "folder", **amounts)

    import numpy as np

    world, random = learn_world(str(plan.folder), plan.seed), np.random.default_rng(plan.seed)
    rows = measure_errors(world, plan.series, plan.challengers, random)
    rows += measure_power(world, plan.repetitions, random)
    return publish_result("gate_power", "gate_power FOLDER", rows)


if __name__ == "__main__":
    run_command(main)

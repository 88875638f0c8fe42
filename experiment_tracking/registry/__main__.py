"""The registry as a command: versions, the gate, promotion, rollback.

python -m experiment_tracking.registry list | show | register | promote | rollback | export | history
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from commands import DONE, BadInputError, RefusedError, run_command
from experiment_tracking.registry.gate import MARGIN
from settings import Settings, load_settings
from wine_data.sources.load import load_wines

COMMAND = "python -m experiment_tracking.registry"


def show_versions(console: Console) -> None:
    """Print one line per version, the newest first."""
    from experiment_tracking.registry.versions import list_versions

    table = Table("version", "model", "alias", "kappa cv", "holdout", "wines", box=None)
    for version in list_versions():
        scores = f"{version.kappa_cv:.3f}", f"{version.kappa_holdout:.3f}"
        table.add_row(version.number, version.model, "\n".join(version.aliases), *scores, version.fingerprint[:8])
    console.print(table)


def show_history(console: Console) -> None:
    """Print every promotion, rollback and refusal, the oldest first."""
    from experiment_tracking.registry.promotion import list_records

    for record in list_records():
        move = f"version {record.champion or 'none'} -> {record.version}"
        console.print(f"{record.when:%Y-%m-%d %H:%M:%S} UTC  {record.event}  {move}  {record.who}")
        for why in filter(None, [*record.verdict.split("; "), record.reason and f"reason: {record.reason}"]):
            console.print(f"    {why}")


def show_version(name: str | None, console: Console) -> None:
    """Print a version and its card; without a name, the champion's."""
    from experiment_tracking.registry.versions import CHAMPION, MODEL, find_version

    version = find_version(CHAMPION if name is None else name)
    console.print(f"{MODEL} version {version.number} {' '.join(version.aliases)}")
    console.print(f"run {version.run_id}, registered {version.registered:%Y-%m-%d %H:%M} UTC")
    console.print(f"wines: {version.source}, fingerprint {version.fingerprint}\n")
    console.print(version.card)


def run_promote(arguments: argparse.Namespace, settings: Settings, console: Console) -> None:
    """Judge a version, and promote it if the gate, or a person with a reason, admits it."""
    from experiment_tracking.registry.promotion import promote, settle_moves
    from experiment_tracking.registry.versions import CHALLENGER, CHAMPION, find_version, judge_version

    version = find_version(CHALLENGER if arguments.version is None else arguments.version)
    if CHAMPION in version.aliases:
        settle_moves(settings.serving_models)  # a killed promotion may have moved only the alias
        raise RefusedError(f"version {version.number} is the champion already")

    from wine_data.split import split_wines
    from wine_data.table.wines import read_wines

    recent = read_wines(arguments.recent) if arguments.recent else None
    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url, settings.wine_type)
    console.print(data.introduce())
    with console.status("Scoring challenger and champion on the same wines"):
        split = split_wines(data.train, data.validation, settings.folds, settings.seed)
        verdict = judge_version(version, split.holdout, recent, arguments.margin)
    bundle = promote(version, verdict, settings.serving_models, arguments.reason or "")
    console.print("\n".join(verdict.sentences()))
    console.print(f"version {version.number} is the champion; a running API loads it: {bundle}")
    console.print(f"Next: make serve; to undo: {COMMAND} rollback")


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Show, register, promote and roll back versions of the model."
    )
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("list", help="list all versions")
    show = parts.add_parser("show", help="show one version with its model card")
    show.add_argument("version", nargs="?", help="number or alias (champion)")
    parts.add_parser("register", help="register the model of a run; it becomes the challenger").add_argument("run_id")
    admit = parts.add_parser("promote", help="test a version with the gate; if it passes, it becomes the champion")
    admit.add_argument("version", nargs="?", help="number or alias (challenger)")
    admit.add_argument("--reason", help="promote it even if the gate refuses, for this reason; it is recorded")
    admit.add_argument("--recent", type=Path, help="CSV of graded recent wines, after drift")
    admit.add_argument(
        "--margin", type=float, default=MARGIN, help="with --recent: how much lower kappa on the holdout may be"
    )
    back = parts.add_parser("rollback", help="bring back the previous champion")
    back.add_argument("--reason", default="", help="the reason; it is recorded")
    parts.add_parser("export", help="write the champion's serving bundle to this machine, if it is not there yet")
    parts.add_parser("history", help="list every promotion, rollback and refusal")
    arguments = parser.parse_args()
    if arguments.part == "promote" and arguments.reason is not None and not arguments.reason.strip():
        raise BadInputError("--reason is empty: say why the version should be promoted")
    if arguments.part == "promote" and not 0 <= arguments.margin <= 1:
        raise BadInputError(f"--margin is {arguments.margin:g}; it is a difference of kappa, 0 to 1")
    return arguments


def main() -> int:
    """Run one part of the command."""
    arguments, settings = parse_arguments(), load_settings()
    console = Console(highlight=False, soft_wrap=True)

    from experiment_tracking.registry.promotion import list_records, roll_back, serve_champion
    from experiment_tracking.registry.versions import CHALLENGER, MODEL, register_model
    from experiment_tracking.runs.store import open_store

    open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    match arguments.part:
        case "list":
            show_versions(console)
            console.print(f"\nNext: {COMMAND} show VERSION")
        case "show":
            show_version(arguments.version, console)
            console.print(f"Next: {COMMAND} history")
        case "register":
            version, run_id = register_model(arguments.run_id), arguments.run_id
            console.print(f"{version.model} of run {run_id} is {MODEL} version {version.number}, the {CHALLENGER}")
            console.print(f"Next: {COMMAND} promote {version.number}")
        case "promote":
            run_promote(arguments, settings, console)
        case "rollback":
            version, bundle = roll_back(settings.serving_models, arguments.reason)
            record = list_records()[-1]
            again = f"version {version.number} ({version.model}) is the champion again"
            console.print(f"{again}; a running API loads it:\n{bundle}")
            console.print(f"before: version {record.champion or 'none'}; reason: {record.reason or 'none given'}")
            console.print("Next: make serve")
        case "export":
            version, bundle = serve_champion(settings.serving_models)
            console.print(f"version {version.number} ({version.model}), the champion, serves from {bundle}")
            console.print("Next: make serve")
        case "history":
            show_history(console)
            console.print(f"\nNext: {COMMAND} list")
    return DONE


if __name__ == "__main__":
    run_command(main)

"""The Dockerfile carried out without docker: each stage in a folder of its own, with this machine's Python.

What an image has at /app lies in <folder>/<stage>/app, so a value of ENV that names /app is changed to that, and
nothing else is. Owners, USER, VOLUME and the base image are not carried out.
"""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePath

from settings import ROOT

APP = "/app"


@dataclass(frozen=True)
class Stage:
    """A stage of the file: the stage or image that it begins with, and its instructions (keyword, rest of the line)."""

    parent: str
    instructions: list[tuple[str, str]]

    def find(self, keyword: str) -> list[str]:
        """The rest of every instruction with this keyword."""
        return [rest for found, rest in self.instructions if found == keyword]

    def read_command(self, keyword: str) -> list[str]:
        """The command of CMD or HEALTHCHECK, which are in the form of a JSON list here."""
        rest = self.find(keyword)[-1]
        return [str(word) for word in json.loads(rest[rest.index("[") :])]


@dataclass(frozen=True)
class Built:
    """A stage that was built: what is at /app, and the environment of its processes."""

    app: Path
    environment: dict[str, str]


def read_dockerfile(text: str) -> dict[str, Stage]:
    """Read the stages of a Dockerfile, by name."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", "")
    stages: dict[str, Stage] = {}
    for line in filter(str.strip, lines.splitlines()):
        keyword, rest = line.split(maxsplit=1)
        if keyword == "FROM":
            parent, _, name = rest.split()
            stage = stages[name] = Stage(parent, [])
        else:
            stage.instructions.append((keyword, rest))
    return stages


def list_sent(ignore: str) -> list[Path]:
    """The files that docker would be sent: those that .dockerignore, which leaves out all others, names with a `!`."""
    patterns = [line.removeprefix("!") for line in ignore.splitlines() if line.startswith("!")]
    return sorted({path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)})


def build(stages: dict[str, Stage], name: str, folder: Path) -> Built:
    """Build a stage, and before it those that it copies from."""
    programs = folder / "programs"  # with a `python`, as the base image has one
    if not programs.exists():
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(Path(sys.executable).resolve())
    built = Built(folder / name / APP.lstrip("/"), {"PATH": f"{programs}:/usr/bin:/bin"})
    built.app.mkdir(parents=True)
    for keyword, rest in stages[name].instructions:
        if keyword == "COPY":
            _copy(stages, rest, folder, built.app)
        elif keyword == "RUN":
            subprocess.run(["/bin/sh", "-c", rest], cwd=built.app, env=built.environment, check=True)
        elif keyword == "ENV":
            for word in shlex.split(rest):
                variable, value = word.split("=", 1)
                value = value.replace(APP, str(built.app)).replace("$PATH", built.environment["PATH"])
                built.environment[variable] = value
    return built


def _copy(stages: dict[str, Stage], rest: str, folder: Path, app: Path) -> None:
    words = rest.split()
    flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    *sources, target = (word for word in words if not word.startswith("--"))
    if "from" in flags:
        other = folder / flags["from"]
        if not other.exists():
            build(stages, flags["from"], folder)
        for source in sources:
            shutil.copytree(other / source.lstrip("/"), app / target, symlinks=True)
        return
    for source in sources:
        _copy_sent(source, app / target, into=target.endswith("/") or target == ".")


def _copy_sent(source: str, target: Path, into: bool) -> None:
    """Copy a file, what a pattern matches, or what is in a folder, of what docker is sent."""
    folder = (ROOT / source).is_dir()
    sent = list_sent((ROOT / ".dockerignore").read_text())
    found = [path for path in sent if (path.is_relative_to(source) if folder else _matches(path, source))]
    assert found, f"COPY {source}: .dockerignore keeps it out, or it is not there"
    for path in found:
        place = target / path.relative_to(source) if folder else target / path.name if into else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, place)


def _matches(path: PurePath, pattern: str) -> bool:
    return len(path.parts) == len(PurePath(pattern).parts) and path.match(pattern)

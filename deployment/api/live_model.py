"""The model that serves right now, and the watcher that replaces it while requests are answered."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from commands import BadInputError, NotThereError
from deployment.api.problems import ProblemError
from deployment.api.schemas import ResponseWriter
from deployment.predictor import Predictor, load_predictor, load_predictor_of
from wine_quality_training.bundle.files import CURRENT

POLL_SECONDS = 0.25


class LiveModel:
    """Holds a checked engine; a new one is loaded beside it and swapped in by one assignment."""

    def __init__(self, models: Path, on_load: Callable[[bool], None] = lambda refused: None) -> None:
        """Take the folder of bundles, and what counts refused bundles."""
        self._models = models
        self._on_load = on_load
        self._seen: object = None
        self._writer: ResponseWriter | None = None
        self.refused = ""
        self.loaded = datetime.now(UTC)

    @classmethod
    def of_bundle(cls, folder: Path) -> "LiveModel":
        """One bundle for ever, whatever `current` names."""
        live = cls(folder)  # a bundle holds no `current`, so nothing changes there
        live._swap(load_predictor_of(folder))
        return live

    @property
    def predictor(self) -> Predictor | None:
        """The engine, if there is one."""
        return self._writer.predictor if self._writer else None

    @property
    def writer(self) -> ResponseWriter:
        """What answers now. Raises ProblemError 503 while no model is loaded."""
        if self._writer is None:
            raise ProblemError(503, "No model is loaded yet; /ready says why", headers={"Retry-After": "1"})
        return self._writer

    def load(self) -> None:
        """Load what `current` names now; errors as in load_predictor."""
        self._seen = self._look()
        self._swap(load_predictor(self._models))

    def follow(self) -> None:
        """Load what `current` names if that changed. A bundle that is refused changes nothing but `refused`."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._swap(load_predictor(self._models))
        except (BadInputError, NotThereError, OSError) as error:
            self.refused = str(error)
            self._on_load(True)
            print(f"the model stays as it was: {error}", file=sys.stderr, flush=True)

    async def watch(self) -> None:
        """Follow `current` until cancelled; loading is done on a thread, so that answers go on."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.follow)

    def _swap(self, predictor: Predictor) -> None:
        self._writer = ResponseWriter(predictor)
        self.refused = ""
        self.loaded = datetime.now(UTC)
        self._on_load(False)

    def _look(self) -> object:
        """What changes when `current` does: its text, and when it was put there."""
        try:
            return (self._models / CURRENT).read_text(), (self._models / CURRENT).stat().st_mtime_ns
        except OSError:
            return None

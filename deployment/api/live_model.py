"""The model that serves now, and the watcher that replaces it without interrupting requests."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from commands import BadInputError, NotThereError
from deployment.api.schemas import ResponseWriter
from deployment.predictor import Predictor, load_predictor, load_predictor_of
from wine_quality_training.bundle.bundle import CURRENT
from wine_quality_training.bundle.compiled import return_memory

POLL_SECONDS = 0.25


class LiveModel:
    """Holds a checked model; a new one is loaded separately and swapped in by one assignment."""

    def __init__(
        self,
        models: Path,
        on_load: Callable[[bool], None] = lambda refused: None,
        load: Callable[[Path], Predictor] = load_predictor,
    ) -> None:
        """Load from the folder of bundles; errors as in load_predictor. on_load(refused) counts each attempt."""
        self._models, self._on_load, self._load = models, on_load, load
        self.load()

    @classmethod
    def of_bundle(cls, folder: Path) -> "LiveModel":
        """Serve one bundle only: its folder has no `current`, so the model never changes."""
        return cls(folder, load=load_predictor_of)

    def load(self) -> None:
        """Load the bundle that `current` names now; errors as in load_predictor."""
        self._seen = self._read_current()
        try:
            self.writer = ResponseWriter(self._load(self._models))
        except (BadInputError, NotThereError):
            raise
        except Exception as error:  # loading a model runs its code and that of libraries, which may raise any error
            raise BadInputError(
                f"the model that {self._models / CURRENT} names cannot be loaded "
                f"({type(error).__name__}: {error}): run make pipeline"
            ) from error
        return_memory()  # now that the model before it is freed too
        self.loaded, self.refused = datetime.now(UTC), ""
        self._on_load(False)

    def follow(self) -> None:
        """Load the bundle that `current` names if that changed. A refused bundle only sets `refused`."""
        if self._read_current() == self._seen:
            return
        try:
            self.load()
        except (BadInputError, NotThereError) as error:
            self._refuse(str(error))

    async def watch(self) -> None:
        """Follow `current` until cancelled, despite errors; a thread loads the model, so requests are not blocked."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await asyncio.to_thread(self.follow)
            except Exception as error:  # if this task ended, nobody would notice, and no promotion would be served
                self._refuse(f"{type(error).__name__}: {error}")

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        with suppress(Exception):  # continue even if the reason cannot be printed or counted
            print(f"the model was not replaced: {reason}", file=sys.stderr, flush=True)
            self._on_load(True)

    def _read_current(self) -> object:
        """The bytes and modification time of `current`, to detect a change; None if it cannot be read."""
        try:
            return (self._models / CURRENT).read_bytes(), (self._models / CURRENT).stat().st_mtime_ns
        except OSError:
            return None

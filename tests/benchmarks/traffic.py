"""Requests on kept-alive connections, each answer compared with what the model of its version says by itself."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from deployment.predictor import load_predictor_of
from tests.wines import load_as_default, make_bundle
from wine_data.schema import FEATURES, TARGET, feature_frame
from wine_quality_training.bundle.bundle import select_bundle
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import impute_before

POOL = 500  # wines that are asked for
PATIENCE = 30.0  # seconds that an answer may take
LOST = (OSError, EOFError, TimeoutError, ValueError)  # what the end of a connection raises


def make_bundles(models: Path) -> pd.DataFrame:
    """Write the bundles of two small forests, of which 1 serves; return the wines to ask for."""
    data = load_as_default("twin")
    wines = data.train.dropna()
    for version, trees in (("1", 20), ("2", 10)):
        pipeline = impute_before(RandomForestClassifier(trees, random_state=1, n_jobs=1))
        pipeline.fit(feature_frame(wines), wines[TARGET])
        make_bundle(models, Evaluation("RandomForestClassifier", LEAK_FREE, pipeline, (), {}), data, wines, version)
    select_bundle(models / "1")
    return wines.drop_duplicates(list(FEATURES)).head(POOL)


@dataclass
class Traffic:
    """What is asked, what the answer should be by version, and what came of it."""

    address: str
    models: Path
    values: NDArray[np.float64]
    wines: list[dict[str, float]]
    expected: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_bundles(cls, address: str, models: Path, table: pd.DataFrame) -> "Traffic":
        """Compute beforehand what each version of the folder says of each wine."""
        values = feature_frame(table).to_numpy()
        traffic = cls(address, models, values, [dict(zip(FEATURES, row, strict=True)) for row in values.tolist()])
        for version in ("1", "2"):
            traffic.expect(version)
        return traffic

    def expect(self, version: str) -> None:
        """Compute what a version says of each wine."""
        predictor = load_predictor_of(self.models / version)
        places, means = predictor.decide(predictor.predict_probabilities(self.values))
        grades = [predictor.grades[place] for place in places.tolist()]
        self.expected[version] = list(zip(grades, means.tolist(), strict=True))

    def check(self, places: Sequence[int], answers: Sequence[dict[str, Any]], version: str) -> None:
        """Count the answers to some wines, and those that the model of this version would not give."""
        self.counts["wrong"] += len(places) != len(answers)
        if version not in self.expected:  # promoted meanwhile
            self.expect(version)
        for place, answer in zip(places, answers, strict=False):
            grade, mean = self.expected[version][place]
            self.counts["wrong"] += (
                answer["prediction"] != grade or abs(answer["expected_quality"] - mean) > 1e-5 * mean
            )
            self.ids.append(answer["request_id"])
        self.counts["answers"] += len(answers)
        self.counts[f"by version {version}"] += len(answers)

    def write_wine(self, place: int) -> str:
        """A wine as the body of a request."""
        return json.dumps(self.wines[place])

    async def ask(self, connection: "Connection", places: Sequence[int]) -> None:
        """Ask for one wine or a batch of several, and check what comes."""
        one = len(places) == 1
        wines = [self.wines[place] for place in places]
        try:
            status, answer = await connection.post(
                "/predict" if one else "/predict/batch", json.dumps(wines[0] if one else wines)
            )
        except LOST:
            self.counts["lost"] += 1
            await asyncio.sleep(0.05)
            return
        self.counts[f"status {status}"] += 1
        if status == 200:
            self.check(places, [answer] if one else answer["answers"], answer["model"]["version"])


class Connection:
    """A connection that is kept, and made anew after it was lost."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: str, pause: float = 0.0) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer; the second half of the body is sent after a pause. Raises one of LOST."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._post(path, body.encode(), pause)
        except LOST:
            self.close()
            raise

    async def _post(self, path: str, body: bytes, pause: float) -> tuple[int, dict[str, Any]]:
        half = len(body) // 2 if pause else len(body)
        reader, writer = self._streams = self._streams or await asyncio.open_connection(self._host, self._port)
        writer.write(_write_head(path, len(body)) + body[:half])
        if pause:
            await asyncio.sleep(pause)
            writer.write(body[half:])
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1]), answer

    async def drop(self, path: str, body: str, share: float) -> None:
        """Send a share of a request's body, and be gone."""
        with suppress(*LOST):
            _, writer = self._streams = await asyncio.open_connection(self._host, self._port)
            writer.write(_write_head(path, len(body)) + body.encode()[: int(len(body) * share)])
            await writer.drain()
        self.close()

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._streams:
            self._streams[1].close()
        self._streams = None


def _write_head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()

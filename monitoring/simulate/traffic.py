"""Wines of the twin with a drift (drifts.py), asked of a running API, and the grades that tasters give some of them."""

import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import httpx
import numpy as np
import pandas as pd

from commands import NotThereError
from monitoring.simulate.drifts import Drift
from wine_data.schema import BOUNDS, GRADES, RED, TARGET, feature_frame
from wine_data.twin.sample import count_decimals, sample_twin

PENALTY, EXTREME = 2, 0.98  # grades; the quantile beyond which tasters take them off
UNDRIFTED_WINES, UNDRIFTED_SEED = 50_000, 0


@dataclass(frozen=True)
class Sent:
    """What became of simulated traffic."""

    answered: int
    refused: int
    graded: int


def sample_drifted(drift: Drift, count: int, seed: int) -> pd.DataFrame:
    """Plot so many wines with a drift: FEATURES and `quality`, the same for the same drift, count and seed."""
    if drift.kind == "colour":
        return _sample_mix(drift.size, count, seed)
    wines = sample_twin(count, seed)
    if drift.kind == "shift":
        return _shift(wines, drift)
    if drift.kind == "unit":
        return wines.assign(**{drift.feature: wines[drift.feature] * 1000})
    if drift.kind == "grades":
        return wines.assign(**{TARGET: _take_off(wines[TARGET], drift.size)})
    return wines


@dataclass(frozen=True)
class Traffic:
    """How wines are sent.

    Attributes:
        labels: the share of answers that a taster grades.
        delay: how many wines later; those still owed at the end are sent then.
        rate: wines a second; 0 for as fast as one connection goes.
        seed: decides which are graded.
    """

    labels: float = 0.0
    delay: int = 200
    rate: float = 0.0
    seed: int = 0


def send_wines(
    address: str,
    wines: pd.DataFrame,
    traffic: Traffic = Traffic(),
    api_key: str = "",
    on_wine: Callable[[], None] = lambda: None,
) -> Sent:
    """Ask a running API for wines one after the other, and send it tasters' grades of some.

    Args:
        address: the API's, as http://127.0.0.1:8000.
        wines: FEATURES and `quality`.
        traffic: how they are sent.
        api_key: the API's, where it asks for one.
        on_wine: called after each.

    Raises:
        NotThereError: no API answers there, or it fails.
    """
    graded = np.random.default_rng(traffic.seed).random(len(wines)) < traffic.labels
    owed: deque[tuple[int, str, int]] = deque()
    answered = sent = 0
    start = time.monotonic()
    with httpx.Client(base_url=address, headers=_authorize(api_key), timeout=30) as client:
        for number, (body, grade, label) in enumerate(zip(_write_bodies(wines), wines[TARGET], graded, strict=True)):
            _wait_until(start + number / traffic.rate if traffic.rate else 0.0)
            request_id = _ask(client, body)
            answered += bool(request_id)
            if request_id and label:
                owed.append((number + traffic.delay, request_id, int(grade)))
            while owed and owed[0][0] <= number:
                sent += _tell(client, *owed.popleft()[1:])
            on_wine()
        while owed:
            sent += _tell(client, *owed.popleft()[1:])
    return Sent(answered, len(wines) - answered, sent)


@lru_cache
def _undrifted() -> pd.DataFrame:
    return sample_twin(UNDRIFTED_WINES, UNDRIFTED_SEED)


def _shift(wines: pd.DataFrame, drift: Drift) -> pd.DataFrame:
    usual = _undrifted()[drift.feature]
    # As many decimals as a laboratory reports: a shift by a fraction of the last would be found by that alone.
    decimals = count_decimals(drift.feature)
    by = round(drift.size * usual.std(), decimals)
    shifted = (wines[drift.feature] + by).round(decimals).clip(*BOUNDS[drift.feature])
    extreme = shifted > usual.quantile(EXTREME) if drift.size > 0 else shifted < usual.quantile(1 - EXTREME)
    grades = wines[TARGET].where(~extreme, _take_off(wines[TARGET], PENALTY))
    return wines.assign(**{drift.feature: shifted, TARGET: grades})


def _sample_mix(red_share: float, count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    red = int(random.binomial(count, red_share))
    pools = (sample_twin(max(200, 8 * count), seed + draw) for draw in itertools.count())  # a quarter of each is red
    parts: dict[int, list[pd.DataFrame]] = {0: [], 1: []}
    wanted = {0: count - red, 1: red}
    while any(sum(map(len, parts[colour])) < wanted[colour] for colour in parts):
        pool = next(pools)
        for colour in parts:
            parts[colour].append(pool[pool[RED] == colour])
    mixed = pd.concat([pd.concat(parts[colour]).head(wanted[colour]) for colour in parts])
    return mixed.iloc[random.permutation(count)].reset_index(drop=True)


def _take_off(grades: pd.Series, by: float) -> pd.Series:
    return (grades - round(by)).clip(GRADES[0], GRADES[-1])


def _write_bodies(wines: pd.DataFrame) -> Iterator[str]:
    for row in feature_frame(wines).to_dict("records"):
        yield json.dumps(row)


def _authorize(api_key: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})


def _ask(client: httpx.Client, body: str) -> str:
    """The id of an answer; "" where the wine was refused."""
    answer = _post(client, "/predict", body)
    if answer.status_code == 422:
        return ""
    _require_success(answer)
    return str(answer.json()["request_id"])


def _tell(client: httpx.Client, request_id: str, grade: int) -> int:
    _require_success(_post(client, "/feedback", json.dumps({"request_id": request_id, "quality": grade})))
    return 1


def _post(client: httpx.Client, path: str, body: str) -> httpx.Response:
    try:
        return client.post(path, content=body)
    except httpx.TransportError as error:
        raise NotThereError(
            f"no API answers at {client.base_url} ({error}): make serve, or WINE_PORT if it serves elsewhere"
        ) from error


def _require_success(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise NotThereError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:300]}")


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))

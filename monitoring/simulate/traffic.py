"""Send wines of the twin with a drift (drifts.py) to a running API, and tasters' grades for some of them."""

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx
import numpy as np
import pandas as pd

from commands import NotThereError
from monitoring.simulate.drifts import Drift
from wine_data.schema import BOUNDS, GRADES, RED, TARGET, feature_frame
from wine_data.twin.sample import count_decimals, sample_twin

PENALTY, EXTREME = 2, 0.98  # in grades; the quantile beyond which tasters subtract them
UNDRIFTED_WINES, UNDRIFTED_SEED = 50_000, 0


@dataclass(frozen=True)
class Sent:
    """The result of simulated traffic: numbers of wines."""

    answered: int
    refused: int
    graded: int


@dataclass(frozen=True)
class Traffic:
    """How wines are sent.

    Attributes:
        labels: the share of predictions that a taster grades.
        delay: the number of wines before a grade is sent; grades still due at the end are sent then.
        rate: wines per second; 0: as fast as one connection allows.
        seed: decides which wines are graded.
    """

    labels: float = 0.0
    delay: int = 200
    rate: float = 0.0
    seed: int = 0


def sample_drifted(drift: Drift, count: int, seed: int) -> pd.DataFrame:
    """Draw wines with a drift: FEATURES and `quality`, reproducible for the same drift, count and seed."""
    if drift.kind == "colour":
        return _sample_mix(drift.size, count, seed)
    wines = sample_twin(count, seed)
    if drift.kind == "shift":
        return _shift(wines, drift)
    if drift.kind == "unit":
        return wines.assign(**{drift.feature: wines[drift.feature] * 1000})
    if drift.kind == "grades":
        return wines.assign(**{TARGET: _lower_grades(wines[TARGET], drift.size)})
    return wines


def send_wines(
    address: str,
    wines: pd.DataFrame,
    traffic: Traffic = Traffic(),
    keys: tuple[str, str] = ("", ""),
    on_wine: Callable[[], None] = lambda: None,
) -> Sent:
    """Send wines to a running API one after the other, and tasters' grades for some.

    Args:
        address: the API's, such as http://127.0.0.1:8000.
        wines: FEATURES and `quality`.
        traffic: how to send them.
        keys: the API's keys for predictions and for feedback, "" for none.
        on_wine: called after each wine.

    Raises:
        NotThereError: no API responds there, or it fails.
    """
    labelled = np.random.default_rng(traffic.seed).random(len(wines)) < traffic.labels
    due: deque[tuple[int, dict[str, Any]]] = deque()  # the wine after which to send it, and the feedback
    answered = graded = 0
    asking, grading = ({"Authorization": f"Bearer {key}"} if key else {} for key in keys)
    bodies = feature_frame(wines).to_dict("records")
    start = time.monotonic()
    with httpx.Client(base_url=address, timeout=30) as client:
        for number, (body, grade, label) in enumerate(zip(bodies, wines[TARGET], labelled, strict=True)):
            if traffic.rate:
                time.sleep(max(0.0, start + number / traffic.rate - time.monotonic()))
            answer = _post(client, "/predict", body, asking)
            answered += answer.is_success
            if answer.is_success and label:
                due.append((number + traffic.delay, {"request_id": answer.json()["request_id"], "quality": int(grade)}))
            is_last = number == len(wines) - 1
            while due and (is_last or due[0][0] <= number):
                _post(client, "/feedback", due.popleft()[1], grading)
                graded += 1
            on_wine()
    return Sent(answered, len(wines) - answered, graded)


@lru_cache
def _sample_undrifted() -> pd.DataFrame:
    return sample_twin(UNDRIFTED_WINES, UNDRIFTED_SEED)


def _shift(wines: pd.DataFrame, drift: Drift) -> pd.DataFrame:
    usual = _sample_undrifted()[drift.feature]
    # As many decimals as a laboratory reports: extra decimals alone would reveal the shift.
    decimals = count_decimals(drift.feature)
    by = round(drift.size * usual.std(), decimals)
    shifted = (wines[drift.feature] + by).round(decimals).clip(*BOUNDS[drift.feature])
    extreme = shifted > usual.quantile(EXTREME) if drift.size > 0 else shifted < usual.quantile(1 - EXTREME)
    grades = wines[TARGET].where(~extreme, _lower_grades(wines[TARGET], PENALTY))
    return wines.assign(**{drift.feature: shifted, TARGET: grades})


def _sample_mix(red_share: float, count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    red = int(random.binomial(count, red_share))
    needed = {0: count - red, 1: red}
    pool = pd.DataFrame()
    for draw in itertools.count():
        pool = pd.concat([pool, sample_twin(max(200, 8 * count), seed + draw)])  # a quarter of the twin's wines is red
        colours = {colour: pool[pool[RED] == colour] for colour in needed}
        if all(len(colours[colour]) >= number for colour, number in needed.items()):
            break
    mixed = pd.concat([colours[colour].head(number) for colour, number in needed.items()])
    return mixed.iloc[random.permutation(count)].reset_index(drop=True)


def _lower_grades(grades: pd.Series, by: float) -> pd.Series:
    return (grades - round(by)).clip(GRADES[0], GRADES[-1])


def _post(client: httpx.Client, path: str, body: dict[Any, Any], headers: dict[str, str]) -> httpx.Response:
    """POST to the API. Raises NotThereError unless it succeeds, or refuses a wine (422)."""
    try:
        answer = client.post(path, json=body, headers=headers)
    except httpx.TransportError as error:
        raise NotThereError(
            f"no API answers at {client.base_url} ({error}): start make serve, or set WINE_PORT to its port"
        ) from error
    if not answer.is_success and not (path == "/predict" and answer.status_code == 422):
        raise NotThereError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:300]}")
    return answer

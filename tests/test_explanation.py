"""Explanations: the effect of each feature on the expected quality, in the model, the API and batch scoring."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from commands import BadInputError
from deployment.api.schemas import BatchPrediction, Explanation, Prediction
from deployment.batch.file import score_file
from deployment.batch.job import Options
from deployment.predictor import load_predictor, load_predictor_for_files
from settings import ROOT
from tests.conftest import Served, run_api, run_here
from tests.test_batch import GOOD, HEADER
from tests.test_schema import WINE
from tests.web import WEB
from wine_data.schema import FEATURES, feature_frame
from wine_data.sources.load import WineData
from wine_quality_training.bundle import explanation
from wine_quality_training.bundle.bundle import METADATA_FILE
from wine_quality_training.bundle.explanation import find_effects, find_medians
from wine_quality_training.bundle.profile import profile_wines

OTHER = WINE | {"alcohol": 12.5, "volatile_acidity": 0.6, "red_wine": 1}
EXPLAIN = {"explain": "true"}
EFFECTS = [f"effect_{name}" for name in FEATURES]


@pytest.mark.fast
def test_where_features_act_alone_each_effect_is_weight_times_distance_from_the_median(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explanation, "SLICE", 3)  # so that seven wines are three pieces
    random = np.random.default_rng(0)
    wines, medians, weights = random.normal(size=(7, 12)), random.normal(size=12), random.normal(size=12)
    found = find_effects(wines, wines @ weights, medians, lambda asked: asked @ weights)
    np.testing.assert_allclose(found, (wines - medians) * weights, atol=1e-4)


@pytest.mark.fast
def test_no_wines_have_no_effects() -> None:
    assert find_effects(np.empty((0, 12)), np.empty(0), np.zeros(12), lambda asked: asked[:, 0]).shape == (0, 12)


@pytest.mark.fast
def test_the_medians_are_those_of_the_wines_that_the_model_was_fitted_on(twin: WineData) -> None:
    medians = find_medians(profile_wines(twin.train, None))
    assert medians is not None
    for found, values in zip(medians, feature_frame(twin.train).to_numpy().T, strict=True):
        assert found == np.quantile(values[~np.isnan(values)], 0.5, method="inverted_cdf")
    assert find_medians(()) is None


def test_an_explanation_is_what_answers_about_the_wine_with_one_feature_at_its_median_differ_by(small_api: str) -> None:
    address = f"{small_api}/predict"
    explained = WEB.post(address, json=OTHER, params=EXPLAIN).raise_for_status().json()
    plain = WEB.post(address, json=OTHER, params={"explain": "false"}).raise_for_status().json()
    assert {name for name in explained if explained[name] != plain.get(name)} == {"request_id", "explanation"}
    assert Prediction.model_validate(explained).model_dump() == explained
    found = explained["explanation"]
    assert found["adds_up"] is False
    assert found["effects"].keys() == found["medians"].keys() == set(FEATURES)
    for name in FEATURES:
        other = WEB.post(address, json=OTHER | {name: found["medians"][name]}).json()
        difference = plain["expected_quality"] - other["expected_quality"]
        assert found["effects"][name] == pytest.approx(difference, abs=1e-6), name
    assert any(found["effects"].values())


def test_the_wines_of_a_batch_are_explained_as_one_by_one(small_api: str) -> None:
    wines = [OTHER | {"alcohol": 8 + number / 5} for number in range(30)]  # more than one chunk
    batch = WEB.post(f"{small_api}/predict/batch", json=wines, params=EXPLAIN).raise_for_status().json()
    assert BatchPrediction.model_validate(batch).model_dump() == batch
    ones = [WEB.post(f"{small_api}/predict", json=wine, params=EXPLAIN).json() for wine in wines]
    for answer, one in zip(batch["answers"], ones, strict=True):
        assert (answer["prediction"], answer["explanation"]) == (one["prediction"], one["explanation"])


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("query", ["explain=maybe", "explain=", "explain=True", "explain=true&explain=1"])
def test_another_value_of_explain_is_refused_by_name(small_api: str, path: str, query: str) -> None:
    refusal = WEB.post(f"{small_api}{path}?{query}", json=WINE)
    assert (refusal.status_code, refusal.json()["errors"][0]["field"]) == (422, "explain")
    assert refusal.headers["X-Request-ID"]


def test_the_description_has_the_parameter_and_the_form_of_an_explanation(small_api: str) -> None:
    description = WEB.get(f"{small_api}/openapi.json").json()
    for path in ("/predict", "/predict/batch"):
        (parameter,) = description["paths"][path]["post"]["parameters"]
        assert (parameter["name"], parameter["required"], parameter["schema"]["type"]) == ("explain", False, "boolean")
        assert "409" in description["paths"][path]["post"]["responses"]
    assert "explanation" not in description["components"]["schemas"]["Prediction"]["required"]


def remove_profiles(bundle: Path) -> None:
    """Make a bundle one of those from before profiles."""
    content = json.loads((bundle / METADATA_FILE).read_text())
    del content["profiles"]
    (bundle / METADATA_FILE).write_text(json.dumps(content))


def test_an_old_model_without_medians_grades_and_says_that_it_explains_nothing(served: Served, tmp_path: Path) -> None:
    remove_profiles(served.models / "1")
    with run_api(served.environment) as (address, _):
        for path, body in (("/predict", WINE), ("/predict/batch", [WINE])):
            assert WEB.post(f"{address}{path}", json=body).is_success
            refusal = WEB.post(f"{address}{path}", json=body, params=EXPLAIN)
            assert refusal.status_code == 409
            assert "make pipeline" in refusal.json()["title"]
    (tmp_path / "wines.csv").write_text(f"{HEADER}\nred,{GOOD}\n")
    with pytest.raises(BadInputError, match="make pipeline"):
        score_file(tmp_path / "wines.csv", served.models, tmp_path / "answers", options=Options(explain=True))
    assert not (tmp_path / "answers").exists()


def test_a_file_has_the_effects_that_the_api_answers_in_a_folder_of_its_own(
    bundles: Path, small_api: str, tmp_path: Path
) -> None:
    (tmp_path / "wines.csv").write_text(f"{HEADER}\nred,{GOOD}\nrose,{GOOD}\nwhite,{GOOD}\n")
    plain = score_file(tmp_path / "wines.csv", bundles, tmp_path / "answers")
    explained, again = (
        score_file(tmp_path / "wines.csv", bundles, tmp_path / "answers", options=Options(explain=True)) for _ in "12"
    )
    assert (explained.new, again.new) == (True, False)
    assert explained.answers == again.answers != plain.answers
    answers, without = (pd.read_parquet(scored.answers) for scored in (explained, plain))
    assert [name for name in answers if name not in without] == EFFECTS
    same = [name for name in without if name != "request_id"]
    pd.testing.assert_frame_equal(answers[same], without[same])
    wine = dict(zip(FEATURES, [*map(float, GOOD.split(",")), 1.0], strict=True))
    asked = WEB.post(f"{small_api}/predict", json=wine, params=EXPLAIN).raise_for_status().json()
    assert answers[EFFECTS].to_numpy()[0] == pytest.approx(list(asked["explanation"]["effects"].values()), abs=1e-4)


def test_a_part_without_a_wine_has_the_same_columns(bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "wines.csv").write_text(f"{HEADER}\nrose,{GOOD}\n")
    scored = score_file(tmp_path / "wines.csv", bundles, tmp_path / "answers", options=Options(explain=True))
    assert set(EFFECTS) <= set(pd.read_parquet(scored.answers))


def test_the_command_explains_where_it_is_asked_to(served: Served, tmp_path: Path) -> None:
    (tmp_path / "wines.csv").write_text(f"{HEADER}\nred,{GOOD}\n")
    done = run_here("deployment.batch", served.environment, str(tmp_path / "wines.csv"), "--explain")
    assert done.returncode == 0, done.stderr
    assert set(EFFECTS) <= set(pd.read_parquet(done.stdout.split(" into ")[1].split("\n")[0]))


def test_compiled_and_pickled_forms_explain_alike(bundles: Path, twin: WineData) -> None:
    wines = feature_frame(twin.validation.dropna().head(50)).to_numpy()
    compiled = load_predictor(bundles)
    pickled = load_predictor_for_files(bundles / "1")
    expected = compiled.decide(compiled.predict_probabilities(wines))[1]
    np.testing.assert_allclose(compiled.explain(wines, expected), pickled.explain(wines, expected), atol=1.01e-4)


def test_the_answer_in_the_docs_has_the_form_of_an_explanation() -> None:
    section = (ROOT / "docs" / "serving.md").read_text().split("## Why this grade\n")[1].split("\n## ")[0]
    shown = Explanation.model_validate(json.loads(section.split("```json\n")[1].split("```")[0])["explanation"])
    assert shown.effects.keys() == shown.medians.keys() == set(FEATURES)
    assert (shown.method, shown.adds_up) == (explanation.METHOD, explanation.ADDS_UP)

"""The model card says the same of patients as the report."""

import pytest
from fabricate import Run

from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.evaluation.metrics_record import Metrics
from clinprompt.evaluation.patients import PatientCount
from clinprompt.tuned.record import ModelRecord
from registry.model_card import make_model_card
from registry.model_card_text import to_markdown


@pytest.mark.parametrize(
    ("patients", "unit", "warning"),
    [
        (PatientCount(images=66, patients=33, without=0), "patients.", None),
        (PatientCount(images=66, patients=0, without=66), "images.", "**Not checked: the card names no patients."),
        (PatientCount(images=66, patients=30, without=6), "patients (images", "**Not checked for 6 of 66 images:"),
    ],
)
def test_it_warns_where_no_patient_is_known(
    reported: Run, patients: PatientCount, unit: str, warning: str | None
) -> None:
    record = ModelRecord.read(reported.folder / "tune" / "coop-1" / "model.yaml")
    metrics = Metrics.read(reported.folder / "metrics" / "coop-1.json").model_copy(update={"patients": patients})
    decision = DecisionRecord.read(reported.decision)
    text = to_markdown(make_model_card(reported.card, record, metrics, decision, {}))
    assert f"With intervals over {unit}" in text
    assert ("Not checked" in text) == (warning is not None)
    assert warning is None or warning in text


@pytest.mark.parametrize(("device", "said"), [("cpu", "On the CPU, in float32."), ("cuda", "On a GPU, in float32.")])
def test_it_says_on_what_it_was_trained(reported: Run, device: str, said: str) -> None:
    record = ModelRecord.read(reported.folder / "tune" / "coop-1" / "model.yaml").model_copy(update={"device": device})
    metrics = Metrics.read(reported.folder / "metrics" / "coop-1.json")
    card = make_model_card(reported.card, record, metrics, DecisionRecord.read(reported.decision), {})
    assert card.to_json()["training"]["device"] == device
    assert said in to_markdown(card)

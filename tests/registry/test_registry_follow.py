"""A consumer that runs for long."""

from pathlib import Path

import pandas as pd
import pytest
from fabricate import CLASSES, Run, promote

import registry
from clinprompt.errors import InputMissing
from registry import rollback
from registry.tracking import connect


def answer(model: registry.Followed, run: Run) -> list[float]:
    table = model.predict(pd.DataFrame({"image": run.images(1)}))
    return [float(table[f"p_{label}"][0]) for label in CLASSES]


def test_it_follows_the_champion_and_goes_on_with_the_last_good_one(
    challenged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.follow("tiny")
    first = answer(model, challenged)
    assert (model.version, model.stale, model.refresh()) == (1, None, False)

    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert not model.refresh()
        assert "http://127.0.0.1:9 does not answer" in (model.stale or "")
        assert (model.version, answer(model, challenged)) == (1, first)
    assert not model.refresh()
    assert model.stale is None

    assert promote(challenged) == 0
    assert model.refresh()
    assert (model.version, model.stale) == (2, None)
    assert answer(model, challenged) != first
    rollback("tiny", "worse at night")
    assert model.refresh()
    assert (model.version, answer(model, challenged)) == (1, first)


def test_a_champion_that_can_t_be_verified_does_not_take_its_place(challenged: Run) -> None:
    model = registry.follow("tiny")
    assert promote(challenged) == 0
    stored = Path(connect().get_model_version_download_uri("tiny", "2").removeprefix("file://"))
    (stored / "artifacts" / "payload" / "head.safetensors").write_bytes(b"other")
    assert not model.refresh()
    assert model.version == 1
    assert "was changed after registration" in (model.stale or "")
    connect().delete_registered_model_alias("tiny", "champion")
    assert not model.refresh()
    assert "No version of 'tiny' carries the alias 'champion'" in (model.stale or "")
    with pytest.raises(InputMissing):
        registry.follow("tiny")

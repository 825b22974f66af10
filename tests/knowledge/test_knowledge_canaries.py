"""No patient's value can enter a prompt: by what one is made of, and by canaries in all that lies around the stage."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
import yaml
from describing import call, settings
from fake_endpoint import serving

from clinprompt.knowledge.aspects import read_aspects
from clinprompt.knowledge.subject import Subject

CANARY = "CANARY"


def test_nothing_of_a_patient_can_reach_an_endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that lies around the stage is full of canaries but the names that prompts may hold; none sings."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("CLINPROMPT_DATA", "CLINPROMPT_PATIENT_KEY", "CLINPROMPT_AIRFLOW", "USER"):
        monkeypatch.setenv(name, CANARY)
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card |= {key: CANARY for key in ("title", "licence", "source", "how_to_get", "path")}
    card["classes"] = [info | {"aliases": [f"{CANARY}{i}"]} for i, info in enumerate(card["classes"])]
    card["reader"] = {"kind": "table", "file": f"{CANARY}.csv", "path": CANARY, "label": CANARY}
    facts = {"patient": "who", "study": "which", "site": "where", "sex": "sex", "age": "age"}
    columns = {key: f"{CANARY}_{column}" for key, column in facts.items()}
    card["metadata"] = {**columns, "extra": [f"{CANARY}_v", f"{CANARY}_h"]}
    card["slices"] = [f"{CANARY}_v"]
    card["record"] = {
        "measures": [{"column": f"{CANARY}_v", "name": "Ventricles"}, {"column": f"{CANARY}_h", "name": "Hippocampi"}]
    }
    card["knowledge"] = {"terms": {"modality": [CANARY], "classes": {"glioma": {"signs": [CANARY]}}}}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))
    manifest = {name: [CANARY] * 3 for name in ("id", "patient", "study", "site", "sex", "age", "label", "path", "v")}
    for path in (folder / "manifest.parquet", folder / "validate.manifest.parquet"):
        pd.DataFrame(manifest).to_parquet(path)
    pd.DataFrame(manifest).to_csv(folder / "manifest.csv")
    patients = {"dataset": CANARY, "classes": ["glioma", "none"], "patients": [CANARY], "counts": {CANARY: 3}}
    (folder / "classes.json").write_text(json.dumps(patients))
    lock = settings(folder, "descriptions", "paraphrases")
    locked = {"knowledge": ["descriptions", "paraphrases"], "datasets": {CANARY: {"patient": CANARY}}}
    (folder / "settings.lock").write_text(yaml.safe_dump(locked))
    with serving() as server:
        endpoint = {"url": server.url, "model": "m"}
        every = ["shape", "appearance", "signs", "differential"]
        code = call(folder, lock, endpoint=endpoint, llm=None, aspects=every, paraphrases_per_opening=1)
        assert code == 65  # the sentences are no paraphrases
    texts = {body["messages"][0]["content"] for body in server.asked}
    for words in ("Rewrite this sentence", "the overall appearance", "specific to MRI", "looks different from"):
        assert any(words in text for text in texts), words
    sent = json.dumps([list(request) for request in server.requests])
    assert CANARY.casefold() not in sent.casefold()
    fields = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "stream"}
    assert all(set(body) == fields for body in server.asked)


def test_the_fields_of_a_prompt_are_those_of_a_class() -> None:
    assert {field.name for field in fields(Subject)} == {"class_id", "modality", "organ", "name", "phrase"}
    known = read_aspects()
    for aspect in (*known.aspects.values(), known.features):
        places = set(re.findall(r"\{(\w+)\}", known.frame + aspect.ask + aspect.begin))
        assert places <= {"modality", "organ", "name", "phrase", "sibling"}

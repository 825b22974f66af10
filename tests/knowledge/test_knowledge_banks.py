"""The banks of the experiment on what checked descriptions do: nothing of them depends on the machine or on luck."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.knowledge import ROOT
from benchmarks.knowledge_banks import PLANTED, as_many, poisoned, raw_bank
from benchmarks.knowledge_effect import bank_line, score_line
from benchmarks.knowledge_place import Place
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams

CARD = load_card(ROOT / "datasets" / "brain-phantom.yaml")
GENERATED = pd.DataFrame(
    [
        {"class": label, "aspect": aspect, "text": f"{label} {aspect} {k}."}
        for label in CARD.class_ids
        for aspect in ("shape", "signal")
        for k in range(10)
    ]
)


def test_raw_bank_lets_the_aspects_take_turns() -> None:
    bank = raw_bank(GENERATED, 4)
    assert [one.text for one in bank[:4]] == [
        f"glioma_tumor {rest}." for rest in ("shape 0", "signal 0", "shape 1", "signal 1")
    ]
    assert Counter(one.class_id for one in bank) == dict.fromkeys(CARD.class_ids, 4)


def test_too_few_sentences_are_refused() -> None:
    with pytest.raises(BadParams, match="glioma_tumor has 20 sentences, 21 are wanted"):
        raw_bank(GENERATED, 21)


def test_three_tenths_of_each_class_are_planted_and_the_rest_stays() -> None:
    raw = raw_bank(GENERATED, 20)
    false = poisoned(raw, CARD)
    planted = [one for one in false if one.aspect.startswith(PLANTED)]
    assert Counter(one.class_id for one in planted) == dict.fromkeys(CARD.class_ids, 6)
    assert Counter(one.aspect for one in planted) == dict.fromkeys(
        ("planted sibling", "planted card", "planted denial"), 8
    )
    assert all(new in (old, *planted) and new.class_id == old.class_id for old, new in zip(raw, false, strict=True))
    assert len({(one.class_id, one.text) for one in planted}) == len(planted)
    assert poisoned(raw, CARD) == false


def test_as_many_draws_from_the_bank_in_its_order() -> None:
    raw = raw_bank(GENERATED, 20)
    drawn = as_many(raw, {"glioma_tumor": 3, "no_tumor": 5})
    assert Counter(one.class_id for one in drawn) == {"glioma_tumor": 3, "no_tumor": 5}
    assert drawn == [one for one in raw if one in drawn]


def test_results_of_another_training_lie_in_another_folder() -> None:
    def results(protocol: str, **edits: object) -> str:
        return Place(Path("out"), "brain-phantom", protocol, {f"protocols.{protocol}": edits}).results

    longer = {"steps": 60, "batch_size": 16, "rates": [1.0]}
    names = [results("few_shot"), results("few_shot", budget=longer), results("base_to_novel", budget=longer)]
    assert len(set(names)) == 3
    assert names[1] == results("few_shot", budget=longer)
    assert [name.rpartition("-")[0] for name in names] == ["few_shot", "few_shot", "base_to_novel"]


def test_tables_count_what_was_accepted_and_average_over_seeds() -> None:
    table = pd.DataFrame(
        {
            "class": ["a", "a", "b", "b"],
            "aspect": ["shape", f"{PLANTED}card", f"{PLANTED}card", "shape"],
            "accepted": [True, False, True, True],
        }
    )
    assert bank_line(2, "raw", table) == "| 2 | raw | 3 | 1 | 1 / 2 |  |"
    assert bank_line(2, "poisoned, checked", table).endswith("| 1 / 2 | card 1/2 = 50.0 % [9.5, 90.5] |")
    cells = [{"test": {"balanced_accuracy": value}} for value in (0.5, 0.7)]
    assert score_line("cilmp", 2, "raw", cells, ["test"]) == "| `cilmp` | 2 | raw | 60.00 ± 14.14 |"
    assert score_line("cilmp", 2, "raw", [], ["test"]) == "| `cilmp` | 2 | raw | – |"

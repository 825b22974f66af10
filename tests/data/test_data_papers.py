"""The cards of the papers' datasets: what they set is what methods know, and a published split is read as it stands."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from clinprompt.data.layouts import layout_of
from clinprompt.data.layouts.split_file import SplitJsonOptions, read
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing
from clinprompt.experiments.protocols import halves
from clinprompt.experiments.tables.papers import papers
from clinprompt.experiments.tables.published import published
from clinprompt.methods import check_config, method, names
from clinprompt.params import CandidateSpec
from clinprompt.schema import check
from clinprompt.tuned.config import candidate_config, method_config

FOLDER = Path(__file__).parents[2] / "datasets"
CARDS = {path.stem: load_card(path) for path in sorted(FOLDER.glob("*.yaml"))}
ELEVEN = ["btmri", "busi", "chmnist", "covid-qu-ex", "ctkidney", "dermamnist", "kneexray", "kvasir", "lc25000"]
ELEVEN += ["octmnist", "retina"]
CLASSES = dict(zip(ELEVEN, [4, 3, 8, 4, 4, 7, 5, 8, 5, 4, 4], strict=True))
CILMP = {
    "adam": 2, "aptos2019": 5, "bloodmnist": 8, "busi": 3, "chaoyang": 4, "cpn-x-ray": 3, "derm7pt": 5, "dermamnist": 7,
    "fetal-us": 6, "isic": 7, "kvasir-v2": 8, "odir": 8, "odir2": 2, "pneumonia2": 2, "pneumonia3": 3,
}  # fmt: skip
COOP = {
    "n_ctx": 4, "context_init": "a photo of a", "class_position": "end", "learning_rate": 0.002, "weight_decay": 0.0,
    "warmup_epochs": 1, "warmup_learning_rate": 1e-5, "batch_size": 4, "epochs": 2,
}  # fmt: skip


@pytest.mark.parametrize(("name", "classes"), (CLASSES | CILMP).items())
def test_the_datasets_of_the_papers_have_cards_with_the_published_number_of_classes(name: str, classes: int) -> None:
    assert len(CARDS[name].classes) == classes


@pytest.mark.parametrize("name", CARDS)
def test_what_a_card_sets_are_knobs_of_methods_that_exist(name: str) -> None:
    card = CARDS[name]
    for found in (card.methods, card.base_to_novel.methods):
        for one, knobs in found.items():
            assert one in names()
            assert set(knobs) <= set(method(one).Config.model_fields), (name, one)


@pytest.mark.parametrize("name", ELEVEN)
def test_the_eleven_datasets_have_weights_for_both_protocols(name: str) -> None:
    card = CARDS[name]
    assert {"biomed_dpt", "biomedcoop"} <= set(card.methods)
    assert set(card.methods["biomed_dpt"]) == {"template", "n_ctx", "l1_weight", "kl_weight"}
    assert set(card.methods["biomedcoop"]) == {"sccm_weight", "kdsp_weight", "tau"}
    assert {"biomed_dpt"} <= set(card.base_to_novel.methods)
    knobs = card.base_to_novel.methods["biomedcoop"]
    if name == "busi":  # not published: the method's own, not those of its few-shot runs
        assert check_config("biomedcoop", knobs) == check_config("biomedcoop", {})
    else:
        assert check_config("biomedcoop", knobs) != check_config("biomedcoop", {})


def test_the_published_halves_labels_and_prompt_names() -> None:
    base, novel = halves(tuple(CARDS["retina"].class_ids))
    assert (base, novel) == (("diabetic_retinopathy", "glaucoma"), ("cataract", "normal_retina"))
    assert CARDS["chmnist"].class_of("tumour epithelium") == "tumor_epithelium"
    names_of = {name: {info.id: info.name for info in CARDS[name].classes} for name in ELEVEN}
    assert list(names_of["busi"].values()) == ["benign tumor", "malignant tumor", "normal scan"]
    assert names_of["kneexray"]["grade_0"] == "healthy knee"
    assert names_of["octmnist"]["normal"] == "normal OCT scan"
    assert names_of["chmnist"]["tumor_epithelium"] == "tumour epithelium"
    for name in set(ELEVEN) - {"dermamnist", "octmnist"}:  # those two have numbers for labels
        assert all(CARDS[name].class_of(prompt) == label for label, prompt in names_of[name].items()), name


def test_the_tables_name_cards_protocols_and_methods_that_exist() -> None:
    for one in papers().values():
        assert set(one.datasets) <= set(CARDS)
        assert set(one.methods) <= {*names(), *one.params.get("candidates.variants", {})}
    for source in published():
        assert set(source.datasets) <= set(CARDS)


def card_with(tmp_path: Path, **changes: Any) -> Any:
    value = yaml.safe_load((FOLDER / "pneumoniamnist.yaml").read_text()) | {"name": "two"} | changes
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(value))
    return load_card(path)


def test_the_card_wins_over_the_params_and_its_protocol_over_both(tmp_path: Path) -> None:
    card = card_with(
        tmp_path,
        methods={"coop": {"epochs": 5, "batch_size": 8}},
        base_to_novel={"methods": {"coop": {"epochs": 7}}},
    )

    def epochs(*rest: Any) -> tuple[int, int]:
        config: Any = method_config("coop", COOP, card, *rest)
        return config.epochs, config.batch_size

    assert epochs() == (5, 8)
    assert epochs("few_shot") == (5, 8)
    assert epochs("base_to_novel") == (7, 8)
    assert epochs("base_to_novel", {"epochs": 9}) == (9, 8)
    assert COOP["epochs"] == 2


def test_a_variant_wins_over_the_card(tmp_path: Path) -> None:
    card = card_with(tmp_path, methods={"coop": {"epochs": 5, "batch_size": 8, "context_init": "a scan of a"}})
    spec = CandidateSpec(name="mine", method="coop", knobs=COOP, variant={"epochs": 3, "context_init": None})
    config: Any = candidate_config(spec, card)
    assert (config.epochs, config.batch_size, config.context_init) == (3, 8, None)
    plain: Any = candidate_config(CandidateSpec(name="coop", method="coop", knobs=COOP), card)
    assert (plain.epochs, plain.context_init) == (5, "a scan of a")


def test_an_empty_phrase_is_a_random_context_in_a_card_too(tmp_path: Path) -> None:
    config: Any = method_config("coop", COOP, card_with(tmp_path, methods={"coop": {"context_init": ""}}))
    assert config.model_dump()["context_init"] is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": {"coop": {"epochs": 0}}}, "two.yaml: methods.coop.epochs: input should be greater"),
        (
            {"base_to_novel": {"methods": {"coop": {"epoch": 3}}}},
            "two.yaml: base_to_novel.methods.coop.epoch: no such key (did you mean 'epochs'?)",
        ),
    ],
)
def test_a_wrong_knob_is_named_by_the_cards_file_and_key(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadParams) as caught:
        card_with(tmp_path, **changes)
    assert sentence in str(caught.value)


def written(root: Path, content: Any) -> None:
    for number in range(4):
        file = root / "IMAGES" / "a" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), number).save(file)
    (root / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))


OPTIONS = SplitJsonOptions(file="split.json", images="IMAGES")


def test_a_published_split_is_read_as_it_stands(tmp_path: Path) -> None:
    split = {
        "train": [["a/0.png", 1, "glioma tumor"], ["a/1.png", 0, "x"]],
        "val": [["a/2.png", 0, "x"]],
        "test": [["a/3.png", 0, "x"]],
    }
    written(tmp_path, split)
    listing = read(tmp_path, CARDS["btmri"], OPTIONS)
    assert [(r.path, r.label, r.split) for r in listing.records] == [
        ("IMAGES/a/0.png", "glioma tumor", "train"),
        ("IMAGES/a/1.png", "x", "train"),
        ("IMAGES/a/2.png", "x", "val"),
        ("IMAGES/a/3.png", "x", "test"),
    ]
    assert all(isinstance(r.source, Path) and r.source.is_file() for r in listing.records)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("[1, 2]", DataRejected, "lists called train, val and test"),
        ("{", InputCorrupt, "not valid JSON"),
        ("[" * 100_000, InputCorrupt, "not valid JSON"),
        ('{"train": [["a", ' + "9" * 5000 + ', "x"]]}', InputCorrupt, "not valid JSON"),
        ({"training": []}, DataRejected, "found 'training'"),
        ({"train": [["a/0.png", "glioma"]]}, DataRejected, "train[0]: expected [path, number, class name]"),
        ({"train": [["../../b.png", 0, "x"]]}, DataRejected, "leads out of the dataset's folder"),
        ({"train": [["a/9.png", 0, "x"]]}, InputMissing, "1 of 1 files do not exist below"),
        ({"train": [["a/0.txt", 0, "x"]]}, (DataRejected, InputMissing), "a/0.txt"),
    ],
)
def test_what_is_wrong_in_a_split_file_is_named(tmp_path: Path, content: Any, error: Any, words: str) -> None:
    written(tmp_path, content)
    with pytest.raises(error) as caught:
        read(tmp_path, CARDS["btmri"], OPTIONS)
    assert words in str(caught.value)


def test_a_missing_split_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"split.json"):
        read(tmp_path, CARDS["btmri"], OPTIONS)


@pytest.mark.parametrize("name", CARDS)
def test_the_options_of_a_cards_reader_are_its_readers(name: str) -> None:
    card = CARDS[name]
    kind = layout_of(card.reader.kind, name)
    check(kind.options, card.reader.options, name, "reader")

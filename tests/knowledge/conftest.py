"""What these tests share: a tiny language model, a small card, small params."""

import shutil
from pathlib import Path

import pytest
import yaml
from describing import write_classes
from tiny_llm import make_llm

from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.knowledge.llm import Llm, load_llm
from clinprompt.knowledge_params import KnowledgeParams
from clinprompt.params import load_params

ROOT = Path(__file__).parents[2]
CLASSES = [
    {"id": "glioma", "name": "glioma", "phrase": "a brain MRI with a glioma"},
    {"id": "adenoma", "name": "pituitary tumour", "phrase": "a brain MRI with a pituitary tumour", "aliases": ["1"]},
    {"id": "none", "name": "no tumour", "phrase": "a brain MRI without a tumour", "aliases": ["0"]},
]


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def llm(llm_folder: Path) -> Llm:
    return load_llm("tiny", str(llm_folder))


@pytest.fixture(scope="session")
def card_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = {
        "name": "small",
        "title": "A small card",
        "modality": "MRI",
        "organ": "brain",
        "classes": CLASSES,
        "licence": "none",
        "source": "made for a test",
        "how_to_get": "it has no files",
        "reader": {"kind": "folder"},
    }
    path = tmp_path_factory.mktemp("card") / "small.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


@pytest.fixture(scope="session")
def card(card_file: Path) -> Card:
    return load_card(card_file)


@pytest.fixture(scope="session")
def knowledge() -> KnowledgeParams:
    """The defaults of params.yaml, made small."""
    small = {"aspects": ["shape", "location"], "descriptions_per_aspect": 2, "max_new_tokens": 8, "batch_size": 5}
    return load_params(ROOT / "params.yaml").knowledge.model_copy(update={**small, "min_accepted_per_class": 0})


@pytest.fixture
def folder(tmp_path: Path, card_file: Path) -> Path:
    shutil.copy(card_file, tmp_path / "small.yaml")
    write_classes(tmp_path, ["glioma", "none"])
    return tmp_path


@pytest.fixture(autouse=True)
def no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has fetched changes no test."""
    monkeypatch.setenv("CLINPROMPT_BACKBONES", str(tmp_path / "fetched"))

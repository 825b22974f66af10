"""The text tower on embeddings gives what open_clip gives on ids."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from clinprompt.backbones.text import TextTower
from clinprompt.errors import BadParams

GOLDEN = Path(os.environ.get("CLINPROMPT_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
T, VOCABULARY, END = 16, 40, 39
VISION = {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8}
TEXT = {"context_length": T, "vocab_size": VOCABULARY, "width": 24, "heads": 2, "layers": 2}
LENGTHS = (5, 9, 7)


def clip(**text: Any) -> Any:
    return open_clip.CLIP(embed_dim=12, vision_cfg=dict(VISION), text_cfg=TEXT | text)


def custom(**text: Any) -> Any:
    return open_clip.CustomTextCLIP(embed_dim=12, vision_cfg=dict(VISION), text_cfg=TEXT | text)


def bert(pooler: str = "cls_last_hidden_state_pooler") -> Any:
    config = {
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": T, "pad_token_id": 0,
    }  # fmt: skip
    text = {"hf_model_pretrained": False, "hf_proj_type": "mlp", "hf_pooler_type": pooler, "context_length": T}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        text["hf_model_name"] = folder
        return open_clip.CustomTextCLIP(embed_dim=12, vision_cfg=dict(VISION), text_cfg=text)


KINDS = {
    "clip": clip,
    "clip with an id as end": lambda: clip(pool_type="eos", eos_id=END),
    "clip with a projection layer": lambda: clip(proj_type="linear", proj_bias=True),
    "clip without projection": lambda: clip(proj_type="none"),
    "custom": custom,
    "custom, no mask": lambda: custom(no_causal_mask=True, pool_type="last"),
    "bert": bert,
    "bert, mean": lambda: bert("mean_pooler"),
    "bert, its own pooler": lambda: bert("cls_pooler"),
}


def build(kind: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KINDS[kind]().eval().requires_grad_(False)


def token_ids() -> torch.Tensor:
    ids = torch.randint(4, END, (len(LENGTHS), T), generator=torch.Generator().manual_seed(1))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[length - 1], row[length:] = END, 0
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_ids_equals_open_clip(kind: str) -> None:
    model, ids = build(kind), token_ids()
    torch.testing.assert_close(TextTower(model).encode_ids(ids), model.encode_text(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_embeddings_as_without_cropping(kind: str) -> None:
    model, ids = build(kind).double(), token_ids()
    tower = TextTower(model)
    embeddings = tower.embed(ids).requires_grad_()
    (cropped,) = torch.autograd.grad(tower.encode(embeddings, ids).square().sum(), embeddings)
    tower._parts.croppable = False
    (full,) = torch.autograd.grad(tower.encode(embeddings, ids).square().sum(), embeddings)
    torch.testing.assert_close(cropped, full, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "no mask" not in kind])
def test_only_the_real_positions_are_computed(kind: str) -> None:
    model, ids = build(kind), token_ids()
    tower = TextTower(model)
    assert tower.croppable
    assert tower.real_length(ids).tolist() == list(LENGTHS)
    embeddings = tower.embed(ids)
    spoilt = embeddings.clone()
    spoilt[:, max(LENGTHS) :] = torch.nan
    assert torch.equal(tower.encode(spoilt, ids), tower.encode(embeddings, ids))


def test_without_a_mask_every_position_counts() -> None:
    tower, ids = TextTower(build("custom, no mask")), token_ids()
    assert not tower.croppable
    assert tower.real_length(ids).tolist() == [T] * len(LENGTHS)


def test_the_width_is_that_of_a_token_embedding() -> None:
    tower = TextTower(build("bert"))
    assert tower.width == 24
    assert tower.embed(token_ids()).shape == (3, T, 24)


def test_an_unknown_kind_of_tower_is_refused() -> None:
    with pytest.raises(BadParams, match="choose a CLIP or BERT one"):
        TextTower(custom(embed_cls=True).eval())


def golden_model(case: Path) -> Any:
    config = json.loads((case / "model_config.json").read_text().replace("{case_dir}", str(case)))
    kind = open_clip.CustomTextCLIP if "hf_model_name" in config["text_cfg"] else open_clip.CLIP
    model = kind(**config)
    model.load_state_dict(load_file(case / "weights.safetensors"))
    return model.eval().requires_grad_(False)


def golden_cases() -> list[Any]:
    cases = []
    for path in sorted(GOLDEN.glob("*/case.json")):
        if "token_ids" in json.loads(path.read_text())["tensors"]["inputs.safetensors"]:
            cases.append(pytest.param(path.parent, id=path.parent.name))
    reason = f"no golden cases at {GOLDEN}; set CLINPROMPT_GOLDEN to their folder"
    return cases or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


@pytest.mark.parametrize("case", golden_cases())
def test_plain_text_features_equal_the_golden_ones(case: Path) -> None:
    expected = load_file(case / "expected.safetensors")["plain_text_features"]
    found = TextTower(golden_model(case)).encode_ids(load_file(case / "inputs.safetensors")["token_ids"])
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()

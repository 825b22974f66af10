"""Where and in which precision a language model runs: what the params come to, what is refused, what is recorded."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from describing import call
from tiny_llm import make_gguf

from clinprompt.errors import BadParams
from clinprompt.knowledge import compute
from clinprompt.knowledge.asking import complete_batch
from clinprompt.knowledge.completion import Sampling
from clinprompt.knowledge.compute import Compute
from clinprompt.knowledge.decoding import complete
from clinprompt.knowledge.llm import Llm, load_llm
from clinprompt.knowledge.prompts import token_ids
from clinprompt.knowledge.samples import Samples
from clinprompt.knowledge_params import KnowledgeParams

BFLOAT16 = Compute("cpu", "bfloat16")
BFLOAT16_ABLE = "clinprompt.backbones.device.computes_bfloat16"


def of(params: KnowledgeParams, **changes: Any) -> Compute:
    return Compute.of(params.model_copy(update=changes))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is settled before anything touches a GPU is settled as where there is one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_the_default_is_float32_on_the_cpu_without_a_gpu(knowledge: KnowledgeParams) -> None:
    if not torch.cuda.is_available():
        assert of(knowledge) == Compute("cpu", "float32", None)


def test_bfloat16_without_instructions_for_it_is_float32_and_said(
    knowledge: KnowledgeParams, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for able, precision in [(True, "bfloat16"), (False, "float32")]:
        monkeypatch.setattr(BFLOAT16_ABLE, lambda device, able=able: able)
        assert of(knowledge, device="cpu", precision="bfloat16").precision == precision
    assert [record.message for record in caplog.records if "knowledge.precision" in record.message] != []


@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"device": "all_gpus"}, {"quantization": "4bit"}])
def test_what_needs_a_gpu_says_so_where_there_is_none(
    knowledge: KnowledgeParams, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadParams, match=rf"knowledge\.{next(iter(changes))}: .*GPU"):
        of(knowledge, **changes)


@pytest.mark.parametrize(
    ("changes", "package"), [({"device": "all_gpus"}, "accelerate"), ({"quantization": "8bit"}, "bitsandbytes")]
)
def test_a_package_that_is_missing_is_named(
    knowledge: KnowledgeParams, gpu: None, changes: dict[str, str], package: str
) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(BadParams, match=f"needs the package {package}, which is not installed"):
        of(knowledge, **changes)


def test_layers_are_spread_and_weights_are_quantized_by_transformers(
    knowledge: KnowledgeParams, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "find_spec", lambda package: object())
    assert of(knowledge, device="cuda").placing == {}
    assert of(knowledge, device="all_gpus").placing == {"device_map": "auto"}
    placing = of(knowledge, quantization="8bit", precision="bfloat16").placing
    assert placing["device_map"] == {"": 0}
    assert placing["quantization_config"].load_in_8bit


@pytest.mark.parametrize("asked", [Compute("all_gpus"), Compute("cuda", quantization="8bit")])
def test_a_gguf_file_is_neither_quantized_nor_spread(tmp_path: Path, asked: Compute) -> None:
    make_gguf(tmp_path)
    with pytest.raises(BadParams, match=r"tiny\.gguf is a GGUF file, which is loaded whole"):
        load_llm("tiny", str(tmp_path), asked)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_bfloat16_runs_on_the_cpu_alike_each_time_and_near_float32(llm_folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "gguf":
        make_gguf(tmp_path)
    path = str(llm_folder if kind == "folder" else tmp_path)
    half, full = load_llm("tiny", path, BFLOAT16), load_llm("tiny", path)
    assert half.model.dtype == torch.bfloat16
    ids = torch.tensor([token_ids(full, "the shape of a glioma")])
    with torch.inference_mode():
        found, expected = (llm.model(ids).logits[0].float() for llm in (half, full))
    assert 0 < (found - expected).norm() < 0.1 * expected.norm()
    assert texts(half) == texts(half) == texts(load_llm("tiny", path, BFLOAT16))


def texts(llm: Llm) -> list[list[int]]:
    prompts = [token_ids(llm, text) for text in ("a glioma", "the shape of the tissue")]
    return [one.tokens for one in complete(llm, prompts, [1, 2], Sampling(0.7, 0.9, 12))]


def test_describe_records_how_it_computed(folder: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BFLOAT16_ABLE, lambda device: True)
    assert call(folder, llm="tiny", path=str(llm_folder), device="cpu", precision="bfloat16") == 0
    told = json.loads((folder / "report.json").read_text())["llm"]
    assert (told["dtype"], told["device"], told["quantization"]) == ("bfloat16", "cpu", None)


def test_a_sample_of_another_precision_is_not_taken_for_this_ones(llm_folder: Path, tmp_path: Path) -> None:
    counts = []
    for asked in (Compute(), BFLOAT16, BFLOAT16):
        llm = load_llm("tiny", str(llm_folder), asked)
        complete_batch(llm, ["a glioma"], [1], Sampling(0.7, 0.9, 4), lambda _: False, Samples(tmp_path / "samples"))
        counts.append(len(list((tmp_path / "samples").rglob("*.json"))))
    assert counts == [1, 2, 2]

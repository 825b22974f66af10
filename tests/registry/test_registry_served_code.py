"""The code in a payload: what predictions run, and nothing that training alone needs."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from drawn_dicom import picture, written

from clinprompt import methods
from clinprompt.data.codecs.base import VOLUME
from clinprompt.prompting.base import FeatureMethod
from clinprompt.prompting.hooks import NOT_SERVED
from clinprompt.sources import imported_modules
from clinprompt.tuned.record import BackboneRef, ModelRecord
from registry.pruning import LeftOut, pruned
from registry.served_code import ROOT, code_of, distributions


def record(method: str, predicts_with: Literal["head", "method"]) -> ModelRecord:
    """A tuned model's record, of which the code depends on these two alone."""
    return ModelRecord(
        predicts_with=predicts_with, dataset="toy", candidate=method, method=method, config={}, seed=1,
        classes=["a", "b"], class_names=["a", "b"], backbone=BackboneRef(name="tiny", digest="0" * 64, embed_dim=12),
        preprocessing={}, intensity="auto", manifest="a" * 64, images="pixels", knowledge=None, versions={},
        support="b" * 64, trainable_parameters=1,
    )  # fmt: skip


HEAD, VPT = record("coop", "head"), record("vpt", "method")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the library's sources, to be changed."""
    only_code = shutil.ignore_patterns("*.safetensors", "__pycache__", "weights")
    shutil.copytree(ROOT / "clinprompt", tmp_path / "clinprompt", ignore=only_code)
    return tmp_path


def test_a_linear_head_carries_the_reading_of_images_alone() -> None:
    of_volumes = {"nifti.py", "volume_axes.py", "volumes.py"}
    modules = {path.name for path in (ROOT / "clinprompt/data/codecs").glob("*.py")} - of_volumes
    modules -= {name for name in modules if name.startswith("dicom")}
    codecs = {f"code/data/codecs/{name}" for name in modules}
    names = ("__init__", "data/__init__", "data/formats", "data/preprocessing")
    others = {f"code/{name}.py" for name in names}
    assert set(code_of(HEAD)) == codecs | others | {"model_script.py"}


def test_a_method_carries_its_towers_and_nothing_of_training() -> None:
    code = code_of(VPT)
    assert len(code) <= 46
    assert sum(map(len, code.values())) <= 125_000
    folders = {Path(name).parts[1] for name in code if len(Path(name).parts) > 2}
    assert folders == {"backbones", "contract", "data", "methods", "prompting", "tuned"}
    assert [name for name in code if name.startswith("code/methods")] == [
        "code/methods/__init__.py",
        "code/methods/vpt.py",
    ]
    assert b"cross_entropy" not in b"".join(code.values())


def test_what_reads_volumes_goes_along_with_models_of_volumes_alone(tmp_path: Path) -> None:
    volumes = code_of(VPT.model_copy(update={"preprocessing": {"kind": VOLUME}}))
    assert {"code/data/codecs/nifti.py", "code/data/codecs/dicom.py", "code/data/volumes.py"} <= set(volumes)
    assert {"nibabel", "pydicom"} <= distributions(volumes)
    assert not {"nibabel", "pydicom"} & distributions(code_of(VPT))


@pytest.mark.parametrize("spec", [HEAD, VPT], ids=["head", "method"])
def test_what_reads_dicom_goes_along_with_models_that_were_tuned_on_it(spec: ModelRecord) -> None:
    without, with_dicom = code_of(spec), code_of(spec.model_copy(update={"dicom": True}))
    parts = ("elements", "file", "frames", "palette", "shown")
    of_dicom = {f"code/data/codecs/dicom_{part}.py" for part in parts}
    assert set(with_dicom) - set(without) == of_dicom
    assert distributions(with_dicom) - distributions(without) == {"pydicom"}


@pytest.mark.parametrize("dicom", [True, False])
def test_dicom_bytes_are_read_by_the_code_of_such_models_alone(tmp_path: Path, dicom: bool) -> None:
    for name, source in code_of(HEAD.model_copy(update={"dicom": dicom})).items():
        file = tmp_path / name.replace("code/", "clinprompt/", 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source)
    (tmp_path / "scan").write_bytes(written(picture(np.arange(80, dtype=np.uint8).reshape(8, 10))))
    script = "from clinprompt.data.codecs import decode_image\nfrom pathlib import Path\n"
    script += "print(int(decode_image(Path('scan').read_bytes()).values.sum()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    if dicom:
        assert done.stdout == f"{sum(range(80))}\n"
    else:
        assert "ValueError: it is a DICOM file, and this model was tuned on pictures of other formats" in done.stderr


def test_a_model_of_pictures_says_that_it_reads_no_volume(tmp_path: Path) -> None:
    for name, source in code_of(HEAD).items():
        file = tmp_path / name.replace("code/", "clinprompt/", 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source)
    script = "from clinprompt.data.codecs import decode_image\nhead = bytes(344) + b'n+1\\0'\ndecode_image(head)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "ValueError: it is a volume (NIfTI), and this model reads pictures" in done.stderr


@pytest.mark.parametrize("method", methods.names())
def test_no_method_carries_what_only_training_calls(method: str) -> None:
    code = code_of(record(method, "method"))
    assert not [name for name in code if name.startswith(("code/training/", "code/knowledge/", "code/evaluation/"))]
    for name, source in code.items():
        if name.endswith(".py"):
            compile(source, name, "exec")
            methods_code = ast.parse(source) if name.startswith("code/methods/") else ast.Module([], [])
            classes = [node for node in ast.walk(methods_code) if isinstance(node, ast.ClassDef)]
            assert not NOT_SERVED & {getattr(member, "name", None) for cls in classes for member in cls.body}
            imported = {module.partition(".")[0] for module in imported_modules(ast.parse(source))}
            assert not imported & {"sklearn", "tqdm"}


def test_the_packages_that_the_code_imports_are_named() -> None:
    expected = {"numpy", "pydantic", "PyYAML", "torch", "open_clip_torch", "safetensors", "huggingface_hub"}
    found = distributions(code_of(VPT))
    assert expected <= found
    assert not {name for name in found if name.startswith("mlflow")}


def test_the_hooks_are_members_of_a_method() -> None:
    assert {name for name in NOT_SERVED if not hasattr(FeatureMethod, name)} == set()


@pytest.mark.parametrize("spec", [HEAD, VPT], ids=["head", "method"])
def test_comments_docstrings_and_training_change_no_byte(root: Path, spec: ModelRecord) -> None:
    before = code_of(spec, root)
    assert before == code_of(spec)
    for path in (root / "clinprompt").rglob("*.py"):
        text = path.read_text()
        path.write_text(text.replace('"""', '"""Said otherwise. ', 1) + "\n\n# A comment.\n")
    base = root / "clinprompt" / "prompting" / "base.py"
    text = base.read_text().replace(
        "F.cross_entropy(logits, batch.labels)", "F.cross_entropy(2 * logits, batch.labels)"
    )
    assert text != base.read_text()
    base.write_text(text)
    assert code_of(spec, root) == before


def test_a_change_of_the_predictions_changes_the_code(root: Path) -> None:
    before, head = code_of(VPT, root), code_of(HEAD, root)
    path = root / "clinprompt" / "methods" / "vpt.py"
    path.write_text(path.read_text().replace("self.head(self.image", "2 * self.head(self.image"))
    after = code_of(VPT, root)
    assert {name for name in before if before[name] != after[name]} == {"code/methods/vpt.py"}
    assert code_of(HEAD, root) == head


FILES = {
    "lib/__init__.py": "import os\nos.environ.setdefault('A', 'b')\nunused = 1\n",
    "lib/a.py": """
from typing import TYPE_CHECKING
from lib import b, c
from lib.d import Kind as Base, used, unused
if TYPE_CHECKING:
    from lib.never import Type
X: "Named" = "table.yaml"
class Named:
    def fit(self): ...
class A(Base):
    def fit(self): return unused
    def forward(self) -> "Type": return used() + b.f() + X
def helper(): return c.f()
""",
    "lib/b.py": "def f():\n    from lib.late import g\n    return g()\ndef h(): ...",
    "lib/c.py": "def f(): ...",
    "lib/d.py": "from lib.never import unused\nused = lambda: 1\nclass Kind:\n    def fit(self): ...\n    x = 1",
    "lib/late.py": "g = print",
    "lib/never.py": "unused = 1",
    "lib/table.yaml": "a: 1",
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_pruned_code_holds_what_the_entry_uses(library: Path) -> None:
    code = pruned(["lib.a:A"], library, "lib", LeftOut("lib.d:Kind", {"fit"}))
    assert code == {
        "lib/__init__.py": "import os\nos.environ.setdefault('A', 'b')\n",
        "lib/a.py": "from lib import b\nfrom lib.d import Kind as Base, used\nX: 'Named' = 'table.yaml'\n\n"
        "class Named:\n\n    def fit(self):\n        ...\n\nclass A(Base):\n\n"
        "    def forward(self) -> 'Type':\n        return used() + b.f() + X\n",
        "lib/b.py": "def f():\n    from lib.late import g\n    return g()\n",
        "lib/d.py": "used = lambda: 1\n\nclass Kind:\n    x = 1\n",
        "lib/late.py": "g = print\n",
        "lib/table.yaml": library / "lib/table.yaml",
    }


@pytest.mark.parametrize("entry", ["lib.a:Missing", "lib.missing:A"])
def test_an_entry_that_is_not_there_is_an_error(library: Path, entry: str) -> None:
    with pytest.raises(ValueError, match=f"no {entry}"):
        pruned([entry], library, "lib")


@pytest.mark.parametrize("line", ["import lib.b", "from . import b"])
def test_imports_that_another_package_name_would_break_are_refused(library: Path, line: str) -> None:
    (library / "lib/a.py").write_text(f"{line}\ndef A(): return b, lib")
    with pytest.raises(ValueError, match="served code must"):
        pruned(["lib.a:A"], library, "lib")

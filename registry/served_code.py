"""The code that a served model carries: what turns an image's bytes into logits, and nothing that training needs.

A change that no prediction can notice (a comment, a docstring, a loss, an optimiser) leaves it as it is.
"""

import ast
import hashlib
import sys
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

import clinprompt
from clinprompt.data.codecs.base import VOLUME
from clinprompt.files import sha256_file
from clinprompt.prompting.hooks import NOT_SERVED
from clinprompt.sources import imported_modules, without_docstrings
from clinprompt.tuned.record import ModelRecord
from registry.pruning import LeftOut, pruned

PACKAGE = "clinprompt"
ROOT = Path(clinprompt.__file__).parents[1]
SCRIPT = Path(__file__).with_name("model_script.py")

# What model_script.py calls.
_IMAGES = (
    "clinprompt.data.codecs:decode_image",
    "clinprompt.data.codecs:read_file",
    "clinprompt.data.preprocessing:preprocessing_of",
)
_TOWERS = (
    "clinprompt.backbones.load:load_backbone",
    "clinprompt.tuned.restore:answers_of_pixels",
    "clinprompt.tuned.restore:restore",
)

# What models of pictures do without; what imports it does so inside a function.
_OF_VOLUMES = ("clinprompt.backbones.m3d_folder", "clinprompt.data.codecs.volumes", "clinprompt.data.volumes")
# And what models of pictures that were tuned without DICOM files do without, as of its package.
_OF_DICOM = ("clinprompt.data.codecs.dicom_file",)
# What no served model runs: it is given the folder of its backbone. Imported inside a function, too.
_NOT_RUN = ("clinprompt.backbones.fetched", "clinprompt.backbones.hub")

_TRAINING = LeftOut("clinprompt.prompting.base:PromptMethod", NOT_SERVED)


def code_of(model: ModelRecord, root: Path = ROOT) -> dict[str, bytes]:
    """The code in a payload, by file name: MLflow's script, and below `code/` what that calls.

    For a linear head, that is the decoding of images and their preprocessing; else also the backbone and the method.
    What reads volumes goes along with models of volumes alone, what reads DICOM pictures with models tuned on such.

    Args:
        model: the tuned model's record.
        root: the folder that the package clinprompt lies in.
    """
    entries = [*_IMAGES]
    if not model.needs_only_head:
        entries += [*_TOWERS, _class_of(model.method, root)]
    script = ast.unparse(without_docstrings(ast.parse(SCRIPT.read_bytes()))) + "\n"
    code = {"model_script.py": script.encode()}
    absent = _NOT_RUN
    if model.preprocessing.get("kind") != VOLUME:
        absent = (*_NOT_RUN, *_OF_VOLUMES, *(() if model.dicom else _OF_DICOM))
    for name, content in _pruned(tuple(entries), root, absent, _state(root)).items():
        inside = Path(name).relative_to(PACKAGE).as_posix()
        code[f"code/{inside}"] = content.read_bytes() if isinstance(content, Path) else content.encode()
    return code


@lru_cache(maxsize=8)
def _pruned(entries: tuple[str, ...], root: Path, absent: tuple[str, ...], state: str) -> dict[str, str | Path]:
    """The needed sources; a promotion asks for the same ones several times, and each takes a quarter of a second."""
    return pruned(entries, root, PACKAGE, _TRAINING, absent)


def _state(root: Path) -> str:
    """SHA-256 over the names and bytes of the package's files."""
    total = hashlib.sha256()
    for file in sorted(root.joinpath(PACKAGE).rglob("*")):
        if "__pycache__" not in file.parts and file.is_file():
            total.update(f"{file.relative_to(root).as_posix()}\0{sha256_file(file)}\n".encode())
    return total.hexdigest()


def distributions(code: dict[str, bytes]) -> set[str]:
    """The installed packages that the code below `code/` imports."""
    names = {
        module.partition(".")[0]
        for file, source in code.items()
        if file.startswith("code/") and file.endswith(".py")
        for module in imported_modules(ast.parse(source))
    }
    installed = packages_distributions()
    return {installed[name][0] for name in names - sys.stdlib_module_names - {PACKAGE}}


def _class_of(method: str, root: Path) -> str:
    """The class that a method's file registers, as an entry for `pruned`."""
    module = f"{PACKAGE}.methods.{method}"
    tree = ast.parse(root.joinpath(*module.split(".")).with_suffix(".py").read_bytes())
    [name] = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "register"
    ]
    return f"{module}:{name}"

"""Which files run, and digests that only what they do can change."""

import ast
import hashlib
from pathlib import Path

import pytest

from clinprompt.sources import closure, digest, without_docstrings

FILES = {
    "lib/__init__.py": "",
    "lib/a.py": """
from typing import TYPE_CHECKING
import lib.b
from lib.deep import thing
if TYPE_CHECKING:
    from lib.never import Type
else:
    import lib.otherwise
TABLE = "table.yaml"
def late():
    from lib import late
""",
    "lib/b.py": "import numpy, other.x",
    "lib/deep/__init__.py": "from lib.deep.inner import thing",
    "lib/deep/inner.py": "thing = 1",
    "lib/late.py": "",
    "lib/never.py": "",
    "lib/otherwise.py": "",
    "lib/table.yaml": "a: 1",
    "lib/unnamed.yaml": "a: 1",
    "other/x.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_closure_holds_what_can_run_and_the_named_data(root: Path) -> None:
    files = closure(["lib.a"], root, packages=("lib",))
    expected = set(FILES) - {"lib/never.py", "lib/unnamed.yaml", "other/x.py"}
    assert set(files) == expected
    assert list(files) == sorted(files)
    assert files["lib/a.py"] == root / "lib/a.py"
    assert "other/x.py" in closure(["lib.a"], root, packages=("lib", "other"))


def test_an_unknown_module_and_a_relative_import_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="no module lib.missing"):
        closure(["lib.missing"], root, packages=("lib",))
    (root / "lib/b.py").write_text("from . import a")
    with pytest.raises(ValueError, match="absolute names"):
        closure(["lib.a"], root, packages=("lib",))


PLAIN = """
import os

X = None

def f(a, b=1.5):
    return [a, b, "x", b"y", ...]
"""

SAME = [
    PLAIN + "# a comment",
    '"""A docstring."""' + PLAIN,
    PLAIN.replace("    return", '    """Adds."""\n    return'),
    PLAIN.replace("X = None", 'X = None\n"""What X is."""'),
    PLAIN.replace('[a, b, "x"', "[\n        a,\n        b, 'x'"),
]
OTHER = [
    PLAIN.replace("1.5", "1.25"),
    PLAIN.replace("None", "0"),
    PLAIN.replace("None", "False"),
    PLAIN.replace('"x"', 'b"x"'),
    PLAIN.replace("a, b=", "b, a="),
    PLAIN.replace("import os", "import os as os"),
    PLAIN + "f(1)",
]


@pytest.mark.parametrize("text", SAME)
def test_how_code_is_written_does_not_count(text: str) -> None:
    assert text != PLAIN
    assert digest(text) == digest(PLAIN)


@pytest.mark.parametrize("text", OTHER)
def test_what_code_does_counts(text: str) -> None:
    assert text != PLAIN
    assert digest(text) != digest(PLAIN)


def test_the_digest_is_that_of_a_form_without_positions_and_versions() -> None:
    form = b'["Module",["body",[["Assign",["targets",[["Name",["id","x"]]]],["value",["Constant","int","1"]]]]]]'
    assert digest("x = 1") == hashlib.sha256(form).hexdigest()


def test_files_are_digested_by_what_they_are(tmp_path: Path) -> None:
    code, values, data = tmp_path / "a.py", tmp_path / "a.yaml", tmp_path / "a.txt"
    code.write_text(PLAIN)
    assert digest(code) == digest(PLAIN)
    values.write_text("a: [1, 2]\n")
    before = digest(values)
    values.write_text("# said\na:\n  - 1\n  - 2\n")
    assert digest(values) == before
    values.write_text("a: [1, 3]\n")
    assert digest(values) != before
    data.write_text("a")
    before = digest(data)
    data.write_text("a ")
    assert digest(data) != before


def test_code_without_docstrings_still_compiles() -> None:
    tree = without_docstrings(ast.parse('"""A."""\nclass A:\n    """A."""\n\ndef f():\n    """F."""\n'))
    assert ast.unparse(tree) == "class A:\n    pass\n\ndef f():\n    pass"

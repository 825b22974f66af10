"""Which of the project's files run when modules are imported, and digests that change only with what they do.

The standard library alone (and PyYAML for the digest of a .yaml file), so that tools outside the library can use it.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("clinprompt", "components", "registry", "workspace")


class Code(NamedTuple):
    """What a file is to those that it runs with; of a file that is not Python, the digest alone.

    Attributes:
        imports: the modules that it imports when it runs.
        texts: its constants that can be names of files.
        digest: what `digest` gives.
    """

    imports: tuple[str, ...]
    texts: frozenset[str]
    digest: str


_read: dict[str, Code] = {}  # by suffix and SHA-256: many closures share their files
_told: dict[str, Code] = {}  # the same, by an earlier process


def closure(modules: Iterable[str], root: Path, packages: tuple[str, ...] = PACKAGES) -> dict[str, Path]:
    """The files that importing some modules and calling their functions can run, by their path below `root`, sorted.

    Found without running anything: imports inside functions count, those for type checkers don't. The `__init__` files
    of the packages on the way count, and the data files that a module names and that lie beside it, as `table.yaml`.
    What is imported by a name made at run time is not seen: name it in `modules`.

    Args:
        modules: full names, as "components.tune.__main__" or "clinprompt.methods.vpt".
        root: the folder that the packages lie in.
        packages: the packages whose files are looked at; imports of others end there.

    Raises:
        ValueError: there is no such module, or a file imports by a relative name.
    """
    files: dict[str, Path] = {}
    seen: set[str] = set()
    todo = list(modules)
    for module in todo:
        if module_file(module, root) is None:
            raise ValueError(f"there is no module {module} below {root}")
    while todo:
        module = todo.pop()
        if module in seen or module.partition(".")[0] not in packages:
            continue
        seen.add(module)
        todo += parents(module)
        path = module_file(module, root)
        if path is None or (name := path.relative_to(root).as_posix()) in files:
            continue
        files[name] = path
        code = read_code(path.read_bytes())
        files |= {file.relative_to(root).as_posix(): file for file in data_files(code.texts, path)}
        todo += code.imports
    return dict(sorted(files.items()))


def parents(module: str) -> list[str]:
    """The packages around a module: of a.b.c, a and a.b."""
    parts = module.split(".")
    return [".".join(parts[:stop]) for stop in range(1, len(parts))]


def module_file(module: str, root: Path) -> Path | None:
    """A module's file; None where the name is that of something in a module, or of a folder without code."""
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


def data_files(texts: frozenset[str], path: Path) -> list[Path]:
    """The files beside a module whose names are among the texts in it."""
    files = (path.parent / name for name in sorted(texts.intersection(os.listdir(path.parent))))
    return [file for file in files if file.is_file()]


def digest(source: Path | str) -> str:
    """SHA-256, in hex, of what a file says and not of how it is written.

    - Python (a `.py` file, or its text as `str`): of the syntax tree without docstrings, comments and positions, in a
      form that does not depend on Python's version.
    - `.yaml`: of the values, in their order.
    - All others: of the bytes.
    """
    if isinstance(source, str):
        return read_code(source.encode()).digest
    return read_code(source.read_bytes(), source.suffix).digest


def read_code(content: bytes, suffix: str = ".py") -> Code:
    """What the bytes of a file say; looked up where they were read before."""
    key = f"{suffix} {hashlib.sha256(content).hexdigest()}"
    if key not in _read:
        _read[key] = _told.get(key) or _parsed(content, suffix)
    return _read[key]


def all_read() -> dict[str, Code]:
    """What this process has read, for `take_over` in a later one: parsing takes seconds."""
    return dict(_read)


def take_over(read: dict[str, Code]) -> None:
    """Look up what another process with this version of the module has read."""
    _told.update(read)


def _parsed(content: bytes, suffix: str) -> Code:
    imports: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()
    if suffix == ".py":
        reading = _Reading()
        content = _to_json(reading.plain(ast.parse(content)))
        imports, texts = tuple(reading.imports), frozenset(reading.texts)
    elif suffix == ".yaml":
        import yaml

        content = _to_json(yaml.safe_load(content))
    return Code(imports, texts, hashlib.sha256(content).hexdigest())


# Fields that say nothing of what runs, or that only some versions of Python have.
_LEFT_OUT = {"ctx", "kind", "type_comment", "type_ignores"}


class _Reading:
    """What is found in one walk over a syntax tree; more of them would take most of the time.

    Attributes:
        imports: what is imported when the code runs, which is not what only type checkers see; of `from a import b`,
            both a and a.b, which may be no module.
        texts: all constants that can be the name of a file.
    """

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.texts: set[str] = set()
        self._runs = True

    def plain(self, node: Any) -> Any:
        """A node as lists: its type's name, then each field that is set, as [name, value].

        Bare texts, which do nothing, are taken out of bodies; `pass` stands where nothing is left.

        Raises:
            ValueError: an import is relative.
        """
        if isinstance(node, list):
            return [self.plain(child) for child in node]
        if not isinstance(node, ast.AST):
            return node
        if isinstance(node, ast.Constant):
            self._text(node.value)
            return ["Constant", type(node.value).__name__, repr(node.value)]
        if self._runs and isinstance(node, ast.Import | ast.ImportFrom):
            self.imports += _imported(node)
        found: list[Any] = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if name in _LEFT_OUT or value is None or value == []:
                continue
            if name == "body" and isinstance(value, list):
                value = self._body(node, value)
            elif not isinstance(value, str):
                value = self.plain(value)
            if value != []:
                found.append([name, value])
        return found

    def _body(self, node: ast.AST, body: list[ast.stmt]) -> Any:
        left: list[ast.stmt] = []
        for statement in body:
            text = _bare_text(statement)
            if text is None:
                left.append(statement)
            else:
                self._text(text)
        if not left and not isinstance(node, ast.Module):
            left.append(ast.Pass())
        runs = self._runs
        self._runs = runs and not (isinstance(node, ast.If) and _for_type_checkers(node))
        found = self.plain(left)
        self._runs = runs
        return found

    def _text(self, value: Any) -> None:
        if isinstance(value, str) and 0 < len(value) < 256 and "/" not in value:
            self.texts.add(value)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return names
    if node.level or node.module is None:
        raise ValueError(f"line {node.lineno}: import by absolute names, not relative ones")
    return [node.module, *(f"{node.module}.{name}" for name in names)]


def _for_type_checkers(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _bare_text(statement: ast.stmt) -> str | None:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str).encode()

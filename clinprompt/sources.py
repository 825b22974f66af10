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
        if (path := module_file(module, root)) is None:
            continue
        files[path.relative_to(root).as_posix()] = path
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
    path = os.path.join(root, *module.split("."))  # thousands are asked for, and a `Path` each takes its time
    candidates = (os.path.join(path, "__init__.py"), f"{path}.py")
    return next((Path(file) for file in candidates if os.path.isfile(file)), None)


def imported_modules(tree: ast.Module) -> list[str]:
    """What is imported when the code runs; of `from a import b`, both a and a.b, which may be no module.

    Raises:
        ValueError: an import is relative.
    """
    return _Reading(tree).imports


def texts_in(tree: ast.Module) -> frozenset[str]:
    """All constants that are text and can be the name of a file."""
    return frozenset(_Reading(tree).texts)


def data_files(texts: frozenset[str], path: Path) -> list[Path]:
    """The files beside a module whose names are among the texts in it."""
    files = (path.parent / name for name in sorted(texts.intersection(os.listdir(path.parent))))
    return [file for file in files if file.is_file()]


def for_type_checkers(node: ast.If) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree, changed in place: bare texts, which do nothing, are taken out; `pass` stands where nothing is left."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = _running(node, body)
    return tree


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
        reading = _Reading(ast.parse(content))
        imports, texts, content = tuple(reading.imports), frozenset(reading.texts), _to_json(reading.plain)
    elif suffix == ".yaml":
        import yaml

        content = _to_json(yaml.safe_load(content))
    return Code(imports, texts, hashlib.sha256(content).hexdigest())


def _can_name_a_file(text: str) -> bool:
    return 0 < len(text) < 256 and "/" not in text


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _running(node: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body but bare texts, which do nothing."""
    kept = [statement for statement in body if not _is_text(statement)]
    return kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])


# Fields that say nothing of what runs, or that only some versions of Python have.
_LEFT_OUT = {"ctx", "kind", "type_comment", "type_ignores"}
_IMPORTS = (ast.Import, ast.ImportFrom)


class _Reading:
    """What a module says, in one walk over its tree, as a stage reads hundreds of them.

    Attributes:
        imports: what is imported when it runs, not what only type checkers see.
        texts: the constants that can be names of files, docstrings among them.
        plain: the tree without docstrings as lists: a node's type, then each field that is set, as [name, value].
    """

    def __init__(self, tree: ast.Module) -> None:
        self.imports: list[str] = []
        self.texts: set[str] = set()
        self._runs = True
        self.plain = self._node(tree)

    def _node(self, node: ast.AST) -> list[Any]:
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if self._runs and isinstance(node, _IMPORTS):
            self._import(node)
        plain: list[Any] = [type(node).__name__]
        for name in node._fields:
            value = None if name in _LEFT_OUT else getattr(node, name, None)
            if isinstance(value, ast.AST):
                plain.append([name, self._node(value)])
            elif isinstance(value, list):
                if values := self._body(node, value) if name == "body" else self._list(value):
                    plain.append([name, values])
            elif value is not None:
                plain.append([name, value])
        return plain

    def _list(self, values: list[Any]) -> list[Any]:
        return [self._node(value) if isinstance(value, ast.AST) else value for value in values]

    def _body(self, node: ast.AST, body: list[ast.stmt]) -> list[Any]:
        for statement in body:
            if _is_text(statement):
                self._node(statement)
        before = self._runs
        self._runs = before and not (isinstance(node, ast.If) and for_type_checkers(node))
        plain = self._list(_running(node, body))
        self._runs = before
        return plain

    def _constant(self, node: ast.Constant) -> list[Any]:
        if isinstance(node.value, str) and _can_name_a_file(node.value):
            self.texts.add(node.value)
        return ["Constant", type(node.value).__name__, repr(node.value)]

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            self.imports += [alias.name for alias in node.names]
            return
        if node.level or node.module is None:
            raise ValueError(f"line {node.lineno}: import by absolute names, not relative ones")
        self.imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str).encode()

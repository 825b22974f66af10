"""The part of a package's code that some of its functions and classes need, as sources that hold nothing else.

Each module is taken for a list of statements. Starting at the entries, the definitions, assignments and imports that
bind a used name are kept, and those that these use in turn, across modules. All other statements of a kept module run
as it is imported, so they are kept too. What is dropped:

- functions, classes, constants and imports that nothing kept uses;
- members with certain names (those that only training calls) of a class and of all that inherit from it;
- docstrings, comments, and what only type checkers see.

So a definition must not do anything but define: one that registers itself has to be an entry. A name that is looked up
at run time, by `getattr` or `import_module`, has to be one as well.
"""

import ast
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clinprompt.sources import data_files, for_type_checkers, module_file, parents, texts_in, without_docstrings

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class LeftOut:
    """Functions that are dropped from a class and from those that inherit from it.

    Attributes:
        base: the class, as "package.module:name".
        names: the functions' names. What other classes call so is kept.
    """

    base: str
    names: Collection[str]


def pruned(
    entries: Iterable[str],
    root: Path,
    package: str,
    left_out: LeftOut | None = None,
    absent: Collection[str] = (),
) -> dict[str, str | Path]:
    """The needed code by file name below `root`: sources, and the paths of data files that they name beside them.

    Args:
        entries: what is called from outside, as "package.module:name".
        root: the folder that the package lies in.
        left_out: the members that are dropped.
        absent: modules that are not carried. Imports of them stay, inside functions, and fail where they are run.

    Raises:
        ValueError: there is no such entry, or a module imports the package by a relative or a plain `import`.
    """
    code = _Code(root, package, left_out, absent)
    for entry in entries:
        module, _, name = entry.partition(":")
        if module_file(module, root) is None or not code.module(module).binding(name):
            raise ValueError(f"there is no {entry} below {root}")
        code.need(module, name)
    files: dict[str, str | Path] = {}
    for found in code.modules.values():
        tree = found.kept()
        files[found.path.relative_to(root).as_posix()] = ast.unparse(tree) + "\n" if tree.body else ""
        files |= {path.relative_to(root).as_posix(): path for path in data_files(texts_in(tree), found.path)}
    return dict(sorted(files.items()))


class _Heirs:
    """Which classes inherit from `base`. Their bases must be named as they were defined or imported, without a dot."""

    def __init__(self, root: Path, base: str) -> None:
        self._root, self._base = root, base

    def have(self, module: str, tree: ast.Module, name: str) -> bool:
        """Whether a name stands for such a class in a module."""
        if f"{module}:{name}" == self._base:
            return True
        for statement in tree.body:
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                bases = [base.value if isinstance(base, ast.Subscript) else base for base in statement.bases]
                return any(self.have(module, tree, base.id) for base in bases if isinstance(base, ast.Name))
            if isinstance(statement, ast.ImportFrom) and statement.module:
                for alias in statement.names:
                    if _name_of(alias) == name:
                        path = module_file(statement.module, self._root)
                        return path is not None and self.have(
                            statement.module, ast.parse(path.read_bytes()), alias.name
                        )
        return False


@cache
def _read_only(content: bytes) -> ast.Module:
    """The tree of a source that many classes lead to; nobody may change it."""
    return ast.parse(content)


class _Module:
    """A module's statements, and which of the names that they bind are used."""

    def __init__(self, name: str, path: Path, root: Path, left_out: LeftOut | None) -> None:
        self.path = path
        tree = ast.parse(path.read_bytes(), str(path))
        heirs: set[str] = set()
        if left_out is not None:
            classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
            heirs = {cls for cls in classes if _Heirs(root, left_out.base).have(name, tree, cls)}
        tree = _Trim(heirs, left_out.names if left_out else ()).visit(tree)
        self.body: list[ast.stmt] = without_docstrings(tree).body
        self._bound = [_bound(statement) for statement in self.body]
        self.used: set[str] = set()

    def binding(self, name: str) -> list[ast.stmt]:
        """The statements that bind a name."""
        return [statement for statement, bound in zip(self.body, self._bound, strict=True) if bound and name in bound]

    def kept(self) -> ast.Module:
        """The module with what is used, and with what binds nothing."""
        body: list[ast.stmt] = []
        for statement, bound in zip(self.body, self._bound, strict=True):
            if bound is None or (bound & self.used and not isinstance(statement, ast.Import | ast.ImportFrom)):
                body.append(statement)
            elif bound & self.used and isinstance(statement, ast.Import | ast.ImportFrom):
                statement.names = [alias for alias in statement.names if _name_of(alias) in self.used]
                body.append(statement)
        return ast.Module(body, type_ignores=[])


class _Code:
    """The modules of a package that are needed so far."""

    def __init__(self, root: Path, package: str, left_out: LeftOut | None, absent: Collection[str]) -> None:
        self.root, self.package, self.left_out, self.absent = root, package, left_out, absent
        self.modules: dict[str, _Module] = {}

    def module(self, name: str) -> _Module:
        """A module, which is needed: what its import runs is, and the packages around it are."""
        if name not in self.modules:
            for parent in parents(name):
                self.module(parent)
            path = module_file(name, self.root)
            assert path is not None  # noqa: S101 - callers have looked
            module = self.modules[name] = _Module(name, path, self.root, self.left_out)
            for statement in module.body:
                if _bound(statement) is None:
                    self._follow(name, statement)
        return self.modules[name]

    def need(self, module: str, name: str) -> None:
        """Keep what binds a name in a module; names that it does not bind are Python's own."""
        found = self.module(module)
        if name in found.used:
            return
        for statement in found.binding(name):
            found.used.add(name)
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                self._follow(module, statement)
                continue
            for alias in statement.names:
                if _name_of(alias) == name:
                    self._import(statement, alias)

    def _follow(self, module: str, statement: ast.stmt) -> None:
        """Keep all that a statement uses."""
        names = list(_names(statement))
        through = {id(node.value) for node in names if isinstance(node, ast.Attribute)}
        for node in names:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if target := self._as_module(module, node.value.id):
                    self.need(target, node.attr)
            elif isinstance(node, ast.Name):
                self.need(module, node.id)
                if id(node) not in through and (target := self._as_module(module, node.id)):
                    self._need_all(target)
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                for alias in inner.names:
                    if target := self._import(inner, alias):
                        self._need_all(target)

    def _import(self, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> str | None:
        """Keep what an import names, unless it is another package's; the module's name, where it is a module."""
        if isinstance(statement, ast.Import):
            if alias.name.partition(".")[0] == self.package:
                raise ValueError(f"served code must say `from {alias.name} import …`: it runs under another name")
            return None
        if statement.level or statement.module is None:
            raise ValueError("served code must import by absolute names")
        if statement.module.partition(".")[0] != self.package:
            return None
        if {statement.module, f"{statement.module}.{alias.name}"} & set(self.absent):
            return None
        if target := self._submodule(statement.module, alias.name):
            self.module(target)
            return target
        self.need(statement.module, alias.name)
        return None

    def _submodule(self, module: str, name: str) -> str | None:
        """The full name, if it is that of a module; a package may import its own modules."""
        target = f"{module}.{name}"
        for statement in self.module(module).binding(name):
            if not (isinstance(statement, ast.ImportFrom) and statement.module == module):
                return None
        return target if module_file(target, self.root) is not None else None

    def _as_module(self, module: str, name: str) -> str | None:
        """The module of the package that a name stands for in a module, if it stands for one."""
        for statement in self.module(module).binding(name):
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == self.package:
                for alias in statement.names:
                    if _name_of(alias) == name:
                        return self._submodule(str(statement.module), alias.name)
        return None

    def _need_all(self, module: str) -> None:
        for statement in self.module(module).body:
            for name in _bound(statement) or ():
                self.need(module, name)


class _Trim(ast.NodeTransformer):
    """Takes out what only type checkers see, and members with certain names of some classes."""

    def __init__(self, classes: Collection[str], left_out: Collection[str]) -> None:
        self.classes, self.left_out = classes, left_out

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """`if TYPE_CHECKING: … else: …` becomes what stands in the else."""
        self.generic_visit(node)
        return node.orelse if for_type_checkers(node) else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """The class without the members."""
        if node.name not in self.classes:
            return self.generic_visit(node)
        node.body = [s for s in node.body if not (isinstance(s, Definition) and s.name in self.left_out)]
        return self.generic_visit(node)


def _bound(statement: ast.stmt) -> set[str] | None:
    """The names that a statement binds and does nothing else; None where it does something, or binds no plain name."""
    if isinstance(statement, Definition):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        return None if future else {_name_of(alias) for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        nodes = [node for target in targets for node in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if all(isinstance(node, ast.Name) for node in nodes):
            return {node.id for node in nodes if isinstance(node, ast.Name)}
    return None


def _name_of(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _names(statement: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    """Names and attributes in a statement, also in annotations that are written as text."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        for part in ast.walk(annotation) if isinstance(annotation, ast.AST) else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                with suppress(SyntaxError):  # a text that is no code, as a pattern in an Annotated
                    yield from _names(ast.parse(part.value, mode="eval"))

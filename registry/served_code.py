"""The code that a served model carries where a linear head isn't all: a method's file and what that imports."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import clinprompt

PACKAGE = "clinprompt"
ROOT = Path(clinprompt.__file__).parent


def sources(method: str) -> dict[str, Path]:
    """What predicting with a method needs of clinprompt, closed under import: file by its path in the package.

    Imports inside functions count, those for type checkers don't. A file that a module names and that lies beside it,
    as `table.yaml`, comes along.
    """
    found: dict[str, Path] = {}
    todo = [f"{PACKAGE}.methods.restore", f"{PACKAGE}.methods.{method}", f"{PACKAGE}.backbones"]
    while todo:
        path = _file(todo.pop())
        if path is None or _inside(path) in found:
            continue
        found[_inside(path)] = path
        tree = ast.parse(path.read_bytes())
        found |= {_inside(beside): beside for beside in _beside(tree, path)}
        for name in _imports(tree):
            parts = name.split(".")
            if parts[0] == PACKAGE:
                todo += [".".join(parts[:stop]) for stop in range(1, len(parts) + 1)]
    return dict(sorted(found.items()))


def distributions(files: dict[str, Path]) -> set[str]:
    """The installed packages that the files import."""
    names = {
        name.partition(".")[0]
        for path in files.values()
        if path.suffix == ".py"
        for name in _imports(ast.parse(path.read_bytes()))
    }
    installed = packages_distributions()
    return {installed[name][0] for name in names - sys.stdlib_module_names - {PACKAGE}}


def _file(module: str) -> Path | None:
    """A module's file; None where the name is that of something in a module."""
    path = ROOT.joinpath(*module.split(".")[1:])
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((one for one in candidates if one.is_file()), None)


def _inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _beside(tree: ast.Module, path: Path) -> Iterator[Path]:
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for beside in path.parent.iterdir():
        if beside.name in named and beside.is_file():
            yield beside


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported when the code runs; of `from a import b`, both a and a.b."""
    for node in _running(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError("served code must import by absolute names")
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == PACKAGE:
                    raise ValueError(f"served code must say `from {alias.name} import …`: it runs under another name")
                yield alias.name


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _running(other)
        else:
            yield child
            yield from _running(child)

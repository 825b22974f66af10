"""YAML as values, without executing anything in it and within limits that hold before the work is done.

Whatever is wrong with a text is a `yaml.YAMLError`: what PyYAML's constructors raise of their own (an impossible date,
an integer of 5,000 digits) becomes one too.
"""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import CollectionNode, Node, ScalarNode

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 50  # of lists and mappings in one another
MAX_NODES = 100_000  # where each alias counts as much as what it stands for

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_LONGEST_NUMBER = 100  # characters
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2, where `2e-3` needs no dot and no sign."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # of the finished nodes, by id: nodes, with those behind aliases

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """PyYAML's, with the limits on depth and size."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} lists and mappings in one another", self.peek_event().start_mark)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not is_alias:
            self._sizes[id(node)] = self._size(node)
        return node

    def _size(self, node: Node) -> int:
        if not isinstance(node, CollectionNode):
            return 1
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        if any(id(part) not in self._sizes for part in parts):
            self._refuse("an alias stands inside of what it stands for", node.start_mark)
        size = 1 + sum(self._sizes[id(part)] for part in parts)
        if size > MAX_NODES:
            self._refuse(f"more than {MAX_NODES} values, with those that aliases repeat", node.start_mark)
        return size

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """PyYAML's, where every refusal is a YAMLError."""
        if isinstance(node, ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
                self._refuse(f"a number of {len(node.value)} characters", node.start_mark)
            if _SURROGATE.search(node.value):
                self._refuse("half of a surrogate pair, which is no character", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
            shown = f"{node.value:.40}" if isinstance(node, ScalarNode) else "this"
            reason = str(error) if isinstance(error, ValueError) else "it has not the form of its type"
            raise ConstructorError(None, None, f"{shown!r} can't be read ({reason})", node.start_mark) from None

    @staticmethod
    def _refuse(what: str, mark: yaml.Mark) -> None:
        raise ConstructorError(None, None, f"{what}: that is not read", mark)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_Loader` would take for numbers."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, without executing anything in it.

    Raises:
        yaml.YAMLError: it is not YAML, or is larger or deeper than the limits above.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters, more than the limit of {MAX_CHARACTERS}")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 # a safe loader
    except (ValueError, OverflowError) as error:  # the scanner's, of an escaped character that does not exist
        raise yaml.YAMLError(f"an impossible character ({error})") from None


def to_yaml(value: Any, **options: Any) -> str:
    """What `parse_yaml` reads; `options` are those of `yaml.safe_dump`."""
    text: str = yaml.dump(value, Dumper=_Dumper, **options)
    return text

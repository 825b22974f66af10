"""The layout of `brain-phantom-3d`."""

from pathlib import Path

from clinprompt.demo.generated import Writer, drawn_layout


def _writer() -> Writer:
    from clinprompt.demo.volumes.phantom import write_phantom

    return write_phantom


_HERE = Path(__file__).parent
_NAMES = ("anatomy.py", "deformation.py", "scanners.py", "subjects.py", "phantom.py")
LAYOUT = drawn_layout(_writer, [_HERE / name for name in _NAMES])

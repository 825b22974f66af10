"""The layout of `brain-phantom`."""

from pathlib import Path

from clinprompt.demo.generated import Writer, drawn_layout


def _writer() -> Writer:
    from clinprompt.demo.phantom import write_phantom

    return write_phantom


_HERE = Path(__file__).parent
LAYOUT = drawn_layout(_writer, [_HERE / "drawing.py", _HERE / "organs.py", _HERE / "phantom.py"])

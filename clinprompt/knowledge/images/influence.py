"""What each description does to the validation loss: leave one out, exactly, on cached features."""

import numpy as np

from clinprompt.knowledge.images.cached import Images

SPLIT = "val"


def influence(texts: np.ndarray, labels: np.ndarray, images: Images, scale: float) -> np.ndarray:
    """How much the validation loss rises without each description, float64 [N]; above 0 it is of use.

    The classifier is the ensemble that BiomedCoOp's and Biomed-DPT's teachers are: w_c = Σ_i t_ci / |Σ_i t_ci|, logits
    s <v_b, w_c>, loss L = mean_b -log softmax_y(s <v_b, w_c>). Without description i of class c, only w_c changes:

        I_i = L(w_c without t_i) - L(w_c)

    so that with L_b' = log(exp(s <v_b, w_c'>) + Σ_{k≠c} exp(s <v_b, w_k>)) - s <v_b, w_y'> no term is approximated.
    NaN for the only description of its class.

    Args:
        texts: unit features [N, e] of accepted descriptions, at least one of each class. labels: the numbers of their
            classes [N].
        images: the validation images. scale: s, what cosines are multiplied with.
    """
    sums = np.stack([texts[labels == k].sum(0, dtype=np.float64) for k in range(len(images.classes))])
    v = images.features.astype(np.float64)
    logits = scale * v @ _unit(sums).T
    loss = float(_loss(logits, images.labels))
    result = np.full(len(texts), np.nan)
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if (labels == label).sum() > 1:
            without = logits.copy()
            without[:, label] = scale * v @ _unit((sums[label] - text)[None])[0]
            result[i] = _loss(without, images.labels) - loss
    return result


def _loss(logits: np.ndarray, labels: np.ndarray) -> np.float64:
    highest = logits.max(1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
    mean: np.float64 = (total - logits[np.arange(len(labels)), labels]).mean()
    return mean


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit

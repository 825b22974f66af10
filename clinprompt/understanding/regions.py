"""How much of what speaks for a class lies inside the regions that the dataset marks."""

import numpy as np

from clinprompt.data.codecs import DecodedImage
from clinprompt.data.preprocessing import AnyPreprocessing
from clinprompt.data.volumes import VolumePreprocessing
from clinprompt.evaluation.metrics import Floats
from clinprompt.understanding.shown import enlarged


def on_grid(image: DecodedImage, regions: DecodedImage, preprocessing: AnyPreprocessing) -> Floats | None:
    """The share of each of the backbone's voxels that lies in a region [D, H, W]; None for what is no volume."""
    if not isinstance(preprocessing, VolumePreprocessing):
        return None
    placed: Floats = preprocessing.place(image, regions.values) / 255
    return placed


def share_inside(values: Floats, regions: Floats) -> float:
    """The share of a map of patches that lies in the regions, once it is spread over the voxels; NaN of an empty map.

    Args:
        values: at least 0, one for each patch.
        regions: the share of each voxel that lies in one, on the finer grid.
    """
    spread = enlarged(values, regions.shape)
    total = float(spread.sum())
    return float((spread * regions).sum()) / total if total > 0 else float("nan")


def expected_share(volume: Floats, regions: Floats) -> float:
    """What the share would be if everything in the head spoke alike: that of the voxels brighter than the darkest."""
    head = np.asarray(volume > volume.min())
    return float(regions[head].sum() / max(1, head.sum()))

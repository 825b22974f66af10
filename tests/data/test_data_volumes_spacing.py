"""How a volume is laid on a tower's grid: stretched, or at a spacing that keeps sizes."""

import numpy as np
import pytest

from clinprompt.data.codecs.base import DecodedImage
from clinprompt.data.preprocessing import preprocessing_of
from clinprompt.data.volumes import VolumePreprocessing


def ball(
    spacing: tuple[float, float, float], radius: float = 20.0, middle: float = 0.0, grey: int = 200
) -> DecodedImage:
    """A ball in a cube of 96 mm, `middle` mm off its centre."""
    axes = [(np.arange(round(96 / s)) + 0.5) * s - 48 - middle for s in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside = z**2 + y**2 + x**2 < radius**2
    return DecodedImage((inside * 200).astype(np.uint8)[..., None], spacing)


def volume(values: np.ndarray, spacing: float) -> float:
    return float(values.sum() / (200 / 255) * spacing**3)


GRID = VolumePreprocessing((16, 20, 24), spacing=(4.0, 4.0, 4.0))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (4.8, 3.0, 3.0), (6.0, 6.0, 6.0)])
def test_a_spacing_keeps_sizes_whatever_the_files_voxels(spacing: tuple[float, float, float]) -> None:
    given = ball(spacing)
    found = GRID.apply(given)
    assert found.shape == (1, 16, 20, 24)
    true = volume(given.values / 255, float(np.prod(spacing)) ** (1 / 3))
    assert volume(found, 4.0) == pytest.approx(true, rel=0.05)


def test_a_larger_head_is_larger_at_a_spacing_and_not_when_stretched() -> None:
    small, large = ball((2.0, 2.0, 2.0), 16), ball((2.0, 2.0, 2.0), 24)
    placed = [GRID.apply(one).mean() for one in (small, large)]
    stretched = [VolumePreprocessing((16, 20, 24)).apply(one).mean() for one in (small, large)]
    assert placed[1] > 2.5 * placed[0]
    assert stretched[1] == pytest.approx(stretched[0], rel=0.1)


def test_where_the_head_lies_in_the_file_makes_no_difference() -> None:
    assert GRID.apply(ball((2.0, 2.0, 2.0), middle=8.0)) == pytest.approx(GRID.apply(ball((2.0, 2.0, 2.0))), abs=1e-6)


def test_what_is_beyond_the_grid_is_cut_and_beyond_the_file_dark() -> None:
    low = GRID.apply(DecodedImage(ball((2.0, 2.0, 2.0)).values // 2 + 50, (2.0, 2.0, 2.0)))
    assert low.min() == pytest.approx(50 / 255)
    narrow = VolumePreprocessing((4, 4, 4), spacing=(4.0, 4.0, 4.0)).apply(ball((2.0, 2.0, 2.0)))
    assert narrow.min() == pytest.approx(200 / 255)


def test_a_file_without_spacing_and_a_spacing_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="does not tell its voxels' spacing"):
        GRID.apply(DecodedImage(ball((2.0, 2.0, 2.0)).values))
    with pytest.raises(ValueError, match="above 0 millimetres"):
        VolumePreprocessing((4, 4, 4), spacing=(1.0, 0.0, 1.0))


@pytest.mark.parametrize("one", [GRID, VolumePreprocessing((4, 8, 8), "z_score")])
def test_the_settings_survive_json(one: VolumePreprocessing) -> None:
    assert preprocessing_of(one.to_dict()) == one
    older = {key: value for key, value in one.to_dict().items() if key != "spacing"}
    assert preprocessing_of(older).volume == one.volume  # type: ignore[union-attr]

"""Both kinds of backbones, and methods on them."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))
sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

from small_methods import SmallBackbone, small_backbone, small_method


@pytest.fixture(params=["clip", "bert"])
def backbone(request: pytest.FixtureRequest) -> SmallBackbone:
    return small_backbone(request.param)


@pytest.fixture
def build(backbone: SmallBackbone) -> Callable[..., Any]:
    """Makes a method on the backbone."""
    return partial(small_method, backbone)

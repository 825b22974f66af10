"""What all tests share: where the optional real data and golden cases lie."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinprompt.process import short_lived

ROOT = Path(__file__).parents[1]

# Each test imports little and leaves nothing: there is no need to look through torch's and MLflow's objects again.
short_lived()
# Threads of BLAS beside pytest's own processes only slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
# Tests make no key in the home of who runs them.
os.environ["CLINPROMPT_PATIENT_KEY"] = "the key of the patients in tests, and of no others"

# The files that take longest, and about how many seconds each on busy cores: two processes that start with them end
# at about the same time.
SLOWEST = {
    "test_e2e_pipeline.py": 1200, "test_e2e_volumes.py": 370, "test_registry_server.py": 350,
    "test_e2e_first_contact.py": 270, "test_workspace_stage.py": 240, "test_methods_tune_processes.py": 190,
    "test_registry_crash.py": 120, "test_e2e_dicom.py": 100, "test_registry_behaviour.py": 91,
    "test_workspace_plan.py": 90, "test_understanding_component.py": 61, "test_methods_tune.py": 60,
    "test_registry_race.py": 49, "test_registry_reproduced.py": 42, "test_core_mend.py": 42,
    "test_registry_stage.py": 40, "test_methods_cilmp.py": 39,
    "test_knowledge_describe.py": 37, "test_knowledge_paraphrases.py": 34, "test_methods_visual.py": 33,
    "test_methods_text.py": 29, "test_experiments_component.py": 22, "test_methods_stack.py": 22,
    "test_registry_network.py": 21, "test_workspace_review.py": 19, "test_methods_adapters.py": 16,
    "test_registry_credentials.py": 15, "test_training_distributed.py": 14, "test_validation_demo.py": 13,
    "test_validation_real.py": 13, "test_methods_text_flops.py": 14, "test_methods_coop.py": 13,
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first; within a file, and among the others, the order stays."""
    items.sort(key=lambda item: -SLOWEST.get(item.path.name, 0))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real datasets of the cards: CLINPROMPT_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("CLINPROMPT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CLINPROMPT_DATA to the folder that the cards' paths start from")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder with the golden cases: CLINPROMPT_GOLDEN, or ../shared/golden beside the repository."""
    folder = Path(os.environ.get("CLINPROMPT_GOLDEN", ROOT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden cases at {folder}; set CLINPROMPT_GOLDEN to their folder")
    return folder


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random CLIP, as open_clip saves it: images of 16 px, features of 12 numbers."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    sizes: dict[str, Any] = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    folder = tmp_path_factory.mktemp("backbone")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**sizes)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocessing = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes, "preprocess_cfg": preprocessing}))
    return folder


@pytest.fixture(scope="session")
def make_m3d() -> Callable[[int], Any]:
    """Makes a random M3D-CLIP of two blocks for volumes of 4 x 8 x 8 voxels, with so many channels."""

    def make(channels: int) -> Any:
        import torch
        from transformers import BertConfig, BertModel

        from clinprompt.backbones.m3d import M3DClip, M3DSizes

        config = {"vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
        config |= {"intermediate_size": 16, "max_position_embeddings": 16, "pad_token_id": 0}
        sizes = M3DSizes(channels, volume=(4, 8, 8), patch=(2, 4, 4), width=12, mlp=24, layers=2, heads=3)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return M3DClip(sizes, BertModel(BertConfig(**config))).eval().requires_grad_(False)

    return make

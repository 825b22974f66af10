"""How CILMP is built from a golden case."""

from typing import Any

from golden import Case, builds

from clinprompt.prompting.base import Knowledge


@builds("cilmp")
def build_cilmp(case: Case) -> Any:
    """CILMP with dropout and averaging off, as the recorded numbers were made."""
    record, padded = case.record, case.inputs["llm_hidden_states"]
    counts = case.inputs["llm_lengths"].tolist()
    states = tuple(rows[:count] for rows, count in zip(padded, counts, strict=True))
    return case.build(
        "cilmp", Knowledge(hidden_states=states), n_ctx=record["n_ctx_text"], context_init=record["context_init_text"],
        n_ctx_vision=record["n_ctx_vision"], text_depth=record["text_depth"], vision_depth=record["vision_depth"],
        prefix_length=record["prefix_length"], suffix_length=record["suffix_length"], rank=record["rank"],
        dropout=0.0, llm_layers=None, normalize_rows=False, averaging=None,
    )  # fmt: skip

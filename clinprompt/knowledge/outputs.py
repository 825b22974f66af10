"""The outputs of the describe stage: the table of descriptions, the hidden states and the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy

from clinprompt.data.card import ClassInfo
from clinprompt.errors import InputCorrupt
from clinprompt.files import sha256_bytes, sha256_file
from clinprompt.knowledge.agreement.encoder import Encoder
from clinprompt.knowledge.agreement.nli import Nli
from clinprompt.knowledge.checks import CHECKS
from clinprompt.knowledge.completion import Sampling
from clinprompt.knowledge.description import Description
from clinprompt.knowledge.endpoint.service import Endpoint
from clinprompt.knowledge.generate import sampling_of
from clinprompt.knowledge.hidden_states import ClassStates
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.paraphrase import Paraphrased
from clinprompt.knowledge.second_judge import JUDGE, OUTCOMES, QUESTION, Judged
from clinprompt.knowledge.settle import SCORES
from clinprompt.knowledge.statement import DescriptionCheck
from clinprompt.knowledge_params import ChecksParams, KnowledgeParams
from clinprompt.parquet import read_frame
from clinprompt.reports.frame import OF_NO_CLASS, PLACEHOLDER, Frame

_SCORES = [f"score_{name}" for name in (*(check.name for check in CHECKS), *SCORES, JUDGE)]
COLUMNS = [
    *["class", "aspect", "index", "round", "text", "raw", "accepted", "reason", "unjudged", "review", "reviewed"],
    *_SCORES,
    *["provider", "llm", "revision", "digest", "prompt_digest", "seed", "temperature", "top_p", "max_new_tokens"],
    *["author", "written", "override"],
]
_TEXT = [
    *["class", "aspect", "text", "raw", "reason", "unjudged", "review", "reviewed"],
    *["provider", "llm", "revision", "digest", "prompt_digest", "author", "written", "override"],
]
# What a reviewed sentence has none of.
_SAMPLING = {"seed": "Int64", "temperature": "Float64", "top_p": "Float64", "max_new_tokens": "Int64"}


def description_table(
    descriptions: Sequence[Description], params: KnowledgeParams, told: Paraphrased | None = None
) -> pd.DataFrame:
    """One row per description, accepted or not, in the order of judging, with its provenance; columns `COLUMNS`.

    `llm` is the language model's name, or that of the file of reviewed descriptions.

    Those of paraphrases follow, of no class, and their scores' columns.
    """
    rows = [_row(d, params, sampling_of(params)) for d in descriptions]
    scores = list(_SCORES)
    if told is not None:
        rows += [_row(d, params, told.sampling) for d in told.paraphrases]
        scores += [f"score_{check.name}" for check in told.checks if f"score_{check.name}" not in _SCORES]
    columns = [*COLUMNS, *scores[len(_SCORES) :]]
    # A check that judged no row has no numbers, which would make its column one of objects.
    types = {**dict.fromkeys(_TEXT, "str"), **dict.fromkeys(scores, "float64"), **_SAMPLING}
    return pd.DataFrame(rows, columns=columns).astype(types)


def _row(d: Description, params: KnowledgeParams, sampling: Sampling) -> dict[str, Any]:
    sampled = d.origin.provider != "reviewed"
    return {
        "class": d.prompt.class_id,
        "aspect": d.prompt.aspect,
        "index": d.index,
        "round": d.round,
        "text": d.text,
        "raw": d.raw,
        "accepted": d.verdict.accepted,
        "reason": d.verdict.reason,
        "unjudged": " ".join(d.verdict.unjudged),
        "review": d.verdict.review,
        "reviewed": d.verdict.reviewed,
        **{f"score_{name}": score for name, score in d.verdict.scores.items()},
        "provider": d.origin.provider,
        "llm": d.origin.name,
        "revision": d.origin.revision,
        "digest": d.origin.digest,
        "prompt_digest": d.prompt.digest,
        "seed": params.seed if sampled else None,
        "temperature": sampling.temperature if sampled else None,
        "top_p": sampling.top_p if sampled else None,
        "max_new_tokens": sampling.max_new_tokens if sampled else None,
        "author": d.author,
        "written": d.written,
        "override": d.override,
    }


def no_descriptions() -> pd.DataFrame:
    """The table when nothing was asked for."""
    return pd.DataFrame(columns=COLUMNS).astype({**dict.fromkeys(_TEXT, "str"), **_SAMPLING})


def read_descriptions(path: Path) -> pd.DataFrame:
    """Read a table of descriptions.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is not a Parquet file with the columns of a table of descriptions.
    """
    return read_frame(path, COLUMNS, "describe")


def read_paraphrases(path: Path, frame: Frame) -> tuple[str, ...]:
    """The accepted paraphrases of a frame, from a table of descriptions.

    Raises:
        InputMissing, InputCorrupt: as `read_descriptions`; or one lacks a placeholder of the frame.
    """
    table = read_descriptions(path)
    texts = tuple(table.loc[(table["class"] == OF_NO_CLASS) & table["accepted"].astype(bool), "text"])
    keys = sorted(slot.key for slot in frame.slots)
    for text in texts:
        if sorted(PLACEHOLDER.findall(text)) != keys:
            raise InputCorrupt(
                f"{path}: the paraphrase {text!r} does not hold the placeholders {', '.join(keys)} once each; run the "
                "stage describe again (dvc repro)."
            )
    return texts


def write_states(path: Path, states: Sequence[ClassStates]) -> None:
    """Write the hidden states as safetensors without header metadata: {class id: [L, D] float32}."""
    tensors = {s.prompt.class_id: np.ascontiguousarray(s.states, dtype=np.float32) for s in states}
    path.write_bytes(safetensors.numpy.save(tensors))


def report(
    dataset: str,
    *,
    classes: Sequence[ClassInfo],
    descriptions: Sequence[Description],
    states: Sequence[ClassStates],
    llm: Llm | None,
    endpoint: Endpoint | None,
    params: KnowledgeParams,
    states_file: Path,
    told: Paraphrased | None = None,
    encoder: Encoder | None = None,
    nli: Nli | None = None,
    judged: Judged | None = None,
    absent: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The report: provenance, counts by class and reason, the prompts of descriptions and hidden states; and where they
    were asked for, the same of paraphrases.

    Args:
        descriptions: all of them, accepted or not.
        llm: the language model that ran here; None where none was needed.
        endpoint: who was asked instead for descriptions and paraphrases.
        states_file: the file of the hidden states, for its digest.
        encoder: what near-duplicates were looked for with.
        nli: what contradictions were looked for with, where it was not the rules.
        judged: what the judge said, where there is one.
        absent: how many reviewed sentences were left out, by classes that the data does not hold.
    """
    sampling = sampling_of(params)
    prompts: dict[str, dict[str, Any]] = {c.id: {} for c in classes}
    for d in (d for d in descriptions if d.prompt.text):
        prompts[d.prompt.class_id][d.prompt.aspect] = {"prompt": d.prompt.text, "digest": d.prompt.digest}
    return {
        "format": 1,
        "dataset": dataset,
        "llm": None if llm is None else _of_llm(llm),
        "endpoint": None if endpoint is None else _of_endpoint(endpoint, descriptions, told),
        "reviewed": _of_reviewed([d for d in descriptions if d.origin.provider == "reviewed"], absent or {}),
        "sampling": {
            "seed": params.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_new_tokens": sampling.max_new_tokens,
            "answer_tokens": params.answer_tokens,
            "descriptions_per_aspect": params.descriptions_per_aspect,
            "min_accepted_per_class": params.min_accepted_per_class,
        },
        # The words of params.yaml; those of aspects.yaml are told by the prompts.
        **({"templates": own} if (own := params.templates.own) else {}),
        "checks": _bounds(CHECKS),
        "agreement": agreement(params.checks, encoder, nli),
        "judge": None if judged is None else _of_judge(judged),
        "classes": {c.id: _counts([d for d in descriptions if d.prompt.class_id == c.id]) for c in classes},
        "total": _counts(descriptions),
        "review": {
            "waiting": sum(d.verdict.review is not None for d in descriptions),
            "decided": sum(d.verdict.reviewed is not None for d in descriptions),
        },
        "prompts": prompts,
        "hidden_states": {
            "file_digest": sha256_file(states_file),
            "which": params.hidden_states,
            "of": params.states_of,
            "rows": {s.prompt.class_id: int(s.states.shape[0]) for s in states},
            "width": int(states[0].states.shape[1]) if states else None,
            "classes": {s.prompt.class_id: _answer(s) for s in states},
        },
        **({} if told is None else {"paraphrases": _of_paraphrases(told, params)}),
    }


def _of_llm(llm: Llm) -> dict[str, Any]:
    return {
        "name": llm.name,
        "licence": llm.licence,
        "revision": llm.revision,
        "digest": llm.digest,
        "chat_template": llm.chat,
        "dtype": str(llm.model.dtype).removeprefix("torch."),
        "device": llm.compute.device,
        "quantization": llm.compute.quantization,
    }


def _of_endpoint(
    endpoint: Endpoint, descriptions: Sequence[Description], told: Paraphrased | None
) -> dict[str, Any] | None:
    """Where the endpoint is, and what it said that it is."""
    made = [*descriptions, *(told.paraphrases if told else ())]
    answered = sorted({d.origin.revision for d in made if d.origin.provider == "endpoint"})
    if not answered:
        return None
    origin = endpoint.origin
    return {
        "provider": "endpoint",
        "model": origin.name,
        "host": endpoint.host,
        "digest": origin.digest,
        "answered": answered,
    }


def _of_reviewed(descriptions: Sequence[Description], absent: Mapping[str, int]) -> dict[str, Any] | None:
    """The file of reviewed descriptions: its digest, who wrote them, which checks they overruled by row, and how many
    are on classes that the data does not hold."""
    if not descriptions:
        return None
    return {
        "provider": "reviewed",
        "file": descriptions[0].origin.name,
        "digest": descriptions[0].origin.digest,
        "authors": sorted({d.author for d in descriptions if d.author}),
        "overruled": {str(d.index): d.override for d in descriptions if d.override},
        "absent": dict(absent),
    }


def agreement(params: ChecksParams, encoder: Encoder | None, nli: Nli | None = None) -> dict[str, Any]:
    """How descriptions were checked beside each other, and whether sentence embeddings were compared at all."""
    of = None if encoder is None else {"name": encoder.name, "digest": encoder.digest, "same": encoder.same}
    note = None
    if encoder is None:
        note = "Near-duplicates were looked for by words alone: knowledge.checks.encoder is null."
    by = None if nli is None else {"name": nli.name, "revision": nli.revision, "digest": nli.digest}
    return {"encoder": of, "nli": by, "min_support": params.min_support, "note": note}


def _of_judge(judged: Judged) -> dict[str, Any]:
    """Who judged, and how often the judge agreed with the checks, or not, or gave no answer that can be read."""
    origin = judged.origins[0]
    return {
        "provider": origin.provider,
        "name": origin.name,
        "revision": "; ".join(one.revision for one in judged.origins),
        "digest": origin.digest,
        "question": QUESTION,
        "asked": judged.outcomes.total(),
        **{outcome: judged.outcomes[outcome] for outcome in OUTCOMES},
    }


def _of_paraphrases(told: Paraphrased, params: KnowledgeParams) -> dict[str, Any]:
    return {
        "frame": told.frame.sentence,
        "sampling": {
            "max_new_tokens": told.sampling.max_new_tokens,
            "paraphrases_per_opening": params.paraphrases_per_opening,
            "min_accepted_paraphrases": params.min_accepted_paraphrases,
        },
        "checks": _bounds(told.checks),
        "total": _counts(told.paraphrases),
        "prompts": {d.prompt.aspect: {"prompt": d.prompt.text, "digest": d.prompt.digest} for d in told.paraphrases},
    }


def _bounds(checks: Sequence[DescriptionCheck]) -> dict[str, Any]:
    return {check.name: {"low": check.low, "high": check.high} for check in checks}


def _counts(descriptions: Sequence[Description]) -> dict[str, Any]:
    reasons = Counter(d.verdict.reason for d in descriptions if d.verdict.reason is not None)
    return {
        "asked": len(descriptions),
        "accepted": sum(d.verdict.accepted for d in descriptions),
        "rejected": dict(reasons),
        "rounds": 1 + max((d.round for d in descriptions), default=0),
    }


def _answer(states: ClassStates) -> dict[str, Any]:
    return {
        "question": states.prompt.question,
        "prompt_digest": states.prompt.digest,
        "answer": states.answer,
        "answer_digest": sha256_bytes(states.answer.encode()),
        "cut": not states.ended,
    }

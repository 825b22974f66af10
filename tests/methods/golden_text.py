"""How the methods that tune a text context are built from a golden case."""

from typing import Any

from golden import Case, builds

from clinprompt.prompting.base import Knowledge


def descriptions(case: Case) -> Knowledge:
    """The recorded sentences as the classes' descriptions."""
    return Knowledge(descriptions=tuple(tuple(some) for some in case.record["teacher_sentences"]))


@builds("kgcoop")
def build_kgcoop(case: Case) -> Any:
    """KgCoOp; the teacher's sentences are known by their ids only."""
    record, ids = case.record, case.inputs["teacher_token_ids"][:, 0]
    template = record["teacher_template"]
    sentences = [template.replace("{}", name) for name in record["class_names"]]
    case.sentences = dict(zip(sentences, ids, strict=True))
    return case.build("kgcoop", template=template, kg_weight=record["kg_weight"], **case.context())


@builds("biomedcoop")
def build_biomedcoop(case: Case) -> Any:
    """BiomedCoOp."""
    record = case.record
    return case.build(
        "biomedcoop", descriptions(case), sccm_weight=record["lambda_sccm"], kdsp_weight=record["lambda_kdsp"],
        tau=record["tau"], **case.context(),
    )  # fmt: skip


@builds("biomed_dpt")
def build_biomed_dpt(case: Case) -> Any:
    """Biomed-DPT, its zeros over the first patches."""
    record = case.record
    return case.build(
        "biomed_dpt", descriptions(case), n_ctx=record["n_ctx"], template=record["template"],
        class_position=record["class_token_position"], visual="replace_patches",
        n_visual=record["zero_tokens"]["count"], l1_weight=record["lambda_l1"], kl_weight=record["lambda_kl"],
    )  # fmt: skip


@builds("cocoop")
def build_cocoop(case: Case) -> Any:
    """CoCoOp."""
    return case.build("cocoop", **case.context())

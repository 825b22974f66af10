"""describe: what a language model or a clinician says of the classes, hidden states, and other words of reports."""

import logging
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from clinprompt.data.card import Card, ClassInfo
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams, DataRejected, InputCorrupt
from clinprompt.files import read_json, write_json
from clinprompt.knowledge.agreement.encoder import Encoder, required_encoder
from clinprompt.knowledge.agreement.nli import Nli, load_nli
from clinprompt.knowledge.asking import Writer
from clinprompt.knowledge.aspects import aspects_of
from clinprompt.knowledge.compute import Compute
from clinprompt.knowledge.description import Description
from clinprompt.knowledge.endpoint.service import Endpoint
from clinprompt.knowledge.generate import accepted_counts, describe
from clinprompt.knowledge.hidden_states import ClassStates, hidden_states, states_of_sentences
from clinprompt.knowledge.llm import Llm, load_llm
from clinprompt.knowledge.needs import unmet, with_sources
from clinprompt.knowledge.outputs import description_table, no_descriptions, report, write_states
from clinprompt.knowledge.paraphrase import Paraphrased, paraphrase
from clinprompt.knowledge.review.decisions import Decisions, decisions_of
from clinprompt.knowledge.reviewed import judge_reviewed, overrules, read_reviewed
from clinprompt.knowledge.samples import Samples
from clinprompt.knowledge.second_judge import OUTCOMES, Judged, ask_judge, load_judge
from clinprompt.knowledge.settle import Sample, settle
from clinprompt.knowledge_params import KnowledgeParams
from clinprompt.reports.frame import Frame
from clinprompt.schema import read_yaml
from clinprompt.validation.descriptions import GENERATED, WRITTEN, check_descriptions, failures
from components.runner import Job, run

log = logging.getLogger(__name__)

OF_CLASSES = ("descriptions", "hidden_states")


def work(job: Job) -> dict[str, Any]:
    """Make what is read of the language model, write all of it, then refuse if a class has too few accepted
    descriptions, or reports too few paraphrases."""
    params = job.params(KnowledgeParams)
    card = load_card(job.inputs["card"])
    classes = _classes(card, job.inputs["classes"])
    needed, frame = with_sources(_needed(job.inputs.get("settings")), params), Frame.of(card)
    if frame is None:  # who would read paraphrases isn't trained on this dataset
        needed -= {"paraphrases"}
    if not needed:
        return _nothing(job, card.name)
    if problem := unmet(needed, card, params):
        raise BadParams(problem)
    by_hand, kept = card.knowledge.descriptions, Samples(job.outputs["samples"])
    asked = needed - ({"descriptions"} if by_hand else set())
    llm = _llm(params, asked)
    writer = Endpoint(params.endpoint) if params.endpoint is not None else llm
    encoder = None if params.checks.encoder is None else required_encoder(params.checks.encoder)
    nli = None if params.checks.nli is None else load_nli(params.checks.nli)
    settled = partial(_settled, min_support=params.checks.min_support, encoder=encoder, nli=nli)
    decisions = decisions_of(card, job.inputs["card"])
    # Of what a clinician wrote no language model is asked.
    judge = load_judge(params) if "descriptions" in asked else None
    judged: Judged | None = None
    descriptions: list[Description] = []
    absent: dict[str, int] = {}
    if "descriptions" in needed and by_hand:
        written, own, absent = _written(job.inputs["card"].parent / by_hand, card, classes)
        descriptions = settled(written, decisions={**own, **decisions})
    elif "descriptions" in needed and writer:
        descriptions = describe(writer, card, classes, params, kept, partial(settled, decisions=decisions))
        if judge is not None:
            judged = ask_judge(judge, card, descriptions, params, kept)
            descriptions = judged.descriptions
    states: list[ClassStates] = []
    if "hidden_states" in needed and llm:
        states = _states(llm, card, classes, params, descriptions, kept)
    told = paraphrase(writer, card, frame, params, kept) if "paraphrases" in needed and writer and frame else None
    description_table(descriptions, params, told).to_parquet(job.outputs["descriptions"], index=False)
    write_states(job.outputs["hidden_states"], states)
    facts = report(
        card.name,
        classes=classes,
        descriptions=descriptions,
        states=states,
        llm=llm,
        endpoint=writer if isinstance(writer, Endpoint) else None,
        params=params,
        states_file=job.outputs["hidden_states"],
        told=told,
        encoder=encoder,
        nli=nli,
        judged=judged,
        absent=absent,
    )
    checks: list[dict[str, Any]] = []
    if "descriptions" in needed:
        of_classes = description_table(descriptions, params)
        allowed = (params.min_accepted_per_class, card.knowledge.rejected_share, params.checks.max_rejected_rise)
        sources = WRITTEN if by_hand else GENERATED
        checks = check_descriptions(of_classes, [info.id for info in classes], *allowed, provenance=sources)
    write_json(job.outputs["report"], facts | {"table": checks})
    _say_what_waits(facts, job.inputs["card"])
    if "descriptions" in needed:
        _refuse_too_few(descriptions, classes, params, by_hand)
    _refuse_failed(checks)
    if told is not None:
        _refuse_too_few_paraphrases(told, params)
    return _result(facts, _name(llm, writer, asked))


def _llm(params: KnowledgeParams, asked: set[str]) -> Llm | None:
    """The language model that runs here, where something is asked of it; an endpoint has no hidden states."""
    of_it = asked if params.endpoint is None else asked & {"hidden_states"}
    return load_llm(params.llm, params.path, Compute.of(params)) if of_it and params.llm is not None else None


def _name(llm: Llm | None, writer: Writer | None, asked: set[str]) -> str | None:
    """Of who was asked."""
    if writer is not None and asked - {"hidden_states"}:
        return writer.origin.name
    return llm.name if llm is not None else None


def _needed(settings: Path | None) -> set[str]:
    """What the candidates and the experiments read: of the classes, and `paraphrases`; if not told, all but these."""
    return set(OF_CLASSES) if settings is None else set(read_yaml(settings)["knowledge"])


def _nothing(job: Job, dataset: str) -> dict[str, Any]:
    """Write empty files, and load no language model."""
    Samples(job.outputs["samples"])
    no_descriptions().to_parquet(job.outputs["descriptions"], index=False)
    write_states(job.outputs["hidden_states"], [])
    write_json(job.outputs["report"], {"format": 1, "dataset": dataset, "llm": None})
    log.info("describe: nothing to do: no candidate and no experiment reads what a language model says.")
    return {"asked": 0, "accepted": 0, "waiting": 0, "llm": None}


def _result(facts: dict[str, Any], llm: str | None) -> dict[str, Any]:
    total = facts["total"]
    return {"asked": total["asked"], "accepted": total["accepted"], "waiting": facts["review"]["waiting"], "llm": llm}


def _classes(card: Card, path: Path) -> list[ClassInfo]:
    """The card's classes that the accepted data holds, in the card's order."""
    content = read_json(path)
    ids = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(ids, list) or not ids or not set(ids) <= set(card.named_ids):
        raise InputCorrupt(
            f"{path}: classes: expected ids of the card's classes {card.named_ids}, found {ids!r}; run validate again."
        )
    return [info for info in card.named if info.id in ids]


def _settled(
    descriptions: list[Description], decisions: Decisions, min_support: int, encoder: Encoder | None, nli: Nli | None
) -> list[Description]:
    samples = [Sample(one.prompt.class_id, one.text, one.verdict) for one in descriptions]
    verdicts = settle(samples, min_support, encoder, decisions, nli)
    return [
        replace(one, verdict=verdict, override=one.override if verdict.accepted else "")  # else it does not hold
        for one, verdict in zip(descriptions, verdicts, strict=True)
    ]


def _written(path: Path, card: Card, classes: list[ClassInfo]) -> tuple[list[Description], Decisions, dict[str, int]]:
    """A clinician's sentences, judged one by one; which checks they overrule; and how many are left out, as the data
    does not hold their class."""
    reviewed, held = read_reviewed(path, card), {info.id for info in classes}
    absent = dict(sorted(Counter(one.class_id for one in reviewed.sentences if one.class_id not in held).items()))
    if absent:
        log.warning(
            "describe: the data holds no images of these classes, and their sentences in %s are left out: %s.",
            path.name,
            ", ".join(f"{class_id} ({count})" for class_id, count in absent.items()),
        )
    return judge_reviewed(reviewed, card, held), overrules(reviewed), absent


def _states(
    llm: Llm,
    card: Card,
    classes: list[ClassInfo],
    params: KnowledgeParams,
    descriptions: list[Description],
    kept: Samples,
) -> list[ClassStates]:
    """The hidden states of the model's own answers, or of the accepted descriptions, where a class has some."""
    known = aspects_of(params)
    if params.states_of == "answers":
        return hidden_states(llm, card, classes, params.answer_tokens, params.hidden_states, kept, known)
    accepted = [one for one in descriptions if one.verdict.accepted]
    said = {info.id: [one.text for one in accepted if one.prompt.class_id == info.id] for info in classes}
    held = [info for info in classes if said[info.id]]
    return states_of_sentences(llm, card, held, said, params.hidden_states, known)


def _refuse_too_few(
    descriptions: list[Description], classes: list[ClassInfo], params: KnowledgeParams, by_hand: str | None
) -> None:
    accepted = accepted_counts(descriptions)
    advice = (
        f"Add sentences to {by_hand}, or overrule a check there (accepted: yes, with a reason),"
        if by_hand
        else "Use a larger model (knowledge.llm), raise knowledge.descriptions_per_aspect or max_new_tokens, change "
        "a class's phrase in the card,"
    )
    least, lower = params.min_accepted_per_class, "lower knowledge.min_accepted_per_class"
    if params.states_of == "descriptions" and least == 0:
        least, lower = 1, "set knowledge.states_of: answers"
    asked = Counter(one.prompt.class_id for one in descriptions)
    lacking = [
        f"class {info.id}: {accepted[info.id]} of {asked[info.id]} descriptions were accepted, {least} are needed"
        for info in classes
        if accepted[info.id] < least
    ]
    if lacking:
        raise DataRejected(
            f"{'; '.join(lacking)}; report.json counts the reasons. {advice} or {lower}.",
            publish=True,
        )


def _refuse_failed(checks: list[dict[str, Any]]) -> None:
    if failed := failures(checks):
        raise DataRejected(
            f"The table of descriptions is not as expected. {' '.join(failed)} report.json has all under `table`.",
            publish=True,
        )


def _say_what_waits(facts: dict[str, Any], card: Path) -> None:
    if note := facts["agreement"]["note"]:
        log.info("describe: %s", note)
    if judge := facts["judge"]:
        told = ", ".join(f"{judge[outcome]} {outcome}" for outcome in OUTCOMES)
        log.info("describe: the judge, %s, was asked of %d descriptions: %s.", judge["name"], judge["asked"], told)
    if waiting := facts["review"]["waiting"]:
        log.info(
            "describe: the checks are in doubt of %d descriptions; `python -m clinprompt.knowledge review --card %s "
            "--out FOLDER DESCRIPTIONS.parquet` lists them.",
            waiting,
            card,
        )


def _refuse_too_few_paraphrases(told: Paraphrased, params: KnowledgeParams) -> None:
    if told.accepted < params.min_accepted_paraphrases:
        raise DataRejected(
            f"{told.accepted} of {len(told.paraphrases)} paraphrases of the reports' sentence were accepted, "
            f"{params.min_accepted_paraphrases} are needed; report.json counts the reasons. Use a larger model "
            "(knowledge.llm), raise knowledge.paraphrases_per_opening, lower knowledge.min_accepted_paraphrases, or "
            "set phrasings: varied.",
            publish=True,
        )


if __name__ == "__main__":
    run(__file__, work)

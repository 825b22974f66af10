"""`python -m components.describe`: from a dataset's card to descriptions and hidden states of its classes."""

from pathlib import Path
from typing import Any

from clinprompt.data.card import Card, ClassInfo
from clinprompt.data.load import load_card
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.files import read_json, write_json
from clinprompt.knowledge.artifacts import description_table, report, write_states
from clinprompt.knowledge.generate import Description, accepted_counts, describe
from clinprompt.knowledge.hidden_states import hidden_states
from clinprompt.knowledge.llm import load_llm
from clinprompt.params import KnowledgeParams
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Describe the classes, write all that was made, then refuse if a class has too few accepted descriptions."""
    params = job.params(KnowledgeParams)
    card = load_card(job.inputs["card"])
    classes = _classes(card, job.inputs["classes"])
    llm = load_llm(params.llm, params.path)
    made = describe(llm, card, classes, params)
    states = hidden_states(llm, card, classes, params.max_new_tokens, params.hidden_states)
    description_table(made, llm, params).to_parquet(job.outputs["descriptions"], index=False)
    write_states(job.outputs["hidden_states"], states)
    facts = report(
        card.name,
        classes=classes,
        made=made,
        states=states,
        llm=llm,
        params=params,
        states_file=job.outputs["hidden_states"],
    )
    write_json(job.outputs["report"], facts)
    _refuse_too_few(made, classes, params)
    return {"asked": facts["total"]["asked"], "accepted": facts["total"]["accepted"], "llm": llm.name}


def _classes(card: Card, path: Path) -> list[ClassInfo]:
    """The card's classes that the accepted data holds, in the card's order."""
    content = read_json(path)
    ids = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(ids, list) or not ids or not set(ids) <= set(card.class_ids):
        raise InputCorrupt(
            f"{path}: classes: expected ids of the card's classes {card.class_ids}, found {ids!r}; run validate again."
        )
    return [info for info in card.classes if info.id in ids]


def _refuse_too_few(made: list[Description], classes: list[ClassInfo], params: KnowledgeParams) -> None:
    accepted = accepted_counts(made)
    for info in classes:
        if accepted[info.id] < params.min_accepted_per_class:
            asked = sum(d.prompt.class_id == info.id for d in made)
            raise DataRejected(
                f"class {info.id}: {accepted[info.id]} of {asked} descriptions were accepted, "
                f"{params.min_accepted_per_class} are needed; report.json counts the reasons. Use a larger model "
                "(knowledge.llm), raise knowledge.descriptions_per_aspect or max_new_tokens, change the class's phrase "
                "in the card, or lower knowledge.min_accepted_per_class.",
                publish=True,
            )


if __name__ == "__main__":
    run(__file__, work)

"""What the gate judges, from a component's inputs and params: the gate decides on it, and `promote` decides again."""

from clinprompt.evaluation.judge import Judged
from clinprompt.params import CandidatesParams, EvaluationParams, GateParams
from components.runner import Job


def judged(job: Job) -> Judged:
    """The files and params that a decision rests on."""
    return Judged(
        dataset=job.arguments["dataset"],
        card=job.inputs["card"],
        manifest=job.inputs["manifest"],
        images=job.inputs["images"],
        models=job.inputs["models"],
        evaluations=job.inputs["evaluations"],
        candidates=job.params(CandidatesParams),
        gate=job.params(GateParams),
        evaluation=job.params(EvaluationParams),
    )

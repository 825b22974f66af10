"""Tune one candidate with one seed on cached image features, or on images where the method needs them."""

import logging
from typing import Any

from clinprompt.data.load import load_card
from clinprompt.errors import BadParams, NotTrained
from clinprompt.files import remove
from clinprompt.methods import method
from clinprompt.params import TrainingParams
from clinprompt.tuned.artifact import model_digest
from clinprompt.tuned.config import candidate_config
from clinprompt.tuned.failure import FAILED, TrainingFailure
from components.runner import Job, run
from components.tune.training import checkpoint_file, tune

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Tune in as many processes as the params and the method want, and as large parts of a batch as the GPU holds.

    A candidate that can't be trained for a reason of its own leaves that reason in place of a model, so that the others
    go on, unless all are required.
    """
    from clinprompt.training.launch import run_in_processes
    from clinprompt.training.loop import with_smaller_batches

    processes = _processes(job)
    try:
        facts = with_smaller_batches(lambda: tune(job) if processes == 1 else run_in_processes(processes, tune, job))
    except NotTrained as error:
        # Not among the params that DVC knows of this stage: it decides no result, and must train nothing anew.
        if job.all_params.candidates.all_required:
            raise
        return _not_trained(job, str(error).rstrip("."))
    return facts | {"model_digest": model_digest(job.outputs["model"])}


def _not_trained(job: Job, reason: str) -> dict[str, Any]:
    candidate, seed = job.candidate(job.arguments["candidate"]), job.arguments["seed"]
    facts = {"dataset": job.arguments["dataset"], "candidate": candidate.name, "seed": seed}
    job.outputs["model"].mkdir(exist_ok=True)
    TrainingFailure(**facts, method=candidate.method, reason=reason).write(job.outputs["model"] / FAILED)
    remove(checkpoint_file(job))
    log.warning("tune: %s, seed %d: not trained: %s.", candidate.name, seed, reason)
    return facts | {"not_trained": reason}


def _processes(job: Job) -> int:
    import torch

    from clinprompt.backbones.device import choose_device

    candidate, training = job.candidate(job.arguments["candidate"]), job.params(TrainingParams)
    config = candidate_config(candidate, load_card(job.inputs["card"]))
    if method(candidate.method).needs(config).images != "pixels":
        return 1
    processes = training.processes
    if processes > 1 and choose_device(training.device) == "cuda" and processes > torch.cuda.device_count():
        raise BadParams(
            f"params.yaml: training.processes: {processes} processes need a GPU each, but torch finds "
            f"{torch.cuda.device_count()} here; set no more than that."
        )
    return processes


if __name__ == "__main__":
    run(__file__, work)

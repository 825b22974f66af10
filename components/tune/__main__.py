"""Tune one candidate with one seed on cached image features, or on images where the method needs them."""

from typing import Any

from clinprompt.data.load import load_card
from clinprompt.errors import BadParams
from clinprompt.methods import method
from clinprompt.params import TrainingParams
from clinprompt.tuned.artifact import model_digest
from clinprompt.tuned.config import candidate_config
from components.runner import Job, run
from components.tune.training import tune


def work(job: Job) -> dict[str, Any]:
    """Tune in as many processes as the params and the method want, and as large parts of a batch as the GPU holds."""
    from clinprompt.training.launch import run_in_processes
    from clinprompt.training.loop import with_smaller_batches

    processes = _processes(job)
    facts = with_smaller_batches(lambda: tune(job) if processes == 1 else run_in_processes(processes, tune, job))
    return facts | {"model_digest": model_digest(job.outputs["model"])}


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

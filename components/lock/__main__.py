"""lock: write down what the stages depend on beside files, by digest."""

from pathlib import Path
from typing import Any

from components.lock.fit import check_fit
from components.lock.settings import cards, write_settings_lock
from components.runner import Job, run
from components.sources import write_sources_lock


def work(job: Job) -> dict[str, Any]:
    """Hold candidates and experiments against their limits, and write both files; those that are up to date stay."""
    params = job.all_params
    check_fit(params, cards(params, Path()))
    renewed = write_sources_lock(Path(), job.outputs["sources"])
    write_settings_lock(params, Path(), job.outputs["settings"])
    return {"renewed": renewed}


if __name__ == "__main__":
    run(__file__, work)

"""lock: write down what the stages depend on beside files, by digest."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinprompt.data.manifest import key_fingerprint_of
from clinprompt.data.patient_ids import find_patient_key
from clinprompt.errors import ClinpromptError
from clinprompt.evaluation.rules import parse_rules
from components import parsed
from components.lock.fit import check_fit
from components.lock.settings import cards, write_settings_lock
from components.rights import restrict
from components.runner import Job, run
from components.sources import write_sources_lock

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Hold candidates, experiments and the gate's rules against their limits, and write both files; those that are up
    to date stay."""
    params, runs = job.all_params, job.outputs["settings"].parent
    parse_rules(params.gate.listed)
    check_fit(params, cards(params, Path()))
    parsed.recall(Path())
    renewed = write_sources_lock(Path(), job.outputs["sources"])
    write_settings_lock(params, Path(), job.outputs["settings"])
    parsed.keep(Path())
    if renewed:
        shutil.copymode(__file__, job.outputs["sources"])  # it is part of the code, and as readable as that
    _restrict_folders(runs, Path(".dvc", "cache"))
    _tell_of_other_keys(params.datasets, runs)
    return {"renewed": renewed}


def _restrict_folders(runs: Path, cache: Path) -> None:
    """Close the folders that DVC makes with everybody's rights: this stage runs before all others."""
    if cache.parent.is_dir():
        cache.mkdir(exist_ok=True)  # before DVC makes it
    restrict(runs)
    restrict(cache)


def _tell_of_other_keys(datasets: Sequence[str], runs: Path) -> None:
    """Say where the manifest that is there was made with another key than today's.

    No stage depends on the key: results that are there stay, on machines without it, too.
    """
    for dataset in datasets:
        made_with = key_fingerprint_of(runs / dataset / "ingest" / "manifest.parquet")
        if made_with is None:
            continue
        try:
            key = find_patient_key()
        except ClinpromptError:  # ingest says what is wrong with it, when it needs it
            return
        if key is not None and key.fingerprint != made_with:
            log.warning(
                "lock: %s: its patients' ids were made with the key %s…, but today's key is %s…: when ingest runs "
                "again, each patient gets another id, and intervals of many patients may move a bit (splits do not).",
                dataset,
                made_with[:8],
                key.fingerprint[:8],
            )


if __name__ == "__main__":
    run(__file__, work)

"""Take a registered model out of the registry: as a folder, or into a clean process that serves it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from clinprompt.contract.variables import BACKBONES
from clinprompt.errors import InputCorrupt
from clinprompt.files import atomic, check_new, remove, write_text
from clinprompt.scratch import ScratchFolder
from registry import signature
from registry.chosen import chosen
from registry.consumer import Champion
from registry.tracking import SETTINGS

_LONGEST = 600  # seconds
# What a consumer does who has MLflow and nothing of this project.
_CONSUMER = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
table = model.predict(model.input_example)
found = sorted({"clinprompt", "registry", "components", "workspace"} & set(sys.modules))
print(json.dumps({"rows": table.to_dict("records"), "imported": found}))
"""


def export(name: str, folder: Path, which: int | str | None = None) -> dict[str, Any]:
    """Copy a version's MLflow model, every digest checked, to a new folder, and its signature to a file beside that.

    Args:
        which: a version's number or an alias; by default the champion.

    Returns:
        name, version, payload_digest, folder, and signer: who the signature says that it is of. And signature: the
        file, FOLDER.sig; None where there is no signature that `model_signing verify` could check.

    Raises:
        BadParams: the folder or the file exists, or has no name.
        InputMissing: there is no such version, a file is missing, or nothing can be made there.
        InputCorrupt: a file differs from what was registered.
        ServiceDown: the MLflow server does not answer.
    """
    check_new(folder)
    beside = folder.with_name(f"{folder.name}.sig")
    check_new(beside)
    version = chosen(name, which)
    registered = Champion(version)
    source, bundle = registered.model_folder, signature.readable(version.tags)
    try:
        with atomic(folder) as partial:
            shutil.copytree(source, partial)
            if bundle is not None:
                write_text(beside, bundle)
    except BaseException:
        remove(beside)
        raise
    return {
        "name": name,
        "version": registered.version,
        "payload_digest": registered.payload_digest,
        "folder": str(folder),
        "signature": str(beside) if bundle is not None else None,
        "signer": signature.claimed(version.tags),
    }


def serve_check(name: str, which: int | str | None = None) -> dict[str, Any]:
    """Load a version in a process that has nothing of this project on its path, and classify its input example.

    Raises:
        InputMissing: there is no such version, or a file is missing.
        InputCorrupt: it does not load there, or predicts no probabilities.
        ServiceDown: the MLflow server does not answer.
    """
    registered = Champion(chosen(name, which))
    names = ("PATH", "LD_LIBRARY_PATH", BACKBONES, "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    env = {key: os.environ[key] for key in names if key in os.environ} | SETTINGS
    with ScratchFolder("serve-check") as scratch:
        env |= {"HOME": scratch, "TMPDIR": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-I", "-c", _CONSUMER, str(registered.model_folder)]
        done = subprocess.run(  # noqa: S603
            command, cwd=scratch, env=env, capture_output=True, text=True, check=False, timeout=_LONGEST
        )
    where = f"Version {registered.version} of {name!r}"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputCorrupt(f"{where} does not load in a clean process: {last[:300]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["imported"]:
        raise InputCorrupt(f"{where} imports {', '.join(answer['imported'])}, which its consumers do not have.")
    columns = [f"p_{label}" for label in registered.classes]
    for row in answer["rows"]:
        values = [row.get(column) for column in columns]
        if not all(isinstance(value, float) and 0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-6:
            raise InputCorrupt(f"{where} does not predict probabilities in a clean process.")
    return {"name": name, "version": registered.version, "rows": answer["rows"]}

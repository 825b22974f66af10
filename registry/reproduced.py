"""Train the gate's choice again in a fresh folder, and keep beside the journal that its digest came out the same.

`registry.reproduce: required` lets no model become the champion of which that was not seen. What is run is what
`dvc.lock` records of the training: the command with its inputs, whose digests are checked by the component itself, and
another place for its output. Where a model that was trained on a GPU comes out with another digest, what it predicts on
the validation split is compared, within `registry.reproduce_tolerance`.
"""

import json
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing
from clinprompt.evaluation.decision import ChosenCandidate, DecisionRecord
from clinprompt.files import to_json
from clinprompt.params import RegistryParams, load_params
from clinprompt.scratch import ScratchFolder
from clinprompt.tuned.artifact import HEAD, PROMPTS, RECORD, model_digest
from clinprompt.tuned.record import ModelRecord
from registry import links
from registry.agreement import Agreement, check_judged, difference
from registry.protocol.location import address, store_at
from registry.protocol.store import Store
from registry.stage import own_python

FORMAT = 1
FOLDER = "reproduced"  # beside the models' journals
_NOT_SEEN = "was not trained again yet"
LOCK, PREDICTIONS = "dvc.lock", "predictions.parquet"


def retrain(dataset: str, project: Path) -> dict[str, Any]:
    """Train what the gate chose for a dataset again, and write down that the same came out.

    Args:
        project: the folder with dvc.lock and the run's files, as after `dvc repro`, or `python -m workspace checkout`.

    Returns:
        model, candidate, digest, action ("reproduced", or "unchanged" where that was seen before), and where
        other bytes came out `agreement`, what was compared instead.

    Raises:
        BadParams: there is no place to write it down.
        InputMissing: dvc.lock, the decision or the training's record is missing, or the gate chose nobody.
        InputCorrupt: the training failed, or another model came out.
    """
    names = load_params(project / "params.yaml").registry.of(dataset)
    stages = _stages(project)
    decision = DecisionRecord.read(project / _out_of(stages, f"gate@{dataset}", dataset))
    if decision.chosen is None:
        raise InputMissing(f"The gate has chosen nobody on {dataset}: there is nothing to train again.")
    chosen, store = decision.chosen, _store(names)
    named = _named(dataset, names, chosen)
    facts: dict[str, Any] = {key: value for key, value in named.items() if key != "dataset"}
    earlier = store.read(_key(chosen.model_digest))
    if earlier is not None and _falls_short(earlier.content, named, names.reproduce_tolerance) is None:
        return facts | {"action": "unchanged"}
    name, out = _made(stages, "tune", dataset, chosen.folder)
    if model_digest(project / out) != chosen.model_digest:
        raise InputCorrupt(f"{project / out} is not the model that the gate chose; run `dvc repro`.")
    with ScratchFolder("reproduced") as scratch:
        again = Path(scratch) / "model"
        _run(project, stages, name, chosen, {out: again})
        agreement = None
        if model_digest(again) != chosen.model_digest:
            agreement = _agreement(project, stages, decision, out, again, names.reproduce_tolerance)
    if agreement is not None:
        facts |= {"agreement": agreement.to_json()}
    seen = {
        "format": FORMAT,
        "dataset": dataset,
        **facts,
        "by": links.requester(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "torch": metadata.version("torch"),
    }
    content = to_json(seen).encode()
    if earlier is None:
        store.create(_key(chosen.model_digest), content)
    else:  # of a day on which more was allowed
        store.replace(_key(chosen.model_digest), content, earlier.etag)
    return facts | {"action": "reproduced"}


def check(dataset: str, names: RegistryParams, chosen: ChosenCandidate) -> None:
    """Whether a model may become the champion as far as `registry.reproduce` asks.

    Args:
        names: with the dataset's name filled in.

    Raises:
        DataRejected: nobody has seen it come out of a second training, or not as near as is asked for now.
        BadParams: there is no place where that would be written down.
        ServiceDown: the journal's store does not answer.
    """
    if names.reproduce != "required":
        return
    seen = _store(names).read(_key(chosen.model_digest))
    named = _named(dataset, names, chosen)
    lacking = _NOT_SEEN if seen is None else _falls_short(seen.content, named, names.reproduce_tolerance)
    if lacking is not None:
        raise DataRejected(
            f"{chosen.folder} {lacking}, which registry.reproduce asks for; nothing was promoted. Run "
            f"`python -m registry promote {dataset} --reproduce` where the run's files are (`python -m workspace "
            "checkout` brings those of a scheduled run)."
        )


def _named(dataset: str, names: RegistryParams, chosen: ChosenCandidate) -> dict[str, str]:
    """What a second training is of."""
    return {
        "dataset": dataset,
        "model": names.production_model,
        "candidate": chosen.folder,
        "digest": chosen.model_digest,
    }


def _falls_short(seen: bytes, named: Mapping[str, str], tolerance: float | None) -> str | None:
    """Why what was seen of a second training is not enough by now; None where it is.

    Args:
        named: what it must have been of, whatever the file is called.
    """
    try:
        told = json.loads(seen)
        if told.get("format") != FORMAT or not all(isinstance(told.get(key), str) for key in named):
            raise ValueError
        agreement = Agreement.model_validate(told["agreement"]) if "agreement" in told else None
    except (ValueError, AttributeError, RecursionError):
        raise InputCorrupt(f"A file of {FOLDER} in the registry's journal can't be read; delete it.") from None
    other = [key for key in named if told[key] != named[key]]
    if other:
        return f"{_NOT_SEEN} (what lies there as its second training is of another {' and '.join(other)})"
    if agreement is None or agreement.is_within(tolerance):
        return None
    allowed = "no difference" if tolerance is None else f"{tolerance:g}"
    return (
        f"was not trained again to within what registry.reproduce_tolerance allows ({allowed}; its validation "
        f"probabilities differed by up to {agreement.largest_difference:g})"
    )


def _run(project: Path, stages: dict[str, Any], name: str, chosen: ChosenCandidate, places: Mapping[str, Path]) -> None:
    """Run a stage as dvc.lock records it, with some of its paths elsewhere."""
    command = [str(places.get(word, word)) for word in shlex.split(stages[name]["cmd"])]
    # DVC's own variable: with it the component holds its inputs against dvc.lock.
    env = own_python() | {"DVC_STAGE": name}
    done = subprocess.run(command, cwd=project, env=env, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode != 0 or not all(places[out].exists() for out in _outs(stages[name])):
        raise InputCorrupt(f"{chosen.folder} could not be trained again: {name} ended with {done.returncode}.")


def _agreement(
    project: Path, stages: dict[str, Any], decision: DecisionRecord, out: str, again: Path, tolerance: float | None
) -> Agreement:
    """What the second model predicts on the validation split beside what the gate judged of the first.

    Raises:
        InputCorrupt: they are too far from each other, or it is not allowed that they are.
    """
    first, second = (ModelRecord.read(folder / RECORD) for folder in (project / out, again))
    differs = f"was trained again, and another model came out: {_differs(project / out, again)}"
    if first.device == "cpu" or tolerance is None or decision.chosen is None:
        raise InputCorrupt(
            f"{Path(out).name} {differs}. The same bytes are promised on a CPU of one kind alone (training.device: "
            "cpu); of a model that was trained on a GPU registry.reproduce_tolerance allows other ones."
        )
    chosen = decision.chosen
    name, table = _made(stages, "evaluate", decision.dataset, f"{chosen.folder}/{PREDICTIONS}")
    check_judged(project / table, decision, chosen)
    places = {made: again.with_name(f"{number}-{Path(made).name}") for number, made in enumerate(_outs(stages[name]))}
    _run(project, stages, name, chosen, places | {out: again})
    images, apart = difference((project / table, first.classes), (places[table], second.classes))
    found = Agreement(
        images=images,
        largest_difference=apart,
        tolerance=tolerance,
        devices=[first.device, second.device],
        second=model_digest(again),
    )
    if not found.is_within(tolerance):
        raise InputCorrupt(
            f"{chosen.folder} {differs}. Its probabilities of the {images} validation images differ by up to "
            f"{apart:g}, and registry.reproduce_tolerance allows {tolerance:g}."
        )
    return found


def _store(names: RegistryParams) -> Store:
    where = address(names.production_model, names.journal)
    if where is None:
        raise BadParams(
            "No place is named in which reproductions are written down: set registry.journal in params.yaml to "
            "s3://bucket/prefix or a folder."
        )
    return store_at(where)


def _key(digest: str) -> str:
    return f"{FOLDER}/{digest}.json"


def _stages(project: Path) -> dict[str, Any]:
    path = project / LOCK
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        stages: dict[str, Any] = found["stages"]
        if not all(isinstance(stage, dict) and isinstance(stage.get("outs", []), list) for stage in stages.values()):
            raise TypeError
    except FileNotFoundError:
        raise InputMissing(f"{path.resolve()} does not exist: nothing was run here; run `dvc repro`.") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        raise InputCorrupt(f"{path.resolve()} is no lock of DVC's; run `python -m components.mend`.") from None
    return stages


def _outs(stage: dict[str, Any]) -> Iterator[str]:
    yield from (str(out["path"]) for out in stage.get("outs", []))


def _out_of(stages: dict[str, Any], name: str, dataset: str) -> str:
    if name not in stages:
        raise InputMissing(f"{LOCK} does not tell of {name}: run `dvc repro {name}`, or name another than {dataset!r}.")
    return next(_outs(stages[name]))


def _made(stages: dict[str, Any], kind: str, dataset: str, what: str) -> tuple[str, str]:
    """The stage of a kind, as tune or tune_taught, that made what has this end of a path, and its path."""
    for name, stage in stages.items():
        if name.partition("@")[0].startswith(kind) and f"--dataset {dataset} " in str(stage.get("cmd")):
            for out in _outs(stage):
                if Path(out).match(what):
                    return name, out
    raise InputMissing(f"{LOCK} does not tell how {what} was made; run `dvc repro`.")


def _differs(first: Path, second: Path) -> str:
    """Which files of two models differ, and by how much their numbers do."""
    import numpy as np
    from safetensors.numpy import load_file

    told = []
    for name in (PROMPTS, HEAD, RECORD):
        sides = [folder / name for folder in (first, second) if (folder / name).is_file()]
        if len(sides) == 1 or (sides and sides[0].read_bytes() != sides[1].read_bytes()):
            told.append(name)
            if len(sides) == 2 and name != RECORD:
                a, b = (load_file(side) for side in sides)
                if a.keys() == b.keys() and all(a[key].shape == b[key].shape for key in a):
                    apart = max((float(np.abs(a[key] - b[key]).max(initial=0)) for key in a), default=0.0)
                    told[-1] += f" (by up to {apart:.2g})"
    return ", ".join(told)

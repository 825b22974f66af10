"""Stands in for the components' interpreter: answers `-m workspace COMMAND` as the contract says."""

import base64
import json
import os
import sys
import time
import zlib
from pathlib import Path

ROOT = Path.cwd()
CANDIDATES = [
    {"candidate": name, "seed": seed, "taught": name == "cilmp"}
    for name, seed in (("zero_shot", 1), ("coop", 1), ("coop", 2), ("cilmp", 1))
]
PLAN = {"digest": "d" * 32, "candidates": CANDIDATES, "previous": None, "promote": True, "approval": False}
RELEASES = ["brain-phantom@r1", "brain-phantom@r2"]


def main() -> int:
    """Note the call, then answer as the scenario says."""
    text = os.environ.get("CLINPROMPT_TASK", "")
    task = json.loads(zlib.decompress(base64.b64decode(text))) if text else {}
    command = sys.argv[3]
    what = f"{command}:{task['stage']}" if "stage" in task else command
    candidate = task.get("candidate") or {}
    cell = "-".join(str(candidate[key]) for key in ("candidate", "seed") if key in candidate)
    keys = [f"{what}:{cell}", what] if cell else [what]
    note = {"what": what, "cell": cell, "argv": sys.argv[1:], "task": task, "environment": dict(os.environ)}
    before = [json.loads(line) for line in (ROOT / "calls.jsonl").read_text().splitlines()]
    with (ROOT / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(note) + "\n")
    scenario = json.loads((ROOT / "scenario.json").read_text())
    key = next((key for key in keys if key in scenario), what)
    wanted = scenario.get(key, [{}])
    count = sum(1 for call in before if call["what"] == what and (key == what or call["cell"] == cell))
    return answer(command, what, cell, task, wanted[min(count, len(wanted) - 1)])


def answer(command: str, what: str, cell: str, task: dict, wanted: dict) -> int:
    """Print the result line and return the exit code."""
    for number in range(wanted.get("lines", 2)):
        sys.stderr.write(f"{what} line {number}\n")
    if "sleep" in wanted:
        time.sleep(wanted["sleep"])
    if wanted.get("kill"):
        os.kill(os.getpid(), wanted["kill"])
    if "exit" in wanted:
        line = {"status": "failed", "exit_code": wanted["exit"], "message": f"{what} said {wanted['exit']}."}
        sys.stdout.write(json.dumps(line) + "\n")
        return int(wanted["exit"])
    sys.stdout.write(json.dumps(result(command, cell, task, wanted)) + "\n")
    return 0


def result(command: str, cell: str, task: dict, wanted: dict) -> dict:  # noqa: PLR0911 # one per command
    """What each command gives."""
    if command == "plan":
        known = {"dataset": task["dataset"], "release": task["release"] or "r2", "overrides": task["overrides"]}
        return {"plan": {**PLAN, **known, **wanted.get("plan", {})}}
    if command == "probe":
        return {"entry": entry(task, cell) if wanted.get("hit") else None}
    if command == "stage":
        facts = {"verdict": "accepted", "chosen": "coop-1"} if task["stage"] == "gate" else {}
        if task["stage"] == "promote":
            facts = {"action": "promoted", "version": 3, "run_url": "http://mlflow.test/#/runs/7"}
        made = entry(task, cell) | {"note": "x" * wanted.get("pad", 0)}
        return {"entry": made, "cached": False, "facts": {**facts, **wanted.get("facts", {})}}
    if command == "record":
        return {"record": "records/1", "lock": "e" * 64}
    if command == "sweep":
        return {"releases": wanted.get("releases", RELEASES)}
    if command == "unasked":
        about = {"dataset": task["plan"]["dataset"], "release": task["plan"]["release"], "descriptions": "5" * 32}
        return {**about, "unasked": wanted.get("unasked", 0), "why": "all were in a review"}
    if command == "review":
        about = {"dataset": task["dataset"], "release": task["release"] or "r2"}
        return {**about, "descriptions": 12, "questions": [{**about, **one} for one in wanted.get("questions", [])]}
    if command == "decide":
        return {"kept": len(task["decisions"]), "answer": "decisions/1"}
    if command == "promotion":
        stages = ("ingest", "validate", "describe", "gate", "report")
        entries = [{"stage": f"{name}@{task['dataset']}", "deps": {}, "outs": {}} for name in stages]
        known = {"dataset": task["dataset"], "release": task["release"] or "r1", "overrides": {}}
        return {"plan": {**PLAN, **known, **wanted.get("plan", {})}, "entries": entries}
    return {"action": "rolled back", "version": 2}


def entry(task: dict, cell: str) -> dict:
    """A stage's entry."""
    address = "-".join(filter(None, [task["plan"]["dataset"], cell]))
    return {"stage": f"{task['stage']}@{address}", "deps": {}, "outs": {f"runs/{task['stage']}": ["0" * 32, 1]}}


if __name__ == "__main__":
    sys.exit(main())

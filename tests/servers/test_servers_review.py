"""The DAG `review` on real servers: from a recorded run's doubts, over a person's answer, to what the next teaches."""

import time
from typing import Any

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATASET, Project

from clinprompt.knowledge.review.decisions import text_digest
from infra.dev.servers import Stack

pytestmark = pytest.mark.servers

LONG = 900  # seconds; a busy machine takes its time
BRIGHT = "On T2-weighted images a glioma of the brain is bright."
DARK = "The tumour of this brain looks dark on T2 scans again."
RELEASE = "reviewed"
TAUGHT = {"knowledge": {"llm": None, "min_accepted_per_class": 0}, "methods": {"biomedcoop": {"epochs": 1}}}


def ended(stack: Stack, dag: str, run: str) -> dict[str, str | None]:
    """Wait for a run to succeed; the states of its tasks."""
    state = stack.airflow.wait_for_run(dag, run, LONG)
    assert state == "success", stack.airflow.failures(dag, run)
    return stack.airflow.states(dag, run)


def described(stack: Stack) -> tuple[pd.DataFrame, str | None]:
    """What `describe` makes in a run that is planned now, by text, and how `announce` has ended."""
    conf = {"dataset": DATASET, "methods": ["biomedcoop"], "seeds": [1], "overrides": TAUGHT, "promote": "never"}
    run = stack.airflow.trigger("retrain", conf, partition=f"{DATASET}@{RELEASE}")
    announced = ended(stack, "retrain", run)["announce"]
    md5 = stack.airflow.xcom("retrain", run, "describe")["outs"][f"runs/{DATASET}/describe/descriptions.parquet"][0]
    env = stack.env
    keys = {"aws_access_key_id": env["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"]}
    s3 = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"], region_name=env["AWS_DEFAULT_REGION"], **keys)
    bucket, _, prefix = env["CLINPROMPT_STORE"].removeprefix("s3://").partition("/")
    kept = s3.get_object(Bucket=bucket, Key=f"{prefix}/dvc/files/md5/{md5[:2]}/{md5[2:]}")["Body"].read()
    return pq.read_table(pa.BufferReader(kept)).to_pandas().set_index("text"), announced


def started(stack: Stack, dag: str) -> str:
    """The run of a DAG that an event of the release starts."""
    deadline = time.monotonic() + LONG
    while not (runs := stack.airflow.runs(dag, partition=f"{DATASET}@{RELEASE}")):
        assert time.monotonic() < deadline, f"nothing has started {dag}"
        time.sleep(1)
    [run] = runs
    assert run["run_type"] == "asset_triggered"
    return str(run["dag_run_id"])


def test_a_run_starts_its_review_whose_answer_over_rest_decides_what_the_next_teaches_and_none_leaves_it_as_it_is(
    stack: Stack, project: Project
) -> None:
    classes: list[dict[str, Any]] = []
    own = {"descriptions": f"{DATASET}.reviewed.csv", "decisions": f"{DATASET}.decisions.csv"}
    project.edit(f"datasets/{DATASET}.yaml", lambda card: classes.extend(card["classes"]) or card.update(knowledge=own))
    glioma = next(one["id"] for one in classes if "glioma" in one["name"].lower())
    folder = project.root / "datasets"
    rows = [{"class": glioma, "text": text, "accepted": "", "reason": ""} for text in (BRIGHT, DARK)]
    known = {"accepted": "yes", "reason": "so that each class has one"}
    rows += [{"class": c["id"], "text": f"This is {c['phrase']}, as a reader has seen it.", **known} for c in classes]
    pd.DataFrame(rows).to_csv(folder / own["descriptions"], index=False)
    (folder / own["decisions"]).write_text("class,digest,decision,by,reason,text\n")
    stack.airflow.wait_for_dags("retrain", "review", timeout=LONG)
    for dag in ("retrain", "review"):
        stack.airflow.unpause(dag)
    project.publish(RELEASE, patients=20, seed=11)
    before, announced = described(stack)
    assert announced == "success"
    assert before.loc[[BRIGHT, DARK], "reason"].tolist() == ["undecided", "undecided"]

    unanswered = started(stack, "review")
    states = ended(stack, "review", unanswered)
    assert {state for task, state in states.items() if task.startswith("questions.keep")} == {"skipped"}

    review = stack.airflow.trigger("review", {"dataset": DATASET, "release": RELEASE})
    stack.airflow.wait_for_task("review", review, "questions.ask", "awaiting_input", map_index=0, timeout=LONG)
    time.sleep(15)  # Airflow 3.3.2 asks again when it is answered within the first seconds
    for one in stack.airflow.waiting_for_people("review", review):
        choices = dict.fromkeys((name for name in one["params"] if name != "why"), "later")
        for name in choices:
            shown = one["params"][name]["schema"]["title"]
            choices[name] = "accept" if BRIGHT in shown else "reject" if DARK in shown else "later"
        index = one["task_instance"]["map_index"]
        answer = {**choices, "why": "seen"}
        stack.airflow.respond("review", review, "questions.ask", "Save", map_index=index, params=answer)
    ended(stack, "review", review)

    after, announced = described(stack)
    assert announced == "skipped"  # nothing waits any more
    assert after.loc[BRIGHT, "reviewed"] == "accepted by admin: seen"
    assert bool(after.loc[BRIGHT, "accepted"])
    assert after.loc[DARK, "reason"] == "reviewed"
    assert text_digest(BRIGHT) not in (folder / own["decisions"]).read_text()  # the card's own file is a person's

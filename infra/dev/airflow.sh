#!/usr/bin/env bash
# A local Airflow with the DAGs loaded: SQLite, the LocalExecutor, the local runner. For one person on one machine.
#   airflow.sh            start it; Ctrl-C stops it
#   airflow.sh test DAG   run a DAG once in this terminal, without servers: airflow.sh test retrain -c '{"promote": "never"}'
#   airflow.sh ...        any other command of Airflow, as: airflow.sh dags trigger sweep
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
airflow="${AIRFLOW_BIN:-$project/.venv-airflow/bin/airflow}"
port="${AIRFLOW_PORT:-8080}"

[ -x "$airflow" ] || { echo "$airflow does not exist; run: make airflow" >&2; exit 66; }

PATH="$(dirname "$airflow"):$PATH" # `airflow standalone` looks for itself
export PATH
export AIRFLOW_HOME="${AIRFLOW_HOME:-$project/.airflow}"
export AIRFLOW__CORE__DAGS_FOLDER="$project/dags"
export AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__EXECUTOR=LocalExecutor
export AIRFLOW__CORE__PARALLELISM="${AIRFLOW_PARALLELISM:-2}"
export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__API__HOST=127.0.0.1
export AIRFLOW__API__PORT="$port"
export AIRFLOW__API__BASE_URL="http://127.0.0.1:$port"
export AIRFLOW__API__WORKERS=1
# Where runs, releases and models are kept when no server is named.
export CLINPROMPT_STORE="${CLINPROMPT_STORE:-$AIRFLOW_HOME/store}"
export CLINPROMPT_CACHE="${CLINPROMPT_CACHE:-$AIRFLOW_HOME/cache}"
export MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-sqlite:///$project/mlflow.db}"
unset PYTHONDONTWRITEBYTECODE # without bytecode every command takes seconds longer

prepare() {
    mkdir -p "$AIRFLOW_HOME"
    "$airflow" db migrate >"$AIRFLOW_HOME/migrate.log" 2>&1 || { cat "$AIRFLOW_HOME/migrate.log" >&2; exit 70; }
    "$airflow" pools import "$project/infra/dev/pools.json" >/dev/null
}

wait_until_healthy() {
    for _ in $(seq 300); do
        if curl -fs "http://127.0.0.1:$port/api/v2/monitor/health" 2>/dev/null | grep -q '"scheduler":{"status":"healthy"'; then
            return
        fi
        sleep 1
    done
    echo "Airflow did not become healthy within five minutes; see $AIRFLOW_HOME/airflow.log" >&2
    return 1
}

start() {
    prepare
    set -m # a process group of its own: `standalone` leaves its servers behind when it is stopped
    "$airflow" standalone >"$AIRFLOW_HOME/airflow.log" 2>&1 &
    server=$!
    set +m
    trap stop EXIT
    trap 'exit 0' INT TERM
    wait_until_healthy || exit 69
    echo "Airflow    http://127.0.0.1:$port   (log: $AIRFLOW_HOME/airflow.log)"
    echo "Login      admin / $(login)"
    echo "DAGs       retrain, review, promote, rollback, sweep from $project/dags"
    echo "Store      $CLINPROMPT_STORE"
    echo "Publish    python -m workspace release brain-phantom   (with CLINPROMPT_STORE set to the store;"
    echo "           the files are in data/brain-phantom once \`make demo\` or \`dvc repro ingest\` has drawn them)"
    wait "$server"
}

stop() {
    kill -TERM -- "-$server" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 -- "-$server" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$server" 2>/dev/null || true
}

login() {
    "$(dirname "$airflow")/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["admin"])' \
        "$AIRFLOW_HOME/simple_auth_manager_passwords.json.generated"
}

case "${1:-start}" in
start) start ;;
test)
    shift
    prepare
    # Airflow 3.3.2 ends the test of a DAG with a deadline in an error: apache/airflow#73428.
    CLINPROMPT_DEADLINE_SECONDS=0 exec "$airflow" dags test "$@"
    ;;
*) exec "$airflow" "$@" ;;
esac

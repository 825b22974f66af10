#!/bin/sh
# Starts a Celery worker of one queue. The keys of the models' signatures come as the one line between the first and the
# last of a PEM file; tasks take them as files, which are in memory here.
set -eu
umask 077

pem() { # PUBLIC or PRIVATE, the line, the file
    printf -- '-----BEGIN %s KEY-----\n%s\n-----END %s KEY-----\n' "$1" "$2" "$1" >"$3"
}
pem PUBLIC "$VERIFICATION_KEY" "$CLINPROMPT_VERIFICATION_KEY"
if [ -n "${CLINPROMPT_SIGNING_KEY:-}" ]; then
    pem PRIVATE "$SIGNING_KEY" "$CLINPROMPT_SIGNING_KEY"
fi
unset VERIFICATION_KEY SIGNING_KEY

exec /opt/airflow-venv/bin/airflow celery worker --skip-serve-logs --queues "$1"

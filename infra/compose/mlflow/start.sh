#!/bin/sh
# Starts the MLflow server with a password login. The users' table has its own database.
set -eu
umask 077

cat >/tmp/auth.ini <<EOF
[mlflow]
default_permission = READ
database_uri = $MLFLOW_AUTH_STORE_URI
EOF
export MLFLOW_AUTH_CONFIG_PATH=/tmp/auth.ini

exec mlflow server --host 0.0.0.0 --port 5000 --workers 2 --app-name basic-auth \
    --artifacts-destination "$MLFLOW_ARTIFACTS" --allowed-hosts "$MLFLOW_HOSTS"

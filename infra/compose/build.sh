#!/usr/bin/env bash
# Builds the stack's own images: clinprompt-airflow, clinprompt-worker, clinprompt-mlflow. Run `make images` before: the
# worker is built on its image registry. Arguments go to every build, as --secret id=pip,src=pip.conf for other indexes.
#   ENGINE      docker (the default) or podman
#   COMPONENTS  the image registry to build on, best by its digest
#   TARGETS     a part of "airflow worker mlflow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

engine=${ENGINE:-docker}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
for target in ${TARGETS:-airflow worker mlflow}; do
    file=infra/airflow.Dockerfile
    [ "$target" != mlflow ] || file=infra/mlflow.Dockerfile
    "$engine" build --file "$file" --target "$target" --tag "clinprompt-$target" \
        --build-arg "COMPONENTS=${COMPONENTS:-clinprompt-registry:$version}" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@" .
done

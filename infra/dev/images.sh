#!/usr/bin/env bash
# The components' images for the tests, on the base that engine.sh finds; infra/images.lock stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
free=$(df --output=avail --block-size=G / | tail -n 1 | tr -dc 0-9)
if [ "$free" -lt 20 ]; then
    echo "images.sh: not built: they need 20 GB of disk, and $free are free" >&2
    exit 0
fi
if ! infra/dev/engine.sh up; then
    echo "images.sh: not built: there is no container engine" >&2
    exit 0
fi
trap 'infra/dev/engine.sh down' EXIT
eval "$(infra/dev/engine.sh env)"
python -m infra.images build --base "$(infra/dev/engine.sh base)"

#!/usr/bin/env bash
# A container engine for tests and for machines without one.
#
#   engine.sh up      start one if none runs, and make sure that a base image is there; prints the socket
#   engine.sh down    stop the one that `up` started (its images stay)
#   engine.sh socket  print the socket's address, for DOCKER_HOST; fails when no engine answers
#   engine.sh env     print the shell assignments for podman and docker clients: eval "$(engine.sh env)"
#   engine.sh base    print the reference of the base image to build on
#
# A Docker engine that runs already is used as it is. Otherwise podman (from Debian's packages) serves Docker's API on
# a socket below CLINPROMPT_ENGINE_DIR (by default /tmp/clinprompt-engine), and keeps its images in its usual storage.
set -euo pipefail

dir=${CLINPROMPT_ENGINE_DIR:-/tmp/clinprompt-engine}
socket=$dir/engine.sock
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pinned=$(sed -n 's/^ARG BASE=//p' "$here/../Dockerfile")
bootstrapped=localhost/clinprompt-base:bookworm-mmdebstrap
export CONTAINERS_CONF=$here/engine-containers.conf

say() { echo "engine.sh: $*" >&2; }

answers() { curl --silent --fail --max-time 5 --unix-socket "$1" http://engine/_ping >/dev/null 2>&1; }

docker_socket() {
    local found=${DOCKER_HOST:-unix:///var/run/docker.sock}
    found=${found#unix://}
    if [ "$found" != "$socket" ] && answers "$found"; then echo "$found"; fi
}

running_socket() {
    local found
    found=$(docker_socket)
    if [ -n "$found" ]; then
        echo "$found"
    elif answers "$socket"; then
        echo "$socket"
    fi
}

engine() { # the client that builds and lists images
    if [ -n "$(docker_socket)" ]; then docker "$@"; else podman "$@"; fi
}

need() {
    local missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "${missing[*]} not found; as root: apt-get install --no-install-recommends podman buildah runc netavark catatonit uidmap mmdebstrap curl"
        exit 69
    fi
}

start_podman() {
    need podman runc curl
    mkdir -p "$dir"
    rm -f "$socket"
    podman system service --time=0 "unix://$socket" >"$dir/podman.log" 2>&1 &
    echo $! >"$dir/podman.pid"
    for _ in $(seq 600); do
        if answers "$socket"; then return; fi
        sleep 0.1
    done
    say "podman did not answer on $socket within a minute; see $dir/podman.log"
    exit 69
}

# The pinned base image if it is here or can be pulled, otherwise a bootstrapped Debian that says what it is.
base_image() {
    if engine image inspect "$pinned" >/dev/null 2>&1; then
        echo "$pinned"
    elif engine image inspect "$bootstrapped" >/dev/null 2>&1; then
        echo "$bootstrapped"
    fi
}

make_base() {
    if [ -n "$(base_image)" ]; then return; fi
    if timeout 120 "$([ -n "$(docker_socket)" ] && echo docker || echo podman)" pull --quiet "$pinned" >/dev/null 2>&1; then return; fi
    say "no registry can be reached for $pinned; bootstrapping Debian 12 with its own Python instead"
    need mmdebstrap
    mkdir -p "$dir"
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$dir/rootfs.tar" >&2
    engine import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'LABEL clinprompt.base="Debian 12 by mmdebstrap, not the official Python image"' \
        "$dir/rootfs.tar" "$bootstrapped" >/dev/null
    rm "$dir/rootfs.tar"
}

case "${1:-}" in
    up)
        if [ -z "$(running_socket)" ]; then start_podman; fi
        make_base
        "$0" socket
        ;;
    down)
        if [ -f "$dir/podman.pid" ]; then
            kill "$(cat "$dir/podman.pid")" 2>/dev/null || true
            rm -f "$dir/podman.pid" "$socket"
        fi
        ;;
    socket)
        found=$(running_socket)
        if [ -z "$found" ]; then
            say "no container engine answers; start one: $0 up"
            exit 69
        fi
        echo "unix://$found"
        ;;
    env)
        echo "export DOCKER_HOST=$("$0" socket)"
        if [ -z "$(docker_socket)" ]; then echo "export CONTAINERS_CONF=$CONTAINERS_CONF"; fi
        ;;
    base) base_image ;;
    *)
        sed -n '3,9s/^# \{0,1\}//p' "$0" >&2
        exit 64
        ;;
esac

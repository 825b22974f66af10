#!/bin/sh
# Install the lock file $1 into the environment $2, from the indexes of pip's configuration.
# uv does it, several times faster than pip; pip brings it, from the lock file $3, into a folder that doesn't stay.
set -eu

if [ -d /build ]; then export TMPDIR=/build; fi # an image's build: no layer keeps it
if [ -f /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi
if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$2/bin/python" -m venv "$scratch"
pip=$scratch/bin/pip
"$pip" install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r "$3"

setting() { "$pip" config get ":env:.$1" 2>/dev/null || "$pip" config get "global.$1" 2>/dev/null || true; }
index=$(setting index-url)
extra=$(setting extra-index-url)
links=$(setting find-links)
certificates=$(setting cert)
if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
if [ -n "$extra" ]; then export UV_EXTRA_INDEX_URL="$extra"; fi
if [ -n "$links" ]; then UV_FIND_LINKS=$(echo "$links" | tr -s ' \n' ',,') && export UV_FIND_LINKS; fi
if [ -n "$certificates" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"; fi

# The cache lies beside the environment so that files are moved there by link, not copied.
# Which index a file comes from does not matter: its hash is in the lock.
"$scratch/bin/uv" pip install --python "$2/bin/python" --cache-dir "$2/.cache" --index-strategy unsafe-best-match \
    --require-hashes --no-deps --compile-bytecode -r "$1"
rm -rf "$2/.cache" "$2/.lock"

#!/bin/sh
# In a build step: install the lock file $1 into the environment $2, from the indexes of pip's configuration.
# uv does it, several times faster than pip; pip brings uv, into /build, which no image keeps.
set -eu
export TMPDIR=/build

if [ -f /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi
if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi
python3 -m venv /build/uv
pip=/build/uv/bin/pip
"$pip" install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r "$(dirname "$1")/uv.txt"

setting() { "$pip" config get "global.$1" 2>/dev/null || true; }
index=$(setting index-url)
extra=$(setting extra-index-url)
links=$(setting find-links)
if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
if [ -n "$extra" ]; then export UV_EXTRA_INDEX_URL="$extra"; fi
if [ -n "$links" ]; then UV_FIND_LINKS=$(echo "$links" | tr -s ' \n' ',,') && export UV_FIND_LINKS; fi

# The cache lies beside the environment so that files are moved there by link, not copied.
# Which index a file comes from does not matter: its hash is in the lock.
/build/uv/bin/uv pip install --python "$2/bin/python" --cache-dir "$2/.cache" --index-strategy unsafe-best-match \
    --require-hashes --no-deps --compile-bytecode -r "$1"
rm -rf "$2/.cache" "$2/.lock"

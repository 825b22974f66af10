#!/usr/bin/env bash
# Installs the Debian packages that infra/dev/stack.py and the container runners' tests need, where they are missing.
# Needs root on Debian or Ubuntu; elsewhere it says what it skips, and the tests that need them are skipped.
set -euo pipefail

servers=(postgresql redis-server radosgw ceph-mon ceph-osd)
containers=(curl podman buildah runc fuse-overlayfs mmdebstrap uidmap netavark catatonit)

missing=()
for package in "${servers[@]}" "${containers[@]}"; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
        missing+=("$package")
    fi
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "All packages are installed."
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "Skipped: this is not Debian or Ubuntu; install what corresponds to: ${missing[*]}" >&2
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Skipped: only root may install packages; run as root: apt-get install ${missing[*]}" >&2
    exit 0
fi

# The package's own cluster would run beside those that the stack makes: Debian then makes none.
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/clinprompt.conf
# No service of a package is started, where the system would do it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; }; then
    echo "Skipped: the packages could not be installed: ${missing[*]}" >&2
fi

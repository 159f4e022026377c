#!/usr/bin/env bash
# Renders, lints and schema-checks what is in this folder, as far as that goes without a cluster: Helm's own engine renders the
# chart, every manifest is held against Kubernetes' schemas, hadolint reads the Containerfile, systemd the units. The tools are
# installed below target/deploy-check; what cannot be had is named, and fails where CI=true.
set -euo pipefail
cd "$(dirname "$0")"
target=$(cd .. && pwd)/target/deploy-check
mkdir -p "$target"
failed=0

missing() {
    echo "deploy: not checked: $1" >&2
    [ "${CI:-}" != true ] || failed=1
}

if ! cmp -s requirements.txt "$target/requirements.txt"; then
    rm -rf "$target/venv"
    if python3 -m venv "$target/venv" &&
        "$target/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt; then
        cp requirements.txt "$target/requirements.txt"
    fi
fi
if [ -e "$target/requirements.txt" ]; then
    "$target/venv/bin/python" check.py
    "$target/venv/bin/hadolint" --ignore DL3018 container/Containerfile
    echo "Containerfile: hadolint finds nothing"
else
    missing "the chart, the manifests and the Containerfile: the packages of deploy/requirements.txt could not be installed"
fi

if command -v systemd-analyze >/dev/null; then
    units=$(mktemp -d)
    trap 'rm -rf "$units"' EXIT
    # The unit names a binary that need not be installed here.
    for unit in systemd/pgentra-proxy.service systemd/pgentra-proxy.socket; do
        sed "s#/usr/bin/pgentra#/bin/true#" "$unit" >"$units/$(basename "$unit")"
    done
    # It says what it does not like on stderr, also where it exits with 0.
    said=$(SYSTEMD_UNIT_PATH="$units:" systemd-analyze verify --man=no "$units"/pgentra-proxy.* 2>&1 | grep -F pgentra-proxy || :)
    [ -z "$said" ] || { echo "$said" >&2; failed=1; }
    # Of 0 (locked) to 10 (open), times ten.
    if systemd-analyze security --offline=true --threshold=15 "$units/pgentra-proxy.service" >"$units/report"; then
        tail -n 1 "$units/report"
    else
        cat "$units/report" >&2
        failed=1
    fi
else
    missing "the systemd units: no systemd-analyze"
fi
exit "$failed"

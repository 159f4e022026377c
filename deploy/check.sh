#!/usr/bin/env bash
# Checks what is in this folder with the programs that read it: Helm renders the charts, Kubernetes' schemas validate every
# manifest, pgentra itself reads each configuration, hadolint reads the Containerfiles, the loader of Docker Compose its file,
# systemd the units. The tools are installed below target/; what cannot be had is named. It fails where CI=true, except for Helm
# and the loader of Docker Compose, which take Go to build.
set -euo pipefail
cd "$(dirname "$0")"
top=$(cd .. && pwd)
target=$top/target/deploy-check
mkdir -p "$target"
failed=0

missing() {
    echo "deploy: not checked: $1" >&2
    [ "${CI:-}" != true ] || failed=1
}

# from_go PROGRAM PACKAGE@VERSION: builds it from its Go module, if it is not there yet and there is Go.
from_go() {
    [ ! -x "$1" ] && command -v go >/dev/null || return 0
    local folder
    folder=$(mktemp -d)
    if GOFLAGS='' CGO_ENABLED=0 GOBIN=$folder go install "$2"; then
        mkdir -p "$(dirname "$1")"
        mv "$folder"/* "$1"
    fi
    rm -rf "$folder"
}

# No distribution of Linux that the tests run on has a package of Helm.
HELM_VERSION=4.3.1
helm=$top/target/tools/bin/helm-$HELM_VERSION
from_go "$helm" "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"
if [ ! -x "$helm" ]; then
    echo "deploy: left out: the charts, because Helm is built with Go and there is no Go here, or it could not be had" >&2
    helm=
fi

# The loader of Docker Compose compares the file with the schema of the specification.
COMPOSE_VERSION=2.16.2
compose=$top/target/tools/bin/compose-spec-$COMPOSE_VERSION
from_go "$compose" "github.com/compose-spec/compose-go/v2/cmd@v$COMPOSE_VERSION"
if [ -x "$compose" ]; then
    "$compose" -format json compose/compose.yaml >"$target/compose.json"
    echo "compose.yaml: the loader of Docker Compose accepts it"
else
    echo "deploy: left out: compose.yaml, because its checker is built with Go and there is no Go here, or it could not be had" >&2
fi

if ! cmp -s requirements.txt "$target/requirements.txt"; then
    rm -rf "$target/venv"
    if python3 -m venv "$target/venv" &&
        "$target/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt; then
        cp requirements.txt "$target/requirements.txt"
    fi
fi
if [ -e "$target/requirements.txt" ]; then
    (cd "$top" && cargo build --quiet --locked --package pgentra)
    "$target/venv/bin/python" check.py "$top/target/debug/pgentra" ${helm:+"$helm"}
    "$target/venv/bin/hadolint" --ignore DL3018 container/Containerfile
    # The packages are those of the release.
    "$target/venv/bin/hadolint" --ignore DL3008 compose/program/Containerfile
    echo "Containerfiles: hadolint finds nothing"
else
    missing "the charts, the manifests and the Containerfile: the packages of deploy/requirements.txt could not be installed"
fi

if command -v systemd-analyze >/dev/null; then
    units=$(mktemp -d)
    trap 'rm -rf "$units"' EXIT
    # The unit names a binary that need not be installed here.
    for unit in systemd/pgentra-proxy.service systemd/pgentra-proxy.socket systemd/pgentra-gateway.service; do
        sed "s#/usr/bin/pgentra#/bin/true#" "$unit" >"$units/$(basename "$unit")"
    done
    # A template is checked as one of its services, of a user that every system has.
    sed -e "s#/usr/bin/pgentra#/bin/true#" -e "s/%i/daemon/g" systemd/pgentra-token@.service >"$units/pgentra-token.service"
    # It says what it does not like on stderr, also where it exits with 0.
    said=$(SYSTEMD_UNIT_PATH="$units:" systemd-analyze verify --man=no "$units"/pgentra-* 2>&1 | grep -F pgentra- || :)
    [ -z "$said" ] || { echo "$said" >&2; failed=1; }
    # Of 0 (locked) to 10 (open), times ten.
    for service in pgentra-proxy pgentra-gateway pgentra-token; do
        if systemd-analyze security --offline=true --threshold=15 "$units/$service.service" >"$units/report"; then
            tail -n 1 "$units/report"
        else
            cat "$units/report" >&2
            failed=1
        fi
    done
else
    missing "the systemd units: no systemd-analyze"
fi
exit "$failed"

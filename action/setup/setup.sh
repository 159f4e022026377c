#!/usr/bin/env bash
# Brings pgentra to a job of GitHub Actions, and starts a local cloud on request. The inputs are in the environment: see
# action.yml.
set -euo pipefail

fail() {
    echo "::error::$1"
    exit 1
}

# Downloads or copies the archive, compares its hash, and unpacks the program.
from_archive() {
    local folder=$1 file hash
    [[ $SHA256 =~ ^[0-9a-fA-F]{64}$ ]] || fail "the input sha256 must be the hash of the archive, 64 hexadecimal digits: see SHA256SUMS of the release"
    file=$folder/archive.tar.gz
    case $ARCHIVE in
    https://*) curl --fail --silent --show-error --location --proto =https --proto-redir =https --retry 3 --output "$file" "$ARCHIVE" ||
        fail "the archive cannot be downloaded from $ARCHIVE" ;;
    *://*) fail "the input archive must be an https address or a file" ;;
    *) cp -- "$ARCHIVE" "$file" || fail "there is no archive $ARCHIVE" ;;
    esac
    hash=$(if command -v sha256sum >/dev/null; then sha256sum "$file"; else shasum -a 256 "$file"; fi)
    hash=${hash%% *}
    [ "$hash" = "${SHA256,,}" ] || fail "the archive has the hash $hash, not $SHA256: nothing is installed"
    tar -xzf "$file" -C "$folder" --strip-components 1
    rm "$file"
    [ -x "$folder/pgentra" ] || fail "the archive holds no program pgentra"
}

# Sets the variables of a JSON object for the steps that follow. A value may have any characters.
export_variables() {
    local mark
    mark=pgentra-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    jq -r --arg mark "$mark" 'to_entries[] | "\(.key)<<\($mark)\n\(.value)\n\($mark)"' >>"$GITHUB_ENV"
}

case ${ARCHIVE:+archive}${PROGRAM:+path} in
archive)
    folder=$(mktemp -d "$RUNNER_TEMP/pgentra.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    from_archive "$folder"
    trap - EXIT
    ;;
path)
    [ -x "$PROGRAM" ] || fail "the input path must be the program pgentra; there is none at $PROGRAM"
    folder=$(cd "$(dirname "$PROGRAM")" && pwd)
    ;;
*) fail "give one of the inputs archive (with sha256) and path" ;;
esac
echo "$folder" >>"$GITHUB_PATH"
echo "path=$folder" >>"$GITHUB_OUTPUT"
pgentra=$folder/pgentra
"$pgentra" --version

case $LOCAL_CLOUD in
false) ;;
true)
    # It lasts as long as the job: the runner ends its processes.
    "$pgentra" local up --detach --name "$NAME" --flavour "$FLAVOUR"
    "$pgentra" local env --name "$NAME" --host "$HOST" -o json | export_variables
    ;;
*) fail "the input local-cloud must be true or false" ;;
esac

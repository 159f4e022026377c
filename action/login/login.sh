#!/usr/bin/env bash
# Signs a job of GitHub Actions in with its federated identity, and sets the variables for the steps that follow. No token
# is stored: each of these steps gets its own. The inputs are in the environment: see action.yml.
set -euo pipefail

fail() {
    echo "::error::$1"
    exit 1
}

# Sets a variable for the steps that follow. A value may have any characters.
export_variable() {
    local mark
    mark=pgentra-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s<<%s\n%s\n%s\n' "$1" "$mark" "$2" "$mark" >>"$GITHUB_ENV"
    export "$1=$2"
}

[ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ] && [ -n "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-}" ] ||
    fail "this job gets no identity token: add to the job or the workflow: permissions: { id-token: write, contents: read }"
command -v pgentra >/dev/null || fail "there is no pgentra on the PATH: run the action setup before this one"

export_variable AZURE_CLIENT_ID "$CLIENT_ID"
export_variable AZURE_TENANT_ID "$TENANT_ID"
export_variable PGHOST "$SERVER"
export_variable PGPORT "$PORT"
export_variable PGUSER "$ROLE"
export_variable PGDATABASE "$DATABASE"
pgentra query --source github-actions -c 'SELECT current_user'

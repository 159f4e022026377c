# Signs in with psql, and a token of curl or of pgentra as the password. The server comes from PGHOST, PGUSER, …
#
# Usage: psql.sh HOST    prints a line of JSON for each: the role, or the error
set -euo pipefail
resource=https://ossrdbms-aad.database.windows.net
authority=${AZURE_AUTHORITY_HOST:-https://login.microsoftonline.com/}

ask() { curl -sS --fail-with-body -m 20 "$@" | jq -r .access_token; }

entra() {
    ask "${authority%/}/$AZURE_TENANT_ID/oauth2/v2.0/token" -d grant_type=client_credentials -d "client_id=$AZURE_CLIENT_ID" \
        --data-urlencode "scope=$resource/.default" "$@"
}

# What Microsoft documents for each host.
with_curl() {
    case $1 in
    vm | user-assigned)
        ask -G "${AZURE_POD_IDENTITY_AUTHORITY_HOST:-http://169.254.169.254}/metadata/identity/oauth2/token" -H Metadata:true \
            -d api-version=2018-02-01 --data-urlencode "resource=$resource" ${AZURE_CLIENT_ID:+-d "client_id=$AZURE_CLIENT_ID"}
        ;;
    app-service)
        ask -G "$IDENTITY_ENDPOINT" -H "X-IDENTITY-HEADER: $IDENTITY_HEADER" -d api-version=2019-08-01 \
            --data-urlencode "resource=$resource"
        ;;
    azure-ml)
        ask -G "$MSI_ENDPOINT" -H "secret: $MSI_SECRET" -d api-version=2017-09-01 --data-urlencode "resource=$resource" \
            -d "clientid=$DEFAULT_IDENTITY_CLIENT_ID"
        ;;
    aks)
        entra -d client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
            --data-urlencode "client_assertion@$AZURE_FEDERATED_TOKEN_FILE"
        ;;
    client-secret) entra --data-urlencode "client_secret=$AZURE_CLIENT_SECRET" ;;
    admin) ask "$MSI_ENDPOINT" -H Metadata:true --data-urlencode "resource=$resource" ;;
    *) echo "no curl on $1" >&2 && exit 1 ;;
    esac
}

say() {
    if said=$(PGPASSWORD=$("${@:2}" 2>&1) psql -Atc 'SELECT current_user' 2>&1); then
        jq -nc --arg client "$1" --arg role "$said" '$ARGS.named'
    else
        jq -nc --arg client "$1" --arg error "$said" '$ARGS.named'
    fi
}

say 'psql, `pgentra token`' pgentra token
say 'psql, curl' with_curl "$1"

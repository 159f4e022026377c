#!/usr/bin/env bash
# PostgreSQL without a password, with the Azure CLI, curl, jq and psql: a person signs in, creates an
# identity, assigns it to a VM and makes its database role; the VM connects with the identity's token.
#
# On a VM in Azure, run it as it is. In a local cloud:
#
#   pgentra local up --detach
#   pgentra local run -- bash examples/article.sh
#
# Arguments: resource group, VM, server, and the name of the new identity and its role.
set -euo pipefail

group=${1:-myResourceGroup} vm=${2:-myVm} server=${3:-mydemoserver} name=${4:-my-app}
# Trusted certificates on Debian and Ubuntu; from psql 16 on, PGSSLROOTCERT=system names those of any system.
trust=${PGSSLROOTCERT:-/etc/ssl/certs/ca-certificates.crt}
database="host=$server.postgres.database.azure.com dbname=postgres sslmode=verify-full sslrootcert=$trust"

# The sign-ins of this script are not those of the user.
AZURE_CONFIG_DIR=$(mktemp -d)
export AZURE_CONFIG_DIR
trap 'rm -rf "$AZURE_CONFIG_DIR"' EXIT

# The person signs in: az prints an address, which the person opens in a browser.
az login --use-device-code --output none
person=$(az account show --query user.name --output tsv)

# An identity, assigned to the VM.
az identity create --resource-group "$group" --name "$name" --output none
object_id=$(az identity show --resource-group "$group" --name "$name" --query principalId --output tsv)
client_id=$(az identity show --resource-group "$group" --name "$name" --query clientId --output tsv)
identity=$(az identity show --resource-group "$group" --name "$name" --query id --output tsv)
az vm identity assign --resource-group "$group" --name "$vm" --identities "$identity" --output none

# Its role, which the person makes as the Entra administrator of the server.
PGPASSWORD=$(az account get-access-token --resource-type oss-rdbms --query accessToken --output tsv)
export PGPASSWORD
# psql quotes a variable in a script, and not in --command.
psql "$database" --username "$person" --set ON_ERROR_STOP=1 --set name="$name" --set object_id="$object_id" \
    <<<"select * from pgaadauth_create_principal_with_oid(:'name', :'object_id', 'service', false, false)"

# On the VM: the token of the identity is the password.
resource=https%3A%2F%2Fossrdbms-aad.database.windows.net
address="http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=$resource&client_id=$client_id"
PGPASSWORD=$(curl --silent --show-error --fail "$address" --header Metadata:true | jq --raw-output .access_token)
psql "$database" --username "$name" --set ON_ERROR_STOP=1 --command 'select current_user'

"""An agent identity signs in to PostgreSQL with MSAL: its blueprint gets the exchange token with `fmi_path`.

Usage: agent.py CLOUD    with AZURE_AUTHORITY_HOST, AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of an
application that may change the directory, PGENTRA_GRAPH_ENDPOINT, SSL_CERT_FILE and the server in PG*.
Prints the role that it is, and what the token says of the blueprint.
"""

import base64
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request

import msal
import psycopg

POSTGRESQL = "https://ossrdbms-aad.database.windows.net/.default"
EXCHANGE = "api://AzureADTokenExchange/.default"


def client(client_id, credential):
    authority = os.environ["AZURE_AUTHORITY_HOST"] + os.environ["AZURE_TENANT_ID"]
    options = {"authority": authority, "instance_discovery": False, "verify": os.environ["SSL_CERT_FILE"]}
    return msal.ConfidentialClientApplication(client_id, client_credential=credential, **options)


def token(app, scope, **options):
    result = app.acquire_token_for_client([scope], **options)
    assert "access_token" in result, result
    return result["access_token"]


def graph(path, body):
    address = os.environ["PGENTRA_GRAPH_ENDPOINT"]
    own = client(os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"])
    headers = {"Authorization": f"Bearer {token(own, address + '/.default')}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/beta/{path}", json.dumps(body).encode(), headers)
    trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    with urllib.request.urlopen(request, context=trust) as response:
        return json.load(response)


def main(cloud):
    blueprint = graph("applications", {"@odata.type": "Microsoft.Graph.AgentIdentityBlueprint", "displayName": "helpers"})
    graph("servicePrincipals/graph.agentIdentityBlueprintPrincipal", {"appId": blueprint["appId"]})
    agent = {"displayName": "helper", "agentIdentityBlueprintId": blueprint["appId"]}
    agent = graph("servicePrincipals/Microsoft.Graph.AgentIdentity", agent)
    secret = graph(f"applications/{blueprint['id']}/addPassword", {})["secretText"]
    role(cloud, agent["id"])

    of_blueprint = client(blueprint["appId"], secret)
    assertion = {"client_assertion": lambda: token(of_blueprint, EXCHANGE, fmi_path=agent["appId"])}
    password = token(client(agent["appId"], assertion), POSTGRESQL)
    with psycopg.connect(password=password, user="helper") as connection:
        print(connection.execute("SELECT current_user").fetchone()[0])
    claims = password.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    print(claims["xms_par_app_azp"] == blueprint["appId"])


def role(cloud, object_id):
    """The administrator of the server makes the role."""
    statement = f"SELECT pgaadauth_create_principal_with_oid('helper', '{object_id}', 'service', false, false)"
    script = 'eval "$(pgentra local env --name "$1" --host admin)"; pgentra query -c "$2"'
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(["bash", "-c", script, "role", cloud, statement], capture_output=True, text=True)
        if done.returncode == 0:
            return
        # The server learns of a new principal a moment later.
        assert time.monotonic() < deadline, done.stderr


main(*sys.argv[1:])

"""The real azure-identity gets tokens from the local cloud.

Usage: python_identity.py SERVE   where SERVE is the emulator's example program `serve`.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile

from azure.identity import (
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def check(name, environment, make, object_id):
    """Gets a token in a fresh environment and compares whose it is."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        token = make().get_token(SCOPE)
    finally:
        os.environ.clear()
        os.environ.update(before)
    got = claims(token.token)
    assert got["oid"] == object_id, (name, got)
    assert abs(got["exp"] - token.expires_on) <= 2, (name, got["exp"], token.expires_on)
    print(f"{name}: ok")


def main(serve):
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([serve, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            run(json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait()


def run(azure):
    vm, named, application = azure["vm"], azure["user_assigned"], azure["application"]
    imds = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": azure["metadata"]}
    app_service = {
        "IDENTITY_ENDPOINT": azure["app_service"]["endpoint"],
        "IDENTITY_HEADER": azure["app_service"]["header"],
    }
    trust = {
        "SSL_CERT_FILE": azure["ca_file"],
        "REQUESTS_CA_BUNDLE": azure["ca_file"],
        "AZURE_AUTHORITY_HOST": azure["authority_host"],
    }
    workload = {
        **trust,
        "AZURE_CLIENT_ID": named["client_id"],
        "AZURE_TENANT_ID": azure["tenant"],
        "AZURE_FEDERATED_TOKEN_FILE": azure["token_file"],
    }
    environment = {
        **trust,
        "AZURE_CLIENT_ID": application["client_id"],
        "AZURE_TENANT_ID": azure["tenant"],
        "AZURE_CLIENT_SECRET": application["secret"],
    }
    own = {"disable_instance_discovery": True}
    for name, variables, make, object_id in [
        ("imds, ManagedIdentityCredential", imds, ManagedIdentityCredential, vm["object_id"]),
        ("imds, DefaultAzureCredential", imds, DefaultAzureCredential, vm["object_id"]),
        (
            "imds, client id",
            imds,
            lambda: ManagedIdentityCredential(client_id=named["client_id"]),
            named["object_id"],
        ),
        (
            "imds, object id",
            imds,
            lambda: ManagedIdentityCredential(identity_config={"object_id": named["object_id"]}),
            named["object_id"],
        ),
        (
            "imds, resource id",
            imds,
            lambda: ManagedIdentityCredential(identity_config={"resource_id": named["resource_id"]}),
            named["object_id"],
        ),
        ("app service, ManagedIdentityCredential", app_service, ManagedIdentityCredential, vm["object_id"]),
        ("app service, DefaultAzureCredential", app_service, DefaultAzureCredential, vm["object_id"]),
        (
            "app service, client id",
            app_service,
            lambda: ManagedIdentityCredential(client_id=named["client_id"]),
            named["object_id"],
        ),
        (
            "cloud shell",
            {"MSI_ENDPOINT": azure["cloud_shell"]},
            ManagedIdentityCredential,
            azure["administrator"]["object_id"],
        ),
        (
            "workload identity, WorkloadIdentityCredential",
            workload,
            lambda: WorkloadIdentityCredential(**own),
            named["object_id"],
        ),
        (
            "workload identity, DefaultAzureCredential",
            workload,
            lambda: DefaultAzureCredential(**own),
            named["object_id"],
        ),
        ("secret, DefaultAzureCredential", environment, lambda: DefaultAzureCredential(**own), application["object_id"]),
        (
            "secret, ClientSecretCredential",
            trust,
            lambda: ClientSecretCredential(
                azure["tenant"], application["client_id"], application["secret"], **own
            ),
            application["object_id"],
        ),
    ]:
        check(name, variables, make, object_id)


if __name__ == "__main__":
    main(sys.argv[1])

"""The real azure-identity gets tokens from the local cloud.

Usage: python_identity.py SERVE [KEYS]   where SERVE is the emulator's example program `serve`, and KEYS the folder
/var/opt/azcmagent/tokens, where it exists and can be written: then Azure Arc is tried too.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile

from azure.identity import (
    AzurePipelinesCredential,
    CertificateCredential,
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


def main(serve, *keys):
    with tempfile.TemporaryDirectory() as folder:
        command = [serve, folder] + [argument for key in keys for argument in ("--arc", key)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            run(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait()


def run(files, identities, hosts):
    vm, named, application = (identities[name]["object_id"] for name in ("vm", "user_assigned", "application"))
    tenant, app, managed = identities["tenant"], identities["application"], identities["user_assigned"]
    by_client = {"client_id": managed["client_id"]}
    by_object = {"identity_config": {"object_id": managed["object_id"]}}
    by_resource = {"identity_config": {"resource_id": managed["resource_id"]}}
    trust = {"SSL_CERT_FILE": files["ca"], "REQUESTS_CA_BUNDLE": files["ca"], **hosts["authority"]}
    workload = {**trust, "AZURE_CLIENT_ID": managed["client_id"], "AZURE_TENANT_ID": tenant}
    federated = {**workload, "AZURE_FEDERATED_TOKEN_FILE": files["service_account_token"]}
    bound = {
        **workload,
        **hosts["token_proxy"],
        "AZURE_FEDERATED_TOKEN_FILE": files["bound_service_account_token"],
        "AZURE_KUBERNETES_CA_FILE": files["token_proxy_ca"],
    }
    secret = {
        **trust,
        "AZURE_CLIENT_ID": app["client_id"],
        "AZURE_TENANT_ID": tenant,
        "AZURE_CLIENT_SECRET": app["secret"],
    }
    own = {"disable_instance_discovery": True}
    pipelines = hosts["pipelines"]

    def managed_identity(**options):
        return lambda: ManagedIdentityCredential(**options)

    def chain(**options):
        return lambda: DefaultAzureCredential(**options)

    def pipeline():
        return AzurePipelinesCredential(
            tenant_id=tenant,
            client_id=managed["client_id"],
            service_connection_id=pipelines["SERVICE_CONNECTION"],
            system_access_token=pipelines["SYSTEM_ACCESSTOKEN"],
            **own,
        )

    def certificate():
        return CertificateCredential(tenant, app["client_id"], files["client_certificate"], **own)

    cases = [
        ("imds, managed identity", hosts["imds"], managed_identity(), vm),
        ("imds, default", hosts["imds"], chain(), vm),
        ("imds, client id", hosts["imds"], managed_identity(**by_client), named),
        ("imds, object id", hosts["imds"], managed_identity(**by_object), named),
        ("imds, resource id", hosts["imds"], managed_identity(**by_resource), named),
        ("app service, managed identity", hosts["app_service"], managed_identity(), vm),
        ("app service, default", hosts["app_service"], chain(), vm),
        ("app service, client id", hosts["app_service"], managed_identity(**by_client), named),
        ("app service, object id", hosts["app_service"], managed_identity(**by_object), named),
        ("app service, resource id", hosts["app_service"], managed_identity(**by_resource), named),
        ("cloud shell", hosts["cloud_shell"], managed_identity(), identities["administrator"]["object_id"]),
        ("service fabric", hosts["service_fabric"], managed_identity(), vm),
        ("machine learning", hosts["machine_learning"], managed_identity(**by_client), named),
        ("workload identity", federated, lambda: WorkloadIdentityCredential(**own), named),
        ("workload identity, default", federated, chain(**own), named),
        ("identity binding", bound, lambda: WorkloadIdentityCredential(enable_azure_proxy=True, **own), named),
        ("azure pipelines", {**trust, **pipelines}, pipeline, named),
        ("certificate", trust, certificate, application),
        ("secret, default", secret, chain(**own), application),
        ("secret", trust, lambda: ClientSecretCredential(tenant, app["client_id"], app["secret"], **own), application),
    ]
    if hosts["arc"]:
        cases.append(("arc", hosts["arc"], managed_identity(), vm))
        cases.append(("arc, resource id", hosts["arc"], managed_identity(**by_resource), named))
    for case in cases:
        check(*case)


if __name__ == "__main__":
    main(*sys.argv[1:])

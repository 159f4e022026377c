"""One token, by the credential that is named."""

import os
import sys

from azure.identity import (
    AzurePipelinesCredential,
    CertificateCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

env = os.environ
own = {"disable_instance_discovery": True}
name = sys.argv[1]
make = {
    "default": lambda: DefaultAzureCredential(),
    "managed": lambda: ManagedIdentityCredential(),
    "managed-client-id": lambda: ManagedIdentityCredential(client_id=env["CAPTURE_CLIENT_ID"]),
    "managed-object-id": lambda: ManagedIdentityCredential(identity_config={"object_id": env["CAPTURE_OBJECT_ID"]}),
    "managed-resource-id": lambda: ManagedIdentityCredential(identity_config={"resource_id": env["CAPTURE_RESOURCE_ID"]}),
    "secret": lambda: ClientSecretCredential(
        env["AZURE_TENANT_ID"], env["AZURE_CLIENT_ID"], env["AZURE_CLIENT_SECRET"], **own
    ),
    "certificate": lambda: CertificateCredential(
        env["AZURE_TENANT_ID"], env["AZURE_CLIENT_ID"], env["AZURE_CLIENT_CERTIFICATE_PATH"], **own
    ),
    "workload": lambda: WorkloadIdentityCredential(**own),
    "pipelines": lambda: AzurePipelinesCredential(
        tenant_id=env["AZURE_TENANT_ID"],
        client_id=env["AZURE_CLIENT_ID"],
        service_connection_id=env["CAPTURE_CONNECTION"],
        system_access_token=env["SYSTEM_ACCESSTOKEN"],
        **own,
    ),
}
make[name]().get_token("https://ossrdbms-aad.database.windows.net/.default")

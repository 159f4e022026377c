"""The credential of azure-identity that a program on an Azure host uses."""

import os

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


def credential(host, library):
    """`library` is azure.identity or azure.identity.aio."""
    options = {}
    if "localhost" in os.environ.get("AZURE_AUTHORITY_HOST", ""):
        # A private authority, which MSAL would look up at login.microsoftonline.com.
        options["disable_instance_discovery"] = True
    if host == "aks-binding":
        return library.WorkloadIdentityCredential(enable_azure_proxy=True, **options)
    if host == "azure-pipelines":
        return library.AzurePipelinesCredential(
            tenant_id=os.environ["AZURESUBSCRIPTION_TENANT_ID"],
            client_id=os.environ["AZURESUBSCRIPTION_CLIENT_ID"],
            service_connection_id=os.environ["AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"],
            system_access_token=os.environ["SYSTEM_ACCESSTOKEN"],
            **options,
        )
    return library.DefaultAzureCredential(**options)

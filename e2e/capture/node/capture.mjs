// One token, by the credential that is named.
import * as identity from "@azure/identity";

const env = process.env;
const own = { disableInstanceDiscovery: true };
const make = {
  default: () => new identity.DefaultAzureCredential(),
  managed: () => new identity.ManagedIdentityCredential(),
  "managed-client-id": () => new identity.ManagedIdentityCredential({ clientId: env.CAPTURE_CLIENT_ID }),
  "managed-object-id": () => new identity.ManagedIdentityCredential({ objectId: env.CAPTURE_OBJECT_ID }),
  "managed-resource-id": () => new identity.ManagedIdentityCredential({ resourceId: env.CAPTURE_RESOURCE_ID }),
  secret: () =>
    new identity.ClientSecretCredential(env.AZURE_TENANT_ID, env.AZURE_CLIENT_ID, env.AZURE_CLIENT_SECRET, own),
  certificate: () =>
    new identity.ClientCertificateCredential(
      env.AZURE_TENANT_ID,
      env.AZURE_CLIENT_ID,
      { certificatePath: env.AZURE_CLIENT_CERTIFICATE_PATH },
      own,
    ),
  workload: () => new identity.WorkloadIdentityCredential(own),
  pipelines: () =>
    new identity.AzurePipelinesCredential(
      env.AZURE_TENANT_ID,
      env.AZURE_CLIENT_ID,
      env.CAPTURE_CONNECTION,
      env.SYSTEM_ACCESSTOKEN,
      own,
    ),
};
await make[process.argv[2]]().getToken("https://ossrdbms-aad.database.windows.net/.default");

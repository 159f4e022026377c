import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.AzurePipelinesCredentialBuilder;
import com.azure.identity.ClientCertificateCredentialBuilder;
import com.azure.identity.ClientSecretCredentialBuilder;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.azure.identity.WorkloadIdentityCredentialBuilder;

/** One token, by the credential that is named. */
class Capture {
    public static void main(String[] words) {
        var request = new TokenRequestContext().addScopes("https://ossrdbms-aad.database.windows.net/.default");
        make(words[0]).getTokenSync(request);
        System.exit(0);
    }

    private static TokenCredential make(String name) {
        var managed = new ManagedIdentityCredentialBuilder();
        return switch (name) {
            case "default" -> new DefaultAzureCredentialBuilder().build();
            case "managed" -> managed.build();
            case "managed-client-id" -> managed.clientId(env("CAPTURE_CLIENT_ID")).build();
            case "managed-object-id" -> managed.objectId(env("CAPTURE_OBJECT_ID")).build();
            case "managed-resource-id" -> managed.resourceId(env("CAPTURE_RESOURCE_ID")).build();
            case "secret" -> new ClientSecretCredentialBuilder()
                .tenantId(env("AZURE_TENANT_ID")).clientId(env("AZURE_CLIENT_ID"))
                .clientSecret(env("AZURE_CLIENT_SECRET")).disableInstanceDiscovery().build();
            case "certificate" -> new ClientCertificateCredentialBuilder()
                .tenantId(env("AZURE_TENANT_ID")).clientId(env("AZURE_CLIENT_ID"))
                .pemCertificate(env("AZURE_CLIENT_CERTIFICATE_PATH")).disableInstanceDiscovery().build();
            case "workload" -> new WorkloadIdentityCredentialBuilder()
                .tenantId(env("AZURE_TENANT_ID")).clientId(env("AZURE_CLIENT_ID"))
                .tokenFilePath(env("AZURE_FEDERATED_TOKEN_FILE")).disableInstanceDiscovery().build();
            case "pipelines" -> new AzurePipelinesCredentialBuilder()
                .tenantId(env("AZURE_TENANT_ID")).clientId(env("AZURE_CLIENT_ID"))
                .serviceConnectionId(env("CAPTURE_CONNECTION")).systemAccessToken(env("SYSTEM_ACCESSTOKEN"))
                .disableInstanceDiscovery().build();
            default -> throw new IllegalArgumentException(name);
        };
    }

    private static String env(String name) {
        return System.getenv(name);
    }
}

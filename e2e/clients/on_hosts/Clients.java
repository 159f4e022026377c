import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.AzurePipelinesCredentialBuilder;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.zaxxer.hikari.HikariDataSource;
import com.zaxxer.hikari.util.Credentials;
import java.sql.Connection;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Scanner;

/**
 * Signs in with HikariCP and the JDBC driver: with a token of azure-identity, and with Microsoft's plugin for the driver.
 *
 * <p>Usage: Clients HOST prints a line of JSON for each client: its role, or the error. Clients HOST --lives keeps a pool of
 * each client; for each line of the input it opens one more connection in it. -Donly=CLIENT leaves the others out. The server
 * comes from PGHOST, PGUSER, …
 */
public class Clients {
    static final Map<String, String> ENV = System.getenv();
    static final String PLUGIN = "com.azure.identity.extensions.jdbc.postgresql.AzurePostgresqlAuthenticationPlugin";

    public static void main(String[] arguments) {
        Map<String, HikariDataSource> clients = new LinkedHashMap<>();
        // First, because MSAL remembers for the whole JVM that an authority is not to be looked up.
        var plugin = configured(new HikariDataSource());
        plugin.addDataSourceProperty("authenticationPluginClassName", PLUGIN);
        clients.put("azure-identity-extensions, JDBC", plugin);
        clients.put("JDBC", configured(new WithToken(credential(arguments[0]))));
        var only = System.getProperty("only");
        clients.keySet().removeIf(name -> only != null && !name.equals(only));
        if (arguments.length > 1) {
            for (var input = new Scanner(System.in); input.hasNextLine(); input.nextLine()) {
                clients.forEach(Clients::say);
                System.out.println("{}");
            }
        } else {
            clients.forEach(Clients::say);
        }
        // Connections stay taken until the end.
        System.exit(0);
    }

    /** HikariCP asks it for each new connection. */
    static class WithToken extends HikariDataSource {
        private final TokenCredential credential;

        WithToken(TokenCredential credential) {
            this.credential = credential;
        }

        @Override
        public Credentials getCredentials() {
            var request = new TokenRequestContext().addScopes("https://ossrdbms-aad.database.windows.net/.default");
            return Credentials.of(getUsername(), credential.getTokenSync(request).getToken());
        }
    }

    static HikariDataSource configured(HikariDataSource source) {
        var url = "jdbc:postgresql://%s:%s/%s".formatted(ENV.get("PGHOST"), ENV.getOrDefault("PGPORT", "5432"), ENV.get("PGDATABASE"));
        source.setJdbcUrl(url);
        source.setUsername(ENV.get("PGUSER"));
        source.addDataSourceProperty("sslmode", "verify-full");
        // The trusted certificates of the JVM, and not a file in the user's home.
        source.addDataSourceProperty("sslfactory", "org.postgresql.ssl.DefaultJavaSSLFactory");
        source.setMinimumIdle(0);
        source.setConnectionTimeout(60_000);
        return source;
    }

    static TokenCredential credential(String host) {
        // A private authority, which MSAL would look up at login.microsoftonline.com.
        var isPrivate = ENV.getOrDefault("AZURE_AUTHORITY_HOST", "").contains("localhost");
        if (host.equals("azure-pipelines")) {
            var builder = new AzurePipelinesCredentialBuilder()
                    .tenantId(ENV.get("AZURESUBSCRIPTION_TENANT_ID"))
                    .clientId(ENV.get("AZURESUBSCRIPTION_CLIENT_ID"))
                    .serviceConnectionId(ENV.get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"))
                    .systemAccessToken(ENV.get("SYSTEM_ACCESSTOKEN"));
            return (isPrivate ? builder.disableInstanceDiscovery() : builder).build();
        }
        var builder = new DefaultAzureCredentialBuilder();
        return (isPrivate ? builder.disableInstanceDiscovery() : builder).build();
    }

    static void say(String client, HikariDataSource source) {
        String key = "role";
        String said;
        try {
            Connection connection = source.getConnection();
            var rows = connection.createStatement().executeQuery("SELECT current_user");
            rows.next();
            said = rows.getString(1);
        } catch (Exception error) {
            key = "error";
            said = "";
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                said += cause + " <- ";
            }
        }
        said = said.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ");
        System.out.println("{\"client\":\"%s\",\"%s\":\"%s\"}".formatted(client, key, said));
    }
}

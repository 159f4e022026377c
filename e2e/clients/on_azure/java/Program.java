import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import java.sql.DriverManager;
import java.util.Properties;

/** The program of the article, as it is deployed on Azure: nothing in it knows of a local cloud. */
public class Program {
    public static void main(String[] arguments) throws Exception {
        var credential = new DefaultAzureCredentialBuilder().build();
        var request = new TokenRequestContext().addScopes("https://ossrdbms-aad.database.windows.net/.default");
        var token = credential.getToken(request).block();
        var properties = new Properties();
        properties.setProperty("user", arguments[0]);
        properties.setProperty("password", token.getToken());
        properties.setProperty("sslmode", "verify-full");
        // The trusted certificates of the JVM, and not a file in the user's home.
        properties.setProperty("sslfactory", "org.postgresql.ssl.DefaultJavaSSLFactory");
        var url = "jdbc:postgresql://mydemoserver.postgres.database.azure.com/postgres";
        try (var connection = DriverManager.getConnection(url, properties);
                var rows = connection.createStatement().executeQuery("SELECT current_user")) {
            rows.next();
            System.out.println(rows.getString(1));
        }
    }
}

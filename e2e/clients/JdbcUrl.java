import java.util.Properties;
import org.postgresql.Driver;

/** Prints host, port, user and database of JDBC URLs as pgjdbc reads them, a value a line. */
public class JdbcUrl {
    public static void main(String[] urls) {
        for (String url : urls) {
            Properties read = Driver.parseURL(url, new Properties());
            for (String name : new String[] {"PGHOST", "PGPORT", "user", "PGDBNAME"}) {
                System.out.println(read.getProperty(name));
            }
        }
    }
}

// What battery.py does, with the JDBC driver. Usage: java -cp DRIVER.jar Battery.java, the connection from PGHOST, PGPORT, …

import java.io.StringReader;
import java.io.StringWriter;
import java.security.MessageDigest;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.core.BaseConnection;

public class Battery {
    public static void main(String[] arguments) throws Exception {
        var env = System.getenv();
        var properties = new Properties();
        properties.setProperty("user", env.get("PGUSER"));
        if (env.containsKey("PGPASSWORD")) {
            properties.setProperty("password", env.get("PGPASSWORD"));
        }
        properties.setProperty("sslmode", env.getOrDefault("PGSSLMODE", "disable"));
        if (env.containsKey("PGSSLROOTCERT")) {
            properties.setProperty("sslrootcert", env.get("PGSSLROOTCERT"));
        }
        var url = "jdbc:postgresql://%s:%s/%s".formatted(env.get("PGHOST"), env.get("PGPORT"), env.get("PGDATABASE"));
        try (var connection = DriverManager.getConnection(url, properties)) {
            run(connection);
        }
    }

    static void run(Connection connection) throws Exception {
        say("who", one(connection, "SELECT current_user || ' ' || current_database()"));
        try (var prepared = connection.prepareStatement("SELECT ?::int + 1, ?::text, ?::bytea")) {
            // The fifth use makes it a named statement on the server.
            for (int number = 0; number < 10; number++) {
                prepared.setInt(1, number);
                prepared.setString(2, "ü🐘");
                prepared.setBytes(3, new byte[] {0, -1});
                try (var rows = prepared.executeQuery()) {
                    rows.next();
                    say("types", rows.getInt(1) + " " + rows.getString(2) + " " + Arrays.toString(rows.getBytes(3)));
                }
            }
        }
        var big = one(connection, "SELECT repeat('x', 20000000)");
        say("a big value", big.length() + " " + sha256(big));
        try {
            one(connection, "SELECT 1/0");
        } catch (SQLException error) {
            say("error", error.getSQLState() + " " + error.getMessage().lines().findFirst().orElse(""));
        }
        connection.setAutoCommit(false);
        try (var statement = connection.createStatement()) {
            statement.execute("CREATE TEMP TABLE copied (id int, line text)");
        }
        try (var batch = connection.prepareStatement("INSERT INTO copied VALUES (?, ?)")) {
            for (int number = 0; number < 5000; number++) {
                batch.setInt(1, number);
                batch.setString(2, "line " + number);
                batch.addBatch();
            }
            say("batch", Arrays.stream(batch.executeBatch()).sum());
        }
        var copies = new CopyManager(connection.unwrap(BaseConnection.class));
        say("copy in", copies.copyIn("COPY copied FROM STDIN", new StringReader("5000\tlast\n")));
        var out = new StringWriter();
        say("copy out", copies.copyOut("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT", out) + " " + sha256(out.toString()));
        try (var statement = connection.createStatement()) {
            // Rows come fifty at a time.
            statement.setFetchSize(50);
            long sum = 0;
            try (var rows = statement.executeQuery("SELECT id FROM copied ORDER BY id")) {
                while (rows.next()) {
                    sum += rows.getLong(1);
                }
            }
            say("cursor", sum);
        }
        connection.commit();
        connection.setAutoCommit(true);
        try (var statement = connection.createStatement()) {
            statement.execute("LISTEN news");
            statement.execute("NOTIFY news, 'hello'");
            var heard = connection.unwrap(PGConnection.class).getNotifications(30_000);
            say("notification", heard[0].getName() + " " + heard[0].getParameter());
            // A time limit of the driver sends a cancel request.
            statement.setQueryTimeout(1);
            try {
                statement.execute("SELECT pg_sleep(100)");
            } catch (SQLException error) {
                say("cancelled", error.getSQLState());
            }
        }
        say("afterwards", one(connection, "SELECT 1"));
    }

    static String one(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); var rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static String sha256(String text) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(text.getBytes("UTF-8")));
    }

    static void say(String what, Object value) {
        System.out.println(what + ": " + value);
    }
}

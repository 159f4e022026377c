import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * Starts {@code pgentra local up} for a test class: a PostgreSQL that takes Microsoft Entra tokens. A JVM cannot change
 * its own environment: {@link #on} is for the programs that a test starts.
 *
 * <p>{@code @RegisterExtension static final PgentraLocal cloud = new PgentraLocal();}
 */
public class PgentraLocal implements BeforeAllCallback, AfterAllCallback {
    private static final String NAME = "junit-" + ProcessHandle.current().pid();
    private Process process;

    @Override
    public void beforeAll(ExtensionContext context) throws Exception {
        process = new ProcessBuilder("pgentra", "local", "up", "-o", "json", "--name", NAME)
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        if (new BufferedReader(new InputStreamReader(process.getInputStream())).readLine() == null) {
            throw new IllegalStateException("the local cloud did not start: see its message above");
        }
    }

    /** A program on a host of the local cloud, such as "vm" or "aks". */
    public ProcessBuilder on(String host, String... command) throws Exception {
        var env = new ProcessBuilder("pgentra", "local", "env", "--name", NAME, "--host", host, "--shell", "docker").start();
        var builder = new ProcessBuilder(command);
        new BufferedReader(new InputStreamReader(env.getInputStream())).lines().map(line -> line.split("=", 2))
                .forEach(pair -> builder.environment().put(pair[0], pair[1]));
        return builder;
    }

    @Override
    public void afterAll(ExtensionContext context) throws Exception {
        process.destroy();
        process.waitFor();
    }
}

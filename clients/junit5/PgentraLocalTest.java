import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

class PgentraLocalTest {
    @RegisterExtension
    static final PgentraLocal cloud = new PgentraLocal();

    @Test
    void aProgramSignsIn() throws Exception {
        for (var expected : Map.of("vm", "myVm", "aks", "myIdentity").entrySet()) {
            var query = cloud.on(expected.getKey(), "pgentra", "query", "-c", "SELECT current_user").start();
            var output = new String(query.getInputStream().readAllBytes());
            assertTrue(query.waitFor() == 0 && output.contains(expected.getValue()), output);
        }
    }
}

package pgentralocal

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestAProgramSignsIn(t *testing.T) {
	cloud := Start(t)
	for host, role := range map[string]string{"vm": "myVm", "aks": "myIdentity"} {
		t.Run(host, func(t *testing.T) {
			t.Setenv("JAVA_TOOL_OPTIONS", "-Down=yes")
			cloud.Use(t, host)
			if java := os.Getenv("JAVA_TOOL_OPTIONS"); !strings.HasPrefix(java, "-Down=yes -D") {
				t.Fatal(java)
			}
			output, err := exec.Command("pgentra", "query", "-c", "SELECT current_user").CombinedOutput()
			if err != nil || !strings.Contains(string(output), role) || os.Getenv("PGUSER") != role {
				t.Fatalf("%v: %s", err, output)
			}
		})
	}
}

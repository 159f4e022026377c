// Package pgentralocal starts `pgentra local up` for a test: a PostgreSQL that takes Microsoft Entra tokens.
package pgentralocal

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Cloud has what programs need of the document of `pgentra local up -o json`.
type Cloud struct{ Environments map[string]map[string]string }

// Start starts a cloud that ends with the test.
func Start(t testing.TB, options ...string) *Cloud {
	command := exec.Command("pgentra", append([]string{"local", "up", "-o", "json"}, options...)...)
	command.Args = append(command.Args, "--name", fmt.Sprint("go-", os.Getpid(), "-", rand.Uint32()))
	output, _ := command.StdoutPipe()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Signal(syscall.SIGTERM); _ = command.Wait() })
	cloud := new(Cloud)
	if err := json.NewDecoder(output).Decode(cloud); err != nil {
		t.Fatal("the local cloud did not start; pgentra local up says why")
	}
	return cloud
}

// Use gives the test the environment of a host, such as "vm" or "aks".
func (c *Cloud) Use(t testing.TB, host string) {
	own := map[string]string{"JAVA_TOOL_OPTIONS": os.Getenv("JAVA_TOOL_OPTIONS") + " "}
	for name, value := range c.Environments[host] {
		t.Setenv(name, own[name]+value)
	}
}

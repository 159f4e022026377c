// Signs in with pgx's pool and a token of azidentity. The server comes from PGHOST, PGUSER, …
//
// Usage: on_hosts HOST           prints a line of JSON: the role, or the error
//
//	on_hosts HOST --lives   keeps a pool; for each line of the input opens one more connection in it
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func credential(host string) (azcore.TokenCredential, error) {
	// A private authority, which MSAL would look up at login.microsoftonline.com.
	private := strings.Contains(os.Getenv("AZURE_AUTHORITY_HOST"), "localhost")
	switch host {
	case "aks-binding":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			DisableInstanceDiscovery: private, EnableAzureProxy: true,
		})
	case "azure-pipelines":
		return azidentity.NewAzurePipelinesCredential(
			os.Getenv("AZURESUBSCRIPTION_TENANT_ID"), os.Getenv("AZURESUBSCRIPTION_CLIENT_ID"),
			os.Getenv("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"), os.Getenv("SYSTEM_ACCESSTOKEN"),
			&azidentity.AzurePipelinesCredentialOptions{DisableInstanceDiscovery: private},
		)
	}
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		DisableInstanceDiscovery: private,
	})
}

func pool(ctx context.Context, host string) (*pgxpool.Pool, error) {
	signing, err := credential(host)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	config.MaxConns = 9
	config.BeforeConnect = func(ctx context.Context, connection *pgx.ConnConfig) error {
		scopes := []string{"https://ossrdbms-aad.database.windows.net/.default"}
		token, err := signing.GetToken(ctx, policy.TokenRequestOptions{Scopes: scopes})
		connection.Password = token.Token
		return err
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// The connection stays taken.
func role(ctx context.Context, pool *pgxpool.Pool) (role string, err error) {
	connection, err := pool.Acquire(ctx)
	if err != nil {
		return "", err
	}
	err = connection.QueryRow(ctx, "SELECT current_user").Scan(&role)
	return role, err
}

func say(role string, err error) {
	said := map[string]string{"client": "pgx", "role": role}
	if err != nil {
		said = map[string]string{"client": "pgx", "error": err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx := context.Background()
	pool, err := pool(ctx, os.Args[1])
	if err != nil {
		say("", err)
		return
	}
	if len(os.Args) == 2 {
		say(role(ctx, pool))
		return
	}
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		say(role(ctx, pool))
		os.Stdout.WriteString("{}\n")
	}
}

// The program of the article, as it is deployed on Azure: nothing in it knows of a local cloud.
//
// Usage: on_azure ROLE    prints the role that it is.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		log.Fatal(err)
	}
	scope := []string{"https://ossrdbms-aad.database.windows.net/.default"}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: scope})
	if err != nil {
		log.Fatal(err)
	}
	config, err := pgx.ParseConfig("host=mydemoserver.postgres.database.azure.com dbname=postgres sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	config.User, config.Password = os.Args[1], token.Token
	connection, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close(ctx)
	var role string
	if err := connection.QueryRow(ctx, "SELECT current_user").Scan(&role); err != nil {
		log.Fatal(err)
	}
	fmt.Println(role)
}

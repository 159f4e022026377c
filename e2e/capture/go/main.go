// One token, by the credential that is named.
package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// The SDK has no setting for the metadata service's address.
type redirected struct{}

func (redirected) Do(request *http.Request) (*http.Response, error) {
	if request.URL.Host == "169.254.169.254" {
		to, err := url.Parse(os.Getenv("CAPTURE_METADATA"))
		if err != nil {
			return nil, err
		}
		request.URL.Host = to.Host
		request.Host = ""
	}
	return http.DefaultClient.Do(request)
}

func managed(id azidentity.ManagedIDKind) (azcore.TokenCredential, error) {
	options := azidentity.ManagedIdentityCredentialOptions{ID: id}
	// Service Fabric's certificate is pinned by the SDK's own transport.
	if os.Getenv("IDENTITY_SERVER_THUMBPRINT") == "" {
		options.Transport = redirected{}
	}
	return azidentity.NewManagedIdentityCredential(&options)
}

func credential(name string) (azcore.TokenCredential, error) {
	tenant, client := os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID")
	switch name {
	case "default":
		options := azidentity.DefaultAzureCredentialOptions{}
		options.Transport = redirected{}
		return azidentity.NewDefaultAzureCredential(&options)
	case "managed":
		return managed(nil)
	case "managed-client-id":
		return managed(azidentity.ClientID(os.Getenv("CAPTURE_CLIENT_ID")))
	case "managed-object-id":
		return managed(azidentity.ObjectID(os.Getenv("CAPTURE_OBJECT_ID")))
	case "managed-resource-id":
		return managed(azidentity.ResourceID(os.Getenv("CAPTURE_RESOURCE_ID")))
	case "secret":
		options := azidentity.ClientSecretCredentialOptions{DisableInstanceDiscovery: true}
		return azidentity.NewClientSecretCredential(tenant, client, os.Getenv("AZURE_CLIENT_SECRET"), &options)
	case "certificate":
		certificates, key, err := pem()
		if err != nil {
			return nil, err
		}
		options := azidentity.ClientCertificateCredentialOptions{DisableInstanceDiscovery: true}
		return azidentity.NewClientCertificateCredential(tenant, client, certificates, key, &options)
	case "workload":
		options := azidentity.WorkloadIdentityCredentialOptions{DisableInstanceDiscovery: true}
		return azidentity.NewWorkloadIdentityCredential(&options)
	case "pipelines":
		options := azidentity.AzurePipelinesCredentialOptions{DisableInstanceDiscovery: true}
		connection, token := os.Getenv("CAPTURE_CONNECTION"), os.Getenv("SYSTEM_ACCESSTOKEN")
		return azidentity.NewAzurePipelinesCredential(tenant, client, connection, token, &options)
	}
	return nil, fmt.Errorf("no credential %q", name)
}

func pem() ([]*x509.Certificate, crypto.PrivateKey, error) {
	file, err := os.ReadFile(os.Getenv("AZURE_CLIENT_CERTIFICATE_PATH"))
	if err != nil {
		return nil, nil, err
	}
	return azidentity.ParseCertificates(file, nil)
}

func main() {
	made, err := credential(os.Args[1])
	if err == nil {
		scopes := []string{"https://ossrdbms-aad.database.windows.net/.default"}
		_, err = made.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: scopes})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

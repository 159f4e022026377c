// The calls that Terraform's providers azurerm and azuread make for an identity, its federated credential, an
// administrator of the server, a role assignment, and for users, groups and applications: with the libraries of those
// providers, in their order. It runs where the names of Azure lead to the local cloud.
//
// Usage: terraform_calls SUBSCRIPTION DOMAIN   with AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.
// Prints a line for each resource of Terraform: its name and "ok".
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-azure-helpers/lang/pointer"
	"github.com/hashicorp/go-azure-helpers/lang/response"
	"github.com/hashicorp/go-azure-helpers/resourcemanager/commonids"
	"github.com/hashicorp/go-azure-sdk/resource-manager/authorization/2022-04-01/roleassignments"
	"github.com/hashicorp/go-azure-sdk/resource-manager/authorization/2022-04-01/roledefinitions"
	"github.com/hashicorp/go-azure-sdk/resource-manager/managedidentity/2024-11-30/federatedidentitycredentials"
	"github.com/hashicorp/go-azure-sdk/resource-manager/managedidentity/2024-11-30/identities"
	"github.com/hashicorp/go-azure-sdk/resource-manager/postgresql/2025-08-01/administratormicrosoftentras"
	"github.com/hashicorp/go-azure-sdk/resource-manager/postgresql/2025-08-01/servers"
	sdkauth "github.com/hashicorp/go-azure-sdk/sdk/auth"
	sdkenv "github.com/hashicorp/go-azure-sdk/sdk/environments"
	"github.com/manicminer/hamilton/auth"
	"github.com/manicminer/hamilton/environments"
	"github.com/manicminer/hamilton/msgraph"
	"github.com/manicminer/hamilton/odata"
)

const group = "myResourceGroup"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	subscription, domain := os.Args[1], os.Args[2]
	principal := azurerm(ctx, subscription)
	azuread(ctx, domain, principal)
	removeIdentity(ctx, subscription)
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func equal[T comparable](what string, got, expected T) {
	if got != expected {
		check(fmt.Errorf("%s: %v, not %v", what, got, expected))
	}
}

func ok(resource string) {
	fmt.Printf("%s: ok\n", resource)
}

func authorizer(ctx context.Context) (sdkauth.Authorizer, sdkenv.Api) {
	azure := sdkenv.AzurePublic()
	credentials := sdkauth.Credentials{
		Environment:                           *azure,
		TenantID:                              os.Getenv("AZURE_TENANT_ID"),
		ClientID:                              os.Getenv("AZURE_CLIENT_ID"),
		ClientSecret:                          os.Getenv("AZURE_CLIENT_SECRET"),
		EnableAuthenticatingUsingClientSecret: true,
	}
	return must(sdkauth.NewAuthorizerFromCredentials(ctx, credentials, azure.ResourceManager)), azure.ResourceManager
}

// Creates what azurerm creates, and returns the principal of the identity, which stays.
func azurerm(ctx context.Context, subscription string) string {
	token, api := authorizer(ctx)

	server := must(servers.NewServersClientWithBaseURI(api))
	server.Client.Authorizer = token
	shown := must(server.Get(ctx, servers.NewFlexibleServerID(subscription, group, "mydemoserver")))
	equal("server", *shown.Model.Name, "mydemoserver")
	ok("data.azurerm_postgresql_flexible_server")

	id := commonids.NewUserAssignedIdentityID(subscription, group, "from-terraform")
	own := must(identities.NewIdentitiesClientWithBaseURI(api))
	own.Client.Authorizer = token
	before, err := own.UserAssignedIdentitiesGet(ctx, id)
	if err == nil || !response.WasNotFound(before.HttpResponse) {
		check(fmt.Errorf("an identity that is not there: %v", err))
	}
	tags := map[string]string{"made-by": "terraform"}
	must(own.UserAssignedIdentitiesCreateOrUpdate(ctx, id, identities.Identity{Location: shown.Model.Location, Tags: &tags}))
	identity := must(own.UserAssignedIdentitiesGet(ctx, id)).Model
	principal := *identity.Properties.PrincipalId
	equal("tags", (*identity.Tags)["made-by"], "terraform")
	ok("azurerm_user_assigned_identity")

	federated := must(federatedidentitycredentials.NewFederatedIdentityCredentialsClientWithBaseURI(api))
	federated.Client.Authorizer = token
	credential := federatedidentitycredentials.NewFederatedIdentityCredentialID(subscription, group, "from-terraform", "main")
	for _, subject := range []string{"repo:o/r:ref:refs/heads/main", "repo:o/r:environment:production"} {
		must(federated.CreateOrUpdate(ctx, credential, federatedidentitycredentials.FederatedIdentityCredential{
			Properties: &federatedidentitycredentials.FederatedIdentityCredentialProperties{
				Audiences: []string{"api://AzureADTokenExchange"},
				Issuer:    "https://token.actions.githubusercontent.com",
				Subject:   subject,
			},
		}))
		equal("subject", must(federated.Get(ctx, credential)).Model.Properties.Subject, subject)
	}
	must(federated.Delete(ctx, credential))
	ok("azurerm_federated_identity_credential")

	administrators := must(administratormicrosoftentras.NewAdministratorMicrosoftEntrasClientWithBaseURI(api))
	administrators.Client.Authorizer = token
	administrator := administratormicrosoftentras.NewAdministratorID(subscription, group, "mydemoserver", principal)
	check(administrators.AdministratorsMicrosoftEntraCreateOrUpdateThenPoll(ctx, administrator, administratormicrosoftentras.AdministratorMicrosoftEntraAdd{
		Properties: &administratormicrosoftentras.AdministratorMicrosoftEntraPropertiesForAdd{
			PrincipalName: pointer.To("from-terraform"),
			PrincipalType: pointer.To(administratormicrosoftentras.PrincipalTypeServicePrincipal),
			TenantId:      pointer.To(os.Getenv("AZURE_TENANT_ID")),
		},
	}))
	made := must(administrators.AdministratorsMicrosoftEntraGet(ctx, administrator)).Model
	equal("administrator", *made.Properties.PrincipalName, "from-terraform")
	check(administrators.AdministratorsMicrosoftEntraDeleteThenPoll(ctx, administrator))
	gone, err := administrators.AdministratorsMicrosoftEntraGet(ctx, administrator)
	if err == nil || !response.WasNotFound(gone.HttpResponse) {
		check(fmt.Errorf("an administrator that was deleted: %v", err))
	}
	ok("azurerm_postgresql_flexible_server_active_directory_administrator")

	roleAssignment(ctx, subscription, principal)
	return principal
}

// At a resource group, with the role by its name.
func roleAssignment(ctx context.Context, subscription, principal string) {
	token, api := authorizer(ctx)
	scope := commonids.NewResourceGroupID(subscription, group).ID()
	definitions := must(roledefinitions.NewRoleDefinitionsClientWithBaseURI(api))
	definitions.Client.Authorizer = token
	found := must(definitions.List(ctx, commonids.NewScopeID(scope), roledefinitions.ListOperationOptions{Filter: pointer.To("roleName eq 'Reader'")}))
	equal("roles named Reader", len(*found.Model), 1)
	role := *(*found.Model)[0].Id

	assignments := must(roleassignments.NewRoleAssignmentsClientWithBaseURI(api))
	assignments.Client.Authorizer = token
	id := roleassignments.NewScopedRoleAssignmentID(scope, uuid.NewString())
	must(assignments.Create(ctx, id, roleassignments.RoleAssignmentCreateParameters{
		Properties: roleassignments.RoleAssignmentProperties{
			PrincipalId:      principal,
			PrincipalType:    pointer.To(roleassignments.PrincipalTypeServicePrincipal),
			RoleDefinitionId: role,
		},
	}))
	one := must(assignments.Get(ctx, id, roleassignments.DefaultGetOperationOptions())).Model
	equal("principal", one.Properties.PrincipalId, principal)
	equal("scope", *one.Properties.Scope, scope)
	must(assignments.Delete(ctx, id, roleassignments.DefaultDeleteOperationOptions()))
	gone, err := assignments.Get(ctx, id, roleassignments.DefaultGetOperationOptions())
	if err == nil || !response.WasNotFound(gone.HttpResponse) {
		check(fmt.Errorf("a role assignment that was deleted: %v", err))
	}
	ok("azurerm_role_assignment")
}

func removeIdentity(ctx context.Context, subscription string) {
	token, api := authorizer(ctx)
	own := must(identities.NewIdentitiesClientWithBaseURI(api))
	own.Client.Authorizer = token
	id := commonids.NewUserAssignedIdentityID(subscription, group, "from-terraform")
	must(own.UserAssignedIdentitiesDelete(ctx, id))
	gone, err := own.UserAssignedIdentitiesGet(ctx, id)
	if err == nil || !response.WasNotFound(gone.HttpResponse) {
		check(fmt.Errorf("an identity that was deleted: %v", err))
	}
	ok("azurerm_user_assigned_identity, deleted")
}

// The provider tries again where a new object is not everywhere in the directory yet; here it is at once.
func client(base *msgraph.Client, token auth.Authorizer) {
	base.Authorizer = token
	base.DisableRetries = true
}

// Creates, changes and deletes what azuread does; `principal` becomes a member of the group.
func azuread(ctx context.Context, domain, principal string) {
	tenant := os.Getenv("AZURE_TENANT_ID")
	config := auth.Config{
		Environment:            environments.Global,
		TenantID:               tenant,
		ClientID:               os.Getenv("AZURE_CLIENT_ID"),
		ClientSecret:           os.Getenv("AZURE_CLIENT_SECRET"),
		EnableClientSecretAuth: true,
	}
	token := must(config.NewAuthorizer(ctx, environments.MsGraphGlobal))
	users, groups := msgraph.NewUsersClient(tenant), msgraph.NewGroupsClient(tenant)
	applications, principals := msgraph.NewApplicationsClient(tenant), msgraph.NewServicePrincipalsClient(tenant)
	objects := msgraph.NewDirectoryObjectsClient(tenant)
	for _, base := range []*msgraph.Client{&users.BaseClient, &groups.BaseClient, &applications.BaseClient, &principals.BaseClient, &objects.BaseClient} {
		client(base, token)
	}
	reference := func(id string) msgraph.DirectoryObject {
		object := msgraph.DirectoryObject{ID: &id}
		address := odata.Id(object.Uri(environments.MsGraphGlobal.Endpoint, msgraph.VersionBeta))
		return msgraph.DirectoryObject{ODataId: &address, ID: &id}
	}

	name := "ada@" + domain
	user := first(users.Create(ctx, msgraph.User{
		AccountEnabled:    pointer.To(true),
		DisplayName:       pointer.To("Ada Lovelace"),
		MailNickname:      pointer.To("ada"),
		UserPrincipalName: &name,
		PasswordProfile:   &msgraph.UserPasswordProfile{Password: pointer.To(uuid.NewString())},
	}))
	listed := first(users.List(ctx, odata.Query{Filter: fmt.Sprintf("userPrincipalName eq '%s'", name)}))
	equal("users", len(*listed), 1)
	equal("user", *(*listed)[0].ID, *user.ID)
	second(users.Update(ctx, msgraph.User{DirectoryObject: msgraph.DirectoryObject{ID: user.ID}, JobTitle: nullable("analyst")}))
	ok("azuread_user, data.azuread_user")

	app := first(applications.Create(ctx, msgraph.Application{DisplayName: pointer.To("from terraform")}))
	second(applications.Update(ctx, msgraph.Application{
		DirectoryObject: msgraph.DirectoryObject{ID: app.ID},
		IdentifierUris:  &[]string{"api://" + *app.AppId},
	}))
	again := first(applications.Get(ctx, *app.ID, odata.Query{}))
	equal("identifier", (*again.IdentifierUris)[0], "api://"+*app.AppId)
	equal("owners", len(*first(applications.ListOwners(ctx, *app.ID))), 1)
	ok("azuread_application")

	password := first(applications.AddPassword(ctx, *app.ID, msgraph.PasswordCredential{DisplayName: pointer.To("one")}))
	if *password.SecretText == "" {
		check(fmt.Errorf("no secret"))
	}
	second(applications.RemovePassword(ctx, *app.ID, *password.KeyId))
	ok("azuread_application_password")

	credential := first(applications.CreateFederatedIdentityCredential(ctx, *app.ID, msgraph.FederatedIdentityCredential{
		Audiences: &[]string{"api://AzureADTokenExchange"},
		Issuer:    pointer.To("https://token.actions.githubusercontent.com"),
		Name:      pointer.To("main"),
		Subject:   pointer.To("repo:o/r:ref:refs/heads/main"),
	}))
	shown := first(applications.GetFederatedIdentityCredential(ctx, *app.ID, *credential.ID, odata.Query{}))
	equal("subject", *shown.Subject, "repo:o/r:ref:refs/heads/main")
	second(applications.DeleteFederatedIdentityCredential(ctx, *app.ID, *credential.ID))
	ok("azuread_application_federated_identity_credential")

	servicePrincipal := first(principals.Create(ctx, msgraph.ServicePrincipal{AccountEnabled: pointer.To(true), AppId: app.AppId}))
	found := first(principals.List(ctx, odata.Query{Filter: fmt.Sprintf("appId eq '%s'", *app.AppId)}))
	equal("service principal", *(*found)[0].ID, *servicePrincipal.ID)
	ok("azuread_service_principal")

	owner := msgraph.Owners{reference(*user.ID)}
	team := first(groups.Create(ctx, msgraph.Group{
		DisplayName:     pointer.To("from terraform"),
		MailEnabled:     pointer.To(false),
		MailNickname:    pointer.To("from-terraform"),
		SecurityEnabled: pointer.To(true),
		Owners:          &owner,
	}))
	byName := first(groups.List(ctx, odata.Query{Filter: "displayName eq 'from terraform' and mailEnabled eq false and securityEnabled eq true"}))
	equal("group", *(*byName)[0].ID, *team.ID)
	ok("azuread_group, data.azuread_group")

	for _, member := range []string{*user.ID, *servicePrincipal.ID, principal} {
		team.Members = &msgraph.Members{reference(member)}
		second(groups.AddMembers(ctx, team))
		equal("member", *first(groups.GetMember(ctx, *team.ID, member)), member)
	}
	// Twice is as good as once.
	second(groups.AddMembers(ctx, team))
	equal("members", len(*first(groups.ListMembers(ctx, *team.ID))), 3)
	second(groups.RemoveMembers(ctx, *team.ID, &[]string{*user.ID, principal}))
	_, status, _ := groups.GetMember(ctx, *team.ID, principal)
	equal("a member that was removed", status, http.StatusNotFound)
	equal("members", len(*first(groups.ListMembers(ctx, *team.ID))), 1)
	ok("azuread_group_member")

	second(groups.Delete(ctx, *team.ID))
	second(principals.Delete(ctx, *servicePrincipal.ID))
	second(applications.Delete(ctx, *app.ID))
	second(users.Delete(ctx, *user.ID))
	_, status, _ = objects.Get(ctx, *app.ID, odata.Query{})
	equal("an application that was deleted", status, http.StatusNotFound)
	ok("azuread, deleted")
}

func nullable(text string) *msgraph.StringNullWhenEmpty {
	return pointer.To(msgraph.StringNullWhenEmpty(text))
}

func first[T any](value T, _ int, err error) T {
	check(err)
	return value
}

func second(_ int, err error) {
	check(err)
}

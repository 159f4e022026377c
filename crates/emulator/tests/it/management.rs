use std::time::Duration;

use pgentra_emulator::{Draft, Endpoint, Fault, LocalAzure, PrincipalKind, ServerEdit};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::client::{Ask, Reply, encode, imds, options, start};
use crate::jwt;

const MANAGEMENT: &str = "https://management.azure.com";
pub(crate) const GRAPH: &str = "https://graph.microsoft.com";
const VERSION: &str = "?api-version=2024-11-01";
const SERVERS: &str = "?api-version=2025-08-01";
const IDENTITIES: &str = "?api-version=2024-11-30";

/// One request of the administrator.
pub(crate) async fn ask(azure: &LocalAzure, method: &'static str, path: &str, body: Value) -> Reply {
    let draft = Draft::of_user(azure.administrator(), MANAGEMENT);
    ask_as(azure, &draft, (method, path), body).await
}

pub(crate) async fn ask_as(
    azure: &LocalAzure,
    who: &Draft,
    (method, path): (&'static str, &str),
    body: Value,
) -> Reply {
    let token = azure.mint(who).unwrap();
    let url = if path.starts_with("https://") {
        path.to_owned()
    } else {
        format!("{}{path}", azure.resource_manager())
    };
    let ask = Ask::get(url).method(method).trusting(azure.ca_pem());
    let ask = ask.header("authorization", format!("Bearer {}", token.expose_secret()));
    ask.body(if body.is_null() { String::new() } else { body.to_string() }).send().await.unwrap()
}

async fn graph(azure: &LocalAzure, path: &str) -> Reply {
    let draft = Draft::of_user(azure.administrator(), GRAPH);
    ask_as(azure, &draft, ("GET", path), Value::Null).await
}

fn group(azure: &LocalAzure) -> String {
    format!("/subscriptions/{}/resourceGroups/myResourceGroup", azure.subscription())
}

fn vm(azure: &LocalAzure) -> String {
    format!("{}/providers/Microsoft.Compute/virtualMachines/myVm{VERSION}", group(azure))
}

fn administrators(azure: &LocalAzure, id: &str) -> String {
    let group = group(azure);
    format!(
        "{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/mydemoserver/administrators{id}{SERVERS}"
    )
}

fn configuration(azure: &LocalAzure, name: &str) -> String {
    administrators(azure, "").replace("/administrators", &format!("/configurations{name}"))
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn what_the_machine_is_assigned_is_what_its_metadata_service_gives() {
    let azure = start().await;
    let shown = ask(&azure, "GET", &vm(&azure), Value::Null).await.json();
    let (own, other) = (azure.vm().clone(), azure.user_assigned().clone());
    assert_eq!(shown["identity"]["type"], "SystemAssigned, UserAssigned");
    assert_eq!(shown["identity"]["principalId"], json!(own.object_id()));
    assert_eq!(
        shown["identity"]["userAssignedIdentities"],
        json!({ other.resource_id(): { "principalId": other.object_id(), "clientId": other.client_id() } })
    );

    // A type without the user-assigned ones takes them away.
    let patch = json!({ "identity": { "type": "SystemAssigned" } });
    let patched = ask(&azure, "PATCH", &vm(&azure), patch).await;
    assert_eq!(
        (patched.status, &patched.json()["properties"]["provisioningState"]),
        (200, &json!("Updating"))
    );
    assert!(patched.headers.contains_key("azure-asyncoperation"));
    let client = format!("&client_id={}", other.client_id());
    assert_eq!(imds(&azure, &client).send().await.unwrap().status, 400);

    // A patch adds to those that are there; null takes one away; case does not matter.
    let further = azure.new_identity("further");
    let add = |id: &str, value: Value| json!({ "identity": { "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": { id: value } } });
    ask(&azure, "PATCH", &vm(&azure), add(&other.resource_id().to_uppercase(), json!({}))).await;
    let both = ask(&azure, "PATCH", &vm(&azure), add(further.resource_id(), json!({}))).await.json();
    assert_eq!(both["identity"]["userAssignedIdentities"].as_object().unwrap().len(), 2);
    let token = imds(&azure, &client).send().await.unwrap().token();
    assert_eq!(jwt::claims(&azure, &token).await["oid"], json!(other.object_id()));
    let left = ask(&azure, "PATCH", &vm(&azure), add(other.resource_id(), Value::Null)).await.json();
    assert_eq!(left["identity"]["userAssignedIdentities"].as_object().unwrap().len(), 1);

    // The system-assigned one dies with its assignment, and another is born.
    let before = azure.memberships();
    azure.join_group(own.object_id(), azure.group().object_id());
    assert_ne!(azure.memberships(), before);
    let none = ask(&azure, "PATCH", &vm(&azure), json!({ "identity": { "type": "None" } })).await.json();
    assert_eq!(none.get("identity"), None);
    assert_eq!(imds(&azure, "").send().await.unwrap().status, 400);
    let put = json!({ "location": "westeurope", "identity": { "type": "SystemAssigned" } });
    let born = ask(&azure, "PUT", &vm(&azure), put).await.json();
    assert_ne!(born["identity"]["principalId"], json!(own.object_id()));
    assert_eq!(azure.memberships(), before, "nothing is left of the principal");
    let token = imds(&azure, "").send().await.unwrap().token();
    assert_eq!(jwt::claims(&azure, &token).await["oid"], born["identity"]["principalId"]);
    azure.clock().advance(Duration::from_secs(1));
    let shown = ask(&azure, "GET", &vm(&azure), Value::Null).await.json();
    assert_eq!(shown["properties"]["provisioningState"], "Succeeded");
}

#[tokio::test]
async fn an_assignment_of_nothing_known_is_refused_and_changes_nothing() {
    let azure = start().await;
    let before = azure.machine().identities();
    for (identity, expected) in [
        (
            json!({ "type": "UserAssigned", "userAssignedIdentities": { "/subscriptions/x": {} } }),
            refused(400, "FailedIdentityOperation"),
        ),
        (json!({ "type": "Borrowed" }), refused(400, "InvalidIdentityType")),
    ] {
        let reply = ask(&azure, "PATCH", &vm(&azure), json!({ "identity": identity })).await;
        assert_eq!(code(&reply), expected);
    }
    let reply = ask(&azure, "PATCH", &vm(&azure), json!("no object")).await;
    assert_eq!(code(&reply), refused(400, "InvalidRequestContent"));
    let reply = ask(&azure, "PATCH", &vm(&azure), json!({ "tags": {} })).await;
    assert_eq!(reply.status, 200);
    assert_eq!(azure.machine().identities(), before);
}

#[tokio::test]
async fn a_token_must_be_signed_here_meant_for_this_service_and_alive() {
    let azure = start().await;
    let plain = Ask::get(format!("{}{}", azure.resource_manager(), vm(&azure))).trusting(azure.ca_pem());
    let reply = plain.clone().send().await.unwrap();
    assert_eq!(code(&reply), refused(401, "AuthenticationFailed"));
    assert!(reply.headers["www-authenticate"].to_str().unwrap().contains("authorization_uri="));
    let other_cloud = start().await;
    let forged = other_cloud.mint(&Draft::of_user(other_cloud.administrator(), MANAGEMENT)).unwrap();
    let reply =
        plain.header("authorization", format!("Bearer {}", forged.expose_secret())).send().await.unwrap();
    assert_eq!(code(&reply), refused(401, "InvalidAuthenticationToken"));
    let who = |audience: &str| Draft::of_user(azure.administrator(), audience);
    for (draft, expected) in [
        (who("https://ossrdbms-aad.database.windows.net"), "InvalidAuthenticationTokenAudience"),
        (who(GRAPH), "InvalidAuthenticationTokenAudience"),
        (who(MANAGEMENT).lifetime(Duration::ZERO), "ExpiredAuthenticationToken"),
        (who(MANAGEMENT).without("oid"), "InvalidAuthenticationToken"),
        (who(MANAGEMENT).claim("tid", azure.subscription().to_string()), "InvalidAuthenticationToken"),
    ] {
        let reply = ask_as(&azure, &draft, ("GET", &vm(&azure)), Value::Null).await;
        assert_eq!(code(&reply), refused(401, expected));
    }
    for audience in ["https://management.core.windows.net/", "https://management.azure.com/"] {
        assert_eq!(ask_as(&azure, &who(audience), ("GET", &vm(&azure)), Value::Null).await.status, 200);
    }
    let path = "/v1.0/servicePrincipals";
    let reply = ask_as(&azure, &who(MANAGEMENT), ("GET", path), Value::Null).await;
    assert_eq!(code(&reply), refused(401, "InvalidAuthenticationToken"));
    // the Azure CLI asks for tokens for the address that it was given
    let own = azure.graph().to_owned();
    assert_eq!(ask_as(&azure, &who(&own), ("GET", path), Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_new_identity_may_do_nothing() {
    let azure = start().await;
    let machine = Draft::of_identity(azure.vm(), MANAGEMENT);
    let list = format!("/subscriptions{VERSION}");
    let reply = ask_as(&azure, &machine, ("GET", &list), Value::Null).await;
    assert_eq!(reply.json(), json!({ "value": [] }));
    let reply = ask_as(&azure, &machine, ("PATCH", &vm(&azure)), json!({})).await;
    assert_eq!(code(&reply), refused(403, "AuthorizationFailed"));
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    for part in [azure.vm().object_id().to_string().as_str(), "Microsoft.Compute/virtualMachines/write"] {
        assert!(message.contains(part), "{message}");
    }
    let machine = Draft::of_identity(azure.vm(), GRAPH);
    let reply = ask_as(&azure, &machine, ("GET", "/v1.0/users"), Value::Null).await;
    assert_eq!(code(&reply), refused(403, "Authorization_RequestDenied"));
    let application = Draft::of_application(azure.application(), MANAGEMENT);
    let reply = ask_as(&azure, &application, ("GET", &list), Value::Null).await.json();
    assert_eq!(reply["value"][0]["subscriptionId"], json!(azure.subscription()));
    assert_eq!(reply["value"][0]["state"], "Enabled");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let azure = start().await;
    let (group, here) = (group(&azure), azure.subscription().to_string());
    let compute = "providers/Microsoft.Compute/virtualMachines";
    for (path, expected) in [
        (format!("{group}/{compute}/other{VERSION}"), refused(404, "ResourceNotFound")),
        (
            format!("/subscriptions/{here}/resourceGroups/none/{compute}/myVm{VERSION}"),
            refused(404, "ResourceGroupNotFound"),
        ),
        (vm(&azure).replace(&here, &azure.tenant().to_string()), refused(404, "SubscriptionNotFound")),
        (format!("{group}/{compute}/myVm"), refused(400, "MissingApiVersionParameter")),
        (format!("{group}/{compute}/myVm?api-version=newest"), refused(400, "InvalidApiVersionParameter")),
        (
            format!("{group}/{compute}/myVm?api-version=2099-01-01"),
            refused(400, "InvalidApiVersionParameter"),
        ),
        (
            administrators(&azure, "").replace(SERVERS, "?api-version=2030-01-01"),
            refused(400, "NoRegisteredProviderFound"),
        ),
        (administrators(&azure, "/unknown"), refused(404, "ResourceNotFound")),
        ("/nowhere".to_owned(), refused(404, "NotFound")),
    ] {
        assert_eq!(code(&ask(&azure, "GET", &path, Value::Null).await), expected, "{path}");
    }
    let reply = ask(&azure, "DELETE", &vm(&azure), Value::Null).await;
    assert_eq!(code(&reply), refused(405, "MethodNotAllowed"));
    let endpoints =
        Ask::get(format!("{}/metadata/endpoints?api-version=2022-09-01", azure.resource_manager()));
    let endpoints = endpoints.trusting(azure.ca_pem()).send().await.unwrap().json();
    assert_eq!(endpoints["resourceManager"], azure.resource_manager());
}

#[tokio::test]
async fn machines_and_servers_are_listed_where_they_are() {
    let azure = start().await;
    let subscription = format!("/subscriptions/{}", azure.subscription());
    ask(&azure, "PUT", &format!("{subscription}/resourceGroups/other{VERSION}"), json!({})).await;
    for (kind, version) in [
        ("Microsoft.Compute/virtualMachines", VERSION),
        ("Microsoft.DBforPostgreSQL/flexibleServers", SERVERS),
    ] {
        for (scope, count) in [("", 1), ("/resourceGroups/MYRESOURCEGROUP", 1), ("/resourceGroups/other", 0)]
        {
            let path = format!("{subscription}{scope}/providers/{kind}{version}");
            let listed = ask(&azure, "GET", &path, Value::Null).await.json();
            assert_eq!(listed["value"].as_array().unwrap().len(), count, "{path}");
        }
    }
    let server = administrators(&azure, "").replace("/administrators", "");
    let server = ask(&azure, "GET", &server, Value::Null).await.json();
    assert_eq!(server["properties"]["replicationRole"], "Primary");
    assert!(server["properties"]["fullyQualifiedDomainName"].is_string());
}

#[tokio::test]
async fn an_administrator_comes_and_goes_in_operations_that_take_time() {
    let azure = start().await;
    let mut changes = azure.follow_server();
    let listed = ask(&azure, "GET", &administrators(&azure, ""), Value::Null).await.json();
    let first = &listed["value"][0]["properties"];
    assert_eq!(first["principalName"], azure.administrator().user_principal_name());
    let id = azure.group().object_id();
    let path = administrators(&azure, &format!("/{id}"));
    let put = json!({ "properties": { "principalName": "DBAs", "principalType": "Group", "tenantId": azure.tenant() } });
    let accepted = ask(&azure, "PUT", &path, put.clone()).await;
    assert_eq!((accepted.status, accepted.text().as_str()), (202, ""));
    assert_eq!(accepted.headers["retry-after"], "1");
    // The database hears of it at once.
    let change = changes.try_recv().unwrap();
    match change.change() {
        ServerEdit::Add(new) => assert_eq!((new.object_id, new.kind), (id, PrincipalKind::Group)),
        other => panic!("{other:?}"),
    }
    let header = |name: &str| accepted.headers[name].to_str().unwrap().to_owned();
    let (status, location) = (header("azure-asyncoperation"), header("location"));

    let other = administrators(&azure, &format!("/{}", azure.administrator().object_id()));
    let busy = ask(&azure, "DELETE", &other, Value::Null).await;
    assert_eq!(code(&busy), refused(409, "ServerIsBusy"));
    let running = ask(&azure, "GET", &status, Value::Null).await;
    assert_eq!(
        (running.json()["status"].clone(), &running.headers["retry-after"]),
        (json!("InProgress"), &"1".parse().unwrap())
    );
    assert_eq!(ask(&azure, "GET", &location, Value::Null).await.status, 202);
    assert_eq!(ask(&azure, "GET", &path, Value::Null).await.status, 404);

    azure.clock().advance(Duration::from_secs(1));
    assert_eq!(ask(&azure, "GET", &status, Value::Null).await.json()["status"], "InProgress");
    change.done();
    assert_eq!(ask(&azure, "GET", &status, Value::Null).await.json()["status"], "Succeeded");
    let result = ask(&azure, "GET", &location, Value::Null).await;
    assert_eq!((result.status, &result.json()["properties"]["principalName"]), (200, &json!("DBAs")));
    assert_eq!(ask(&azure, "GET", &path, Value::Null).await.json()["name"], json!(id));

    let accepted = ask(&azure, "DELETE", &path, Value::Null).await;
    assert_eq!(accepted.status, 202);
    let change = changes.try_recv().unwrap();
    assert_eq!(change.change(), &ServerEdit::Remove(id));
    change.done();
    azure.clock().advance(Duration::from_secs(1));
    let location = accepted.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(ask(&azure, "GET", &location, Value::Null).await.status, 204);
    assert_eq!(ask(&azure, "DELETE", &path, Value::Null).await.status, 204);

    let accepted = ask(&azure, "PUT", &path, put).await;
    changes.try_recv().unwrap().refused("not this one");
    azure.clock().advance(Duration::from_secs(1));
    let header = |name: &str| accepted.headers[name].to_str().unwrap().to_owned();
    let ended = ask(&azure, "GET", &header("azure-asyncoperation"), Value::Null).await.json();
    assert_eq!((&ended["status"], &ended["error"]["message"]), (&json!("Failed"), &json!("not this one")));
    assert_eq!(code(&ask(&azure, "GET", &header("location"), Value::Null).await), refused(400, "BadRequest"));
    assert_eq!(ask(&azure, "GET", &path, Value::Null).await.status, 404);

    for wrong in [
        json!({ "properties": { "principalName": "", "principalType": "Group" } }),
        json!({ "properties": { "principalName": "x".repeat(64), "principalType": "Group" } }),
        json!({ "properties": { "principalName": "x", "principalType": "Robot" } }),
        json!({ "properties": { "principalName": "x", "principalType": "User", "tenantId": azure.subscription() } }),
    ] {
        assert_eq!(code(&ask(&azure, "PUT", &path, wrong).await), refused(400, "InvalidParameterValue"));
    }
    assert_eq!(
        ask(&azure, "GET", "/subscriptions/x/providers/a/locations/l/operations/o", Value::Null).await.status,
        400
    );
}

#[tokio::test]
async fn group_sync_is_a_parameter_of_the_server() {
    let azure = start().await;
    let mut changes = azure.follow_server();
    let path = configuration(&azure, "/pgaadauth.enable_group_sync");
    let value = async || ask(&azure, "GET", &path, Value::Null).await.json()["properties"]["value"].clone();
    assert_eq!(value().await, "off");
    let listed = ask(&azure, "GET", &configuration(&azure, ""), Value::Null).await.json();
    assert_eq!(listed["value"][0]["name"], "pgaadauth.enable_group_sync");

    let set = json!({ "properties": { "value": "ON", "source": "user-override" } });
    let accepted = ask(&azure, "PATCH", &path, set).await;
    assert_eq!(accepted.status, 202);
    let change = changes.try_recv().unwrap();
    assert_eq!(change.change(), &ServerEdit::GroupSync(true));
    change.done();
    assert_eq!(value().await, "off");
    azure.clock().advance(Duration::from_secs(1));
    assert_eq!(value().await, "on");
    let location = accepted.headers["location"].to_str().unwrap();
    let result = ask(&azure, "GET", location, Value::Null).await.json();
    assert_eq!(result["properties"]["source"], "user-override");

    let default = json!({ "properties": { "source": "system-default" } });
    assert_eq!(ask(&azure, "PUT", &path, default).await.status, 202);
    assert_eq!(changes.try_recv().unwrap().change(), &ServerEdit::GroupSync(false));
    azure.clock().advance(Duration::from_secs(1));
    let wrong = json!({ "properties": { "value": "perhaps" } });
    assert_eq!(code(&ask(&azure, "PUT", &path, wrong).await), refused(400, "InvalidParameterValue"));
    let unknown = ask(&azure, "GET", &configuration(&azure, "/shared_buffers"), Value::Null).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn pgbouncer_has_parameters_of_the_server() {
    let azure = start().await;
    let mut changes = azure.follow_server();
    let path = |name: &str| configuration(&azure, &format!("/pgbouncer.{name}"));
    let set = async |name: &str, value: &str| {
        let body = json!({ "properties": { "value": value, "source": "user-override" } });
        ask(&azure, "PUT", &path(name), body).await
    };
    for (name, default, kind) in [
        ("enabled", "false", "Boolean"),
        ("default_pool_size", "50", "Integer"),
        ("pool_mode", "transaction", "Enumeration"),
        ("stats_users", "", "String"),
    ] {
        let shown = ask(&azure, "GET", &path(name), Value::Null).await.json()["properties"].clone();
        assert_eq!((&shown["value"], &shown["dataType"]), (&json!(default), &json!(kind)), "{name}");
        assert_eq!(shown["source"], "system-default");
    }
    let listed = ask(&azure, "GET", &configuration(&azure, ""), Value::Null).await.json();
    assert_eq!(listed["value"].as_array().unwrap().len(), 11);

    assert_eq!(set("enabled", "True").await.status, 202);
    let change = changes.try_recv().unwrap();
    let enabled = ServerEdit::PgBouncer { parameter: "pgbouncer.enabled", value: "true".to_owned() };
    assert_eq!(change.change(), &enabled);
    change.done();
    azure.clock().advance(Duration::from_secs(1));
    let shown = ask(&azure, "GET", &path("enabled"), Value::Null).await.json();
    assert_eq!(shown["properties"]["value"], "true");
    for (name, value) in [
        ("enabled", "perhaps"),
        ("default_pool_size", "0"),
        ("default_pool_size", "many"),
        ("pool_mode", "none"),
        // It would be a line of PgBouncer's configuration.
        ("stats_users", "myVm\nadmin_users = myVm"),
    ] {
        let answer = set(name, value).await;
        assert_eq!(code(&answer), refused(400, "InvalidParameterValue"), "{name} {value}");
    }
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn pgbouncer_that_is_not_there_cannot_be_switched_on() {
    let mut options = options();
    options.server.as_mut().unwrap().pgbouncer_missing = Some("there is none".to_owned());
    let azure = LocalAzure::start(options).await.unwrap();
    let path = configuration(&azure, "/pgbouncer.enabled");
    let set = json!({ "properties": { "value": "true", "source": "user-override" } });
    let answer = ask(&azure, "PUT", &path, set).await;
    assert_eq!(code(&answer), refused(400, "InvalidParameterValue"));
    assert!(answer.json().to_string().contains("there is none"));
}

#[tokio::test]
async fn identities_are_resources_and_principals() {
    let azure = start().await;
    let subscription = format!("/subscriptions/{}", azure.subscription());
    let other = format!("{subscription}/resourceGroups/other");
    let provider = "providers/Microsoft.ManagedIdentity/userAssignedIdentities";
    let path = format!("{other}/{provider}/myIdentity{IDENTITIES}");
    let body = json!({ "location": "westeurope" });
    assert_eq!(code(&ask(&azure, "PUT", &path, body.clone()).await), refused(404, "ResourceGroupNotFound"));
    assert_eq!(ask(&azure, "PUT", &format!("{other}{VERSION}"), body.clone()).await.status, 201);
    let created = ask(&azure, "PUT", &path, body.clone()).await;
    assert_eq!(created.status, 201);
    let again = ask(&azure, "PUT", &path, body).await;
    assert_eq!((again.status, again.json()), (200, created.json()));
    let all = ask(&azure, "GET", &format!("{subscription}/{provider}{IDENTITIES}"), Value::Null).await.json();
    let here =
        ask(&azure, "GET", &format!("{}/{provider}{IDENTITIES}", group(&azure)), Value::Null).await.json();
    assert_eq!((all["value"].as_array().unwrap().len(), here["value"].as_array().unwrap().len()), (2, 1));

    let found = graph(&azure, "/v1.0/servicePrincipals?$filter=displayName%20eq%20'myIdentity'").await.json();
    let ids: Vec<_> = found["value"].as_array().unwrap().iter().map(|one| one["appId"].clone()).collect();
    assert_eq!(
        ids,
        [json!(azure.user_assigned().client_id()), created.json()["properties"]["clientId"].clone()]
    );
}

#[tokio::test]
async fn graph_finds_selects_and_pages() {
    let azure = start().await;
    let vm = azure.vm();
    for (query, expected) in [
        ("$filter=displayName eq 'myVm'".to_owned(), vec!["myVm"]),
        ("$filter=startswith(displayName,'my')".to_owned(), vec!["myApp", "myVm", "myIdentity"]),
        (format!("$filter=servicePrincipalNames/any(c:c eq '{}')", vm.client_id()), vec!["myVm"]),
        ("$filter=displayName eq 'unknown'".to_owned(), vec![]),
    ] {
        let query = encode(&query).replace("%24filter%3D", "$filter=");
        let found = graph(&azure, &format!("/v1.0/servicePrincipals?{query}")).await.json();
        let names: Vec<_> =
            found["value"].as_array().unwrap().iter().map(|one| &one["displayName"]).collect();
        assert_eq!(names, expected, "{query}");
    }
    let by_key = format!("/v1.0/servicePrincipals(appId='{}')?$select=id,displayName", vm.client_id());
    let one = graph(&azure, &by_key).await.json();
    assert_eq!((&one["id"], one.get("appId")), (&json!(vm.object_id()), None));
    let member = azure.administrator();
    for path in [
        format!("/v1.0/users/{}", member.user_principal_name()),
        format!("/v1.0/users/{}", member.object_id()),
        format!("/v1.0/directoryObjects/{}", member.object_id()),
    ] {
        assert_eq!(graph(&azure, &path).await.json()["displayName"], member.name(), "{path}");
    }

    let mut next = "/v1.0/servicePrincipals?$top=2&$count=true".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = graph(&azure, &next).await.json();
        assert_eq!(page.get("@odata.count"), None, "a count takes a header");
        pages.push(page["value"].as_array().unwrap().len());
        match page["@odata.nextLink"].as_str() {
            Some(link) => next = link.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, [2, 2]);

    for (path, expected) in [
        ("/v1.0/servicePrincipals?$filter=displayName%20ne%20'x'", refused(400, "Request_UnsupportedQuery")),
        ("/v1.0/servicePrincipals?$top=many", refused(400, "Request_UnsupportedQuery")),
        ("/v1.0/robots", refused(400, "BadRequest")),
        ("/v1.0/groups/unknown", refused(404, "Request_ResourceNotFound")),
        ("/v1.0/servicePrincipals(appId='x')", refused(404, "Request_ResourceNotFound")),
    ] {
        assert_eq!(code(&graph(&azure, path).await), expected, "{path}");
    }
}

#[tokio::test]
async fn graph_tells_which_principals_are_left() {
    let azure = start().await;
    let (user, group) = (azure.new_user("Ada Lovelace"), azure.new_group("Analysts"));
    let ids = [user.object_id(), group.object_id(), azure.vm().object_id(), azure.subscription()];
    let draft = Draft::of_user(azure.administrator(), GRAPH);
    let left = async |ids: Value| {
        let path = "/v1.0/directoryObjects/getByIds?$select=id";
        ask_as(&azure, &draft, ("POST", path), json!({ "ids": ids })).await
    };
    let found = left(json!(ids)).await.json();
    let kinds: Vec<_> = found["value"].as_array().unwrap().iter().map(|one| &one["@odata.type"]).collect();
    let named = ["servicePrincipal", "user", "group"].map(|kind| format!("#microsoft.graph.{kind}"));
    assert_eq!(kinds, named.each_ref());
    azure.delete_principal(user.object_id());
    azure.delete_principal(azure.application().object_id());
    assert_eq!(left(json!(ids)).await.json()["value"].as_array().unwrap().len(), 2);
    assert_eq!(code(&left(json!(["x"])).await), refused(400, "Request_BadRequest"));
    assert_eq!(code(&left(json!(vec![ids[0]; 1001])).await), refused(400, "Request_BadRequest"));
}

/// An identity that is deleted is nowhere any more, and neither is the principal of an identity that an app had of its
/// own.
#[tokio::test]
async fn a_deleted_identity_leaves_nothing_behind() {
    let azure = start().await;
    let app = format!("{}/providers/Microsoft.Web/sites/myWebApp?api-version=2023-12-01", group(&azure));
    let before = azure.memberships();
    let names = |azure: &LocalAzure| format!("{:?} {:?}", azure.principals(), azure.machine().identities());
    for by_client in [true, false] {
        let identity = azure.new_identity("mine");
        let named = json!({ identity.resource_id(): {} });
        let both = json!({ "identity": { "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": named } });
        let given = ask(&azure, "PATCH", &app, both).await.json();
        let own: uuid::Uuid = given["identity"]["principalId"].as_str().unwrap().parse().unwrap();
        azure.machine().assign(identity.clone());
        for member in [own, identity.object_id()] {
            azure.join_group(member, azure.group().object_id());
        }
        if by_client {
            let path = format!("{}?api-version=2023-01-31", identity.resource_id());
            assert_eq!(ask(&azure, "DELETE", &path, Value::Null).await.status, 200);
        } else {
            azure.delete_principal(identity.object_id());
        }
        let left = ask(&azure, "GET", &app, Value::Null).await.json();
        assert_eq!(left["identity"]["type"], "SystemAssigned");
        assert!(!names(&azure).contains("mine"), "{}", names(&azure));
        let none = json!({ "identity": { "type": "None" } });
        assert_eq!(ask(&azure, "PATCH", &app, none).await.status, 200);
        assert_eq!(azure.memberships(), before);
    }
}

#[tokio::test]
async fn roles_are_assigned_at_any_scope() {
    let azure = start().await;
    let subscription = format!("/subscriptions/{}", azure.subscription());
    let group = group(&azure);
    let server = format!("{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/mydemoserver");
    let provider = "/providers/Microsoft.Authorization";
    let version = "api-version=2022-04-01";
    let roles =
        format!("{subscription}{provider}/roleDefinitions?$filter=roleName%20eq%20'reader'&{version}");
    let roles = ask(&azure, "GET", &roles, Value::Null).await.json();
    let reader = roles["value"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(roles["value"][0]["properties"]["roleName"], "Reader");
    let principal = azure.user_assigned().object_id();
    let body = json!({"properties": {"principalId": principal, "roleDefinitionId": reader, "principalType": "ServicePrincipal"}});
    let [one, two] = [1, 2].map(uuid::Uuid::from_u128);
    let assignment = |scope: &str, name| format!("{scope}{provider}/roleAssignments/{name}?{version}");
    for (method, path, status, code_or_scope) in [
        ("PUT", assignment(&server, one), 201, &*server),
        ("PUT", assignment(&server, one), 201, &server),
        ("PUT", assignment(&server, two), 409, "RoleAssignmentExists"),
        ("PUT", assignment(&subscription, two), 201, &subscription),
        ("GET", assignment(&server, one), 200, &server),
        ("GET", assignment(&group, one), 404, "RoleAssignmentNotFound"),
        ("PUT", assignment(&group, one).replace(&one.to_string(), "x"), 400, "InvalidRequestContent"),
    ] {
        let reply = ask(&azure, method, &path, body.clone()).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        let said = reply.json();
        let said =
            said["properties"]["scope"].as_str().or(said["error"]["code"].as_str()).unwrap().to_owned();
        assert_eq!(said, code_or_scope, "{method} {path}");
    }
    let other = azure.new_group("staff").object_id();
    for (member, value, expected) in [
        ("principalId", json!(azure.tenant()), refused(400, "PrincipalNotFound")),
        ("principalType", json!("User"), refused(400, "UnmatchedPrincipalType")),
        ("principalId", json!(other), refused(400, "UnmatchedPrincipalType")),
        ("roleDefinitionId", json!(azure.tenant()), refused(404, "RoleDefinitionDoesNotExist")),
    ] {
        let mut body = body.clone();
        body["properties"][member] = value;
        let reply = ask(&azure, "PUT", &assignment(&group, one), body).await;
        assert_eq!(code(&reply), expected, "{member}");
    }
    let count = async |scope: &str, filter: &str| {
        let path = format!("{scope}{provider}/roleAssignments?{filter}&{version}");
        ask(&azure, "GET", &path, Value::Null).await.json()["value"].as_array().map(Vec::len)
    };
    assert_eq!(count(&subscription, "").await, Some(2));
    assert_eq!(count(&group, "$filter=atScope()").await, Some(1), "what is above is in the list too");
    assert_eq!(count(&server, &format!("$filter=principalId%20eq%20'{principal}'")).await, Some(2));
    assert_eq!(count(&server, &format!("$filter=principalId%20eq%20'{}'", azure.tenant())).await, Some(0));
    assert_eq!(count(&server, "$filter=other").await, None);
    assert_eq!(ask(&azure, "DELETE", &assignment(&server, one), Value::Null).await.status, 200);
    assert_eq!(ask(&azure, "DELETE", &assignment(&server, one), Value::Null).await.status, 204);
    assert_eq!(count(&subscription, "").await, Some(1));
}

#[tokio::test]
async fn an_identity_has_tags_and_is_deleted_with_its_principal() {
    let azure = start().await;
    let path = format!(
        "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/worker{IDENTITIES}",
        group(&azure)
    );
    let made = ask(&azure, "PUT", &path, json!({"location": "x", "tags": {"a": "b"}})).await.json();
    assert_eq!(made["tags"], json!({"a": "b"}));
    let changed = ask(&azure, "PATCH", &path, json!({"tags": {"c": "d"}})).await.json();
    assert_eq!(changed["tags"], json!({"c": "d"}));
    assert_eq!(ask(&azure, "PATCH", &path, json!({})).await.json()["tags"], json!({"c": "d"}));
    for tags in [json!([]), json!({"a": 1}), json!({"a": "b".repeat(257)})] {
        assert_eq!(
            code(&ask(&azure, "PUT", &path, json!({"tags": tags})).await),
            refused(400, "InvalidTags")
        );
    }
    let identity = azure.identities().pop().unwrap();
    azure.machine().assign(identity.clone());
    assert_eq!(ask(&azure, "DELETE", &path, Value::Null).await.status, 200);
    assert!(!azure.machine().identities().contains(&identity) && !azure.identities().contains(&identity));
    assert_eq!(ask(&azure, "DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(ask(&azure, "GET", &path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn faults_reach_the_management_api_too() {
    let azure = start().await;
    azure.faults().push(Endpoint::VirtualMachine, Fault::throttled(Duration::from_secs(7)));
    let reply = ask(&azure, "GET", &vm(&azure), Value::Null).await;
    assert_eq!((reply.status, &reply.headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(ask(&azure, "GET", &vm(&azure), Value::Null).await.status, 200);
    // an operation that never ends
    azure.faults().push_lasting(Endpoint::Operation, Fault::status(200, r#"{"status":"InProgress"}"#));
    let patched = ask(&azure, "PATCH", &vm(&azure), json!({})).await;
    azure.clock().advance(Duration::from_secs(86_400));
    let status = patched.headers["azure-asyncoperation"].to_str().unwrap().to_owned();
    let draft = Draft::of_user(azure.administrator(), MANAGEMENT);
    let reply = ask_as(&azure, &draft, ("GET", &status), Value::Null).await;
    assert_eq!(reply.json()["status"], "InProgress");
    assert_eq!(azure.journal().count(Endpoint::Operation), 1);
}

//! Changes of the directory through Microsoft Graph.

use pgentra_emulator::{Draft, LocalAzure};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::client::{Ask, POSTGRESQL, Reply, start};
use crate::jwt;
use crate::management::{GRAPH, ask_as};

pub(crate) async fn graph(azure: &LocalAzure, method: &'static str, path: &str, body: Value) -> Reply {
    let draft = Draft::of_user(azure.administrator(), GRAPH);
    ask_as(azure, &draft, (method, &format!("/v1.0/{path}")), body).await
}

pub(crate) async fn created(azure: &LocalAzure, path: &str, body: Value) -> Value {
    let reply = graph(azure, "POST", path, body).await;
    assert_eq!(reply.status, 201, "{path}: {}", reply.text());
    reply.json()
}

fn domain(azure: &LocalAzure) -> String {
    azure.administrator().user_principal_name().split_once('@').unwrap().1.to_owned()
}

fn ada(azure: &LocalAzure) -> Value {
    json!({
        "accountEnabled": true,
        "displayName": "Ada Lovelace",
        "mailNickname": "ada",
        "userPrincipalName": format!("ada@{}", domain(azure)),
        "passwordProfile": { "password": "a password" },
    })
}

fn staff() -> Value {
    json!({ "displayName": "staff", "mailNickname": "staff", "mailEnabled": false, "securityEnabled": true })
}

fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member);
    object
}

#[tokio::test]
async fn users_groups_and_members_come_and_go() {
    let azure = start().await;
    let changes = azure.principals_changed();
    let user = created(&azure, "users", ada(&azure)).await;
    assert_eq!((&user["accountEnabled"], &user["surname"]), (&json!(true), &Value::Null));
    assert!(user["passwordProfile"].is_null(), "no password is kept: {user}");
    let group = created(&azure, "groups", staff()).await;
    assert!(changes.has_changed().unwrap());
    let (user, group) = (user["id"].as_str().unwrap(), group["id"].as_str().unwrap());
    let reference = |id: &str| json!({ "@odata.id": format!("{GRAPH}/v1.0/directoryObjects/{id}") });
    let identity = azure.user_assigned().object_id().to_string();
    let unknown = azure.subscription().to_string();
    let members = format!("groups/{group}/members");
    let add = format!("{members}/$ref");
    let remove = |id: &str| format!("{members}/{id}/$ref");
    for (method, path, body, status, said) in [
        ("POST", &*add, reference(user), 204, ""),
        ("POST", &add, reference(&identity), 204, ""),
        ("POST", &add, reference(user), 400, "One or more added object references already exist"),
        ("POST", &add, reference(&unknown), 404, "does not exist or one of its queried"),
        ("POST", &add, reference(group), 400, "no groups in groups"),
        ("POST", &add, json!({}), 400, "Invalid reference"),
        ("GET", &remove(user), Value::Null, 200, user),
        ("GET", &format!("users/{user}/memberOf"), Value::Null, 200, "staff"),
        ("GET", &format!("{members}/microsoft.graph.servicePrincipal"), Value::Null, 200, "myIdentity"),
        ("GET", &format!("{members}?$filter=displayName%20eq%20'myIdentity'"), Value::Null, 200, &identity),
        ("POST", &format!("users/{user}/getMemberGroups"), json!({"securityEnabledOnly": true}), 200, group),
        ("DELETE", &remove(user), Value::Null, 204, ""),
        ("DELETE", &remove(user), Value::Null, 404, "does not exist or one of its queried"),
        ("PATCH", &format!("users/{user}"), json!({"displayName": "Ada", "surname": "King"}), 204, ""),
        ("GET", &format!("users/ada%40{}", domain(&azure)), Value::Null, 200, "\"surname\":\"King\""),
        ("DELETE", &format!("users/{user}"), Value::Null, 204, ""),
        ("GET", &format!("users/{user}"), Value::Null, 404, "does not exist"),
        ("DELETE", &format!("groups/{group}"), Value::Null, 204, ""),
    ] {
        let reply = graph(&azure, method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(said), "{method} {path}: {}", reply.text());
    }
    assert_eq!(
        (azure.users().len(), azure.principals().iter().filter(|it| it.name == "staff").count()),
        (1, 0)
    );
}

#[tokio::test]
async fn what_graph_refuses_changes_nothing() {
    let azure = start().await;
    created(&azure, "users", ada(&azure)).await;
    created(&azure, "groups", staff()).await;
    let before = azure.principals();
    let mut elsewhere = ada(&azure);
    elsewhere["userPrincipalName"] = json!("ada@elsewhere.example");
    let mut control = staff();
    control["displayName"] = json!("a\nb");
    let administrator = azure.administrator().object_id();
    let machine = azure.vm().object_id();
    let own = azure.application().client_id();
    for (method, path, body, status, said) in [
        ("POST", "users", ada(&azure), 400, "property userPrincipalName already exists"),
        ("POST", "users", elsewhere, 400, "one of the verified domain names"),
        ("POST", "users", without(ada(&azure), "mailNickname"), 400, "'mailNickname' of resource 'User'"),
        ("POST", "users", without(ada(&azure), "passwordProfile"), 400, "A password must be specified"),
        ("POST", "groups", without(staff(), "displayName"), 400, "'displayName' of resource 'Group'"),
        ("POST", "groups", control, 400, "Invalid value specified"),
        ("POST", "groups", Value::Null, 400, "Unable to read JSON"),
        ("POST", "directoryObjects", json!({}), 405, "not allowed"),
        ("POST", "servicePrincipals", json!({"appId": own}), 409, "is already in use"),
        (
            "POST",
            "servicePrincipals",
            json!({"appId": machine}),
            400,
            "does not reference a valid application",
        ),
        ("DELETE", &format!("users/{administrator}"), Value::Null, 403, "Insufficient privileges"),
        ("DELETE", &format!("servicePrincipals/{machine}"), Value::Null, 403, "Insufficient privileges"),
        ("PUT", "groups", staff(), 405, "not allowed"),
    ] {
        let reply = graph(&azure, method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(said), "{method} {path}: {}", reply.text());
    }
    // Another user reads, and changes nothing.
    let other = Draft::of_user(&azure.users()[1], GRAPH);
    assert_eq!(ask_as(&azure, &other, ("GET", "/v1.0/groups"), Value::Null).await.status, 200);
    assert_eq!(ask_as(&azure, &other, ("POST", "/v1.0/groups"), staff()).await.status, 403);
    assert_eq!(azure.principals(), before);
}

#[tokio::test]
async fn a_refused_change_leaves_nothing_behind() {
    let azure = start().await;
    let group = created(&azure, "groups", staff()).await;
    let group = format!("groups/{}", group["id"].as_str().unwrap());
    let directory = async || {
        let mut all = Vec::new();
        for set in ["users", "groups", "applications", "servicePrincipals", &format!("{group}/members")] {
            all.push(graph(&azure, "GET", set, Value::Null).await.json()["value"].clone());
        }
        all
    };
    let before = directory().await;
    let long = "x".repeat(17 * 1024);
    let reference = |id: uuid::Uuid| format!("{GRAPH}/v1.0/directoryObjects/{id}");
    let members = json!([reference(azure.administrator().object_id()), reference(azure.subscription())]);
    let with = |mut object: Value, member: &str, value: Value| {
        object[member] = value;
        object
    };
    let domain = domain(&azure);
    for (method, path, body) in [
        ("POST", "users", with(ada(&azure), "surname", json!(long))),
        ("POST", "groups", with(staff(), "description", json!(long))),
        ("POST", "groups", with(staff(), "members@odata.bind", members.clone())),
        ("POST", "groups", with(staff(), "owners@odata.bind", members.clone())),
        ("POST", "applications", json!({"displayName": "x", "keyCredentials": [{}]})),
        ("PATCH", &*group, json!({"members@odata.bind": members, "displayName": "other"})),
        (
            "PATCH",
            &group,
            json!({"members@odata.bind": [members[0]], "description": long, "displayName": "other"}),
        ),
        (
            "PATCH",
            &format!("users/{}", azure.users()[0].object_id()),
            json!({"accountEnabled": false, "surname": long, "userPrincipalName": format!("x@{domain}")}),
        ),
    ] {
        let reply = graph(&azure, method, path, body).await;
        assert!((400..500).contains(&reply.status), "{method} {path}: {}", reply.text());
        assert_eq!(directory().await, before, "{method} {path}: {}", reply.text());
    }
    for option in ["$orderby=displayName", "$search=x", "$skip=1", "$unknown=x"] {
        let reply = graph(&azure, "GET", &format!("users?{option}"), Value::Null).await;
        assert_eq!(reply.status, 400, "{option}");
        assert_eq!(reply.json()["error"]["code"], "Request_UnsupportedQuery", "{option}");
    }
    assert_eq!(graph(&azure, "GET", "users?$expand=memberOf", Value::Null).await.status, 200);
}

#[tokio::test]
async fn an_application_signs_in_with_what_graph_gave_it() {
    let azure = start().await;
    let app = created(&azure, "applications", json!({"displayName": "nightly"})).await;
    let (id, client) = (app["id"].as_str().unwrap(), app["appId"].as_str().unwrap());
    let made = json!({"passwordCredential": {"displayName": "one"}});
    let added = graph(&azure, "POST", &format!("applications/{id}/addPassword"), made).await.json();
    let secret = added["secretText"].as_str().unwrap();
    assert_eq!((secret.len(), &added["hint"]), (40, &json!(&secret[..3])));
    let sign_in = async |secret: &str| {
        let url = format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant());
        let scope = format!("{POSTGRESQL}/.default");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
            ("scope", &scope),
        ];
        Ask::post(url, &form).trusting(azure.ca_pem()).send().await.unwrap()
    };
    let number = |reply: &Reply| reply.json()["error_codes"][0].clone();
    assert_eq!(number(&sign_in(secret).await), 7_000_229, "without a service principal");
    let principal = created(&azure, "servicePrincipals", json!({"appId": client})).await;
    let token = sign_in(secret).await.token();
    assert_eq!(jwt::claims(&azure, &token).await["oid"], principal["id"]);
    assert_eq!(number(&sign_in("wrong").await), 7_000_215);

    let credentials = format!("applications/{id}/federatedIdentityCredentials");
    let main = json!({
        "name": "main", "issuer": "https://issuer.example", "subject": "s", "audiences": ["api://AzureADTokenExchange"],
    });
    let credential = created(&azure, &credentials, main.clone()).await;
    assert_eq!(credential["audiences"], main["audiences"]);
    assert_eq!(graph(&azure, "POST", &credentials, main.clone()).await.status, 409);
    assert_eq!(graph(&azure, "POST", &credentials, without(main, "subject")).await.status, 400);
    let named = format!("{credentials}/main");
    assert_eq!(graph(&azure, "PATCH", &named, json!({"description": "why"})).await.status, 204);
    assert_eq!(graph(&azure, "PATCH", &named, json!({"subject": "t"})).await.status, 204);
    let kept = graph(&azure, "GET", &named, Value::Null).await.json();
    assert_eq!((&kept["subject"], &kept["description"]), (&json!("t"), &json!("why")));
    for wrong in [
        json!({"issuer": "http://issuer.example"}),
        json!({"name": "a b c"}),
        json!({"subject": "x".repeat(601)}),
        json!({"description": "x".repeat(601)}),
    ] {
        assert_eq!(graph(&azure, "PATCH", &named, wrong.clone()).await.status, 400, "{wrong}");
    }
    assert_eq!(graph(&azure, "DELETE", &named, Value::Null).await.status, 204);

    azure.clock().advance(std::time::Duration::from_secs(3 * 365 * 24 * 3600));
    assert_eq!(number(&sign_in(secret).await), 7_000_222, "a secret lives for two years");
    let key = json!({"keyId": added["keyId"]});
    assert_eq!(graph(&azure, "POST", &format!("applications/{id}/removePassword"), key).await.status, 204);
    assert_eq!(number(&sign_in(secret).await), 7_000_215);
    assert_eq!(graph(&azure, "DELETE", &format!("applications/{id}"), Value::Null).await.status, 204);
    assert_eq!(number(&sign_in(secret).await), 700_016);
    let path = format!("servicePrincipals/{}", principal["id"].as_str().unwrap());
    assert_eq!(graph(&azure, "GET", &path, Value::Null).await.status, 404, "it goes with its application");
}

/// An agent identity gets a token for PostgreSQL in the two steps of Microsoft's article, with the blueprint's secret or
/// with a managed identity.
#[tokio::test]
async fn a_blueprint_signs_in_for_its_agent_identity() {
    let azure = start().await;
    let kind = json!({"@odata.type": "Microsoft.Graph.AgentIdentityBlueprint", "displayName": "helpers"});
    let blueprint = created(&azure, "applications", kind).await;
    let (id, client) = (blueprint["id"].as_str().unwrap(), blueprint["appId"].as_str().unwrap());
    let principals = "servicePrincipals/microsoft.graph.agentIdentityBlueprintPrincipal";
    created(&azure, principals, json!({"appId": client})).await;
    let mut agents = Vec::new();
    for name in ["first", "second"] {
        let body = json!({"displayName": name, "agentIdentityBlueprintId": client});
        let agent = created(&azure, "servicePrincipals/Microsoft.Graph.AgentIdentity", body).await;
        assert_eq!(agent["servicePrincipalType"], "ServiceIdentity");
        agents.push(agent["appId"].as_str().unwrap().to_owned());
    }
    let unknown = json!({"displayName": "x", "agentIdentityBlueprintId": azure.application().client_id()});
    let path = "servicePrincipals/Microsoft.Graph.AgentIdentity";
    assert_eq!(graph(&azure, "POST", path, unknown).await.status, 404, "no blueprint");
    let added = graph(&azure, "POST", &format!("applications/{id}/addPassword"), json!({})).await.json();
    let secret = added["secretText"].as_str().unwrap().to_owned();

    let sign_in = async |client: &str, more: &[(&str, &str)]| {
        let url = format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant());
        let form = [&[("grant_type", "client_credentials"), ("client_id", client)], more].concat();
        Ask::post(url, &form).trusting(azure.ca_pem()).send().await.unwrap()
    };
    let exchange = ("scope", "api://AzureADTokenExchange/.default");
    let postgresql = format!("{POSTGRESQL}/.default");
    let postgresql = ("scope", postgresql.as_str());
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let path = ("fmi_path", agents[0].as_str());
    let first = sign_in(client, &[exchange, ("client_secret", &secret), path]).await.token();
    let token = sign_in(&agents[0], &[postgresql, kind, ("client_assertion", &first)]).await.token();
    let said = jwt::claims(&azure, &token).await;
    for (claim, value) in [
        ("oid", json!(agents[0])),
        ("appid", json!(agents[0])),
        ("appidacr", json!("2")),
        ("idtyp", json!("app")),
        ("aud", json!(POSTGRESQL)),
        ("xms_par_app_azp", json!(client)),
        ("xms_act_fct", json!("3 9 11")),
        ("xms_sub_fct", json!("9 3 11")),
    ] {
        assert_eq!(said[claim], value, "{claim}: {said}");
    }

    // The blueprint's own proof can be the token of a managed identity.
    let issuer = format!("{}{}/v2.0", azure.authority_host(), azure.tenant());
    let own = azure.user_assigned();
    let trust = json!({
        "name": "managed", "issuer": issuer, "subject": own.object_id(), "audiences": ["api://AzureADTokenExchange"],
    });
    let credentials =
        format!("applications/{id}/microsoft.graph.agentIdentityBlueprint/federatedIdentityCredentials");
    created(&azure, &credentials, trust).await;
    let managed = async |identity: &str| {
        let url = azure.metadata_url();
        let ask = format!(
            "{url}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=api://AzureADTokenExchange&client_id={identity}"
        );
        Ask::get(ask).header("Metadata", "true").send().await.unwrap().token()
    };
    let identity = managed(&own.client_id().to_string()).await;
    let second = ("fmi_path", agents[1].as_str());
    let by_identity = [exchange, kind, ("client_assertion", &*identity), second];
    let exchanged = sign_in(client, &by_identity).await.token();
    let token = sign_in(&agents[1], &[postgresql, kind, ("client_assertion", &exchanged)]).await.token();
    assert_eq!(jwt::claims(&azure, &token).await["oid"], agents[1]);

    let other = managed(&azure.vm().client_id().to_string()).await;
    let tampered = format!("{}AAAA", &first[..first.len() - 4]);
    let number = |reply: &Reply| reply.json()["error_codes"][0].as_u64().unwrap_or_default();
    let own_app = azure.application().client_id().to_string();
    for (client, more, expected) in [
        // The exchange token of another agent identity, of none, and a token without a signature.
        (&*agents[1], vec![postgresql, kind, ("client_assertion", &*first)], 700_213),
        (&agents[0], vec![postgresql, kind, ("client_assertion", &identity)], 700_213),
        (&agents[0], vec![postgresql, kind, ("client_assertion", &tampered)], 700_027),
        (&agents[0], vec![postgresql, ("client_secret", &secret)], 900_144),
        // Another managed identity; a path that names no agent identity of this client; another resource.
        (client, vec![exchange, kind, ("client_assertion", &other), path], 700_213),
        (client, vec![exchange, ("client_secret", &secret), ("fmi_path", &own_app)], 700_016),
        (client, vec![postgresql, ("client_secret", &secret), path], 700_016),
        (
            &own_app,
            vec![exchange, ("client_secret", azure.application().secret().expose_secret()), path],
            700_016,
        ),
    ] {
        let reply = sign_in(client, &more).await;
        assert_eq!(number(&reply), expected, "{}", reply.text());
    }
    let disable = json!({"accountEnabled": false});
    let agent = format!("servicePrincipals/{}", agents[0]);
    assert_eq!(graph(&azure, "PATCH", &agent, disable).await.status, 204);
    let disabled = sign_in(&agents[0], &[postgresql, kind, ("client_assertion", &first)]).await;
    assert_eq!(number(&disabled), 7_000_112);
    azure.clock().advance(std::time::Duration::from_secs(2 * 24 * 3600));
    let late = sign_in(&agents[1], &[postgresql, kind, ("client_assertion", &exchanged)]).await;
    assert_eq!(number(&late), 700_024);
    assert_eq!(graph(&azure, "DELETE", &agent, Value::Null).await.status, 204);
    let gone = sign_in(&agents[0], &[postgresql, kind, ("client_assertion", &first)]).await;
    assert_eq!(number(&gone), 700_016);
}

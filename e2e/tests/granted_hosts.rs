//! `pgentra grant` and `pgentra revoke` for every kind of host, against the local cloud.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use e2e::{Cloud, Done, Flavour, Lab};
use serde_json::{Value, json};

/// A shell on a host of the cloud.
fn on<'a>(lab: &'a Lab, cloud: &Cloud<'_>, host: &str, script: &str) -> Done<'a> {
    lab.shell(script).envs(cloud.env(host)).done()
}

/// A request to Resource Manager in the resource group, as another client makes it.
fn put(lab: &Lab, cloud: &Cloud<'_>, path: &str, body: &str) {
    let address =
        format!("{}/subscriptions/{}{path}", cloud.text("/management_url"), cloud.text("/subscription_id"));
    let token = "$(pgentra token --resource https://management.azure.com)";
    let script = format!(
        "curl -sSf -o /dev/null --cacert $SSL_CERT_FILE -X PUT -H 'Content-Type: application/json' \
         -H \"Authorization: Bearer {token}\" -d '{body}' '{address}'"
    );
    on(lab, cloud, "admin", &script).ok();
}

fn make_identity(lab: &Lab, cloud: &Cloud<'_>, name: &str) {
    let path = format!(
        "/resourceGroups/myResourceGroup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}?api-version=2024-11-30"
    );
    put(lab, cloud, &path, r#"{"location":"westeurope"}"#);
}

/// Who signs in as `role` on this host of the cloud, with this identity.
fn signs_in(lab: &Lab, cloud: &Cloud<'_>, (host, role): (&str, &str), client_id: &Value) -> bool {
    let query = format!("pgentra query --token-timeout 2s -U {role} -o json -c 'SELECT current_user'");
    let done =
        lab.shell(&query).envs(cloud.env(host)).env("AZURE_CLIENT_ID", client_id.as_str().unwrap()).done();
    assert!(
        done.status.success() || done.status.code() == Some(5) || done.status.code() == Some(3),
        "{done:?}"
    );
    done.status.success() && done.json()[0]["rows"][0][0] == role
}

#[test]
fn every_host_is_granted_and_revoked() {
    for flavour in Flavour::ALL {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let admin = |script: &str| on(&lab, &cloud, "admin", script);
        make_identity(&lab, &cloud, "another");
        let shown = admin("pgentra identity show identity/myIdentity -o json").json();
        let issuer = shown["federated_credentials"][1]["issuer"].as_str().unwrap().to_owned();
        let kubernetes = shown["federated_credentials"][0]["subject"].as_str().unwrap();
        assert_eq!(kubernetes, "system:serviceaccount:default:my-service-account");

        // The host, whether its identity comes with it, and where it can sign in here.
        let repository = format!("github/my-organization/my-repository --identity another --issuer {issuer}");
        for (host, had, signs_in_on) in [
            ("vmss/myScaleSet", false, None),
            ("webapp/myWebApp", false, None),
            ("functionapp/myFunctionApp --identity another", false, None),
            ("containerapp/myContainerApp", false, None),
            ("arc/branchServer", true, None),
            ("identity/another", true, None),
            ("aks/myCluster/default/my-service-account --identity another", false, Some("aks")),
            (&repository, false, Some("github-actions")),
        ] {
            let grant = format!("pgentra grant {host} --role my-app");
            let revoke = format!("pgentra revoke {host} --role my-app");
            let unasked = admin(&grant);
            assert_eq!(unasked.fault(2, &["--yes", "nothing was changed", "+ role my-app"]), None, "{host}");

            let granted = admin(&format!("{grant} --yes -o json")).json();
            assert_eq!(
                (&granted["created"], &granted["assigned"]),
                (&json!(true), &json!(!had)),
                "{granted}"
            );
            assert_eq!(granted["flavour"], flavour.to_string());
            let again = admin(&format!("{grant} -o json")).json();
            assert_eq!((&again["created"], &again["assigned"]), (&json!(false), &json!(false)), "{host}");
            assert_eq!(again["object_id"], granted["object_id"]);
            let annotated = granted["annotations"]["azure.workload.identity/client-id"].as_str();
            assert_eq!(annotated.is_some(), host.starts_with("aks/"), "{granted}");
            if let Some(place) = signs_in_on {
                assert!(signs_in(&lab, &cloud, (place, "my-app"), &granted["client_id"]), "{host}");
            }

            let unasked = admin(&revoke);
            assert_eq!(unasked.fault(2, &["--yes", "nothing was changed", "- role my-app"]), None, "{host}");
            let revoked = admin(&format!("{revoke} --yes -o json")).json();
            let is_federated = signs_in_on.is_some();
            assert_eq!(
                (&revoked["dropped"], &revoked["unfederated"], &revoked["unassigned"]),
                (&json!(true), &json!(is_federated), &json!(false)),
                "{host}"
            );
            if let Some(place) = signs_in_on {
                assert!(!signs_in(&lab, &cloud, (place, "my-app"), &granted["client_id"]), "{host}");
            }
            let again = admin(&format!("{revoke} -o json")).json();
            assert_eq!((&again["dropped"], &again["unfederated"]), (&json!(false), &json!(false)), "{host}");
        }
        if flavour != Flavour::Flexible {
            continue;
        }
        text_and_what_is_left_to_do(&lab, &cloud);
        what_others_use_stays(&lab, &cloud);
    }
}

fn text_and_what_is_left_to_do(lab: &Lab, cloud: &Cloud<'_>) {
    let admin = |script: &str| on(lab, cloud, "admin", script);
    let aks = "aks/myCluster/default/my-service-account --identity another --role my-app --yes";
    let granted = admin(&format!("pgentra grant {aks}"));
    let annotate =
        "kubectl annotate serviceaccount -n default my-service-account azure.workload.identity/client-id=";
    assert!(granted.ok().contains(annotate), "{granted:?}");
    assert!(granted.ok().contains("In a pod: pgentra query -h localhost"), "{granted:?}");
    assert!(granted.stderr.contains("+ service account default/my-service-account of the cluster myCluster"));
    let shown = admin("pgentra identity show identity/another");
    assert!(shown.ok().contains("pgentra-aks-myCluster-default-my-service-account"), "{shown:?}");
    admin(&format!("pgentra revoke {aks}")).ok();
    assert!(!admin("pgentra identity show identity/another").ok().contains("federated"));
    // A credential that another client made stays.
    let mine = admin(
        "pgentra grant aks/myCluster/default/my-service-account --identity myIdentity --role kept --yes -o json",
    );
    assert_eq!(mine.json()["assigned"], false);
    let stays = admin(
        "pgentra revoke aks/myCluster/default/my-service-account --identity myIdentity --role kept --yes",
    );
    assert!(stays.ok().contains("may not sign in") && stays.stderr.contains("did not make it"), "{stays:?}");

    let granted = admin("pgentra grant vmss/myScaleSet --role scaled --yes");
    assert!(
        granted.ok().contains("az vmss update-instances -g myResourceGroup -n myScaleSet"),
        "{granted:?}"
    );
    let shown = admin("pgentra identity show vmss/myScaleSet -o json").json();
    assert_eq!((&shown["kind"], shown["system_assigned"].is_object()), (&json!("scale set"), true));
    for (command, said) in [
        ("pgentra grant webapp/myFunctionApp --role x --yes", "functionapp/myFunctionApp"),
        ("pgentra grant functionapp/myWebApp --role x --yes", "webapp/myWebApp"),
        ("pgentra grant webapp/no-such-name --role x --yes", "no app \"no-such-name\""),
        ("pgentra grant aks/myCluster/default/a --role x --yes", "--identity"),
        ("pgentra grant aks/no-such-cluster/default/a --identity another --role x --yes", "no cluster"),
        ("pgentra grant github/owner/repo@prod --identity another --branch x --role x --yes", "--branch"),
        ("pgentra grant identity/another --identity another --role x --yes", "--identity"),
        ("pgentra grant webapp/myWebApp --branch x --role x --yes", "--branch"),
        ("pgentra grant lambda/x --role x --yes", "containerapp/NAME"),
        ("pgentra grant arc/branchServer --identity another --role x --yes", "agent alone"),
        ("pgentra identity assign identity/another", "--identity"),
        ("pgentra identity show aks/myCluster/default/a", "identity show identity/NAME"),
        ("pgentra identity show", "HOST"),
        ("pgentra identity show --vm myVm webapp/x", "--vm"),
        ("pgentra revoke webapp/myWebApp --role myVm --yes", "of the principal"),
        ("pgentra revoke arc/branchServer --role x --unassign --yes", "--unassign"),
    ] {
        assert_eq!(admin(command).fault(2, &[said]), None);
    }
}

/// The built-in role "Reader".
const READER: &str =
    "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7";

fn what_others_use_stays(lab: &Lab, cloud: &Cloud<'_>) {
    let admin = |script: &str| on(lab, cloud, "admin", script);
    // The web app has its identity from before; a second role uses it, and a role assignment.
    for role in ["one", "two"] {
        admin(&format!("pgentra grant webapp/myWebApp --role {role} --yes")).ok();
    }
    let unassign = "pgentra revoke webapp/myWebApp --role one --unassign --yes";
    assert_eq!(admin(unassign).fault(2, &["the role \"two\"", "nothing was changed"]), None);
    admin("pgentra revoke webapp/myWebApp --role two --yes").ok();
    let shown = admin("pgentra identity show webapp/myWebApp -o json").json();
    let principal = &shown["system_assigned"]["object_id"];
    let body = json!({"properties": {"principalId": principal, "roleDefinitionId": READER}});
    let assignment = "/providers/Microsoft.Authorization/roleAssignments/00000000-1111-4222-8333-444444444444?api-version=2022-04-01";
    put(lab, cloud, assignment, &body.to_string());
    assert_eq!(admin(unassign).fault(2, &["a role assignment at /subscriptions/"]), None);
    assert_eq!(admin("pgentra role list -o json").ok().matches("\"one\"").count(), 1, "nothing was changed");
    admin("pgentra revoke webapp/myWebApp --role one --yes").ok();

    admin("pgentra grant containerapp/myContainerApp --identity another --role one --yes").ok();
    let revoked = admin(
        "pgentra revoke containerapp/myContainerApp --role one --unassign --yes --identity another -o json",
    );
    assert_eq!(revoked.json()["unassigned"], true);
    let shown = admin("pgentra identity show containerapp/myContainerApp -o json").json();
    assert_eq!((shown["system_assigned"].is_object(), &shown["user_assigned"]), (true, &json!([])));
    let revoked =
        admin("pgentra revoke containerapp/myContainerApp --role nothing --unassign --yes -o json").json();
    assert_eq!((&revoked["dropped"], &revoked["unassigned"]), (&json!(false), &json!(true)));
    assert!(admin("pgentra identity show containerapp/myContainerApp").ok().contains("no identity"));
}

/// The server as a HorizonDB cluster: the endpoint that reads and writes is found, and its administrators come and go.
#[test]
fn a_horizondb_cluster_is_granted_and_has_administrators() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = |script: &str| on(&lab, &cloud, "admin", script);
    let grant = "pgentra grant myVm --server horizondb/my-horizondb --role my-app --yes -o json";
    let granted = admin(grant);
    assert!(granted.stderr.contains("+ role my-app on localhost (HorizonDB cluster)"), "{granted:?}");
    let granted = granted.json();
    assert_eq!((&granted["created"], &granted["server"]), (&json!(true), &json!("localhost")), "{granted}");
    let revoked = admin(&grant.replace("grant", "revoke")).json();
    assert_eq!(revoked["dropped"], true, "{revoked}");

    let administrators = |words: &str| {
        admin(&format!("pgentra identity server-admin {words} --server horizondb/my-horizondb -o json"))
    };
    let names = || -> Vec<Value> {
        administrators("list").json().as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    let before = names();
    administrators("add 'Database administrators'").json();
    assert_eq!(names().len(), before.len() + 1, "{:?}", names());
    administrators("remove 'Database administrators'").json();
    assert_eq!(names(), before);

    let unknown = admin("pgentra identity server-admin list --server horizondb/other");
    assert_eq!(unknown.fault(2, &["no HorizonDB cluster \"other\"", "my-horizondb"]), None, "{unknown:?}");
    let cosmos = admin("pgentra identity server-admin list --server cosmos/my");
    assert_eq!(cosmos.fault(2, &["horizondb/NAME"]), None, "{cosmos:?}");
    let cosmos = admin("pgentra grant myVm --server cosmos/my --role my-app");
    assert_eq!(cosmos.fault(2, &["horizondb/NAME"]), None, "{cosmos:?}");
}

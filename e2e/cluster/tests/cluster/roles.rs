//! Roles as a resource: the operator's chart, its controller, and what it may do in the cluster.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use e2e::{Cloud, Lab};
use eventually::{eventually_blocking, holds};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chart::HELM;
use crate::faults::memory_group;
use crate::kubernetes::{Namespace, helm};
use crate::stage::{CLOUD, Given, cloud, given, grant_role};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/pgentra-operator");
/// The service account, the Deployment and the Lease of the release.
const OPERATOR: &str = "roles-pgentra-operator";
/// The role with which the operator signs in.
const SIGNS_IN: &str = "roles-operator";
/// A principal that no other role has.
const PRINCIPAL: &str = "00000000-1111-2222-3333-444444444444";
/// Another one.
const SECOND_PRINCIPAL: &str = "00000000-1111-2222-3333-555555555555";
/// The shortest interval that a resource can have.
const INTERVAL: &str = "10s";
/// A look comes at the interval, or after the pause of a failure; a slow machine takes longer.
const SOON: Duration = Duration::from_secs(90);

/// A part of the test.
type Step = fn(&Stage<'_>);

/// All that the resources are about.
struct Stage<'a> {
    lab: &'a Lab,
    cloud: &'a Cloud<'a>,
    namespace: &'a Namespace<'a>,
    /// The server, without the role that signs in and without a database.
    server: String,
    client_id: String,
}

impl Stage<'_> {
    /// The resource as an object: the server `shop`, with these keys.
    fn resource(&self, name: &str, spec: &Value) -> Value {
        let server = format!("postgresql://{SIGNS_IN}@{}", self.server);
        let mut whole = json!({ "server": server, "interval": INTERVAL });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        json!({
            "apiVersion": "pgentra.dev/v1alpha1", "kind": "PostgresRoles",
            "metadata": { "name": name, "namespace": self.namespace.name }, "spec": whole,
        })
    }

    fn apply(&self, name: &str, spec: &Value) {
        self.namespace.apply(&self.resource(name, spec));
    }

    fn status(&self, name: &str) -> Value {
        self.namespace.get(&["postgresroles", name])["status"].clone()
    }

    /// Waits for the reason of the condition `Ready` of what was last asked for. Returns its message.
    fn await_reason(&self, name: &str, reason: &str) -> String {
        eventually_blocking(SOON, &format!("{name} is {reason}"), || {
            let resource = self.namespace.get(&["postgresroles", name]);
            let ready = condition(&resource["status"], "Ready");
            let is_new = ready["observedGeneration"] == resource["metadata"]["generation"];
            match is_new && ready["reason"] == reason {
                true => Ok(ready["message"].as_str().unwrap().to_owned()),
                false => Err(ready),
            }
        })
    }

    /// Waits for an event about a resource. Returns its note.
    fn await_event(&self, name: &str, reason: &str) -> String {
        let selector = format!("regarding.name={name},reason={reason}");
        eventually_blocking(SOON, &format!("an event {reason} of {name}"), || {
            let list = self.namespace.get(&["events.events.k8s.io", "--field-selector", &selector]);
            list["items"].as_array().unwrap().first().map(|event| event["note"].as_str().unwrap().to_owned())
        })
    }

    fn kubectl(&self, words: &[&str]) -> String {
        self.namespace.kubectl(words).done().ok().to_owned()
    }

    /// What a query of the operator's role returns, or a statement does.
    fn sql(&self, database: &str, statement: &str) -> Value {
        let words = ["query", "--client-id", &self.client_id, "-U", SIGNS_IN, "-d", database];
        let words = [&words[..], &["-o", "json", "-c", statement]].concat();
        self.lab.pgentra(&words).envs(self.cloud.env("vm")).done().json()
    }

    /// The roles of these names that there are, in their order.
    fn roles(&self, names: &[&str]) -> Vec<String> {
        let names = names.join("','");
        let sql = format!("SELECT rolname::text FROM pg_roles WHERE rolname IN ('{names}') ORDER BY 1");
        let answer = self.sql("postgres", &sql);
        let rows = answer[0]["rows"].as_array().unwrap();
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    }

    fn may(&self, privilege: &str) -> bool {
        let sql = format!("SELECT has_table_privilege('orders', 'shop.orders', '{privilege}')::text");
        self.sql("shop", &sql)[0]["rows"][0][0] == "true"
    }

    /// The replica that holds the Lease.
    fn holder(&self) -> Option<String> {
        let lease = self.namespace.get(&["lease", OPERATOR]);
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// A page that a pod shows over HTTP.
    fn page(&self, pod: &str, page: &str) -> String {
        let pod = self.namespace.get(&["pod", pod]);
        let address = pod["status"]["podIP"].as_str().unwrap();
        self.lab.program(&["curl", "-sS", &format!("http://{address}:9432/{page}")]).done().ok().to_owned()
    }

    fn pods(&self) -> Vec<String> {
        let list = self.namespace.get(&["pods", "--selector", "app.kubernetes.io/name=pgentra-operator"]);
        let names = list["items"].as_array().unwrap().iter();
        names.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The pod of a replica.
    fn pod(replica: &str) -> &str {
        replica.rsplit_once('_').unwrap().0
    }

    fn install(&self, given: &Given) {
        let values = self.lab.path().join("operator.json");
        let text = json!({
            "image": { "pullPolicy": "Never" },
            "workloadIdentity": { "clientId": self.client_id },
            "roles": { "servers": [CLOUD, "*.invalid"], "rootCertificates": "/etc/pki/ca.pem" },
            // The rights of the controller alone are listed.
            "injection": { "enabled": false },
            "extraEnv": given.env,
            "extraVolumes": given.volumes,
            "extraVolumeMounts": given.mounts,
            "hostAliases": given.aliases,
        });
        fs::write(&values, text.to_string()).unwrap();
        let words =
            ["install", "roles", CHART, "--values", values.to_str().unwrap(), "--wait", "--timeout", "4m"];
        helm(self.lab, HELM[1], &[&words[..], &["--namespace", &self.namespace.name]].concat()).done().ok();
    }
}

fn condition(status: &Value, type_: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

/// The roles of a status, and whether the operator has made each: such a role has a number.
fn made(status: &Value) -> Vec<(&str, bool)> {
    let role = |role: &'_ Value| role["created"].as_bool().unwrap();
    let roles = status["roles"].as_array().unwrap();
    assert!(roles.iter().all(|one| role(one) == one["oid"].is_u64()), "{status}");
    roles.iter().map(|one| (one["name"].as_str().unwrap(), role(one))).collect()
}

/// Roles that may read the table.
fn readers(names: &[&str]) -> Value {
    let role = |name: &&str| {
        json!({
            "name": name,
            "login": false,
            "grant": [{ "database": "shop", "schema": "shop", "tables": ["orders"], "privileges": ["SELECT"] }],
        })
    };
    names.iter().map(role).collect()
}

/// A role for a principal.
fn orders() -> Value {
    json!([{
        "name": "orders",
        "object_id": PRINCIPAL,
        "member_of": ["readers"],
        "grant": [
            { "database": "shop", "privileges": ["CONNECT"] },
            { "database": "shop", "schema": "shop", "tables": ["orders"], "privileges": ["SELECT", "INSERT"] },
        ],
    }, { "name": "readers", "login": false }])
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn roles_are_a_resource() {
    let began = Instant::now();
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "roles");
    let client_id = grant_role(&lab, &cloud, (&namespace.name, OPERATOR), SIGNS_IN);
    let given = given(&namespace, &cloud, &client_id);
    let server = given.server.trim_start_matches("postgresql://");
    let server = server.split_once('?').map_or(server, |(server, _)| server).to_owned();
    let stage = Stage { lab: &lab, cloud: &cloud, namespace: &namespace, server, client_id };
    administrator(&stage);
    stage.sql("postgres", "CREATE DATABASE shop");
    stage.sql("shop", "CREATE SCHEMA shop; CREATE TABLE shop.orders (id bigint)");
    stage.install(&given);
    println!("the operator is ready after {:.0} s", began.elapsed().as_secs_f64());

    let steps: [(&str, Step); 10] = [
        ("what it may do", it_may_do_no_more),
        ("refused by the API server", the_api_server_names_every_problem),
        ("applied, planned, refused", applied_planned_refused),
        // Repaired at the interval: other tests run meanwhile.
        ("drift", the_server_is_changed_by_hand),
        ("bad input", bad_input_changes_nothing),
        ("drift repaired", drift_is_repaired),
        ("one role, two resources", who_has_a_role_keeps_it),
        ("deletion", deletion_keeps_or_drops),
        ("server down", a_server_comes_back),
        ("leader killed", another_replica_goes_on),
    ];
    for (what, step) in steps {
        let began = Instant::now();
        step(&stage);
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    }
    // With a finalizer, a resource would outlive the operator.
    stage.kubectl(&["delete", "postgresroles", "--all", "--timeout=1m"]);
    helm(&lab, HELM[1], &["uninstall", "roles", "--namespace", "roles", "--wait"]).done().ok();
    stage.kubectl(&["get", "crd", "postgresroles.pgentra.dev"]);
    stage.kubectl(&["delete", "crd", "postgresroles.pgentra.dev"]);
}

/// Lets the operator's role manage the roles of the server.
fn administrator(stage: &Stage<'_>) {
    let list =
        stage.lab.pgentra(&["role", "list", "-o", "json"]).envs(stage.cloud.env("admin")).done().json();
    let roles = list["roles"].as_array().unwrap();
    let role = roles.iter().find(|role| role["name"] == SIGNS_IN).unwrap();
    let id = role["object_id"].as_str().unwrap();
    let file = format!("[[role]]\nname = \"{SIGNS_IN}\"\nobject_id = \"{id}\"\nadmin = true\n");
    let apply = stage.lab.pgentra(&["role", "apply", "-f", "-", "--yes"]).input(&file);
    apply.envs(stage.cloud.env("admin")).done().ok();
}

/// The whole list of what the service account may do, and examples of what it may not.
fn it_may_do_no_more(stage: &Stage<'_>) {
    let account = format!("--as=system:serviceaccount:{}:{OPERATOR}", stage.namespace.name);
    let may = |words: &[&str]| {
        let words = [&["auth", "can-i"], words, &[&account]].concat();
        let said = stage.namespace.kubectl(&words).done();
        said.stdout.trim() == "yes"
    };
    for words in [
        &["watch", "postgresroles.pgentra.dev", "--all-namespaces"][..],
        &["patch", "postgresroles.pgentra.dev/status", "--namespace=default"],
        &["create", "events.events.k8s.io", "--namespace=default"],
        &["update", &format!("lease/{OPERATOR}")],
    ] {
        assert!(may(words), "{words:?}");
    }
    for words in [
        &["delete", "postgresroles.pgentra.dev"][..],
        &["create", "postgresroles.pgentra.dev"],
        &["get", "secrets"],
        &["get", "configmaps"],
        &["list", "pods"],
        &["update", "lease/another"],
        &["delete", &format!("lease/{OPERATOR}")],
        &["create", "leases", "--namespace=default"],
        &["create", "serviceaccounts/token"],
    ] {
        assert!(!may(words), "{words:?}");
    }
    let permissions = |name: &str| -> BTreeSet<String> {
        let account = format!("--as=system:serviceaccount:{}:{name}", stage.namespace.name);
        stage.kubectl(&["auth", "can-i", "--list", "--no-headers", &account]).lines().map(plain).collect()
    };
    // Beside what every account may do.
    let own: Vec<String> = permissions(OPERATOR).difference(&permissions("default")).cloned().collect();
    println!("{}", own.join("\n"));
    let lease = format!("leases.coordination.k8s.io [] [{OPERATOR}] [get update]");
    let mut expected = vec![
        "events.events.k8s.io [] [] [create patch]".to_owned(),
        "leases.coordination.k8s.io [] [] [create]".to_owned(),
        lease,
        "postgresroles.pgentra.dev [] [] [get list watch patch]".to_owned(),
        "postgresroles.pgentra.dev/status [] [] [patch]".to_owned(),
    ];
    expected.sort();
    assert_eq!(own, expected);
}

fn plain(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn the_api_server_names_every_problem(stage: &Stage<'_>) {
    let refused = |resource: &Value, words: &[&str]| {
        let create =
            stage.namespace.kubectl(&["create", "--filename", "-"]).input(&resource.to_string()).done();
        println!("{}", create.stderr);
        assert!(!create.status.success(), "{create:?}");
        for words in words {
            assert!(create.stderr.contains(words), "{words}: {create:?}");
        }
    };
    let role = |privilege: &str| {
        json!([{
            "name": "pg_wrong",
            "object_id": PRINCIPAL,
            "client_id": PRINCIPAL,
            "grant": [{ "tables": ["a"], "privileges": [privilege] }],
        }])
    };
    let wrong = json!({ "policy": "maybe", "interval": "1s", "role": role("READ") });
    refused(
        &stage.resource("wrong", &wrong),
        &[
            "spec.policy: Unsupported value: \"maybe\"",
            "spec.role[0].grant[0].privileges[0]: Invalid value: \"READ\"",
        ],
    );
    let wrong = json!({ "interval": "1s", "role": role("SELECT") });
    refused(
        &stage.resource("wrong", &wrong),
        &[
            "at least 10s, at most 24h",
            "a role of the server itself",
            "a role has an object_id or a client_id, not both",
            "a grant on tables, sequences, functions or types names their schema",
        ],
    );
    let mut wrong = stage.resource("wrong", &json!({ "roles": [] }));
    wrong["spec"]["server"] = json!("postgresql://operator:secret@one/app");
    refused(&wrong, &["unknown field \"spec.roles\""]);
    wrong["spec"].as_object_mut().unwrap().remove("roles");
    refused(&wrong, &["no password: the operator signs in with a token", "name a role or a schema"]);
    wrong["spec"]["role"] = json!([{ "name": "twice", "login": false }, { "name": "twice" }]);
    wrong["spec"]["server"] = json!("postgresql://operator@one/app");
    refused(&wrong, &["spec.role[1]: Duplicate value: {\"name\":\"twice\"}"]);
}

fn applied_planned_refused(stage: &Stage<'_>) {
    stage.apply("orders", &json!({ "role": orders() }));
    stage.await_reason("orders", "Applied");
    let status = stage.status("orders");
    assert_eq!(status["changes"], 0, "{status}");
    assert_eq!(made(&status), [("orders", true), ("readers", true)], "{status}");
    assert!(stage.may("SELECT") && stage.may("INSERT") && !stage.may("DELETE"));

    stage.apply("reporting", &json!({ "policy": "plan", "role": readers(&["reporting"]) }));
    stage.await_reason("reporting", "Differences");
    let status = stage.status("reporting");
    assert_eq!(
        (&status["changes"], condition(&status, "Planned")["status"].clone()),
        (&json!(2), json!("True"))
    );
    assert_eq!(stage.roles(&["reporting"]), [""; 0]);

    // The same role by another name of the server's port: the name of the host has another case.
    let mut copy = stage.resource("copy", &json!({ "role": readers(&["readers", "copies"]) }));
    let server = copy["spec"]["server"].as_str().unwrap().replace(CLOUD, &CLOUD.to_uppercase());
    copy["spec"]["server"] = json!(server);
    stage.namespace.apply(&copy);
    let message = stage.await_reason("copy", "RoleOwnedElsewhere");
    assert!(message.contains("role \"readers\" belongs to PostgresRoles roles/orders"), "{message}");
    assert_eq!(stage.roles(&["copies"]), [""; 0], "half of it was done");
    assert_eq!(stage.await_event("copy", "RoleOwnedElsewhere"), message);
    stage.await_event("orders", "Applied");
    stage.await_event("reporting", "Planned");

    let holder = stage.holder().unwrap();
    let leader = Stage::pod(&holder);
    let metrics = stage.page(leader, "metrics");
    for line in [
        "pgentra_operator_roles_leads 1",
        "pgentra_operator_roles_changes_total 5",
        "pgentra_operator_roles_looks_total{reason=\"Applied\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
    assert!(stage.page(leader, "readiness").contains("roles: leads"));
    let other = stage.pods().into_iter().find(|pod| pod != leader).unwrap();
    assert!(stage.page(&other, "readiness").contains(&format!("roles: standby: {holder} leads")));

    println!("{}", stage.kubectl(&["get", "postgresroles"]));
    for name in ["orders", "reporting", "copy"] {
        println!("{}", stage.kubectl(&["describe", "postgresroles", name]));
    }
}

fn bad_input_changes_nothing(stage: &Stage<'_>) {
    // What the API server cannot see is all told by the operator.
    let role = json!({
        "name": "wrong-a",
        "login": false,
        "member_of": [{ "role": "pg_read_all_data", "unknown": true }, "wrong-a"],
    });
    stage.apply("unreadable", &json!({ "role": [role] }));
    let message = stage.await_reason("unreadable", "Invalid");
    for words in ["spec.role[0].member_of[0].unknown: a membership has no key", "spec.role[0].member_of[1]: "]
    {
        assert!(message.contains(words), "{words}: {message}");
    }

    let grant = |schema: &str, table: &str| json!({ "database": "shop", "schema": schema, "tables": [table], "privileges": ["SELECT"] });
    let role = json!({ "name": "wrong-b", "login": false, "grant": [grant("shop", "orders"), grant("shop", "gone"), grant("nowhere", "orders")] });
    stage.apply("unfit", &json!({ "role": [role] }));
    let message = stage.await_reason("unfit", "DoesNotFit");
    assert!(message.contains("role[0].grant[1]") && message.contains("role[0].grant[2]"), "{message}");

    // A name that the tenant does not have is refused by the server, and the other role is not made either.
    let roles = json!([{ "name": "wrong-c", "login": false }, { "name": "unknown-to-the-tenant" }]);
    stage.apply("unknown", &json!({ "role": roles }));
    let message = stage.await_reason("unknown", "Refused");
    assert!(message.contains("not found in the tenant"), "{message}");
    assert_eq!(condition(&stage.status("unknown"), "Planned")["status"], "True");

    // Privileges that the operator's role has not got to give.
    stage.lab.pgentra(&["query", "-c", "CREATE DATABASE theirs"]).envs(stage.cloud.env("admin")).done().ok();
    let role = json!({ "name": "wrong-d", "login": false, "grant": [{ "database": "theirs", "privileges": ["CREATE"] }] });
    stage.apply("ungrantable", &json!({ "role": [role] }));
    eventually_blocking(SOON, "the grant is refused", || {
        let ready = condition(&stage.status("ungrantable"), "Ready");
        holds(ready, |ready| ready["status"] == "False" && ready["reason"] != "NoToken")
    });
    println!("{}", condition(&stage.status("ungrantable"), "Ready"));

    let role = json!([{ "name": "wrong-e", "login": false }]);
    let mut elsewhere = stage.resource("elsewhere", &json!({ "role": role }));
    elsewhere["spec"]["server"] = json!(format!("postgresql://{SIGNS_IN}@db.example.com/app"));
    stage.namespace.apply(&elsewhere);
    let message = stage.await_reason("elsewhere", "ServerNotAllowed");
    assert!(message.contains("db.example.com"), "{message}");
    elsewhere["metadata"]["name"] = json!("nowhere");
    elsewhere["spec"]["server"] = json!(format!("postgresql://{SIGNS_IN}@server.invalid/app"));
    stage.namespace.apply(&elsewhere);
    stage.await_reason("nowhere", "ServerUnreachable");

    let names = ["wrong-a", "wrong-b", "wrong-c", "wrong-d", "wrong-e", "unknown-to-the-tenant"];
    assert_eq!(stage.roles(&names), [""; 0]);
    for (name, reason) in [
        ("unreadable", "Invalid"),
        ("unfit", "DoesNotFit"),
        ("unknown", "Refused"),
        ("elsewhere", "ServerNotAllowed"),
    ] {
        stage.await_event(name, reason);
    }
    stage.kubectl(&[
        "delete",
        "postgresroles",
        "unreadable",
        "unfit",
        "unknown",
        "ungrantable",
        "elsewhere",
        "nowhere",
    ]);
}

fn the_server_is_changed_by_hand(stage: &Stage<'_>) {
    stage.sql("shop", "REVOKE INSERT ON shop.orders FROM orders; GRANT DELETE ON shop.orders TO orders");
}

fn drift_is_repaired(stage: &Stage<'_>) {
    let note = stage.await_event("orders", "DriftRepaired");
    assert!(note.contains("+ INSERT") && note.contains("- DELETE"), "{note}");
    assert!(stage.may("INSERT") && !stage.may("DELETE"));
}

fn who_has_a_role_keeps_it(stage: &Stage<'_>) {
    // The older resource has the roles. The younger one gets them when the older one does not name them any more.
    stage.apply("orders", &json!({ "role": [orders()[0]] }));
    stage.await_reason("copy", "Applied");
    let status = stage.status("copy");
    // It was there already, so it is never dropped.
    assert_eq!(made(&status), [("copies", true), ("readers", false)], "{status}");
    stage.apply("orders", &json!({ "role": orders() }));
    let message = stage.await_reason("orders", "RoleOwnedElsewhere");
    assert!(message.contains("PostgresRoles roles/copy"), "{message}");
}

fn deletion_keeps_or_drops(stage: &Stage<'_>) {
    stage.kubectl(&["delete", "postgresroles", "copy", "--timeout=1m"]);
    assert_eq!(stage.roles(&["copies", "readers"]), ["copies", "readers"], "the policy is to keep them");

    let spec = json!({ "deletion": "drop", "role": readers(&["one", "two", "copies"]) });
    stage.apply("dropped", &spec);
    stage.await_reason("dropped", "Applied");
    // Not named any more, it is dropped; what was there before the resource is not.
    stage.apply("dropped", &json!({ "deletion": "drop", "role": readers(&["one"]) }));
    stage.await_reason("dropped", "Applied");
    assert_eq!(stage.roles(&["one", "two", "copies"]), ["copies", "one"]);

    roles_are_dropped_last(stage);

    // A role that owns a table is not dropped, and the resource says so until it does not own it any more.
    stage.sql("shop", &format!("GRANT one TO \"{SIGNS_IN}\""));
    stage.sql("shop", "GRANT CREATE ON SCHEMA shop TO one; ALTER TABLE shop.orders OWNER TO one");
    stage.kubectl(&["delete", "postgresroles", "dropped", "--wait=false"]);
    let message = stage.await_reason("dropped", "RoleInUse");
    assert!(message.contains("shop.orders"), "{message}");
    assert_eq!(stage.roles(&["one"]), ["one"]);
    stage.sql("shop", &format!("ALTER TABLE shop.orders OWNER TO \"{SIGNS_IN}\""));
    stage.kubectl(&["wait", "--for=delete", "postgresroles/dropped", "--timeout=90s"]);
    assert_eq!(stage.roles(&["one", "copies"]), ["copies"]);
    stage.await_event("dropped", "Dropped");
}

/// What a role owns may get another owner in the same edit, and a role that cannot be dropped stops no other change.
fn roles_are_dropped_last(stage: &Stage<'_>) {
    let group = |name: &str, rest: Value| {
        let mut role = json!({ "name": name, "login": false });
        role.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        role
    };
    let schema = json!({ "own": [{ "database": "shop", "schema": "moved" }] });
    stage.sql("shop", "CREATE SCHEMA moved");
    let spec = |roles: Value| json!({ "deletion": "drop", "role": roles });
    stage.apply("moving", &spec(json!([group("mover-a", schema.clone()), group("mover-b", json!({}))])));
    stage.await_reason("moving", "Applied");
    stage.apply("moving", &spec(json!([group("mover-b", schema)])));
    stage.await_reason("moving", "Applied");
    assert_eq!(stage.roles(&["mover-a", "mover-b"]), ["mover-b"]);

    // The schema stays its own, and the new role is made.
    stage.apply("moving", &spec(json!([group("mover-c", json!({}))])));
    let message = stage.await_reason("moving", "RoleInUse");
    assert!(message.contains("mover-b") && message.contains("moved"), "{message}");
    assert_eq!(stage.roles(&["mover-b", "mover-c"]), ["mover-b", "mover-c"]);
    assert_eq!(stage.status("moving")["changes"], 1);
    stage.sql("shop", &format!("GRANT \"mover-b\" TO \"{SIGNS_IN}\"; DROP SCHEMA moved"));
    stage.await_reason("moving", "NoDifference");
    assert_eq!(stage.roles(&["mover-b", "mover-c"]), ["mover-c"]);

    // A role with another name is the role that was made; a role of the name that another user has made is not.
    let mapped = |name: &str| json!({ "name": name, "object_id": SECOND_PRINCIPAL });
    stage.apply("moving", &spec(json!([group("mover-c", json!({})), mapped("mover-d")])));
    stage.await_reason("moving", "Applied");
    stage.apply("moving", &spec(json!([group("mover-c", json!({})), mapped("mover-e")])));
    stage.await_reason("moving", "Applied");
    assert_eq!(stage.roles(&["mover-d", "mover-e"]), ["mover-e"]);
    stage.sql("postgres", "DROP ROLE \"mover-c\"; CREATE ROLE \"mover-c\"");
    stage.kubectl(&["delete", "postgresroles", "moving", "--timeout=1m"]);
    assert_eq!(stage.roles(&["mover-c", "mover-d", "mover-e"]), ["mover-c"]);
}

fn a_server_comes_back(stage: &Stage<'_>) {
    // Its processes stand still: connections are taken by the kernel and not answered.
    let signal = |signal: &str| {
        let pid = format!("-{}", stage.cloud.pid().as_raw_nonzero());
        stage.lab.program(&["kill", signal, "--", &pid]).done().ok();
    };
    let mut slow = stage.resource("slow", &json!({ "role": readers(&["slow"]) }));
    let server = slow["spec"]["server"].as_str().unwrap();
    slow["spec"]["server"] = json!(format!("{server}?connect_timeout=2"));
    signal("-STOP");
    stage.namespace.apply(&slow);
    stage.await_reason("slow", "ServerUnreachable");
    signal("-CONT");
    stage.await_reason("slow", "Applied");
    assert_eq!(stage.roles(&["slow"]), ["slow"]);
}

/// Ends the process of a pod as the kernel does: it gives nothing back.
fn kill(stage: &Stage<'_>, pod: &str) {
    let pod = stage.namespace.get(&["pod", pod]);
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    let group = memory_group(id.trim_start_matches("containerd://"));
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let words: Vec<&str> = ["kill", "-KILL"].into_iter().chain(processes.split_whitespace()).collect();
    assert_eq!(words.len(), 3, "a container of one process: {processes:?}");
    stage.lab.program(&words).done().ok();
}

fn another_replica_goes_on(stage: &Stage<'_>) {
    let first = stage.holder().unwrap();
    let killed = Instant::now();
    kill(stage, Stage::pod(&first));
    stage.apply("after", &json!({ "role": readers(&["after"]) }));
    stage.await_reason("after", "Applied");
    let second = stage.holder().unwrap();
    assert_ne!(second, first);
    println!("{second} goes on {:.1} s after {first} was killed", killed.elapsed().as_secs_f64());
    // A leader that ends as it should gives the Lease back, and the next one need not wait for its end.
    let told = Instant::now();
    stage.kubectl(&["delete", "pod", Stage::pod(&second), "--wait=false"]);
    eventually_blocking(Duration::from_secs(12), "the Lease is given back", || {
        stage.holder().filter(|holder| *holder != second)
    });
    println!("the next one leads {:.1} s after {second} was told to stop", told.elapsed().as_secs_f64());
}

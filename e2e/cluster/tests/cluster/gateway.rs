//! The chart of the gateway, in front of a PostgreSQL of a StatefulSet.

use std::fs;

use e2e::{Cloud, Done, Lab};
use eventually::{eventually_blocking, holds};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::chart::HELM;
use crate::kubernetes::{Namespace, ROLLOUT, helm};
use crate::psql::Psql;
use crate::stage::{CLOUD, Given, ROLE, cloud, given, grant, image};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/pgentra-gateway");
/// The name of the gateway in its certificate.
const GATEWAY: &str = "gateway.test";
/// The name by which the gateway knows the server.
const SERVER: &str = "postgres-0.postgres";
/// A second role, for a session from outside of the cluster.
const OTHER: &str = "of-the-vm";
/// Seconds that a session has to end after its pod was told to: more than a rollout takes on a slow machine.
const DRAIN: u64 = 120;

/// Makes the database on the first start, and runs the server.
const RUN: &str = "set -e; bin=/usr/lib/postgresql/*/bin; \
    [ -e /data/pg/PG_VERSION ] || $bin/initdb -D /data/pg -U postgres -A trust --no-sync --locale=C -E UTF8; \
    exec $bin/postgres -D /data/pg -c listen_addresses=* -c unix_socket_directories=/tmp \
    -c hba_file=/etc/server/pg_hba.conf -c ssl=on -c ssl_cert_file=/etc/tls/tls.crt -c ssl_key_file=/etc/tls/tls.key \
    -c ssl_ca_file=/etc/server/authority.pem.crt";

/// An authority, and certificates of it.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = params("an authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A secret with a certificate of this name.
    fn secret(&self, namespace: &Namespace<'_>, secret: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, &[name]).signed_by(&key, &self.0).unwrap();
        let files =
            json!({ "tls.crt": certificate.pem(), "tls.key": key.serialize_pem(), "ca.crt": self.0.pem() });
        namespace.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": secret }, "stringData": files,
        }));
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// The StatefulSet of the server and its Service, which has an address: the cluster of the tests has no DNS.
fn server(namespace: &Namespace<'_>) -> String {
    let labels = json!({ "app": "postgres" });
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "postgres" },
        "spec": { "selector": labels, "ports": [{ "port": 5432 }] },
    }));
    namespace.apply(&json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "postgres" },
        "spec": {
            "serviceName": "postgres", "replicas": 1, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "securityContext": { "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532 },
                "containers": [{
                    "name": "postgres", "image": "postgres:1", "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", RUN],
                    "readinessProbe": { "tcpSocket": { "port": 5432 }, "periodSeconds": 1 },
                    "volumeMounts": [
                        { "name": "data", "mountPath": "/data" },
                        { "name": "tls", "mountPath": "/etc/tls" },
                        { "name": "server", "mountPath": "/etc/server" },
                    ],
                }],
                "volumes": [
                    { "name": "data", "emptyDir": {} },
                    // PostgreSQL takes a key of root that its group may read.
                    { "name": "tls", "secret": { "secretName": "postgres-tls", "defaultMode": 0o640 } },
                    { "name": "server", "configMap": { "name": "server" } },
                ],
            }},
        },
    }));
    let waited = ["rollout", "status", "statefulset/postgres", "--timeout=2m"];
    let waited = namespace.kubectl(&waited).done();
    assert!(waited.status.success(), "{waited:?}\n{:?}", namespace.kubectl(&["logs", "postgres-0"]).done());
    let service = namespace.get(&["service", "postgres"]);
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// `pgentra gateway init` as docs/kubernetes.md runs it: the script, whose last lines are those of `pg_hba.conf`.
fn init(namespace: &Namespace<'_>, cloud: &Cloud<'_>, admins: &[(&str, &str)]) -> String {
    let authority = namespace.lab.path().join("authority.pem");
    let mut words =
        ["gateway", "init", "--method", "cert", "--gateway", "10.0.0.0/8"].map(str::to_owned).to_vec();
    words.extend(["--authority".to_owned(), authority.display().to_string()]);
    words.extend(["--tenant".to_owned(), cloud.text("/tenant_id")]);
    for (role, client_id) in admins {
        words.extend(["--admin".to_owned(), format!("{role}={client_id}:service")]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    namespace.lab.pgentra(&words).done().ok().to_owned()
}

/// The values of a release.
fn values(cloud: &Cloud<'_>, (given, issuer): (&Given, &str), postgres: &str) -> Value {
    let tenant = cloud.text("/tenant_id");
    let authority = cloud.text("/authority_host").replace("localhost", CLOUD);
    json!({
        "image": { "pullPolicy": "Never" },
        "config": {
            "tenant": [tenant],
            "issuer": [issuer],
            "keys_url": format!("{}/{tenant}/discovery/v2.0/keys", authority.trim_end_matches('/')),
            "keys_ca": "/etc/pki/ca.pem",
            "drain_timeout": DRAIN,
            "warm": 1,
        },
        "preStopSeconds": 3,
        "terminationGracePeriodSeconds": DRAIN + 30,
        "servers": [{ "upstream": SERVER, "target_session_attrs": "primary" }],
        "tls": { "secretName": "gateway-tls" },
        "upstreamCa": { "secretName": "postgres-tls" },
        "authority": { "secretName": "pgentra-authority" },
        "extraVolumes": [given.volumes[1]],
        "extraVolumeMounts": [given.mounts[1]],
        "hostAliases": [given.aliases[0], { "ip": postgres, "hostnames": [SERVER] }],
    })
}

/// A pod of the service account that signs in at the gateway.
fn client(name: &str, role: &str, given: &Given, address: &str) -> Value {
    let place = format!("postgresql://{GATEWAY}:5432/postgres?sslrootcert=/etc/gateway/ca.crt");
    let volume = json!({ "name": "gateway", "secret": { "secretName": "gateway-tls", "items": [
        { "key": "ca.crt", "path": "ca.crt" },
    ]}});
    let mount = json!({ "name": "gateway", "mountPath": "/etc/gateway" });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "azure.workload.identity/use": "true", "pgentra/client": "true" } },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "my-app",
            "hostAliases": [given.aliases[0], { "ip": address, "hostnames": [GATEWAY] }],
            "volumes": [given.volumes[0], given.volumes[1], volume],
            "containers": [{
                "name": "app", "image": image(), "imagePullPolicy": "Never",
                "args": ["query", "-U", role, place, "-o", "json", "-c", "SELECT current_user"],
                "env": given.env,
                "volumeMounts": [given.mounts[0], given.mounts[1], mount],
            }],
        },
    })
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn a_gateway_lets_a_postgresql_of_the_cluster_accept_tokens() {
    let lab = Lab::new();
    let cloud = cloud(&lab);
    let namespace = Namespace::new(&lab, "gateway");
    namespace
        .apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "my-app" } }));
    let client_id = grant(&lab, &cloud, &namespace.name, "my-app");
    let given = given(&namespace, &cloud, &client_id);
    let vm = cloud.identity("system-assigned")["client_id"].as_str().unwrap().to_owned();
    let here = |words: &[&str]| lab.pgentra(words).envs(cloud.env("vm"));
    let token = here(&["token"]).token();
    let issuer = here(&["token", "--decode", "-o", "json"]).done().json()["claims"]["iss"].clone();

    // The server, as the page prepares it: its lines of pg_hba.conf first, because its configuration is read-only.
    let authority = Authority::new();
    authority.secret(&namespace, "postgres-tls", SERVER);
    authority.secret(&namespace, "gateway-tls", GATEWAY);
    let script = init(&namespace, &cloud, &[(ROLE, &client_id), (OTHER, &vm)]);
    let (_, lines) = script.split_once("-- pg_hba.conf, above all other lines:\n").unwrap();
    let hba: String = lines.lines().map(|line| format!("{}\n", line.trim_start_matches("-- "))).collect();
    let read = |name: &str| fs::read_to_string(lab.path().join(name)).unwrap();
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "server" },
        "data": {
            "pg_hba.conf": format!("{hba}local all postgres trust\n"),
            "authority.pem.crt": read("authority.pem.crt"),
        },
    }));
    namespace.secret("pgentra-authority", &json!({ "authority.pem": read("authority.pem") }));
    let postgres = server(&namespace);
    let psql = "exec /usr/lib/postgresql/*/bin/psql -h /tmp -U postgres -v ON_ERROR_STOP=1 -qAt";
    let sql = |sql: &str| -> Done<'_> {
        let words = ["exec", "-i", "postgres-0", "--", "/bin/sh", "-c", psql];
        namespace.kubectl(&words).input(sql).done()
    };
    sql(&script).ok();

    let file = lab.path().join("values.json");
    let issuer = issuer.as_str().unwrap();
    fs::write(&file, values(&cloud, (&given, issuer), &postgres).to_string()).unwrap();
    let helm = |words: &[&str]| {
        helm(&lab, HELM[1], &[words, &["--namespace", &namespace.name]].concat()).done().ok().to_owned()
    };
    let roll_out = |what: &str, more: &[&str]| {
        let words = [what, "gateway", CHART, "--values", file.to_str().unwrap(), "--wait", "--timeout", "4m"];
        helm(&[&words, more].concat())
    };
    roll_out("install", &[]);
    assert!(helm(&["test", "gateway"]).contains("Succeeded"));
    let address = namespace.get(&["service", "gateway-pgentra-gateway"])["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();

    // A pod with the token of its service account, and the same token for the role of another principal.
    let said = namespace.ends(&client("signs-in", ROLE, &given, &address), "Succeeded");
    assert_eq!(said.json()[0]["rows"][0][0], ROLE, "{said:?}");
    let said = namespace.ends(&client("is-refused", OTHER, &given, &address), "Failed");
    assert!(said.ok().contains("Service principal oid mismatch"), "{said:?}");
    let opened = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'of-the-vm'";
    assert_eq!(sql(opened).ok().trim(), "0");

    // A session goes on while the pods of the gateway are replaced.
    let ca = lab.path().join("gateway-ca.crt");
    fs::write(&ca, authority.0.pem()).unwrap();
    let conninfo = |role: &str| {
        format!(
            "host={GATEWAY} hostaddr={address} port=5432 user={role} dbname=postgres sslmode=verify-full sslrootcert={}",
            ca.display()
        )
    };
    let mut session = Psql::start(&conninfo(OTHER), &token);
    let who = "SELECT current_user || pg_backend_pid()";
    let first = session.ask(who);
    assert!(first.as_ref().is_some_and(|it| it.starts_with(OTHER)), "{first:?}: {}", session.error());
    let pods = || -> Vec<String> {
        let list = namespace.get(&["pods", "--selector", "app.kubernetes.io/name=pgentra-gateway"]);
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let pods = list["items"].as_array().unwrap().iter().filter(stays);
        pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let before = pods();
    roll_out("upgrade", &["--set", "podAnnotations.step=two"]);
    let after = eventually_blocking(ROLLOUT, "two new pods are ready", || {
        holds(pods(), |pods| pods.len() == 2 && pods.iter().all(|pod| !before.contains(pod)))
    });
    println!("gateway, upgrade: {before:?} became {after:?}");
    let again = session.ask(who);
    assert_eq!(again, first, "the session: {}", session.error());
    let mut new = Psql::start(&conninfo(OTHER), &token);
    assert_eq!(new.ask("SELECT current_user").as_deref(), Some(OTHER), "{}", new.error());
    let mut refused = Psql::start(&conninfo(ROLE), &token);
    assert_eq!(refused.ask("SELECT 1"), None);
    let error = refused.error();
    assert!(error.contains("Service principal oid mismatch"), "{error}");
    helm(&["uninstall", "gateway"]);
}

//! The chart, installed by each Helm that is supported.

use std::fs;
use std::path::PathBuf;

use e2e::{Lab, Run};
use eventually::{eventually_blocking, holds};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::kubernetes::{Namespace, ROLLOUT, helm};
use crate::psql::Psql;
use crate::stage::{Given, ROLE, cloud, given, grant};

/// The name of the proxy in its certificate.
const PROXY: &str = "pgentra.test";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/pgentra-proxy");
/// The versions of `cargo xtask cluster`.
pub(crate) const HELM: [&str; 2] = ["3.22.0", "4.3.1"];

/// Seconds that a session has to end after its pod was told to: more than a rollout takes on a slow machine.
const DRAIN: u64 = 120;

/// A release of the chart.
pub(crate) struct Release<'a> {
    pub(crate) namespace: &'a Namespace<'a>,
    helm: &'static str,
    values: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl<'a> Release<'a> {
    /// The values of a release, with its secrets.
    pub(crate) fn new(
        namespace: &'a Namespace<'a>,
        helm: &'static str,
        (client_id, given): (&str, &Given),
        password: &str,
    ) -> Self {
        let mut params = params("an authority", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let values = namespace.lab.path().join("values.json");
        let release = Self { namespace, helm, values, authority };
        fs::write(release.ca(), release.authority.pem()).unwrap();
        release.new_certificate();
        release.set_password(password);
        let text = json!({
            "image": { "pullPolicy": "Never" },
            "workloadIdentity": { "clientId": client_id },
            "config": { "drain_timeout": DRAIN },
            "preStopSeconds": 3,
            "terminationGracePeriodSeconds": DRAIN + 30,
            "targets": [{ "server": given.server }],
            "extraEnv": given.env,
            "extraVolumes": given.volumes,
            "extraVolumeMounts": given.mounts,
            "hostAliases": given.aliases,
        });
        fs::write(&release.values, text.to_string()).unwrap();
        release
    }

    /// The certificate of the proxy's authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.namespace.lab.path().join("proxy-ca.pem")
    }

    /// Puts a new certificate into the secret. Returns its bytes.
    pub(crate) fn new_certificate(&self) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let certificate = params(PROXY, vec![PROXY.to_owned()]).signed_by(&key, &self.authority).unwrap();
        let files = json!({ "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() });
        self.namespace.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": "pgentra-tls" }, "stringData": files,
        }));
        certificate.der().to_vec()
    }

    /// Puts the verifier of a password into the secret.
    pub(crate) fn set_password(&self, password: &str) {
        let hash =
            self.namespace.lab.pgentra(&["proxy", "hash-password", ROLE]).input(&format!("{password}\n"));
        self.namespace.secret("pgentra-auth", &json!({ "users.txt": hash.done().ok() }));
    }

    /// `helm` with these arguments, in the namespace of the release.
    pub(crate) fn helm(&self, words: &[&str]) -> Run<'a> {
        helm(self.namespace.lab, self.helm, &[words, &["--namespace", &self.namespace.name]].concat())
    }

    /// `helm install` or `helm upgrade`, which waits until the new pods are ready.
    pub(crate) fn roll_out(&self, what: &str, more: &[&str]) {
        let values = self.values.to_str().unwrap();
        let words = [what, "pgentra", CHART, "--values", values, "--wait", "--timeout", "4m"];
        self.helm(&[&words, more].concat()).done().ok();
    }

    /// Where the Service is.
    pub(crate) fn address(&self) -> String {
        let service = self.namespace.get(&["service", "pgentra-pgentra-proxy"]);
        service["spec"]["clusterIP"].as_str().unwrap().to_owned()
    }

    /// The names of its pods that are ready and stay.
    pub(crate) fn pods(&self) -> Vec<String> {
        let list = self.namespace.get(&["pods", "--selector", "app.kubernetes.io/name=pgentra-proxy"]);
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
        };
        let pods = list["items"].as_array().unwrap().iter().filter(stays).filter(is_ready);
        pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// How clients connect.
    pub(crate) fn conninfo(&self, address: &str) -> String {
        format!(
            "host={PROXY} hostaddr={address} port=5432 user={ROLE} dbname=postgres sslmode=verify-full sslrootcert={}",
            self.ca().display()
        )
    }
}

/// Each certificate has a subject of its own: OpenSSL takes one whose issuer has the same for self-signed.
fn params(common_name: &str, names: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

#[test]
#[ignore = "needs the cluster of `cargo xtask cluster test`"]
fn each_helm_installs_upgrades_and_rolls_back_while_a_session_goes_on() {
    for version in HELM {
        let lab = Lab::new();
        let cloud = cloud(&lab);
        let major = version.split('.').next().unwrap();
        let namespace = Namespace::new(&lab, &format!("helm{major}"));
        let client_id = grant(&lab, &cloud, &namespace.name, "pgentra-pgentra-proxy");
        let given = given(&namespace, &cloud, &client_id);
        let release = Release::new(&namespace, version, (&client_id, &given), "first");
        release.roll_out("install", &[]);
        let tested = release.helm(&["test", "pgentra"]).done();
        assert!(tested.ok().contains("Succeeded"), "{tested:?}");

        let conninfo = release.conninfo(&release.address());
        for step in ["upgrade", "rollback"] {
            let mut session = Psql::start(&conninfo, "first");
            let who = "SELECT current_user || pg_backend_pid()";
            let first = session.ask(who);
            let Some(first) = first.filter(|it| it.starts_with(ROLE)) else { panic!("{}", session.error()) };
            let before = release.pods();
            if step == "upgrade" {
                release.roll_out(step, &["--set", "podAnnotations.step=two"]);
            } else {
                release.helm(&["rollback", "pgentra", "1", "--wait", "--timeout", "4m"]).done().ok();
            }
            let after = eventually_blocking(ROLLOUT, "two new pods are ready", || {
                holds(release.pods(), |pods| pods.len() == 2 && pods.iter().all(|pod| !before.contains(pod)))
            });
            println!("Helm {version}, {step}: {before:?} became {after:?}");
            let again = session.ask(who);
            assert!(again == Some(first), "{step}: {}", session.error());
            let mut new = Psql::start(&conninfo, "first");
            assert_eq!(new.ask("SELECT current_user").as_deref(), Some(ROLE), "{}", new.error());
        }
        release.helm(&["uninstall", "pgentra", "--wait"]).done().ok();
    }
}

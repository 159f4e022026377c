//! Client authentication of `pgentra proxy`: real clients with certificates, with passwords, and as
//! other users of the machine.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use e2e::{Cloud, Done, Flavour, Lab, Proxy, have};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustix::process::Signal;

/// An authority whose certificates lie in a folder, as operators have them.
struct Papers {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Papers {
    fn new(folder: &Path) -> Self {
        let mut params = params("an authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder: folder.to_owned() }
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, file: &str, common_name: &str, usage: ExtendedKeyUsagePurpose) {
        let names = if usage == ExtendedKeyUsagePurpose::ServerAuth { &["localhost"][..] } else { &[] };
        let mut params = params(common_name, names);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        fs::write(self.path(file, "pem"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        private(&self.path(file, "key"), &key.serialize_pem());
    }

    fn path(&self, file: &str, extension: &str) -> PathBuf {
        self.folder.join(file).with_extension(extension)
    }

    /// A conninfo string for libpq, with or without a client certificate.
    fn conninfo(&self, own: Option<&str>) -> String {
        let trust = format!("sslmode=verify-full sslrootcert={}", self.path("ca", "pem").display());
        match own {
            Some(file) => {
                let (cert, key) = (self.path(file, "pem"), self.path(file, "key"));
                format!("{trust} sslcert={} sslkey={}", cert.display(), key.display())
            }
            None => format!("{trust} sslcert=/nowhere"),
        }
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The variables of the cloud, without role and database.
fn variables(cloud: &Cloud<'_>) -> BTreeMap<String, String> {
    let named = |name: &String| !["PGUSER", "PGDATABASE", "PGHOST", "PGPORT"].contains(&name.as_str());
    cloud.env("vm").into_iter().filter(|(name, _)| named(name)).collect()
}

fn target(cloud: &Cloud<'_>) -> String {
    format!("host=localhost port={}", cloud.env("vm")["PGPORT"])
}

fn psql<'a>(lab: &'a Lab, proxy: &Proxy<'_>, who: &str, more: &str, password: &str) -> Done<'a> {
    let conninfo =
        format!("host=localhost hostaddr=127.0.0.1 port={} {who} dbname=postgres {more}", proxy.port());
    let words = ["psql", "-XAtw", "-c", "SELECT current_user", &conninfo];
    lab.program(&words).env("PGPASSWORD", password).within(60).done()
}

#[test]
fn psql_shows_a_certificate_and_a_password() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let role = cloud.env("vm")["PGUSER"].clone();
    let papers = Papers::new(&lab.path().join("papers"));
    papers.issue("server", "a server", ExtendedKeyUsagePurpose::ServerAuth);
    papers.issue("app", "app", ExtendedKeyUsagePurpose::ClientAuth);
    papers.issue("other", "other", ExtendedKeyUsagePurpose::ClientAuth);
    let hashed = |password: &str| {
        lab.pgentra(&["proxy", "hash-password", "app"]).input(&format!("{password}\n")).done().ok().to_owned()
    };
    let users = lab.path().join("users");
    private(&users, &hashed("secret"));
    let file = lab.path().join("proxy.toml");
    let configuration = format!(
        "listen_tls_cert = '{folder}/server.pem'\nlisten_tls_key = '{folder}/server.key'\n\
         listen_tls_client_ca = '{folder}/ca.pem'\nlisten_tls_client_name = 'cn'\nlisten_auth_file = '{users}'\n\
         [[target]]\nserver = '{server}'\nlisten = '127.0.0.1:0'\nrole_map = {{ app = '{role}' }}\n",
        folder = papers.folder.display(),
        users = users.display(),
        server = target(&cloud),
    );
    fs::write(&file, configuration).unwrap();
    let proxy = lab.proxy(variables(&cloud), &["--config", file.to_str().unwrap()], 1);
    let app = papers.conninfo(Some("app"));
    for more in ["", "channel_binding=require", "ssl_max_protocol_version=TLSv1.2"] {
        let done = psql(&lab, &proxy, "user=app", &format!("{app} {more}"), "secret");
        assert_eq!(done.ok().trim_end(), role, "{more}");
    }
    let none = papers.conninfo(None);
    let other = papers.conninfo(Some("other"));
    for (more, password, said) in [
        (&*app, "wrong", "password authentication failed for user \"app\""),
        (&*other, "secret", "certificate authentication failed for user \"app\""),
        (&*none, "secret", "connection requires a valid client certificate"),
        ("sslmode=disable", "secret", "requires TLS"),
    ] {
        let done = psql(&lab, &proxy, "user=app", more, password);
        assert!(!done.status.success() && done.stderr.contains(said), "{done:?}");
        assert!(done.stderr.contains("HINT: "), "{done:?}");
    }

    // Another certificate of another authority, and another password.
    let renewed = Papers::new(&papers.folder);
    renewed.issue("server", "a server", ExtendedKeyUsagePurpose::ServerAuth);
    renewed.issue("app", "app", ExtendedKeyUsagePurpose::ClientAuth);
    private(&users, &hashed("renewed"));
    proxy.signal(Signal::HUP);
    proxy.await_line("reloaded: ");
    let done = psql(&lab, &proxy, "user=app", &renewed.conninfo(Some("app")), "renewed");
    assert_eq!(done.ok().trim_end(), role);
    let done = psql(&lab, &proxy, "user=app", &renewed.conninfo(Some("app")), "secret");
    assert!(done.stderr.contains("password authentication failed"), "{done:?}");
}

#[test]
fn users_of_the_machine_are_known_by_their_ids() {
    if !have(&["psql"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: to be several users takes root");
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let role = cloud.env("vm")["PGUSER"].clone();
    let folder = lab.path().join("sockets");
    let target = target(&cloud);
    let arguments = ["--listen", folder.to_str().unwrap(), "--listen-uids", "nobody", &target];
    let proxy = lab.proxy(variables(&cloud), &arguments, 1);
    let client = |uid: &str| {
        let conninfo = format!("host={} user={role} dbname=postgres", folder.display());
        let words = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--"];
        let words = [&words[..], &["psql", "-XAtw", "-c", "SELECT current_user", &conninfo]].concat();
        lab.program(&words).within(60).done()
    };
    for uid in ["0", "65534"] {
        assert_eq!(client(uid).ok().trim_end(), role, "{uid}");
    }
    let refused = client("4711");
    assert!(refused.stderr.contains("the local user 4711 may not use"), "{refused:?}");
    assert!(refused.stderr.contains("listen_uids"), "{refused:?}");
    drop(proxy);
}

#[test]
fn what_is_not_closed_does_not_listen_beyond_loopback() {
    let lab = Lab::new();
    let open = lab.path().join("open");
    fs::write(&open, "").unwrap();
    let file = open.to_str().unwrap();
    let done = lab
        .pgentra(&["proxy", "--listen", "0.0.0.0:0", "--listen-auth-file", file, "host=db.example"])
        .within(30)
        .done();
    assert_eq!(done.fault(2, &["beyond the loopback interface", "listen_tls_cert", "chmod 0640"]), None);
}

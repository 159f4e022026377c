//! The certificates and keys of one run.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

/// The cluster's authority. It signs for the API server and for each of its clients.
pub(crate) struct Keys<'a> {
    run: &'a Path,
}

/// A user of the API server: name and group.
pub(crate) type User<'a> = (&'a str, Option<&'a str>);

impl<'a> Keys<'a> {
    /// A new authority, with the key that signs the tokens of service accounts.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn new(run: &'a Path) -> Result<Self> {
        let keys = Self { run };
        keys.certificate("ca", "/CN=cluster", &["-addext", "keyUsage=critical,keyCertSign,cRLSign"])?;
        let key = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        keys.openssl(&[&key[..], &["-out", "service-accounts.key"]].concat())?;
        Ok(keys)
    }

    /// Writes `FILE.crt` and `FILE.key`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn issue(&self, file: &str, user: User<'_>, hosts: &str) -> Result<()> {
        let (name, group) = user;
        let group = group.map(|group| format!("/O={group}")).unwrap_or_default();
        let names = format!("subjectAltName={hosts}");
        let mut more =
            vec!["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:false"];
        if !hosts.is_empty() {
            more.extend(["-addext", &names]);
        }
        self.certificate(file, &format!("{group}/CN={name}"), &more)
    }

    fn certificate(&self, file: &str, subject: &str, more: &[&str]) -> Result<()> {
        let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
        let request =
            ["req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"];
        let files = ["-days", "30", "-subj", subject, "-out", &certificate, "-keyout", &key];
        self.openssl(&[&request[..], &files, more].concat())
    }

    /// OpenSSL writes keys for their user alone.
    fn openssl(&self, words: &[&str]) -> Result<()> {
        let said = Command::new("openssl").args(words).current_dir(self.run).output();
        let said = said.context("cannot run openssl")?;
        let error = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "openssl {words:?} failed ({}): {error}", said.status);
        Ok(())
    }

    /// Writes `FILE.kubeconfig` for a user, with a certificate of that user.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn kubeconfig(&self, file: &str, user: User<'_>, server: &str) -> Result<()> {
        self.issue(file, user, "")?;
        let of = |extension: &str| self.run.join(format!("{file}.{extension}"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "cluster",
            "clusters": [{ "name": "cluster", "cluster": {
                "server": server, "certificate-authority": self.run.join("ca.crt"),
            }}],
            "users": [{ "name": "user", "user": {
                "client-certificate": of("crt"), "client-key": of("key"),
            }}],
            "contexts": [{ "name": "cluster", "context": { "cluster": "cluster", "user": "user" } }],
        });
        let path = of("kubeconfig");
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        written
            .and_then(|mut it| it.write_all(config.to_string().as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

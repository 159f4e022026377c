//! The trusted certificates of the machine, and the trust store that a JVM reads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::{Failure, FailureKind};

/// The variable with options that every JVM reads. It may have options of the user, so a local cloud
/// appends its own.
pub const JAVA_VARIABLE: &str = "JAVA_TOOL_OPTIONS";

/// Where systems have the file with the certificates that programs trust: Debian, Ubuntu and Alpine;
/// Fedora and RHEL (two names); SUSE; OpenSSL's own name on Alpine, BSD and macOS.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Password of the JVM's trust store. It keeps nothing secret: the store has certificates only.
const PASSWORD: &str = "changeit";

/// The user's own options, and behind them these, which a JVM prefers.
pub(crate) fn joined_options(own: Option<&str>, more: &str) -> String {
    match own {
        Some(own) if !own.is_empty() => format!("{own} {more}"),
        _ => more.to_owned(),
    }
}

/// The options of a JVM that trusts the certificates of this store.
pub(crate) fn java_options(store: &Path) -> String {
    let store = quoted(&store.display().to_string());
    let option = "-Djavax.net.ssl.trustStore";
    format!("{option}={store} {option}Type=PKCS12 {option}Password={PASSWORD}")
}

/// A JVM splits the variable at white space outside of quotes, and ends at a quote without its pair. It takes everything
/// between two quotes as it is, and joins what follows without a space.
fn quoted(text: &str) -> String {
    let is_plain = !text.contains(|character: char| character.is_whitespace() || "\"'".contains(character));
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', r#""'"'""#)) }
}

/// The machine's files with trusted certificates, and their contents. What is no UTF-8 in them is replaced: certificates
/// are ASCII, comments may be anything.
pub(crate) fn machine_bundles() -> Result<Vec<(PathBuf, String)>, Failure> {
    bundles(&BUNDLES).collect()
}

fn bundles<P: AsRef<Path>>(paths: &[P]) -> impl Iterator<Item = Result<(PathBuf, String), Failure>> {
    let mut seen = BTreeSet::new();
    // A link to another of these files is the same file.
    let real = paths.iter().filter_map(|path| fs::canonicalize(path).ok());
    real.filter(move |path| seen.insert(path.clone())).map(|path| {
        let bytes = fs::read(&path).map_err(|error| {
            Failure::new(FailureKind::Machine, format!("cannot read {}: {error}", path.display()))
        })?;
        Ok((path, String::from_utf8_lossy(&bytes).into_owned()))
    })
}

/// The certificates of a PEM text as a trust store in PKCS#12. What is no certificate for the writer
/// is left out.
pub(crate) fn trust_store(bundle: &str) -> Result<Vec<u8>, Failure> {
    let mut store = KeyStore::new();
    let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok);
    for (number, certificate) in certificates.enumerate() {
        match Certificate::from_der(&certificate) {
            Ok(certificate) => store.add_entry(&number.to_string(), KeyStoreEntry::Certificate(certificate)),
            Err(error) => tracing::debug!(%error, "a trusted certificate is not in the JVM's store"),
        }
    }
    let written = store.writer(PASSWORD).write();
    written.map_err(|error| Failure::machine("cannot write the trust store of a JVM", error))
}

/// The trust store of a JVM that trusts the machine's certificates and this one. Without a file of the machine that can
/// be read, it trusts this one alone.
pub(crate) fn trust_store_with(certificate: &str) -> Result<Vec<u8>, Failure> {
    trust_store(&joined(&first_readable(&BUNDLES), certificate))
}

/// The content of the first of these files that can be read, or an empty text.
fn first_readable<P: AsRef<Path>>(paths: &[P]) -> String {
    let log = |error: &Failure| tracing::warn!(%error, "a JVM does not trust the certificates of this file");
    let mut readable = bundles(paths).filter_map(|bundle| bundle.inspect_err(log).ok());
    readable.next().map(|(_, text)| text).unwrap_or_default()
}

/// Two PEM texts as one.
pub(crate) fn joined(text: &str, more: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{more}")
}

#[cfg(test)]
mod tests {
    use p12_keystore::Pkcs12ImportPolicy;
    use pgentra_emulator::certificates::Authority;

    use super::*;

    #[test]
    fn the_store_has_the_certificates_of_the_machine_too() {
        let authority = Authority::generate().unwrap();
        let machine = machine_bundles().unwrap();
        let count =
            machine.first().map_or(0, |(_, text)| text.matches("-----BEGIN CERTIFICATE-----").count());
        let store = trust_store_with(authority.pem()).unwrap();
        let read = KeyStore::from_pkcs12(&store, PASSWORD, Pkcs12ImportPolicy::Strict).unwrap();
        assert_eq!(read.entries_len(), count + 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_or_is_no_utf_8_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let [no_file, latin] = ["folder", "latin"].map(|name| folder.path().join(name));
        fs::create_dir(&no_file).unwrap();
        assert_eq!(first_readable(&[&no_file]), "");
        let (machine, own) = (Authority::generate().unwrap(), Authority::generate().unwrap());
        fs::write(&latin, [b"# Autorit\xe9\n", machine.pem().as_bytes()].concat()).unwrap();
        let text = joined(&first_readable(&[&no_file, &latin]), own.pem());
        let store = trust_store(&text).unwrap();
        let read = KeyStore::from_pkcs12(&store, PASSWORD, Pkcs12ImportPolicy::Strict).unwrap();
        assert_eq!(read.entries_len(), 2);
    }

    /// With the rules of a JVM.
    #[test]
    fn a_path_is_one_word_for_a_jvm() {
        for path in ["/tmp/a", "/tmp/a b", "/tmp/it's", "/tmp/\"a\"", "/tmp/it's \"a\" b"] {
            let options = java_options(Path::new(path));
            let (mut words, mut quote) = (vec![String::new()], None);
            for character in options.chars() {
                match (quote, character) {
                    (Some(open), _) if character == open => quote = None,
                    (None, '"' | '\'') => quote = Some(character),
                    (None, ' ') => words.push(String::new()),
                    _ => words.last_mut().unwrap().push(character),
                }
            }
            assert_eq!((quote, words.len()), (None, 3), "{options}");
            assert_eq!(words[0], format!("-Djavax.net.ssl.trustStore={path}"));
        }
    }

    #[test]
    fn a_text_without_an_end_of_line_gets_one() {
        assert_eq!(joined("a", "b"), "a\nb");
        assert_eq!(joined("a\n", "b"), "a\nb");
        assert_eq!(joined("", "b"), "b");
    }
}

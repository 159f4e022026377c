use pgentra_emulator::certificates::Authority;
use secrecy::ExposeSecret;

use super::*;

/// The verifier of the password `secret`.
const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// A certificate chain with its key in one file, a common form, and their authority.
fn write_certificate(files: &Files) {
    let authority = Authority::generate().unwrap();
    let issued = authority.issue(&["localhost"]).unwrap().pem();
    files.put("/both.pem", issued.expose_secret());
    files.put("/ca.pem", authority.pem());
}

/// A machine with these files and one user account.
fn system(files: &Files) -> System {
    System::builder().files(files.clone()).accounts(Accounts::from_map([("app", 1001)])).build()
}

fn with_tls() -> ClientAuthSettings {
    ClientAuthSettings {
        tls_cert: Some("/both.pem".into()),
        tls_key: Some("/both.pem".into()),
        ..ClientAuthSettings::default()
    }
}

fn pair(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn a_door_is_read_from_its_files() {
    let files = Files::in_memory();
    write_certificate(&files);
    files.put("/users", format!("\"app\" \"{VERIFIER}\"\n"));
    let client_auth = open(&system(&files), &ClientAuthSettings::default()).unwrap();
    assert!(client_auth.tls.is_none() && client_auth.users.is_none() && client_auth.roles.is_none());
    let client_auth = open(&system(&files), &with_tls()).unwrap();
    assert!(!client_auth.tls.unwrap().asks_for_certificates());
    let client_auth = ClientAuthSettings {
        tls_client_ca: Some("/ca.pem".into()),
        tls_client_name: ClientName::Cn,
        tls_client_map: pair("one", "app"),
        auth_file: Some("/users".into()),
        role_map: pair("app", "my-app"),
        ..with_tls()
    };
    let client_auth = open(&system(&files), &client_auth).unwrap();
    assert!(client_auth.tls.unwrap().asks_for_certificates());
    assert_eq!(client_auth.users.unwrap().len(), 1);
    assert_eq!(client_auth.roles, Some(RoleMap::from_iter([("app", "my-app")])));
}

#[test]
fn whoever_is_asked_for_nothing_is_a_stranger() {
    let (ca, users) = (Some("/ca.pem".into()), Some("/users".into()));
    for (client_auth, closed) in [
        (ClientAuthSettings::default(), false),
        (with_tls(), false),
        (ClientAuthSettings { auth_file: users.clone(), ..ClientAuthSettings::default() }, false),
        (ClientAuthSettings { auth_file: users, ..with_tls() }, true),
        (ClientAuthSettings { tls_client_ca: ca, ..with_tls() }, true),
    ] {
        assert_eq!(client_auth.require_authentication(), closed, "{client_auth:?}");
        let files = Files::in_memory();
        write_certificate(&files);
        files.put("/users", "");
        assert_eq!(
            open(&system(&files), &client_auth).unwrap().requires_authentication(),
            closed,
            "{client_auth:?}"
        );
    }
}

#[test]
fn what_does_not_go_is_told_with_what_to_do() {
    let files = Files::in_memory();
    write_certificate(&files);
    files.put("/plain", "\"app\" \"hunter2\"");
    files.put("/latin", b"\"\xe4\" \"x\"");
    let path = |path: &str| Some(PathBuf::from(path));
    for (client_auth, key, said) in [
        (ClientAuthSettings { tls_key: None, ..with_tls() }, "listen_tls_cert", "needs listen_tls_key"),
        (ClientAuthSettings { tls_cert: None, ..with_tls() }, "listen_tls_key", "needs listen_tls_cert"),
        (
            ClientAuthSettings { tls_key: path("/none"), ..with_tls() },
            "listen_tls_key",
            "/none cannot be read",
        ),
        (
            ClientAuthSettings { tls_key: path("/ca.pem"), ..with_tls() },
            "listen_tls_cert",
            "private key cannot be read",
        ),
        (
            ClientAuthSettings { tls_client_ca: path("/ca.pem"), ..ClientAuthSettings::default() },
            "listen_tls_client_ca",
            "needs listen_tls_cert",
        ),
        (
            ClientAuthSettings { tls_client_name: ClientName::Cn, ..with_tls() },
            "listen_tls_client_name",
            "listen_tls_client_ca",
        ),
        (
            ClientAuthSettings {
                tls_client_map: pair("a", "b"),
                tls_client_ca: path("/ca.pem"),
                ..with_tls()
            },
            "listen_tls_client_map",
            "needs listen_tls_client_name",
        ),
        (
            ClientAuthSettings { auth_file: path("/plain"), ..ClientAuthSettings::default() },
            "listen_auth_file",
            "/plain: line 1 ",
        ),
        (
            ClientAuthSettings { auth_file: path("/latin"), ..ClientAuthSettings::default() },
            "listen_auth_file",
            "not UTF-8",
        ),
    ] {
        let faults = open(&system(&files), &client_auth).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].key, key);
        assert!(faults[0].message.contains(said) && !faults[0].hint.is_empty(), "{faults:?}");
        assert!(!format!("{faults:?}").contains("hunter2"));
    }
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    std::fs::write(&path, format!("\"app\" \"{VERIFIER}\"\n")).unwrap();
    let client_auth = ClientAuthSettings { auth_file: Some(path.clone()), ..ClientAuthSettings::default() };
    for (mode, may) in [(0o644, false), (0o640, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        match open(&system(&Files::real()), &client_auth) {
            Ok(_) => assert!(may),
            Err(faults) => assert!(!may && faults[0].hint.contains("chmod 0640"), "{faults:?}"),
        }
    }
}

#[test]
fn users_have_numbers_or_names() {
    let files = Files::in_memory();
    let named = |users: &[&str]| ClientAuthSettings {
        uids: users.iter().map(|user| (*user).to_owned()).collect(),
        ..ClientAuthSettings::default()
    };
    assert_eq!(open(&system(&files), &named(&["app", "4711"])).unwrap().uids, [1001, 4711]);
    let faults = open(&system(&files), &named(&["app", "nobody_here", "x"])).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert!(faults[0].message.contains("nobody_here") && faults[0].hint.contains("id -u"), "{faults:?}");
}

#[test]
fn changed_files_are_read_again_and_bad_ones_are_not_believed() {
    let files = Files::in_memory();
    write_certificate(&files);
    files.put("/users", "");
    let client_auth = ClientAuthSettings { auth_file: Some("/users".into()), ..with_tls() };
    let mut watched = WatchedFiles::new(&system(&files), &client_auth, false);
    assert!(watched.look().is_none());
    files.put("/users", format!("\"app\" \"{VERIFIER}\"\n"));
    assert_eq!(watched.look().unwrap().users.unwrap().len(), 1);
    assert!(watched.look().is_none());
    files.put("/users", "nonsense");
    assert!(watched.look().is_none());
    // A certificate whose key is missing.
    files.put("/users", "");
    assert!(watched.look().is_some());
    files.put("/both.pem", "half");
    assert!(watched.look().is_none());
    write_certificate(&files);
    assert!(watched.look().is_some());
}

use pgentra_gateway::SigningAuthority;
use pgentra_system::{Env, Files, System};
use secrecy::ExposeSecret as _;

use super::*;

const FILE: &str = "/etc/gateway.toml";
const TENANT: &str = "11111111-2222-3333-4444-555555555555";

/// Files with a certificate, an authority, a password and a mapping.
fn files() -> Files {
    let files = Files::in_memory();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    files.put("/tls.crt", certificate.pem());
    files.put("/tls.key", key.serialize_pem());
    let authority = SigningAuthority::generate(std::time::SystemTime::UNIX_EPOCH).unwrap();
    files.put("/authority.pem", authority.to_pem().expose_secret());
    files.put("/password", "open sesame\n");
    files.put("/mapping.toml", format!("[[role]]\nname = 'app'\nobject_ids = ['{TENANT}']\n"));
    files
}

fn gather(file: &str, variables: &[(&str, &str)]) -> Result<GatewayConfiguration, String> {
    let files = files();
    files.put(FILE, file);
    let system = System::builder().env(Env::from_map(variables.iter().copied())).files(files).build();
    let sources = GatewaySources { file: Some(FILE.into()), flags: Vec::new() };
    GatewayConfiguration::gather(&system, &sources, &GatewayReloadState::default())
        .map_err(|error| error.to_string())
}

/// The least that a gateway needs.
fn least(more: &str) -> String {
    format!(
        "listen_tls_cert = '/tls.crt'\nlisten_tls_key = '/tls.key'\ntenant = '{TENANT}'\n\
         upstream = '/var/run/postgresql'\n{more}"
    )
}

#[test]
fn the_least_configuration_has_defaults() {
    let configuration = gather(&least(""), &[]).unwrap();
    assert_eq!(configuration.process.listen, [ListenAddr::default()]);
    let [server] = &configuration.servers[..] else { panic!() };
    assert_eq!(server.name, "/var/run/postgresql");
    assert!(format!("{:?}", server.config).contains("Peer"), "{:?}", server.config);
}

#[test]
fn layers_are_stronger_in_their_order() {
    let file = least("max_connections = 1\n");
    assert_eq!(gather(&file, &[]).unwrap().servers[0].settings.max_connections, 1);
    let variable = ("PGENTRA_GATEWAY_MAX_CONNECTIONS", "2");
    assert_eq!(gather(&file, &[variable]).unwrap().servers[0].settings.max_connections, 2);
    let error = gather(&file, &[("PGENTRA_GATEWAY_MAX_CONECTIONS", "2")]).unwrap_err();
    assert!(error.contains("the nearest is max_connections"), "{error}");
}

#[test]
fn every_method_reads_its_files() {
    for (more, method) in [
        (
            "upstream = 'db.example:6432'\nupstream_ca = '/tls.crt'\nauthority = '/authority.pem'\n",
            "Certificate",
        ),
        (
            "upstream = '/run'\nmethod = 'scram'\npassword_file = '/password'\nunmapped = 'password'\n",
            "SharedPassword",
        ),
        (
            "upstream = '[::1]:5433'\nupstream_ca = '/tls.crt'\nmethod = 'scram'\npassword_file = '/password'\nflavour = 'single'\n",
            "SharedPassword",
        ),
        ("upstream = '/run'\nflavour = 'none'\nmapping = '/mapping.toml'\n", "Peer"),
    ] {
        let file = least("").replace("upstream = '/var/run/postgresql'\n", more);
        let configuration = gather(&file, &[]).unwrap_or_else(|error| panic!("{more}: {error}"));
        let config = format!("{:?}", configuration.servers[0].config);
        assert!(config.contains(method), "{more}: {config}");
        assert!(!config.contains("open sesame"), "{config}");
    }
}

#[test]
fn an_upstream_can_be_several_servers() {
    let of = |upstream: &str| {
        let least = least("target_session_attrs = 'prefer-standby'\nupstream_ca = '/tls.crt'\n");
        gather(&least.replace("/var/run/postgresql", upstream), &[])
    };
    let configuration = of("/run/a, /run/b:5433").unwrap();
    let config = &configuration.servers[0].config;
    assert_eq!(config.upstream.to_string(), "/run/a:5432");
    let further: Vec<_> = config.further.iter().map(ToString::to_string).collect();
    assert_eq!(further, ["/run/b:5433"]);
    assert_eq!(config.target_session_attrs, pgentra_gateway::SessionAttrs::PreferStandby);
    for (upstream, says) in [
        ("/run/a,db.example", "cannot be Unix sockets and hosts at once"),
        ("/run/a,", "upstream: cannot be ``"),
        ("db.example:x,db.example", "`x` is no port"),
    ] {
        let error = of(upstream).map(|_| ()).unwrap_err();
        assert!(error.contains(says), "{upstream}: {error}");
    }
}

#[test]
fn what_does_not_fit_is_reported_with_all_the_rest() {
    for (more, says) in [
        ("method = 'cert'\n", "cannot be cert over a Unix socket"),
        ("method = 'scram'\n", "password_file: is missing"),
        ("flavour = 'none'\n", "mapping: is missing"),
        ("mapping = '/mapping.toml'\n", "mapping: is for flavour none"),
        ("flavour = 'single'\n", "flavour: cannot be single"),
        ("flavour = 'single'\nwarm = 1\n", "warm: cannot be used with flavour single"),
        ("tenants = 'x'\n", "the nearest is tenant"),
        ("keys_url = 'http://keys.example/'\n", "begins with https://"),
        ("listen = '/run/x'\n", "the gateway listens on TCP"),
        ("admin_listen = '0.0.0.0:1'\n", "may end the gateway"),
        ("[[server]]\nupstream = '/a'\n", "upstream: is given beside"),
        ("target_session_attrs = 'master'\n", "target_session_attrs: cannot be `master`: it is any"),
    ] {
        let error = gather(&least(more), &[]).map(|_| ()).unwrap_err();
        assert!(error.contains(says), "{more}: {error}");
    }
    let two =
        format!("tenant = ['{TENANT}', '21111111-2222-3333-4444-555555555555']\nissuer = 'https://i/'\n");
    let error =
        gather(&least("").replace(&format!("tenant = '{TENANT}'\n"), &two), &[]).map(|_| ()).unwrap_err();
    assert!(error.contains("issuer: is for one tenant"), "{error}");
    let error = gather("listen = '0.0.0.0'\n", &[]).map(|_| ()).unwrap_err();
    for says in [
        "without TLS: tokens would cross",
        "listen_tls_cert: is missing",
        "upstream: is missing",
        "tenant: is missing",
    ] {
        assert!(error.contains(says), "{says}: {error}");
    }
    let no_tls = format!("tenant = '{TENANT}'\nupstream = '/run'\ndanger_accept_plaintext = true\n");
    assert!(gather(&no_tls, &[]).is_ok());
    let beyond = format!("{no_tls}listen = '0.0.0.0'\n");
    assert!(
        gather(&beyond, &[]).unwrap_err().contains("without TLS"),
        "an address beyond loopback needs TLS"
    );
}

#[test]
fn servers_have_their_own_settings_and_names() {
    let file = least("").replace("upstream = '/var/run/postgresql'\n", "")
        + "[[server]]\nupstream = '/a'\ndatabases = ['app']\n[[server]]\nupstream = '/b'\nname = 'b'\n";
    let configuration = gather(&file, &[]).unwrap();
    let names: Vec<_> = configuration.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["/a", "b"]);
    assert_eq!(configuration.servers[0].route().databases, ["app"]);
    let twice = file.replace("name = 'b'", "name = '/a'");
    assert!(gather(&twice, &[]).unwrap_err().contains("another server has it"));
    let whole = file.replace("name = 'b'", "drain_timeout = 1");
    assert!(gather(&whole, &[]).unwrap_err().contains("write it above the first [[server]]"));
}

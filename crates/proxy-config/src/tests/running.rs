use eventually::{DEADLINE, eventually};
use pgentra_settings::InheritedSockets;
use pgentra_system::{Env, Files, System};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::sources::Sources;

const FILE: &str = "/pgentra.toml";
/// An address at which no metadata service listens.
const NOWHERE: (&str, &str) = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1");

/// The running proxy and its configuration file.
struct Stage {
    files: Files,
    system: System,
    held: ReloadState,
    running: RunningProxy,
}

impl Stage {
    fn new(inherited: InheritedSockets) -> Self {
        let files = Files::in_memory();
        let system = System::builder().env(Env::from_map([NOWHERE])).files(files.clone()).build();
        Self { files, system, held: ReloadState::new(inherited), running: RunningProxy::default() }
    }

    async fn apply(&mut self, file: &str) -> Result<Vec<String>, String> {
        self.files.put(FILE, file);
        let sources = Sources::file(FILE);
        let gathered = Configuration::gather(&self.system, &sources, &mut self.held);
        let configuration = gathered.map_err(|problems| problems.to_string())?;
        self.running.apply(configuration, &self.held).await.map_err(|error| error.to_string())
    }

    fn addresses(&self) -> Vec<String> {
        self.running.listeners.iter().map(|open| open.address.clone()).collect()
    }

    async fn end(&self) {
        self.running.stop().cancel();
        self.running.ended().await;
    }
}

/// The answer to a start-up without a user, which shows that the listener serves.
async fn answer(address: &str) -> std::io::Result<Vec<u8>> {
    let mut client = TcpStream::connect(address).await?;
    client.write_all(b"\0\0\0\x09\0\x03\0\0\0").await?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await?;
    Ok(answer)
}

const TWO: &str = "\
[[target]]
server = 'host=one.example'
listen = '127.0.0.1:0'
[[target]]
server = 'host=two.example'
listen = '127.0.0.1:0'
max_connections = 7
client_id = '00000000-1111-2222-3333-444444444444'
";

#[tokio::test]
async fn a_reload_tells_what_it_changes_and_keeps_what_stays() {
    let mut stage = Stage::new(InheritedSockets::default());
    let lines = stage.apply(TWO).await.unwrap();
    let before = stage.addresses();
    assert_eq!(
        lines,
        [
            format!("listening on {} -> one.example:5432", before[0]),
            format!("listening on {} -> two.example:5432", before[1])
        ]
    );
    assert_eq!(stage.apply(TWO).await.unwrap(), [""; 0]);

    // A client that has sent nothing yet belongs to the old target.
    let mut early = TcpStream::connect(&before[1]).await.unwrap();
    let changed =
        format!("drain_timeout = 9\n{}\nlissten", TWO.replace("= 7", "= 8").replace("444'", "445'"));
    let error = stage.apply(&changed).await.unwrap_err();
    assert!(error.contains("/pgentra.toml:"), "{error}");
    assert_eq!(stage.addresses(), before);

    let changed = changed.replace(
        "lissten",
        "[[target]]\nserver = 'host=three.example'\nlisten = ['127.0.0.1:0', '127.0.0.1:0']",
    );
    let lines = stage.apply(&changed).await.unwrap();
    let after = stage.addresses();
    assert_eq!(after[..2], before);
    assert_eq!(
        lines,
        [
            "drain_timeout 5s -> 9".to_owned(),
            "target added: three.example:5432".to_owned(),
            "target changed: two.example:5432: max_connections 7 -> 8, client_id changed".to_owned(),
            format!("listening on {} -> three.example:5432", after[2]),
            format!("listening on {} -> three.example:5432", after[3]),
        ]
    );
    assert_eq!(stage.running.status(), "3 target(s) on 4 listener(s), 0 session(s)");
    for address in &after {
        assert_eq!(answer(address).await.unwrap()[0], b'E', "{address}");
    }
    early.write_all(b"\0\0\0\x09\0\x03\0\0\0").await.unwrap();
    assert_eq!(early.read_u8().await.unwrap(), b'E');

    let only = "[[target]]\nserver = 'host=two.example'\nlisten = '127.0.0.1:0'\n";
    let lines = stage.apply(only).await.unwrap();
    assert_eq!(stage.addresses(), before[1..]);
    assert_eq!(lines.iter().filter(|line| line.starts_with("target removed: ")).count(), 2);
    assert_eq!(lines.iter().filter(|line| line.starts_with("no longer listening on ")).count(), 3);
    let closed = async || answer(&before[0]).await.is_err();
    eventually(DEADLINE, "no listener for the target that was removed", closed).await;
    assert_eq!(answer(&before[1]).await.unwrap()[0], b'E');
    stage.end().await;
    assert!(answer(&before[1]).await.is_err());
}

#[tokio::test]
async fn an_address_that_cannot_be_had_changes_nothing() {
    let mut stage = Stage::new(InheritedSockets::default());
    stage.apply(TWO).await.unwrap();
    let before = stage.addresses();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let changed =
        format!("[[target]]\nserver = 'host=three.example'\nlisten = ['127.0.0.1:0', '127.0.0.1:{port}']\n");
    let error = stage.apply(&changed).await.unwrap_err();
    assert!(error.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
    assert_eq!(stage.addresses(), before);
    for address in &before {
        assert_eq!(answer(address).await.unwrap()[0], b'E');
    }
    stage.end().await;
}

/// The hint for a port that another program has names what the user has to change.
#[tokio::test]
async fn a_taken_port_is_changed_where_it_is_written() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (file, hint) in [
        (
            format!("listen = '{port}'\n[[target]]\nserver = 'host=a.example'\n"),
            "this one is free: --listen ",
        ),
        (
            format!("[[target]]\nserver = 'host=a.example'\nlisten = '{port}'\n"),
            ", at /pgentra.toml:3 listen",
        ),
        (
            format!("listen = '0'\n[[target]]\nserver = 'postgresql://a.example?listen={port}'\n"),
            ", at /pgentra.toml:3 listen",
        ),
    ] {
        let mut stage = Stage::new(InheritedSockets::default());
        stage.files.put(FILE, file.as_str());
        let configuration = Configuration::gather(&stage.system, &Sources::file(FILE), &mut stage.held);
        let error = stage.running.apply(configuration.unwrap(), &stage.held).await.unwrap_err();
        let told = error.problems()[0].hint.clone().unwrap();
        assert!(told.contains("this one is free: ") && told.contains(hint), "{file}: {told}");
    }
}

#[tokio::test]
async fn a_listener_can_change_its_target() {
    let mut stage = Stage::new(InheritedSockets::default());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |host: &str| format!("[[target]]\nserver = 'host={host}'\nlisten = '127.0.0.1:{port}'\n");
    stage.apply(&file("one.example")).await.unwrap();
    let _waiting = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let lines = stage.apply(&file("two.example")).await.unwrap();
    assert_eq!(lines, ["target added: two.example:5432", "target removed: one.example:5432"]);
    assert_eq!(answer(&format!("127.0.0.1:{port}")).await.unwrap()[0], b'E');
    stage.end().await;
}

#[tokio::test]
async fn a_socket_of_systemds_comes_back() {
    let mut stage = Stage::new(InheritedSockets::of_names(&["pg"]).unwrap());
    let with = "[[target]]\nserver = 'host=one.example'\n";
    stage.apply(with).await.unwrap();
    let inherited = stage.addresses();
    assert_eq!(answer(&inherited[0]).await.unwrap()[0], b'E');
    stage.apply("[[target]]\nserver = 'host=one.example'\nlisten = '127.0.0.1:0'\n").await.unwrap();
    assert_ne!(stage.addresses(), inherited);
    stage.apply(with).await.unwrap();
    assert_eq!(stage.addresses(), inherited);
    assert_eq!(answer(&inherited[0]).await.unwrap()[0], b'E');
    stage.end().await;
}

/// The SQLSTATE for a client of this database; 28000 shows that it was led to a target, which gets no token.
async fn sqlstate(address: &str, database: &str) -> String {
    let mut packet = b"\0\x03\0\0user\0app\0database\0".to_vec();
    packet.extend(database.as_bytes());
    packet.extend(b"\0\0");
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&u32::try_from(packet.len() + 4).unwrap().to_be_bytes()).await.unwrap();
    client.write_all(&packet).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split('\0').find_map(|field| field.strip_prefix('C')).unwrap().to_owned()
}

#[tokio::test]
async fn an_address_can_be_that_of_more_targets_after_a_reload() {
    let mut stage = Stage::new(InheritedSockets::default());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let target = |host: &str, databases: &str| {
        format!("[[target]]\nserver = 'host={host}'\nlisten = '{port}'\ndatabases = {databases}\n")
    };
    let one = target("one.invalid", "['x']");
    assert_eq!(stage.apply(&one).await.unwrap(), [format!("listening on {address} -> one.invalid:5432")]);
    assert_eq!(sqlstate(&address, "y").await, "3D000");
    let two = target("two.invalid", "['y']");
    let direct = "listen_direct = '127.0.0.1:0'\n";
    let lines = stage.apply(&format!("{one}{two}{direct}")).await.unwrap();
    let of_direct = stage.addresses()[1].clone();
    assert_eq!(
        lines,
        [
            "target added: two.invalid:5432".to_owned(),
            format!("listening on {address} -> one.invalid:5432; two.invalid:5432"),
            format!("listening on {of_direct} -> two.invalid:5432 (direct)"),
        ]
    );
    for (address, database, expected) in [
        (&address, "x", "28000"),
        (&address, "y", "28000"),
        (&address, "z", "3D000"),
        (&of_direct, "y", "28000"),
    ] {
        assert_eq!(sqlstate(address, database).await, expected, "{database}");
    }
    let shown: Vec<_> = stage.running.listeners().map(|it| it.target.name.clone()).collect();
    assert_eq!(shown, ["one.invalid:5432", "two.invalid:5432", "two.invalid:5432"]);

    let moved = target("two.invalid", "['y', 'z']");
    let lines = stage.apply(&moved).await.unwrap();
    assert_eq!(
        lines,
        [
            "target changed: two.invalid:5432: databases y -> y,z".to_owned(),
            "target removed: one.invalid:5432".to_owned(),
            format!("no longer listening on {of_direct}"),
            format!("listening on {address} -> two.invalid:5432"),
        ]
    );
    assert_eq!(sqlstate(&address, "x").await, "3D000");
    stage.end().await;
}

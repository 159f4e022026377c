//! `deploy/compose`: the services of the file run their commands, in network namespaces with its networks, addresses, names,
//! volumes and users. No container engine and no image is involved: programs are those of this machine.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use e2e::{Done, Lab, Namespace, client, have, pgentra};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The user of the image pgentra-local.
const AZURE: u32 = 65532;
/// The user of the image in `deploy/compose/program`.
const PROGRAM: u32 = 65534;

/// Exit codes of curl.
const NO_CONNECTION: i32 = 7;
const NO_TLS: i32 = 35;

/// Mounts what a container has, and runs the rest as a user without capabilities.
/// With the fourth argument, the image has a link to the certificates in the place of its own.
const ENTER: &str = "hosts=$1 volume=$2 user=$3 linked=$4; shift 4
    mount -t tmpfs none /run && mkdir /run/azure && mount --bind \"$volume\" /run/azure && mount --bind \"$hosts\" /etc/hosts
    [ -z \"$linked\" ] || mount --bind /run/azure/ca-bundle.pem \"$linked\"
    exec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- \"$@\"";

fn compose() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose").canonicalize().unwrap()
}

/// A service of the file in its namespace.
struct Container {
    namespace: Namespace,
    /// Its address on each of its networks.
    addresses: BTreeMap<String, Ipv4Addr>,
}

/// All services, connected as the file says.
struct Containers<'lab> {
    lab: &'lab Lab,
    services: Value,
    containers: BTreeMap<String, Container>,
    /// The namespace of the bridges.
    _bridges: Namespace,
}

impl<'lab> Containers<'lab> {
    fn new(lab: &'lab Lab, file: &Value) -> Self {
        let bridges = Namespace::new("bridges");
        let services = file["services"].clone();
        let mut containers: BTreeMap<String, Container> = BTreeMap::new();
        for name in services.as_object().unwrap().keys() {
            let namespace = Namespace::new(name);
            containers.insert(name.clone(), Container { namespace, addresses: BTreeMap::new() });
        }
        for (number, (network, definition)) in file["networks"].as_object().unwrap().iter().enumerate() {
            let bridge = format!("bridge{number}");
            bridges.ip(&["link", "add", &bridge, "type", "bridge"]);
            bridges.ip(&["link", "set", &bridge, "up"]);
            let subnet = definition["ipam"]["config"][0]["subnet"].as_str().unwrap();
            let (first, bits) = subnet.split_once('/').unwrap();
            let first = u32::from(first.parse::<Ipv4Addr>().unwrap());
            // An engine gives the first address of a network to the machine.
            let mut free = (first + 2..).map(Ipv4Addr::from);
            for (at, (name, service)) in services.as_object().unwrap().iter().enumerate() {
                let Some(membership) = membership(service, network) else { continue };
                let own = membership["ipv4_address"].as_str().map(|it| it.parse().unwrap());
                let address = own.unwrap_or_else(|| free.next().unwrap());
                let container = containers.get_mut(name).unwrap();
                let (near, far) = (format!("net{number}"), format!("port{number}-{at}"));
                let inside = container.namespace.name().to_owned();
                bridges.ip(&["link", "add", &far, "type", "veth", "peer", "name", &near, "netns", &inside]);
                bridges.ip(&["link", "set", &far, "master", &bridge, "up"]);
                container.namespace.ip(&["address", "add", &format!("{address}/{bits}"), "dev", &near]);
                container.namespace.ip(&["link", "set", &near, "up"]);
                container.addresses.insert(network.clone(), address);
            }
        }
        for (name, container) in &containers {
            for (setting, value) in services[name]["sysctls"].as_object().into_iter().flatten() {
                let write = format!("echo {value} >/proc/sys/{}", setting.replace('.', "/"));
                lab.program(&["ip", "netns", "exec", container.namespace.name(), "sh", "-c", &write])
                    .done()
                    .ok();
            }
        }
        Self { lab, services, containers, _bridges: bridges }
    }

    /// The names that this service finds: those of services on its own networks.
    fn hosts(&self, name: &str) -> PathBuf {
        let own = &self.containers[name].addresses;
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (other, container) in &self.containers {
            for (network, address) in
                container.addresses.iter().filter(|(network, _)| own.contains_key(*network))
            {
                let membership = membership(&self.services[other], network).unwrap();
                let aliases =
                    membership["aliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
                for known in aliases.chain([&**other]) {
                    text.push_str(&format!("{address} {known}\n"));
                }
            }
        }
        let file = self.lab.path().join(format!("hosts-{name}"));
        fs::write(&file, text).unwrap();
        file
    }

    /// The words that run these words in a service.
    fn words(&self, name: &str, user: u32, linked: &str, words: &[&str]) -> Vec<String> {
        let folder = self.lab.path();
        let temporary = format!("TMPDIR={}", folder.join("temporary").display());
        let path = format!("PATH={}:/usr/local/bin:/usr/bin:/bin", folder.join("image").display());
        let (hosts, volume) = (self.hosts(name), folder.join("volume"));
        let container = self.containers[name].namespace.name();
        let own = ["ip", "netns", "exec", container, "unshare", "--mount", "sh", "-ec", ENTER, "enter"];
        let places = [hosts.to_str().unwrap(), volume.to_str().unwrap(), &user.to_string(), linked];
        let places = places.map(str::to_owned);
        let environment = ["env", "-i", &path, &temporary, "HOME=/tmp"];
        let words = words.iter().map(|word| if *word == "/usr/bin/pgentra" { "pgentra" } else { word });
        let before = own.into_iter().map(str::to_owned).chain(places);
        before.chain(environment.into_iter().chain(words).map(str::to_owned)).collect()
    }

    fn run(&self, name: &str, user: u32, words: &[&str]) -> Done<'lab> {
        self.run_linked(name, user, "", words)
    }

    fn run_linked(&self, name: &str, user: u32, linked: &str, words: &[&str]) -> Done<'lab> {
        let words = self.words(name, user, linked, words);
        self.lab.program(&words.iter().map(String::as_str).collect::<Vec<_>>()).done()
    }

    /// What the file gives to the service: its entry point, if it has one, and its command.
    fn command(&self, name: &str) -> Vec<&str> {
        let service = &self.services[name];
        let list = |key: &str| service[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        list("entrypoint").chain(list("command")).collect()
    }
}

/// How a service is a member of this network, if it is: the file lists names, or says more of each.
fn membership(service: &Value, network: &str) -> Option<Value> {
    match &service["networks"] {
        Value::Array(names) => names.iter().any(|name| name == network).then_some(Value::Null),
        more => more.get(network).cloned(),
    }
}

#[test]
fn the_programs_of_the_file_sign_in() {
    if !have(&["root", "netns", "mounts", "psql", "curl", "jq", "setpriv"]) {
        return;
    }
    let file: Value =
        serde_saphyr::from_str(&fs::read_to_string(compose().join("compose.yaml")).unwrap()).unwrap();
    let lab = Lab::new();
    let [image, volume, temporary] = ["image", "volume", "temporary"].map(|name| lab.path().join(name));
    fs::create_dir(&image).unwrap();
    fs::create_dir(&volume).unwrap();
    fs::copy(pgentra(), image.join("pgentra")).unwrap();
    fs::copy(compose().join("program/article"), image.join("article")).unwrap();
    for folder in [&image, &volume] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    // As the volume's options say.
    assert_eq!(file["volumes"]["files"]["driver_opts"]["o"], format!("uid={AZURE},gid={AZURE},mode=0755"));
    for folder in [&volume, &temporary] {
        chown(folder, Some(AZURE), Some(AZURE)).unwrap();
    }
    let containers = Containers::new(&lab, &file);

    let up = [&["/usr/bin/pgentra"], &*containers.command("azure")].concat();
    let words = containers.words("azure", AZURE, "", &up);
    let mut azure = lab.spawn(&words.iter().map(String::as_str).collect::<Vec<_>>(), []);
    let health: Vec<_> = file["services"]["azure"]["healthcheck"]["test"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(health[0], "CMD");
    eventually_blocking(DEADLINE, "the service is healthy", || {
        let done = containers.run("azure", AZURE, &health[1..]);
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });

    // The commands of the article, verified TLS included.
    for (name, role) in [("on-vm", "myVm"), ("on-aks", "myIdentity")] {
        let done = containers.run(name, PROGRAM, &containers.command(name));
        assert_eq!(done.ok(), format!("{role}\n"), "{name}: {done:?}");
    }
    // Only a machine has the metadata service: the other namespace has no route to it.
    let addresses = &containers.containers["azure"].addresses;
    let metadata = format!("http://{}/metadata/instance?api-version=2021-02-01", addresses["metadata"]);
    let ask = ["curl", "-sS", "-m", "5", "-H", "Metadata:true", &metadata];
    containers.run("on-vm", PROGRAM, &ask).ok();
    let refused = containers.run("on-aks", PROGRAM, &ask);
    assert_eq!(refused.status.code(), Some(NO_CONNECTION), "{refused:?}");
    // One port serves Entra, Resource Manager and Graph, each by its name.
    for (url, status) in [
        ("https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration", "200"),
        ("https://management.azure.com/subscriptions?api-version=2022-12-01", "401"),
        ("https://graph.microsoft.com/v1.0/users", "401"),
    ] {
        let curl = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url];
        let done = containers.run("on-vm", PROGRAM, &[&["sh", "/run/azure/enter", "vm"], &curl[..]].concat());
        assert_eq!(done.ok(), status, "{url}: {done:?}");
    }
    let known = format!("x.example:443:{}", addresses["azure"]);
    let unknown = ["curl", "-sS", "-k", "--resolve", &known, "https://x.example/"];
    let refused = containers.run("on-vm", PROGRAM, &unknown);
    assert_eq!(refused.status.code(), Some(NO_TLS), "{refused:?}");
    // The same program with the SDK for Python, on each of the hosts.
    if have(&["python"]) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/on_azure/program.py");
        let python = client("venv/bin/python");
        for (host, role) in [
            ("vm", "myVm"),
            ("user-assigned", "myIdentity"),
            ("aks", "myIdentity"),
            ("client-secret", "myApp"),
            ("client-certificate", "myApp"),
        ] {
            let words =
                ["sh", "/run/azure/enter", host, python.to_str().unwrap(), program.to_str().unwrap(), role];
            // As root, who can enter the folder of the build. The program names the file of its image.
            let done = containers.run_linked("on-vm", 0, "/etc/ssl/certs/ca-certificates.crt", &words);
            assert_eq!(done.ok(), format!("{role}\n"), "{host}");
        }
    }

    kill_process(Pid::from_child(&azure), Signal::TERM).unwrap();
    assert!(azure.wait().unwrap().success());
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0, "files are left");
}

#[test]
fn what_containers_cannot_have_is_named() {
    let lab = Lab::new();
    let (folder, missing) = (lab.path().join("files"), lab.path().join("missing"));
    fs::create_dir(&folder).unwrap();
    let up = |address: &str, folder: &Path| {
        let folder = folder.to_str().unwrap();
        let words = ["local", "up", "--danger-azure-names", address, "--azure-files", folder];
        lab.pgentra(&words).done()
    };
    let hint = format!("mkdir -p {}", missing.display());
    let refused = up("127.0.0.1", &missing);
    assert_eq!(refused.fault(2, &["is no folder", &hint]), None);
    assert!(!refused.stderr.contains("starting PostgreSQL"), "{refused:?}");
    // An address for documentation, which no machine has.
    let done = up("192.0.2.1", &folder);
    assert_eq!(done.fault(1, &["cannot listen on 192.0.2.1:", "an address of this machine"]), None);
}

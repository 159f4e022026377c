//! Runs every command of the pages, in the order of its page, against a local cloud.
//!
//! Names on the pages are replaced by those of the local cloud (see [`Page::typed`]). A proxy that
//! would run until it is stopped reads its configuration and exits. Commands that are not run here,
//! or fail on purpose, are in [`EXCEPTIONS`] with the reason.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use e2e::{Flavour, Lab, have};

const PAGES: [&str; 13] = [
    "README.md",
    "docs/commands.md",
    "docs/local.md",
    "docs/proxy.md",
    "docs/proxy-configure.md",
    "docs/proxy-authenticate.md",
    "docs/proxy-pooling.md",
    "docs/proxy-operate.md",
    "docs/proxy-observe.md",
    "docs/identity.md",
    "docs/recipes.md",
    "docs/kubernetes.md",
    "docs/rust.md",
];

/// The result of a command other than success.
#[derive(Clone, Copy)]
enum Expected {
    /// It ends with this exit code.
    Code(i32),
    /// It is not run here.
    Elsewhere,
}
use Expected::{Code, Elsewhere};

/// Prefix of a command on a page; the expected result; the reason.
const EXCEPTIONS: &[(&str, &str, Expected, &str)] = &[
    ("README.md", "cargo run --release -- quickstart", Elsewhere, "quickstart.rs runs the built program"),
    ("README.md", "cargo xtask test", Elsewhere, "it is what runs this test"),
    ("docs/local.md", "unshare --mount", Elsewhere, "hosts.rs runs the local cloud in a mount namespace"),
    ("docs/local.md", "pgentra local up --detach --arc", Elsewhere, "hosts.rs does, in a mount namespace"),
    ("docs/local.md", "az ", Elsewhere, "azure_cli.rs runs them"),
    ("docs/local.md", "pgentra psql", Elsewhere, "article.rs runs the session of the article"),
    ("docs/local.md", "export PGPASSWORD=", Elsewhere, "article.rs runs the commands of the article"),
    ("docs/local.md", "psql -h localhost", Elsewhere, "article.rs runs the commands of the article"),
    ("docs/local.md", "PGPASSWORD=$OLD psql", Code(2), "the token has expired"),
    ("docs/proxy-pooling.md", "curl -X POST", Elsewhere, "it asks a running proxy"),
    ("docs/proxy.md", "psql 'host=127.0.0.1 port=6432", Elsewhere, "it asks a running proxy"),
    ("docs/commands.md", "pgentra grant myVm", Code(2), "it asks, and there is no terminal"),
    (
        "docs/commands.md",
        "pgentra identity server-admin remove",
        Code(2),
        "the administrator who stands for the one of the page is the last of the local cloud",
    ),
    ("docs/rust.md", "cargo run", Elsewhere, "examples.rs runs the examples"),
    ("docs/kubernetes.md", "podman build", Elsewhere, "deploy.rs reads the files of the image"),
    ("docs/kubernetes.md", "helm install", Elsewhere, "deploy.rs renders the chart"),
];

/// A fenced block: its language and its lines.
struct Block {
    language: String,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some(Block { language: language.to_owned(), lines: Vec::new() }),
            (Some(_), Some(block)) => found.push(block),
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// The commands of a block: lines behind a prompt, or that begin with a program.
fn commands(block: &Block) -> Vec<String> {
    const PROGRAMS: [&str; 8] =
        ["pgentra ", "psql ", "curl ", "az ", "podman ", "helm ", "kubectl ", "cargo "];
    let command = |line: &String| match block.language.as_str() {
        "console" => line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")).map(str::to_owned),
        "" | "sh" if line.starts_with("$ ") => Some(line[2..].to_owned()),
        "" if PROGRAMS.iter().any(|program| line.starts_with(program)) => Some(line.clone()),
        "sh" => Some(line.clone()),
        "ini" => {
            let typed = line.split_once('=').filter(|(key, _)| key.starts_with("Exec"))?.1;
            typed.strip_prefix("/usr/bin/").filter(|it| it.starts_with("pgentra ")).map(str::to_owned)
        }
        _ => None,
    };
    block.lines.iter().filter_map(command).collect()
}

/// The names that replace those of the pages.
struct Page<'a> {
    home: &'a Path,
    administrator: String,
}

impl Page<'_> {
    fn typed(&self, text: &str) -> String {
        let home = self.home.display();
        let mut text = text.to_owned();
        for (name, ours) in [
            ("my-server.postgres.database.azure.com", "localhost".to_owned()),
            ("other.postgres.database.azure.com", "localhost".to_owned()),
            ("my.postgres.database.azure.com", "localhost".to_owned()),
            ("-U my-app -d app", "-U myVm -d postgres".to_owned()),
            ("-U my-app", "-U myVm".to_owned()),
            ("user=my-app dbname=app", "user=myVm dbname=postgres".to_owned()),
            ("-U admin@example.com", format!("-U '{}'", self.administrator)),
            ("-U dba@example.com", format!("-U '{}'", self.administrator)),
            ("dba@example.com", format!("'{}'", self.administrator)),
            ("--server my-server", "--server mydemoserver".to_owned()),
            ("/etc/pgentra", format!("{home}/etc")),
            ("/run/pgentra", format!("{home}/run")),
            ("/var/log/pgentra", format!("{home}/log")),
            // the program may be of an older version than the server
            ("pg_dump --schema-only", "pg_dump --version".to_owned()),
            // a user of this machine
            ("--listen-uids app", "--listen-uids root".to_owned()),
        ] {
            text = text.replace(name, &ours);
        }
        text
    }

    /// The command as it is run: as which user, and how it ends.
    fn run(&self, command: &str) -> String {
        let (typed, _) = command.split_once("  #").unwrap_or((command, ""));
        let mut typed = self.typed(typed.trim());
        let is_lasting = typed.starts_with("pgentra proxy ")
            && !["hash-password", "wait", "--check", "--print-config"]
                .iter()
                .any(|word| typed.contains(word));
        if is_lasting {
            typed.push_str(" --check-config");
        }
        if typed.contains("hash-password") {
            return format!("echo secret | {typed}");
        }
        if typed.starts_with("pgentra token") || typed.starts_with("curl ") {
            // a token must not be in the recorded output
            typed.push_str(" >token.txt && test -s token.txt && rm token.txt");
        }
        let is_administrators = typed.contains(&format!("'{}'", self.administrator))
            || ["pgentra identity ", "pgentra grant "].iter().any(|it| typed.starts_with(it));
        if is_administrators {
            format!("(as_administrator; {typed}) </dev/null")
        } else {
            format!("{typed} </dev/null")
        }
    }
}

fn text(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    fs::read_to_string(path).unwrap()
}

/// Creates the files that the pages name.
fn lay_out(names: &Page<'_>) {
    let home = names.home;
    for folder in ["etc", "run", "log"] {
        fs::create_dir(home.join(folder)).unwrap();
    }
    fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    fs::write(home.join("etc/tls.crt"), &certificate).unwrap();
    fs::write(home.join("etc/clients.crt"), &certificate).unwrap();
    fs::write(home.join("etc/tls.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(home.join("etc/tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    // the first configuration of each page
    for (page, file) in [("docs/proxy-configure.md", "etc/proxy.toml"), ("docs/roles.md", "roles.toml")] {
        let found = blocks(&text(page));
        let first = found.iter().find(|block| block.language == "toml").unwrap();
        fs::write(home.join(file), names.typed(&first.lines.join("\n"))).unwrap();
    }
    fs::write(home.join("more.sql"), "SELECT 3").unwrap();
}

/// Runs the commands of a page in one shell. Returns what is wrong.
fn check(lab: &Lab, page: &str, names: &Page<'_>) -> Vec<String> {
    let found: Vec<String> = blocks(&text(page)).iter().flat_map(commands).collect();
    let exception = |command: &str| {
        EXCEPTIONS.iter().find(|(on, start, _, _)| *on == page && command.starts_with(start)).map(|it| it.2)
    };
    let mut script = String::from(
        "set +e -o pipefail\nas_administrator() { eval \"$(pgentra local env --host admin)\"; }\neval \"$(pgentra local env)\"\n",
    );
    let mut faults: Vec<String> = EXCEPTIONS
        .iter()
        .filter(|(on, start, _, _)| *on == page && !found.iter().any(|command| command.starts_with(start)))
        .map(|(_, start, _, why)| format!("{page}: `{start}` is excepted ({why}) and not there"))
        .collect();
    let mut expected = Vec::new();
    for command in &found {
        let code = match exception(command) {
            Some(Elsewhere) => continue,
            Some(Code(code)) => code,
            None => 0,
        };
        // The pages start and stop the cloud of the whole test.
        if command.starts_with("pgentra local up --detach") || command.starts_with("pgentra local down") {
            script.push_str("true\n");
        } else {
            script.push_str(&names.run(command));
            script.push('\n');
        }
        script.push_str("printf '\\n@@@ %s\\n' \"$?\"; printf '\\n@@@\\n' >&2\n");
        expected.push((command.clone(), code));
    }
    let done = lab.program(&["bash", "-c", &script]).done();
    let codes: Vec<&str> = done.stdout.lines().filter_map(|line| line.strip_prefix("@@@ ")).collect();
    let said: Vec<&str> = done.stderr.split("\n@@@\n").collect();
    if codes.len() != expected.len() {
        faults.push(format!("{page}: {} of {} commands were run", codes.len(), expected.len()));
    }
    for (index, (command, code)) in expected.iter().enumerate() {
        let got = codes.get(index).copied().unwrap_or("not run");
        if got != code.to_string() {
            let said = said.get(index).copied().unwrap_or_default().trim();
            faults.push(format!("{page}: `{command}` ended with {got}, not {code}: {said}"));
        }
    }
    faults
}

#[test]
fn every_command_of_the_pages_runs() {
    if !have(&["psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let home = lab.path().join("home");
    let names = Page { home: &home, administrator: cloud.env("admin")["PGUSER"].clone() };
    lay_out(&names);
    let prepared = lab.pgentra(&["query", "-c", "CREATE DATABASE app", "-c", "CREATE ROLE readers"]);
    prepared.envs(cloud.env("admin")).done().ok();
    let shop = ["CREATE SCHEMA shop", "CREATE TABLE shop.orders (id serial)"];
    let prepared = lab.pgentra(&["query", "-d", "app", "-c", shop[0], "-c", shop[1]]);
    prepared.envs(cloud.env("admin")).done().ok();
    let count = PAGES.iter().flat_map(|page| blocks(&text(page))).flat_map(|block| commands(&block)).count();
    assert!(count > 50, "no more than {count} commands were found");
    let faults: Vec<String> = PAGES.iter().flat_map(|page| check(&lab, page, &names)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The proxy accepts every configuration on its pages.
#[test]
fn every_configuration_of_the_proxy_is_valid() {
    let lab = Lab::new();
    let home = lab.path().join("home");
    let names = Page { home: &home, administrator: String::new() };
    lay_out(&names);
    let password = lab.pgentra(&["proxy", "hash-password", "app"]).input("secret\n").done().ok().to_owned();
    fs::write(home.join("etc/users"), password).unwrap();
    fs::set_permissions(home.join("etc/users"), fs::Permissions::from_mode(0o600)).unwrap();
    let pages = PAGES.iter().filter(|page| page.starts_with("docs/proxy"));
    let found: Vec<Block> = pages.flat_map(|page| blocks(&text(page))).collect();
    let configurations: Vec<_> = found.iter().filter(|block| block.language == "toml").collect();
    assert!(configurations.len() >= 3, "{} configurations were found", configurations.len());
    let file = home.join("etc/proxy.toml");
    for block in configurations {
        let mut content = names.typed(&block.lines.join("\n"));
        if !content.contains("[[target]]") {
            content.push_str("\n[[target]]\nserver = 'host=localhost'\n");
        }
        fs::write(&file, &content).unwrap();
        let words = ["proxy", "--check-config", "--config", file.to_str().unwrap()];
        let done = lab.pgentra(&words).done();
        assert!(done.status.success(), "{done:?}\n{content}");
    }
}

/// The Markdown files of the root folder and of `docs/`.
fn markdown_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files =
        [root.clone(), root.join("docs")].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|it| it == "md")).collect()
}

/// The lines of a Markdown text that are not in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// The anchors that GitHub gives to the headings of a Markdown text.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in prose(text) {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        let Some(title) = title.strip_prefix(' ').filter(|_| (1..=6).contains(&level)) else { continue };
        // The text of a link is a part of the title, its address is not.
        let title: String = title.split("](").enumerate().fold(String::new(), |title, (index, part)| {
            let part = if index == 0 { part } else { part.split_once(')').map_or(part, |it| it.1) };
            title + part
        });
        let is_kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
        let anchor =
            title.trim().to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-");
        let same = found.iter().filter(|it| **it == anchor).count();
        found.push(anchor.clone());
        if same > 0 {
            found.push(format!("{anchor}-{same}"));
        }
    }
    found
}

/// The addresses of the links of a Markdown text, except those of other sites.
fn links(text: &str) -> Vec<String> {
    let text = prose(text).collect::<Vec<_>>().join("\n");
    let addresses = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|it| it.0);
    addresses.filter(|it| !it.contains("://") && !it.starts_with("mailto:")).map(str::to_owned).collect()
}

/// Every link leads to a file of the tree, and to a heading of the file if the link names one.
#[test]
fn no_link_is_dead() {
    let mut faults = Vec::new();
    let mut count = 0;
    for page in markdown_files() {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let is_dead = !target.exists()
                || !anchor.is_empty()
                    && !anchors(&fs::read_to_string(&target).unwrap()).iter().any(|it| it == anchor);
            if is_dead {
                faults.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(count > 50, "no more than {count} links were found");
    assert!(faults.is_empty(), "links to nothing:\n{}", faults.join("\n"));
}

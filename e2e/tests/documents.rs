//! Runs every command of the pages, in the order of its page, against a local cloud.
//!
//! Names on the pages are replaced by those of the local cloud (see [`Page::typed`]). A proxy that
//! would run until it is stopped reads its configuration and exits. `documents.tsv` has a row for every
//! command: a command without a row fails the test. Output on a page is compared with the real one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use e2e::{Flavour, Lab, have};

/// Every command of the pages: the page, how the command ends, and the command. It ends with an exit
/// code, or is not run here for the reason behind `-`. Behind `~` is why its output is another one here.
const TABLE: &str = include_str!("documents.tsv");

/// Pages whose commands another test runs.
const OTHERS: [(&str, &str); 3] =
    [("docs/errors.md", "hints_run.rs"), ("docs/gateway.md", "gateway.rs"), ("docs/roles.md", "roles.rs")];

/// A row of [`TABLE`].
struct Row {
    page: &'static str,
    /// The exit code, or the reason why the command is not run here.
    expected: Result<i32, &'static str>,
    /// Whether the output is compared.
    has_output: bool,
    command: &'static str,
}

fn table() -> Vec<Row> {
    let row = |line: &'static str| {
        let mut columns = line.splitn(3, '\t');
        let (page, expected, command) =
            (columns.next().unwrap(), columns.next().unwrap(), columns.next().unwrap());
        let (code, why) = expected.split_once(" ~ ").unwrap_or((expected, ""));
        let expected = code.parse().map_err(|_| {
            expected.strip_prefix("- ").unwrap_or_else(|| panic!("{line}: no exit code, and no reason"))
        });
        Row { page, expected, has_output: why.is_empty(), command }
    };
    TABLE.lines().map(row).collect()
}

/// A fenced block: its language and its lines.
struct Block {
    language: String,
    lines: Vec<String>,
}

/// The blocks of a page. One in a list is indented, and its lines are found without that.
fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for line in text.lines() {
        let indent = open.as_ref().map_or(line.len() - line.trim_start().len(), |(indent, _)| *indent);
        let line = line.get(indent..).unwrap_or_else(|| line.trim_start());
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => {
                open = Some((indent, Block { language: language.to_owned(), lines: Vec::new() }));
            }
            (Some(_), Some((_, block))) => found.push(block),
            (None, Some((indent, mut block))) => {
                block.lines.push(line.to_owned());
                open = Some((indent, block));
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// A command of a page, and the output that the page shows.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The commands of a block: lines behind a prompt, or that begin with a program.
fn commands(block: &Block) -> Vec<Shown> {
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
    let mut found: Vec<Shown> = Vec::new();
    for line in &block.lines {
        match (command(line), found.last_mut()) {
            (Some(command), _) => found.push(Shown { command, output: Vec::new() }),
            // A block without prompts may have other commands, of which the first word is not known.
            (None, Some(before)) if block.language == "console" => before.output.push(line.clone()),
            (None, _) => {}
        }
    }
    found
}

/// A line without what differs from run to run: digits, ids, and the widths of columns.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    let mut last = None;
    for char in line.trim().chars() {
        let char = match char {
            '0'..='9' => '0',
            '─' => '-',
            char => char,
        };
        let repeats = last == Some(char) && matches!(char, '0' | '-' | ' ');
        if !repeats {
            shape.push(char);
        }
        last = Some(char);
    }
    shape
}

/// Whether a line is as the page shows it, where `…` stands for what was left out.
fn is_shown(line: &str, shown: &str) -> bool {
    let (line, shown) = (shape(line), shape(shown));
    let mut parts = shown.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        match rest.find(part.trim()) {
            Some(at) => rest = &rest[at + part.trim().len()..],
            None => return false,
        }
    }
    rest.is_empty() || shown.ends_with('…')
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
        if is_lasting(&typed) {
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
            || ["pgentra identity ", "pgentra grant ", "pgentra revoke "]
                .iter()
                .any(|it| typed.starts_with(it));
        if is_administrators {
            format!("(as_administrator; {typed}) </dev/null")
        } else {
            // For the whole line: the end of a pipe reads what the pipe brings.
            format!("{{ {typed}\n}} </dev/null")
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
    // the first file of each page
    for (page, file) in [
        ("docs/proxy-configure.md", "etc/proxy.toml"),
        ("docs/roles.md", "roles.toml"),
        ("docs/kubernetes.md", "app.yaml"),
    ] {
        let found = blocks(&text(page));
        let first = found.iter().find(|block| file.ends_with(&format!(".{}", block.language))).unwrap();
        fs::write(home.join(file), names.typed(&first.lines.join("\n"))).unwrap();
    }
    fs::write(home.join("more.sql"), "SELECT 3").unwrap();
}

/// Runs the commands of a page in one shell. Returns what is wrong.
fn check(lab: &Lab, page: &str, names: &Page<'_>) -> Vec<String> {
    let found: Vec<Shown> = blocks(&text(page)).iter().flat_map(commands).collect();
    let rows: Vec<Row> = table().into_iter().filter(|row| row.page == page).collect();
    let mut faults = Vec::new();
    for index in 0..found.len().max(rows.len()) {
        let shown = found.get(index).map(|shown| shown.command.as_str());
        let row = rows.get(index).map(|row| row.command);
        if shown != row {
            faults.push(format!("{page}: the page has {shown:?}, documents.tsv has {row:?}"));
            return faults;
        }
    }
    let mut script = String::from(
        "set +e -o pipefail\nas_administrator() { eval \"$(pgentra local env --host admin)\"; }\neval \"$(pgentra local env)\"\n",
    );
    let mut expected = Vec::new();
    for (shown, row) in found.iter().zip(&rows) {
        let Ok(code) = row.expected else { continue };
        let output = if row.has_output { &shown.output[..] } else { &[] };
        // The pages start and stop the cloud of the whole test.
        let command = &shown.command;
        if command.starts_with("pgentra local up --detach") || command.starts_with("pgentra local down") {
            script.push_str("true\n");
        } else {
            script.push_str(&names.run(command));
            script.push('\n');
        }
        script.push_str("printf '\\n@@@ %s\\n' \"$?\"; printf '\\n@@@\\n' >&2\n");
        expected.push((command, output, code));
    }
    let done = lab.program(&["bash", "-c", &script]).done();
    let codes: Vec<&str> = done.stdout.lines().filter_map(|line| line.strip_prefix("@@@ ")).collect();
    let printed: Vec<&str> = done.stdout.split("\n@@@ ").collect();
    let said: Vec<&str> = done.stderr.split("\n@@@\n").collect();
    if codes.len() != expected.len() {
        faults.push(format!("{page}: {} of {} commands were run", codes.len(), expected.len()));
    }
    for (index, (command, output, code)) in expected.iter().enumerate() {
        let got = codes.get(index).copied().unwrap_or("not run");
        let said = said.get(index).copied().unwrap_or_default();
        if got != code.to_string() {
            faults.push(format!("{page}: `{command}` ended with {got}, not {code}: {}", said.trim()));
        }
        // The output of a proxy is compared by natural_to_type.rs, a token is not recorded.
        if is_lasting(command) || command.starts_with("pgentra local ") {
            continue;
        }
        let printed = printed.get(index).copied().unwrap_or_default();
        for shown in output.iter().map(|line| names.typed(line)).filter(|line| line.trim() != "…") {
            let ours = shown.replace("my-app", "myVm").replace("my-server", "localhost-postgres");
            let mut lines = printed.lines().chain(said.lines());
            let is_there = lines.any(|line| is_shown(line, &shown) || is_shown(line, &ours));
            if !is_there {
                faults.push(format!("{page}: `{command}` does not print `{shown}` but:\n{printed}\n{said}"));
                break;
            }
        }
    }
    faults
}

/// Whether a command runs a proxy until it is stopped.
fn is_lasting(command: &str) -> bool {
    command.starts_with("pgentra proxy ")
        && !["hash-password", "wait", "--check", "--print-config"].iter().any(|word| command.contains(word))
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
    let pages: Vec<String> =
        pages().into_iter().filter(|page| !OTHERS.iter().any(|it| it.0 == page)).collect();
    let mut faults: Vec<String> = pages.iter().flat_map(|page| check(&lab, page, &names)).collect();
    let lost = table().into_iter().filter(|row| !pages.iter().any(|page| page == row.page));
    faults.extend(lost.map(|row| format!("documents.tsv names {}, which is no page of this test", row.page)));
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
    let pages = pages().into_iter().filter(|page| page.starts_with("docs/proxy"));
    let found: Vec<Block> = pages.flat_map(|page| blocks(&text(&page))).collect();
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

/// The Markdown files of the root folder and of `docs/`, from the root.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names = |folder: &str, prefix: &str| -> Vec<String> {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().file_name());
        let names = files.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".md"));
        names.map(|name| format!("{prefix}{name}")).collect()
    };
    let mut pages = [names(".", ""), names("docs", "docs/")].concat();
    pages.sort();
    pages
}

fn markdown_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    pages().iter().map(|page| root.join(page)).collect()
}

/// The site has a way to every page of `docs/`, and the settings that mdBook needs.
#[test]
fn every_page_is_in_the_table_of_contents() {
    let summary = text("docs/SUMMARY.md");
    let listed = links(&summary);
    let missing: Vec<String> = pages()
        .into_iter()
        .filter_map(|page| page.strip_prefix("docs/").map(str::to_owned))
        .filter(|page| page != "SUMMARY.md" && !listed.contains(page))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
}

/// Each exact row of the table names tests, and a test of each name exists.
#[test]
fn each_exact_row_of_the_local_cloud_has_its_tests() {
    let page = text("docs/local.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Fidelity\n")).unwrap();
    let tests = tests_of_the_tree();
    let mut faults = Vec::new();
    let mut exact = 0;
    for line in section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| behaviour")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [behaviour, fidelity, source, named] = cells[..] else {
            panic!("four cells are expected: {line}")
        };
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        match fidelity {
            "exact" if source.is_empty() || named.is_empty() => {
                faults.push(format!("{behaviour}: an exact row has a source and a test"));
            }
            "exact" => exact += 1,
            "approximate" => {}
            "missing" if named.is_empty() => {}
            _ => faults.push(format!("{behaviour}: `{fidelity}`, with {} tests", named.len())),
        }
        let unknown = named.iter().filter(|name| !tests.iter().any(|test| test == *name));
        faults.extend(unknown.map(|name| format!("{behaviour}: there is no test {name}")));
    }
    assert!(exact > 10, "no more than {exact} exact rows were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The names of the functions behind `#[test]` and `#[tokio::test]` below `crates/` and `e2e/`.
fn tests_of_the_tree() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("crates"), root.join("e2e")];
    let mut names = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let parts = text.split("test]\n").skip(1).chain(text.split("test(flavor").skip(1));
                let name = |part: &str| Some(part.split_once("fn ")?.1.split_once('(')?.0.to_owned());
                names.extend(parts.filter_map(name));
            }
        }
    }
    names
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

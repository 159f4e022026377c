//! `pgentra man`: the manual pages, from the definition of the commands.

use std::io;
use std::path::Path;

use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::arguments::definition;
use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};

/// The section of programs.
const SECTION: &str = "1";
/// How the examples of a help text begin.
const EXAMPLES: [&str; 2] = ["Example: ", "Start with: "];

/// Which commands a variable or a file matters to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    /// All.
    Every,
    /// Those that get a token.
    Identity,
    /// Those that connect to PostgreSQL.
    Connection,
    /// Those that ask Resource Manager or Microsoft Graph.
    Azure,
    /// The proxy.
    Proxy,
    /// The gateway.
    Gateway,
    /// Those of a local cloud.
    Local,
}

use Topic::{Azure, Connection, Every, Gateway, Identity, Local, Proxy};

const VARIABLES: &[(&str, Topic, &str)] = &[
    (
        "PGHOST, PGPORT, PGUSER, PGDATABASE",
        Connection,
        "Server, port, role and database, where no option names them.",
    ),
    (
        "PGHOSTADDR, PGSSLMODE, PGSSLROOTCERT, PGSSLNEGOTIATION, PGTARGETSESSIONATTRS, PGAPPNAME, PGOPTIONS",
        Connection,
        "The parameters of libpq of the same meaning.",
    ),
    ("PGSERVICE, PGSERVICEFILE", Connection, "A service, and the file in which it is defined."),
    (
        "AZURE_POSTGRESQL_HOST, AZURE_POSTGRESQL_USER, AZURE_POSTGRESQL_DATABASE, AZURE_POSTGRESQL_CONNECTIONSTRING",
        Connection,
        "The settings of Azure Service Connector, where none of the variables above names a value.",
    ),
    ("AZURE_CLIENT_ID", Identity, "Client id of the identity, if no option selects one."),
    ("AZURE_TENANT_ID", Identity, "Tenant of an application or a federated identity."),
    (
        "AZURE_TOKEN_CREDENTIALS",
        Identity,
        "Limits the sources that are asked: prod, dev, or the name of one source in the Azure SDKs.",
    ),
    ("AZURE_AUTHORITY_HOST", Identity, "Address of Microsoft Entra instead of the cloud's."),
    (
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        Identity,
        "Scheme, host and port of the metadata service instead of http://169.254.169.254.",
    ),
    (
        "SSL_CERT_FILE",
        Identity,
        "Root certificates (PEM) that are trusted for Microsoft Entra in addition to those of the operating system.",
    ),
    (
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        Identity,
        "An HTTP proxy for https, and the hosts that are asked without it. Metadata services are never asked through it.",
    ),
    ("AZURE_SUBSCRIPTION_ID", Azure, "Subscription, if no option names one."),
    (
        "PGENTRA_MANAGEMENT_ENDPOINT, PGENTRA_GRAPH_ENDPOINT",
        Azure,
        "Addresses of Resource Manager and Microsoft Graph, for a private cloud.",
    ),
    (
        "PGENTRA_MANAGEMENT_CA",
        Azure,
        "Root certificates (PEM) that are trusted for Resource Manager and Microsoft Graph in addition to those of the operating system.",
    ),
    ("PGENTRA_CONFIG", Proxy, "The configuration file, where --config names none."),
    (
        "PGENTRA_LISTEN, PGENTRA_MAX_CONNECTIONS, ...",
        Proxy,
        "The options of the same names; the help of an option names its variable.",
    ),
    ("PGENTRA_GATEWAY_CONFIG", Gateway, "The configuration file, where --config names none."),
    (
        "PGENTRA_GATEWAY_LISTEN, PGENTRA_GATEWAY_UPSTREAM, ...",
        Gateway,
        "The options of the same names; the help of an option names its variable.",
    ),
    ("PGENTRA_LOCAL", Local, "Name of the local cloud, where --name names none."),
    (
        "XDG_RUNTIME_DIR, TMPDIR",
        Local,
        "Where a local cloud has its folder: in the first for an ordinary user, else in the second, else in /tmp.",
    ),
    ("PGENTRA_LOG", Every, "A filter for the log, such as pgentra_identity=debug, instead of -v."),
    ("NO_COLOR", Every, "If it is set and not empty, there is no colour."),
    ("COLUMNS", Every, "Width of the terminal, if it is not what the terminal reports."),
];

const FILES: &[(&str, Topic, &str)] = &[
    ("~/.pg_service.conf", Connection, "Services, where PGSERVICEFILE names no other file."),
    (
        "/etc/pgentra/proxy.toml",
        Proxy,
        "The configuration that the packages install for the service pgentra-proxy.",
    ),
    (
        "/etc/pgentra/gateway.toml",
        Gateway,
        "The configuration that the packages install for the service pgentra-gateway.",
    ),
    (
        "$XDG_RUNTIME_DIR/pgentra-NAME, $TMPDIR/pgentra-UID-NAME",
        Local,
        "Everything of the local cloud NAME. It is removed when the cloud stops.",
    ),
];

const EXITS: &[(&str, Topic, &str)] = &[
    ("0", Every, "Success."),
    ("1", Every, "An error in pgentra or on this machine."),
    ("2", Every, "Invalid usage or configuration."),
    ("3", Identity, "There is no token."),
    ("4", Identity, "The network or TLS failed."),
    ("5", Identity, "The server refused."),
];

/// Prints the page of a command, or writes the pages of all commands into a folder.
pub(crate) fn run(words: &[String], folder: Option<&Path>) -> Outcome {
    let root = built();
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).and_then(|()| write(&root, folder)).map_err(|error| {
                Problem::ours("cannot write the manual pages", error)
                    .hint("name a folder that you can write to")
            })
        }
        None => {
            let page = page(named(&root, words)?)
                .map_err(|error| Problem::ours("cannot render the manual page", error))?;
            output::exact(&String::from_utf8_lossy(&page))
        }
    }
}

/// The definition, with the full name of each command. `help` is no command of the manual.
fn built() -> clap::Command {
    let mut root = definition().disable_help_subcommand(true);
    root.build();
    root
}

/// The command that these words name.
fn named<'a>(root: &'a clap::Command, words: &[String]) -> Outcome<&'a clap::Command> {
    words.iter().try_fold(root, |command, word| {
        command.find_subcommand(word).ok_or_else(|| {
            let name = full_name(command);
            Problem::new(Blame::Usage, format!("{name} has no command `{word}`"))
                .hint(format!("list the commands: {name} --help"))
        })
    })
}

fn write(command: &clap::Command, folder: &Path) -> io::Result<()> {
    let name = Man::new(command.clone()).get_filename();
    std::fs::write(folder.join(name), page(command)?)?;
    command.get_subcommands().filter(|one| !one.is_hide_set()).try_for_each(|one| write(one, folder))
}

/// The page of a command.
fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let version = format!("pgentra {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).section(SECTION).source(version).manual("pgentra");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let (notes, examples) = after_help(command);
    let mut roff = Roff::new();
    for note in &notes {
        roff.control("PP", []);
        roff.text([roman(note)]);
    }
    roff.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    let is_about = |topic| is_about(command, topic);
    for (heading, entries) in [("ENVIRONMENT", VARIABLES), ("FILES", FILES)] {
        section(&mut roff, heading, entries.iter().filter(|(_, topic, _)| is_about(*topic)));
    }
    match command.get_name() {
        "psql" | "exec" => {
            roff.control("SH", ["EXIT STATUS"]);
            roff.text([roman(
                "That of the program. If it could not be started: 1 to 5, as pgentra(1) says.",
            )]);
        }
        name => {
            let doctor = [("6", Every, "A check failed.")];
            let doctor = doctor.iter().filter(|_| matches!(name, "doctor" | "pgentra"));
            let exits = EXITS.iter().filter(|(_, topic, _)| is_about(*topic) || name == "pgentra");
            section(&mut roff, "EXIT STATUS", exits.chain(doctor));
        }
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for example in &examples {
            roff.text([roman(example)]);
        }
        roff.control("fi", []);
    }
    if command.get_name() != "pgentra" {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman("pgentra(1)")]);
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

fn section<'a>(
    roff: &mut Roff,
    heading: &str,
    entries: impl Iterator<Item = &'a (&'static str, Topic, &'static str)>,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    roff.control("SH", [heading]);
    for (name, _, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}

/// The words of a command, as they are typed.
fn full_name(command: &clap::Command) -> &str {
    command.get_bin_name().unwrap_or("pgentra")
}

/// Whether a variable or a file of this topic matters to a command.
fn is_about(command: &clap::Command, topic: Topic) -> bool {
    let has = |id: &str| command.get_arguments().any(|argument| argument.get_id() == id);
    let name = full_name(command);
    match topic {
        Every => true,
        Identity => has("source"),
        Connection => has("dbname"),
        Azure => has("graph_endpoint") || has("management_endpoint") || name.starts_with("pgentra role "),
        Proxy => name == "pgentra proxy",
        Gateway => name == "pgentra gateway",
        Local => name.starts_with("pgentra local"),
    }
}

/// The notes and the examples below a help text.
fn after_help(command: &clap::Command) -> (Vec<String>, Vec<String>) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (mut notes, mut examples) = (Vec::new(), Vec::new());
    let mut is_example = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let example = EXAMPLES.iter().find_map(|start| line.strip_prefix(start));
        is_example |= example.is_some();
        match is_example {
            true => examples.push(example.unwrap_or(line).to_owned()),
            // The page has a section for them.
            false if line.starts_with("Exit codes: ") || line.starts_with("5 refused") => {}
            false => notes.push(line.to_owned()),
        }
    }
    (notes, examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(command: &clap::Command, check: &mut impl FnMut(&clap::Command, &str)) {
        check(command, &String::from_utf8(page(command).unwrap()).unwrap());
        command.get_subcommands().filter(|one| !one.is_hide_set()).for_each(|one| every(one, check));
    }

    #[test]
    fn every_page_has_its_sections() {
        let mut count = 0;
        every(&built(), &mut |command, page| {
            count += 1;
            let name = full_name(command);
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "\"EXIT STATUS\""] {
                assert!(page.contains(&format!(".SH {heading}\n")), "{name} has no {heading}");
            }
            let (_, examples) = after_help(command);
            assert_eq!(page.contains(".SH EXAMPLES\n"), !examples.is_empty(), "{name}");
            assert!(command.has_subcommands() || !examples.is_empty(), "{name} has no example");
            assert!(!page.contains(".SH EXTRA"), "{name}");
        });
        assert!(count > 25, "{count} pages");
        let root = built();
        let page = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            String::from_utf8(page(named(&root, &words).unwrap()).unwrap()).unwrap()
        };
        assert!(page(&["proxy"]).contains(".SH FILES\n") && page(&["proxy"]).contains("PGENTRA_CONFIG"));
        assert!(page(&["query"]).contains("PGHOST") && !page(&["local", "up"]).contains("PGHOST"));
        assert!(page(&["local", "up"]).contains("PGENTRA_LOCAL"));
        assert!(
            page(&["doctor"]).contains("A check failed.") && !page(&["query"]).contains("A check failed.")
        );
    }

    /// The variables of docs/identity.md are those of the manual.
    #[test]
    fn the_manual_has_the_variables_of_the_documentation() {
        let documented = include_str!("../../../../docs/identity.md");
        let (_, table) = documented.split_once("| variable | effect |").unwrap();
        let (table, _) = table.split_once("\n\n").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        for row in rows {
            for name in row.split(['`', ',', ' ']).filter(|name| !name.is_empty()) {
                let is_there = VARIABLES.iter().any(|(names, ..)| names.split(", ").any(|one| one == name));
                assert!(is_there, "{name} is not in the manual");
            }
        }
    }
}

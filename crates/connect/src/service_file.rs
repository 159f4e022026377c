//! Connection service files (PostgreSQL, "The Connection Service File").

use std::path::{Path, PathBuf};

use pgentra_system::{Env, Files};

use crate::conninfo::Pairs;
use crate::error::ConnectError;
use crate::keyword::excerpt;
use crate::quote;

/// Bytes of a service file. It is written by hand; a longer file is likely not a service file.
const LENGTH_LIMIT: usize = 256 * 1024;

/// Where Debian's packages and upstream's look for the file of all users when `PGSYSCONFDIR` is not set.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// The settings of a service and the file they were found in: `file` where one is named, else the user's own file and
/// then the one of all users.
pub(crate) fn read(
    service: &str,
    file: Option<&str>,
    env: &Env,
    files: &Files,
) -> Result<(PathBuf, Pairs), ConnectError> {
    let mut looked = Vec::new();
    let places = Places::of_this_system();
    for path in candidates(file, env, places) {
        let text = match files.read_text(&path, LENGTH_LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => continue,
            Err(error) => {
                let message = format!("the service file {} cannot be read", path.display());
                let hint =
                    format!("name one that can be read: servicefile=FILE, PGSERVICEFILE or {}", places.own);
                return Err(ConnectError::config(message).because(error).hinting(hint));
            }
        };
        if let Some(pairs) = find(service, &text, &path)? {
            return Ok((path, pairs));
        }
        looked.push(path.display().to_string());
    }
    let message = format!("there is no connection service {}", quote::name(&excerpt(service)));
    let hint = match looked.is_empty() {
        true => format!("no service file was found: write {}, or name one with PGSERVICEFILE", places.own),
        false => format!("looked for [{}] in {}", excerpt(service), looked.join(" and ")),
    };
    Err(ConnectError::config(message).hinting(hint))
}

/// Where libpq looks for service files if none is named.
#[derive(Clone, Copy)]
struct Places {
    /// The user's own file, as a person writes it.
    own: &'static str,
    /// The variable with the folder above that file.
    variable: &'static str,
    below: &'static str,
    /// Folders of the file of all users, if `PGSYSCONFDIR` names none.
    of_all: &'static [&'static str],
}

const UNIX: Places = Places {
    own: "~/.pg_service.conf",
    variable: "HOME",
    below: ".pg_service.conf",
    of_all: &SYSTEM_FOLDERS,
};

/// The folder of all users is where the installer of PostgreSQL puts it, which is not known here.
const WINDOWS: Places = Places {
    own: r"%APPDATA%\postgresql\.pg_service.conf",
    variable: "APPDATA",
    below: "postgresql/.pg_service.conf",
    of_all: &[],
};

impl Places {
    const fn of_this_system() -> Self {
        if cfg!(windows) { WINDOWS } else { UNIX }
    }
}

fn candidates(file: Option<&str>, env: &Env, places: Places) -> Vec<PathBuf> {
    if let Some(file) = file {
        return vec![PathBuf::from(file)];
    }
    let own = env.get(places.variable).map(|home| Path::new(&home).join(places.below));
    let folders = match env.get("PGSYSCONFDIR") {
        Some(folder) => vec![folder],
        None => places.of_all.iter().map(|folder| (*folder).to_owned()).collect(),
    };
    own.into_iter()
        .chain(folders.into_iter().map(|folder| Path::new(&folder).join("pg_service.conf")))
        .collect()
}

/// The settings below `[service]`, up to the next section.
fn find(service: &str, text: &str, path: &Path) -> Result<Option<Pairs>, ConnectError> {
    let mut found: Option<Pairs> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                return Ok(found);
            }
            if section.strip_suffix(']').is_some_and(|name| name == service) {
                found = Some(Pairs::new());
            }
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        let wrong = |what: &str| {
            ConnectError::config(format!("line {} of the service file {} {what}", number + 1, path.display()))
                .hinting("a line there is keyword=value, such as host=my-server.postgres.database.azure.com")
        };
        if line.starts_with("ldap") && line.contains("://") {
            return Err(wrong("asks an LDAP server, which is not supported"));
        }
        match line.split_once('=') {
            Some(("service" | "servicefile", _)) => return Err(wrong("names another service")),
            Some((keyword, value)) => pairs.push((keyword.to_owned(), value.to_owned())),
            None => return Err(wrong("is no keyword=value")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mine\n\n[other]\nhost=wrong\n\n[prod]\nhost=h\nuser=My Group\n# port=1\nport=5433\n[last]\nport=1\n";

    fn env(variables: &[(&str, &str)]) -> Env {
        Env::from_map(variables.iter().copied())
    }

    #[test]
    fn the_section_of_the_service_counts() {
        let files = Files::in_memory();
        files.put("/home/ada/.pg_service.conf", FILE);
        let (path, pairs) = read("prod", None, &env(&[("HOME", "/home/ada")]), &files).unwrap();
        assert_eq!(path, Path::new("/home/ada/.pg_service.conf"));
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["host=h", "user=My Group", "port=5433"]);
    }

    #[test]
    fn the_users_file_comes_first_then_the_one_of_all() {
        let files = Files::in_memory();
        files.put("/home/ada/.pg_service.conf", "[a]\nhost=own\n");
        files.put("/etc/postgresql-common/pg_service.conf", "[a]\nhost=all\n[b]\nhost=debian\n");
        files.put("/etc/pg_service.conf", "[b]\nhost=etc\n[c]\nhost=c\n");
        files.put("/conf/pg_service.conf", "[b]\nhost=conf\n");
        let home = env(&[("HOME", "/home/ada")]);
        let host =
            |service, env: &Env| read(service, None, env, &files).map(|(_, pairs)| pairs[0].1.clone()).ok();
        assert_eq!(host("a", &home).as_deref(), Some("own"));
        assert_eq!(host("b", &home).as_deref(), Some("debian"));
        assert_eq!(host("c", &home).as_deref(), Some("c"));
        assert_eq!(host("b", &env(&[("PGSYSCONFDIR", "/conf")])).as_deref(), Some("conf"));
        assert_eq!(host("c", &env(&[("PGSYSCONFDIR", "/conf")])), None);
    }

    #[test]
    fn each_system_has_its_own_places() {
        let env = env(&[("HOME", "/home/ada"), ("APPDATA", "/users/ada/roaming")]);
        let files = |places| candidates(None, &env, places);
        assert_eq!(files(UNIX)[0], Path::new("/home/ada/.pg_service.conf"));
        assert_eq!(files(WINDOWS), [Path::new("/users/ada/roaming/postgresql/.pg_service.conf")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let files = Files::in_memory();
        files.put("/f", FILE);
        files.put("/ldap", "[a]\nldap://x/y\n");
        files.put("/nested", "[a]\nservice=b\n");
        files.put("/bare", "[a]\n\nhost\n");
        let check = |service, file| read(service, Some(file), &env(&[]), &files).unwrap_err().to_string();
        assert_eq!(check("unknown", "/f"), "there is no connection service \"unknown\"");
        assert_eq!(check("a", "/absent"), "the service file /absent cannot be read");
        assert!(check("a", "/ldap").starts_with("line 2 of the service file /ldap"));
        assert!(check("a", "/nested").ends_with("names another service"));
        assert_eq!(check("a", "/bare"), "line 3 of the service file /bare is no keyword=value");
        let nowhere = read("x", None, &env(&[]), &Files::in_memory()).unwrap_err();
        assert!(nowhere.hint().unwrap().contains("PGSERVICEFILE"));
    }
}

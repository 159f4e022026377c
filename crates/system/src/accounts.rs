use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The user accounts of the machine, as its name service knows them (`/etc/passwd`, LDAP, SSSD), or those of a map. Cheap to clone.
///
/// Asking the name service blocks the thread.
#[derive(Clone)]
pub struct Accounts(Backend);

#[derive(Clone)]
enum Backend {
    System,
    Map(Arc<BTreeMap<String, u32>>),
}

impl Accounts {
    /// The accounts of this machine.
    pub fn real() -> Self {
        Self(Backend::System)
    }

    /// These accounts, each with its user id, and no others.
    pub fn from_map<N: Into<String>>(accounts: impl IntoIterator<Item = (N, u32)>) -> Self {
        Self(Backend::Map(Arc::new(accounts.into_iter().map(|(name, uid)| (name.into(), uid)).collect())))
    }

    /// The user id of an account; `None` if there is none of this name.
    ///
    /// # Errors
    /// The name service does not answer.
    pub fn uid(&self, name: &str) -> io::Result<Option<u32>> {
        match &self.0 {
            Backend::System => system_uid(name),
            Backend::Map(accounts) => Ok(accounts.get(name).copied()),
        }
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Backend::System => "Accounts(system)",
            Backend::Map(_) => "Accounts(map)",
        })
    }
}

#[cfg(unix)]
fn system_uid(name: &str) -> io::Result<Option<u32>> {
    Ok(nix::unistd::User::from_name(name)?.map(|user| user.uid.as_raw()))
}

#[cfg(not(unix))]
fn system_uid(_: &str) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_numbers() {
        let accounts = Accounts::from_map([("app", 1001)]);
        assert_eq!(accounts.uid("app").unwrap(), Some(1001));
        assert_eq!(accounts.uid("root").unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_name_service_is_asked() {
        assert_eq!(Accounts::real().uid("root").unwrap(), Some(0));
        for name in ["no-such-user-on-any-machine", "", "a\0b"] {
            assert_eq!(Accounts::real().uid(name).unwrap(), None, "{name:?}");
        }
    }
}

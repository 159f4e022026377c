use std::fmt;
use std::str::FromStr;

/// The longest name in bytes. PostgreSQL cuts longer ones off, and Azure drops them in silence.
pub use pgentra_connect::quote::NAME_LIMIT;
/// A text as a quoted SQL identifier.
pub use pgentra_connect::quote::identifier as quoted;

/// The name of a role that may be made: any text that PostgreSQL keeps unchanged, without invisible characters.
///
/// Sign-in names of guests (`alice_contoso.com#EXT#@tenant.onmicrosoft.com`), quotes, spaces inside and emoji are all
/// allowed. Case counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(String);

impl RoleName {
    /// The name, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if is_reserved(text) { Err(NameError::Reserved) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot be the name of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("a name is missing")]
    Empty,
    /// It has more than [`NAME_LIMIT`] bytes: PostgreSQL would truncate it.
    #[error("a name has at most {NAME_LIMIT} bytes, this one has {0}; with an object id any name will do")]
    TooLong(usize),
    /// It has a control character, which is invisible.
    #[error("a name with a control character cannot be told from another")]
    Control,
    /// It begins or ends with a space, which is invisible.
    #[error("a name that begins or ends with a space cannot be told from another")]
    OuterSpace,
    /// The name of a role of the server itself, or a word of SQL in the place of a name.
    #[error("the name belongs to the server itself")]
    Reserved,
}

/// Whether a text can be the name of anything in the server.
pub(crate) fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_LIMIT {
        return Err(NameError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    if text.trim() != text {
        return Err(NameError::OuterSpace);
    }
    Ok(())
}

/// Names that PostgreSQL (`pg_`, `public`, `none`), Azure and the gateway keep for themselves.
pub(crate) fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 8] = [
        "public",
        "none",
        "azure_pg_admin",
        "azure_ad_user",
        "azure_ad_admin",
        "azure_superuser",
        "azuresu",
        "replication",
    ];
    RESERVED.contains(&name) || name.starts_with("pg_") || name.starts_with("pgentra_")
}

/// A name as SQL would need it, without quotes where there is no doubt.
pub(crate) fn shown(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if plain { name.to_owned() } else { pgentra_connect::quote::name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusual_names_are_names() {
        for name in [
            "my-app",
            "alice_contoso.com#EXT#@tenant.onmicrosoft.com",
            "it's \"quoted\"",
            "two words",
            "🦀",
            "back\\slash",
            "; DROP ROLE x; --",
            &"x".repeat(63),
            &"ä".repeat(31),
        ] {
            assert_eq!(name.parse::<RoleName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_mislead_are_none() {
        for (name, error) in [
            ("", NameError::Empty),
            (&*"x".repeat(64), NameError::TooLong(64)),
            (&*"ä".repeat(32), NameError::TooLong(64)),
            ("a\0b", NameError::Control),
            ("a\nb", NameError::Control),
            (" a", NameError::OuterSpace),
            ("a\u{a0}", NameError::OuterSpace),
            ("pg_monitor", NameError::Reserved),
            ("public", NameError::Reserved),
            ("azure_pg_admin", NameError::Reserved),
            ("pgentra_principal", NameError::Reserved),
        ] {
            assert_eq!(name.parse::<RoleName>(), Err(error), "{name:?}");
        }
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("a"), "\"a\"");
        assert_eq!(quoted("a\"b\\c'd"), "\"a\"\"b\\c'd\"");
    }
}

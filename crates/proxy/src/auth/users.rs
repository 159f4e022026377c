//! The users file: PgBouncer's `userlist.txt`, with SCRAM verifiers only.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ClientAuthError;

/// Length in bytes of a key: that of SHA-256.
pub(crate) const KEY: usize = 32;
/// PostgreSQL's default number of iterations, for unknown roles when the file has no users.
const ITERATIONS: u32 = 4096;
const SALT: usize = 16;
/// PostgreSQL's salts have 16 bytes; more than a digest's length adds no security.
const LONGEST_SALT: usize = 256;

const FORM: &str = "each line is: \"role\" \"SCRAM-SHA-256$4096:…\"";
const MAKE: &str = "write the role's verifier: make one with `pgentra proxy hash-password ROLE`, or take it from \
                    PostgreSQL: SELECT rolpassword FROM pg_authid";

/// The users with their verifiers. It holds no passwords.
#[derive(Clone)]
pub struct Users {
    verifiers: HashMap<Vec<u8>, ScramVerifier>,
    /// The verifier of every role that has none of its own.
    any: Option<ScramVerifier>,
    /// Salt lengths and iterations in the order of the file; unknown roles get those of one of the
    /// users.
    shapes: Vec<Shape>,
    /// The key from which the salts of unknown roles are derived: the same for the same file.
    mock: hmac::Key,
}

/// The parts of a verifier that the protocol shows to every client: salt length and iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    iterations: u32,
    salt: usize,
}

/// A password verifier as PostgreSQL stores it (`pg_authid.rolpassword`; RFC 5803 with `$` and
/// `:`).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct ScramVerifier {
    pub(crate) iterations: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) stored_key: [u8; KEY],
    pub(crate) server_key: [u8; KEY],
}

impl Users {
    /// Reads the file: a line `"role" "verifier"` for each user; `""` is a quotation mark inside a
    /// role. Empty lines and those that begin with `;` or `#` are skipped.
    ///
    /// # Errors
    ///
    /// A line of another form, a role twice, or anything else than a SCRAM-SHA-256 verifier: a
    /// password in plain text or as MD5 is refused, because a reader of the file could sign in with
    /// it.
    pub fn parse(text: &str) -> Result<Self, ClientAuthError> {
        let mut users = HashMap::new();
        let mut shapes = Vec::new();
        let mut all = digest::Context::new(&digest::SHA256);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let (role, rest) = quoted(line).ok_or_else(|| wrong(number, "is not of the right form", FORM))?;
            let (secret, rest) =
                quoted(rest.trim_start()).ok_or_else(|| wrong(number, "is not of the right form", FORM))?;
            if role.is_empty() || !rest.trim_start().is_empty() {
                return Err(wrong(number, "is not of the right form", FORM));
            }
            let verifier = match ScramVerifier::parse(&secret) {
                Some(verifier) => verifier,
                None if secret.starts_with("SCRAM-SHA-256$") => {
                    return Err(wrong(number, "has a verifier that is cut off or changed", MAKE));
                }
                None if is_md5(&secret) => {
                    return Err(wrong(number, "has an MD5 password, which is enough to sign in with", MAKE));
                }
                None => return Err(wrong(number, "has a password in plain text", MAKE)),
            };
            for part in [&*verifier.salt, &verifier.stored_key, &verifier.server_key] {
                all.update(part);
            }
            shapes.push(Shape { iterations: verifier.iterations, salt: verifier.salt.len() });
            if users.insert(role.clone().into_bytes(), verifier).is_some() {
                return Err(wrong(number, &format!("names the role \"{role}\" a second time"), FORM));
            }
        }
        let mock = hmac::Key::new(hmac::HMAC_SHA256, all.finish().as_ref());
        Ok(Self { verifiers: users, any: None, shapes, mock })
    }

    /// One password for every role: for a listener of one program, which may use any role.
    ///
    /// # Errors
    ///
    /// An empty password.
    pub fn with_one_password(password: &SecretString) -> Result<Self, ClientAuthError> {
        let mut users = Self::parse(&Self::line("*", password)?)?;
        users.any = users.verifiers.drain().map(|(_, verifier)| verifier).next();
        Ok(users)
    }

    /// The line of a role with this password, with a new salt.
    ///
    /// # Errors
    ///
    /// An empty role or password, and a role with control characters, which a line cannot contain.
    pub fn line(role: &str, password: &SecretString) -> Result<String, ClientAuthError> {
        if role.is_empty() || role.chars().any(char::is_control) {
            return Err(ClientAuthError::new(
                "this cannot be the name of a role",
                "name the role as clients do",
            ));
        }
        let password = password.expose_secret();
        if password.is_empty() {
            return Err(ClientAuthError::new(
                "the password is empty",
                "clients send no empty password: choose another one",
            ));
        }
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        Ok(format!("\"{}\" \"{verifier}\"", role.replace('"', "\"\"")))
    }

    /// The number of users.
    pub fn len(&self) -> usize {
        self.verifiers.len()
    }

    /// Whether the file has no users, so that no client may sign in.
    pub fn is_empty(&self) -> bool {
        self.verifiers.is_empty() && self.any.is_none()
    }

    /// The role's verifier and `true`; for an unknown role a verifier that no password matches, and
    /// `false`.
    ///
    /// The salt and iterations of an unknown role are stable and look like those of the others, so
    /// that clients cannot find out which roles exist (PostgreSQL calls this mock authentication).
    pub(crate) fn find(&self, role: &[u8]) -> (ScramVerifier, bool) {
        // Computed in either case, so that both take the same time.
        let mock = self.mock(role);
        match self.verifiers.get(role).or(self.any.as_ref()) {
            Some(verifier) => (verifier.clone(), true),
            None => (mock, false),
        }
    }

    fn mock(&self, role: &[u8]) -> ScramVerifier {
        let random = |what: &[u8]| {
            let mut context = hmac::Context::with_key(&self.mock);
            context.update(what);
            context.update(role);
            context.sign()
        };
        let (shape, key) = (random(b"shape"), random(b"key"));
        let index = shape.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let shape = u64::try_from(self.shapes.len())
            .ok()
            .and_then(|number| index.checked_rem(number))
            .and_then(|index| self.shapes.get(usize::try_from(index).ok()?));
        let Shape { iterations, salt } = *shape.unwrap_or(&Shape { iterations: ITERATIONS, salt: SALT });
        let mut bytes = Vec::with_capacity(salt + KEY);
        for block in 0_u32.. {
            if bytes.len() >= salt {
                break;
            }
            bytes.extend_from_slice(random(&[b"salt", &block.to_be_bytes()[..]].concat()).as_ref());
        }
        bytes.truncate(salt);
        let mut keys = [0; KEY];
        keys.copy_from_slice(key.as_ref());
        ScramVerifier { iterations, salt: bytes, stored_key: keys, server_key: keys }
    }
}

/// Shows the number of users, not their names.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.len())
    }
}

impl ScramVerifier {
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the last three in base64.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations =
            iterations.parse().ok().filter(|number| (1..=i32::MAX.cast_unsigned()).contains(number))?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| (1..=LONGEST_SALT).contains(&salt.len()))?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        Some(Self { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

/// Splits a text in quotation marks off the front.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

fn is_md5(secret: &str) -> bool {
    secret
        .strip_prefix("md5")
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn wrong(line: usize, what: &str, hint: &'static str) -> ClientAuthError {
    ClientAuthError::new(format!("line {line} of the file of users {what}"), hint)
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password::scram_sha_256;
    use proptest::prelude::*;

    use super::*;

    fn line(role: &str, password: &str) -> String {
        format!("\"{role}\" \"{}\"\n", scram_sha_256(password.as_bytes()))
    }

    #[test]
    fn a_file_of_pgbouncer() {
        let text = format!("; users\n\n{}  {}# end", line("app", "secret"), line("o\"\"ne", "two"));
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        for role in ["app", "o\"ne"] {
            assert!(users.find(role.as_bytes()).1, "{role}");
        }
        assert!(!users.find(b"App").1);
        assert!(Users::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_verifier_is_refused_and_not_repeated() {
        let good = line("app", "secret");
        let verifier = scram_sha_256(b"secret");
        let cut = &verifier[..verifier.len() - 4];
        for (text, said, hint) in [
            (
                "\"app\" \"hunter2\"".to_owned(),
                "line 1 of the file of users has a password in plain text",
                MAKE,
            ),
            ("\"app\" \"\"".to_owned(), "plain text", MAKE),
            (format!("\"app\" \"md5{}\"", "0".repeat(32)), "MD5", MAKE),
            (format!("\"app\" \"{cut}\""), "cut off", MAKE),
            (format!("\"app\" \"{}\"", verifier.replace("4096", "0")), "cut off", MAKE),
            (format!("{good}app {verifier}"), "line 2 of the file of users is not of the right form", FORM),
            (format!("\"app \"{verifier}\""), "form", FORM),
            (format!("\"\" \"{verifier}\""), "form", FORM),
            (format!("\"app\" \"{verifier}\" more"), "form", FORM),
            ("\"app\"".to_owned(), "form", FORM),
            (
                format!("{good}{good}"),
                "line 2 of the file of users names the role \"app\" a second time",
                FORM,
            ),
        ] {
            let error = Users::parse(&text).unwrap_err();
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert_eq!(error.hint(), hint);
            let shown = format!("{error:?}{error}");
            assert!(!shown.contains("hunter2") && !shown.contains(&verifier[20..40]), "{shown}");
        }
    }

    #[test]
    fn what_no_line_can_hold_is_refused() {
        for (role, password) in [("", "x"), ("a\nb", "x"), ("a", "")] {
            assert!(Users::line(role, &password.into()).is_err(), "{role:?}");
        }
    }

    #[test]
    fn a_role_that_is_not_there_looks_like_one_that_is() {
        let strong = line("strong", "x").replace("$4096:", "$100000:");
        let text = line("app", "secret") + &strong;
        let (users, again) = (Users::parse(&text).unwrap(), Users::parse(&text).unwrap());
        let mut iterations = Vec::new();
        for number in 0..50 {
            let role = format!("unknown {number}");
            let ((mock, known), (same, _)) = (users.find(role.as_bytes()), again.find(role.as_bytes()));
            assert!(!known && mock == same, "the salt of an unknown role changed");
            assert_eq!(mock.salt.len(), 16);
            iterations.push(mock.iterations);
        }
        assert!(iterations.contains(&4096) && iterations.contains(&100_000));
        assert_ne!(users.find(b"a").0.salt, users.find(b"b").0.salt);
        let (mock, known) = Users::parse("").unwrap().find(b"a");
        assert!(!known);
        assert_eq!((mock.iterations, mock.salt.len()), (ITERATIONS, SALT));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        assert_eq!(format!("{:?}", Users::parse(&line("app", "secret")).unwrap()), "Users(1)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_read(role in "\\PC{1,30}", password in "\\PC{1,30}") {
            let text = Users::line(&role, &password.into()).unwrap();
            let users = Users::parse(&text).unwrap();
            let (found, known) = users.find(role.as_bytes());
            prop_assert!(known);
            prop_assert!(found.salt.len() == SALT && found.iterations == ITERATIONS);
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "[\"; #a-z$:=\n0-9-]{0,80}") {
            let _ = Users::parse(&text).map(|users| users.find(b"a").1);
        }
    }

    #[test]
    fn one_password_is_that_of_every_role() {
        let users = Users::with_one_password(&"secret".into()).unwrap();
        let (first, second) = (users.find(b"app"), users.find(b"*"));
        assert!(first.1 && second.1 && first.0 == second.0);
        assert_eq!((users.is_empty(), users.len()), (false, 0));
        assert!(Users::with_one_password(&"".into()).is_err());
    }
}

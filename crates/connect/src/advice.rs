//! The next thing to try after a refusal.

use pgentra_identity::{TokenKind, UnverifiedClaims};

use crate::quote::{self, NAME_LIMIT, copyable_identifier, literal, name, shell_word};
use crate::refusal::Refusal;
use crate::role_name::role_candidates;

/// Role, database and token of a sign-in, which hints refer to.
#[derive(Clone, Copy)]
pub(crate) struct AttemptedSignIn<'a> {
    pub(crate) role: &'a str,
    pub(crate) database: &'a str,
    pub(crate) token: &'a str,
    /// The claims of the token, not verified.
    pub(crate) claims: Option<&'a UnverifiedClaims>,
}

impl<'a> AttemptedSignIn<'a> {
    /// The object id in the token, or the word that stands for one.
    fn object_id(&self) -> &'a str {
        id(self.claims.and_then(UnverifiedClaims::object_id)).unwrap_or("OBJECT_ID")
    }

    /// The client id in the token, or the word that stands for one.
    fn client_id(&self) -> &'a str {
        id(self.claims.and_then(UnverifiedClaims::client_id)).unwrap_or("CLIENT_ID")
    }

    fn is_person(&self) -> bool {
        self.claims.and_then(UnverifiedClaims::kind) == Some(TokenKind::User)
    }

    /// The kind of a role for this token.
    fn kind(&self) -> &'static str {
        if self.is_person() { "user" } else { "service" }
    }

    /// The role in a user name that has the server's name behind it, as Single Server wants it: a server's name has no dot,
    /// and the domain of a sign-in name has at least one.
    fn role_on_single(&self) -> Option<&'a str> {
        let (role, server) = self.role.rsplit_once('@')?;
        let is_server = |char: char| char.is_ascii_alphanumeric() || char == '-';
        (!server.is_empty() && server.chars().all(is_server)).then_some(role)
    }

    /// The role that fits the token best, if the token names one besides its application id, and where it is another than
    /// what was asked for.
    fn fitting_role(&self) -> Option<String> {
        let claims = self.claims?;
        let asked = self.role_on_single().unwrap_or(self.role);
        let candidates = role_candidates(claims);
        if candidates.iter().any(|candidate| candidate.name == asked) {
            return None;
        }
        let is_named = |name: &str| Some(name) != claims.client_id();
        candidates.into_iter().map(|candidate| candidate.name).find(|name| is_named(name))
    }

    /// Which role fits better, if one does.
    fn fits(&self) -> String {
        match self.fitting_role() {
            Some(fitting) => {
                format!(" (the role that fits this identity: {})", name(&self.with_server(&fitting)))
            }
            None => String::new(),
        }
    }

    /// A role as a user name of the same form as what was asked for.
    fn with_server(&self, role: &str) -> String {
        let server = self.role_on_single().and_then(|bare| self.role.strip_prefix(bare)).unwrap_or_default();
        format!("{role}{server}")
    }

    /// The command that creates the role for this token.
    fn registration(&self) -> Option<String> {
        if let Some(role) = self.role_on_single() {
            let role = copyable_identifier(role)?;
            return Some(match self.is_person() {
                true => format!("CREATE ROLE {role} WITH LOGIN IN ROLE azure_ad_user"),
                false => format!(
                    "SET aad_validate_oids_in_tenant = off; CREATE ROLE {role} WITH LOGIN PASSWORD '{}' IN ROLE azure_ad_user",
                    self.client_id()
                ),
            });
        }
        copyable_identifier(self.role)?;
        Some(format!(
            "SELECT * FROM pgaadauth_create_principal_with_oid({}, '{}', '{}', false, false)",
            literal(self.role),
            self.object_id(),
            self.kind()
        ))
    }

    /// The command that recreates a role of the wrong kind.
    fn anew(&self) -> String {
        let role = shell_word(self.role_on_single().unwrap_or(self.role));
        let role = if role.starts_with('-') { format!("-- {role}") } else { role };
        format!(
            "if it is this identity's role, it was registered as the wrong kind: as an Entra administrator, drop it and \
             create it again: pgentra role drop {role}; pgentra role create --object-id {} --kind {} {role}",
            self.object_id(),
            self.kind()
        )
    }
}

/// Whether a text is a GUID. Claims are not verified and are copied into a shell command, so other texts are refused.
fn id(text: Option<&str>) -> Option<&str> {
    let is_guid =
        |text: &&str| text.len() == 36 && text.chars().all(|char| char.is_ascii_hexdigit() || char == '-');
    text.filter(is_guid)
}

/// Whether a message has the wording that Single Server knows alone: `for role[NAME]`. That server has none of the functions
/// `pgaadauth_…`.
fn is_single(message: &str) -> bool {
    message.contains("role[")
}

impl Refusal {
    /// The next thing to try after this sign-in, where the server said `message`.
    pub(crate) fn hint(self, sign_in: &AttemptedSignIn<'_>, message: &str) -> Option<String> {
        let role = name(sign_in.role);
        let hint = match self {
            Refusal::Expired => "compare this machine's clock with the server's; a token is refused at its end".to_owned(),
            Refusal::Audience => {
                "the token is for another resource: name the server's cloud with --cloud, or its resource with --resource"
                    .to_owned()
            }
            Refusal::BadFormat | Refusal::OidMissing => {
                "look at what the token source answers: pgentra token -o json".to_owned()
            }
            Refusal::Validation => {
                "is the server in the same tenant as the identity, and is Microsoft Entra authentication enabled on it?"
                    .to_owned()
            }
            Refusal::OidMismatch => mismatch(sign_in, message),
            Refusal::UserTokenForServiceRole => format!(
                "the role {role} is for an application and the token is a person's: sign in with the managed identity \
                 (--source, --client-id), or as your own role{}; {}",
                sign_in.fits(),
                sign_in.anew()
            ),
            Refusal::AppTokenForUserRole => format!(
                "the role {role} is for a person and the token is an application's: name the identity's role with -U \
                 (pgentra whoami lists the names that fit){}; {}",
                sign_in.fits(),
                sign_in.anew()
            ),
            Refusal::NotInGroup => format!(
                "the token does not list the group {role}: is the identity a member? New memberships appear in new \
                 tokens only, which a managed identity may get a day later"
            ),
            Refusal::RoleNotMapped => not_mapped(sign_in),
            Refusal::RoleMayNotSignIn => statement("LOGIN", sign_in),
            Refusal::RoleMayNotReplicate => statement("REPLICATION", sign_in),
            Refusal::NoTls => "something between here and the server takes the TLS away: connect to the server itself".to_owned(),
            Refusal::Firewall => "allow this machine's address in the server's firewall rules".to_owned(),
            Refusal::DatabaseMissing => {
                format!("there is no database {}: name one with -d, such as postgres", name(sign_in.database))
            }
            Refusal::DatabaseForbidden => {
                let bare = sign_in.role_on_single().unwrap_or(sign_in.role);
                match (copyable_identifier(sign_in.database), copyable_identifier(bare)) {
                    (Some(database), Some(role)) => {
                        format!("as an administrator: GRANT CONNECT ON DATABASE {database} TO {role}")
                    }
                    _ => "an administrator has to grant the role CONNECT on the database".to_owned(),
                }
            }
            Refusal::TooManyConnections => "wait for a connection to end, or put a pooler in front of the server".to_owned(),
            Refusal::NotReady => "try again in a few seconds".to_owned(),
            Refusal::PoolerLimit => {
                "the pooler in front of the server is too old for tokens of this length: use the server's own port, 5432"
                    .to_owned()
            }
            Refusal::Other => return None,
        };
        Some(hint)
    }
}

fn statement(attribute: &str, sign_in: &AttemptedSignIn<'_>) -> String {
    match copyable_identifier(sign_in.role_on_single().unwrap_or(sign_in.role)) {
        Some(role) => format!("as an administrator: ALTER ROLE {role} {attribute}"),
        None => format!("an administrator has to give the role the attribute {attribute}"),
    }
}

fn mismatch(sign_in: &AttemptedSignIn<'_>, message: &str) -> String {
    let role = name(sign_in.role);
    let whose =
        format!("belongs to another identity, or to an earlier one of the same name{}", sign_in.fits());
    if is_single(message) || sign_in.role_on_single().is_some() {
        let bare = shell_word(sign_in.role_on_single().unwrap_or(sign_in.role));
        let bare = if bare.starts_with('-') { format!("-- {bare}") } else { bare };
        let (option, id) = match sign_in.is_person() {
            true => ("--object-id", sign_in.object_id()),
            false => ("--client-id", sign_in.client_id()),
        };
        return format!(
            "the role {role} {whose}. If it is to be this identity's: as an Entra administrator, drop it and create it \
             again: pgentra role drop {bare}; pgentra role create {option} {id} {bare}"
        );
    }
    format!(
        "the token's object id is {}; the role {role} {whose}. As an Entra administrator, in database postgres: SELECT * \
         FROM pgaadauth_list_principals(false)",
        sign_in.object_id()
    )
}

fn not_mapped(sign_in: &AttemptedSignIn<'_>) -> String {
    let role = name(sign_in.role);
    let administrator = match sign_in.role_on_single() {
        Some(_) => "as an Entra administrator",
        None => "as an Entra administrator, in database postgres",
    };
    if let Some(fitting) = sign_in.fitting_role() {
        let only = match sign_in.registration() {
            Some(sql) => format!(". Only if {role} is meant: {administrator}: {sql}"),
            None => String::new(),
        };
        return format!(
            "sign in as {}, the role that fits this identity (pgentra whoami); you asked for {role}{only}",
            name(&sign_in.with_server(&fitting))
        );
    }
    let bytes = sign_in.role_on_single().unwrap_or(sign_in.role).len();
    let Some(sql) = sign_in.registration() else {
        let why = match bytes > NAME_LIMIT {
            true => format!("a role's name has at most {NAME_LIMIT} bytes, and this one has {bytes}"),
            false => "a character of the name does not show".to_owned(),
        };
        return format!(
            "there is no role {}: {why}; the names that fit this identity: pgentra whoami",
            quote::name(&shortened(sign_in.role))
        );
    };
    format!(
        "the role {role} is not mapped to a Microsoft Entra identity; names are case-sensitive (pgentra whoami lists the \
         names that fit this identity). {}: {sql}",
        capitalised(administrator)
    )
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The beginning of a name, long enough to identify it.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_LIMIT) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/myVm";
    const OID: &str = "bbbbbbbb-0000-4000-8000-000000000002";
    const APP: &str = "cccccccc-0000-4000-8000-000000000003";
    const SQL: &str = "SELECT * FROM pgaadauth_create_principal_with_oid(";

    fn claims(payload: &str) -> UnverifiedClaims {
        // base64url of `text`, without padding
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let encoded = |text: &str| {
            text.as_bytes()
                .chunks(3)
                .flat_map(|chunk| {
                    let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
                        << (8 * (3 - chunk.len()));
                    (0..=chunk.len())
                        .map(move |at| char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]))
                })
                .collect::<String>()
        };
        UnverifiedClaims::read(&format!("{}.{}.", encoded("{}"), encoded(payload))).unwrap()
    }

    fn vm() -> UnverifiedClaims {
        claims(&format!(r#"{{"idtyp":"app","appid":"{APP}","oid":"{OID}","xms_mirid":"{VM}"}}"#))
    }

    fn person() -> UnverifiedClaims {
        claims(&format!(r#"{{"scp":"user_impersonation","oid":"{OID}","upn":"ada@contoso.com"}}"#))
    }

    fn hint(refusal: Refusal, role: &str, claims: Option<&UnverifiedClaims>, message: &str) -> String {
        refusal.hint(&AttemptedSignIn { role, database: "a\"b", token: "t", claims }, message).unwrap()
    }

    #[test]
    fn a_hint_can_be_typed_as_it_stands() {
        let app = claims(&format!(r#"{{"idtyp":"app","appid":"{APP}","oid":"{OID}"}}"#));
        let told = hint(Refusal::RoleNotMapped, "it's", Some(&app), "");
        assert!(told.ends_with(&format!("{SQL}'it''s', '{OID}', 'service', false, false)")), "{told}");
        let told = hint(Refusal::RoleNotMapped, "it's", None, "");
        assert!(told.ends_with(&format!("{SQL}'it''s', 'OBJECT_ID', 'service', false, false)")), "{told}");
        let told = hint(Refusal::RoleMayNotSignIn, "a\"b", None, "");
        assert_eq!(told, "as an administrator: ALTER ROLE \"a\"\"b\" LOGIN");
        let told = hint(Refusal::RoleMayNotReplicate, "a\"b", None, "");
        assert_eq!(told, "as an administrator: ALTER ROLE \"a\"\"b\" REPLICATION");
        let told = hint(Refusal::DatabaseForbidden, "a\"b", None, "");
        assert_eq!(told, "as an administrator: GRANT CONNECT ON DATABASE \"a\"\"b\" TO \"a\"\"b\"");
    }

    #[test]
    fn the_role_that_fits_comes_before_a_new_one() {
        let told = hint(Refusal::RoleNotMapped, "root", Some(&vm()), "");
        let expected = format!(
            "sign in as \"myVm\", the role that fits this identity (pgentra whoami); you asked for \"root\". Only if \
             \"root\" is meant: as an Entra administrator, in database postgres: {SQL}'root', '{OID}', 'service', false, \
             false)"
        );
        assert_eq!(told, expected);
        let told = hint(Refusal::RoleNotMapped, "ADA@contoso.com", Some(&person()), "");
        assert!(told.starts_with("sign in as \"ada@contoso.com\", "), "{told}");
        assert!(told.contains("'user', false, false"), "{told}");
        // The name fits, and the role was not created yet.
        let told = hint(Refusal::RoleNotMapped, "myVm", Some(&vm()), "");
        assert!(told.starts_with("the role \"myVm\" is not mapped"), "{told}");
    }

    #[test]
    fn no_name_is_proposed_that_cannot_exist() {
        let (long, wide) = ("x".repeat(64), "ä".repeat(32));
        for role in [&*long, &*wide, "a\nb", "a\u{1b}[31m", "a\u{202e}b"] {
            for claims in [None, Some(&vm()), Some(&person())] {
                for refusal in Refusal::ALL {
                    let sign_in = AttemptedSignIn { role, database: role, token: "t", claims };
                    let told = refusal.hint(&sign_in, "").unwrap_or_default();
                    assert!(!told.chars().any(quote::is_hidden), "{told:?}");
                    for sql in ["CREATE", "pgaadauth_create", "ALTER ROLE", "GRANT CONNECT"] {
                        assert!(!told.contains(sql), "{told}");
                    }
                }
            }
        }
        let told = hint(Refusal::RoleNotMapped, &long, None, "");
        assert!(told.contains("at most 63 bytes, and this one has 64"), "{told}");
    }

    #[test]
    fn single_server_hears_of_no_function_that_it_lacks() {
        for role in ["myVm", "unknown", "it's"] {
            let with_server = format!("{role}@mydemoserver");
            for claims in [None, Some(&vm()), Some(&person())] {
                let told = hint(Refusal::RoleNotMapped, &with_server, claims, "");
                assert!(!told.contains("pgaadauth") && told.contains("azure_ad_user"), "{told}");
                let message = format!("Service Principal oid mismatch for role[{role}].");
                for role in [role, &with_server] {
                    let told = hint(Refusal::OidMismatch, role, claims, &message);
                    assert!(!told.contains("pgaadauth") && told.contains("pgentra role create"), "{told}");
                }
            }
        }
        let told = hint(Refusal::RoleNotMapped, "root@mydemoserver", Some(&vm()), "");
        assert!(told.starts_with("sign in as \"myVm@mydemoserver\", "), "{told}");
        assert!(
            told.ends_with(&format!(
                "CREATE ROLE \"root\" WITH LOGIN PASSWORD '{APP}' IN ROLE azure_ad_user"
            ))
        );
        let message = "Service principal oid mismatch for role \"x\"";
        assert!(hint(Refusal::OidMismatch, "x", None, message).contains("pgaadauth_list_principals"));
    }

    #[test]
    fn a_role_of_the_wrong_kind_is_made_anew() {
        let told = hint(Refusal::AppTokenForUserRole, "my app", Some(&vm()), "");
        let command = format!(
            "pgentra role drop 'my app'; pgentra role create --object-id {OID} --kind service 'my app'"
        );
        assert!(told.ends_with(&command) && told.contains("registered as the wrong kind"), "{told}");
        assert!(told.contains("(the role that fits this identity: \"myVm\")"), "{told}");
        let told = hint(Refusal::UserTokenForServiceRole, "-ada", Some(&person()), "");
        let command =
            format!("pgentra role drop -- -ada; pgentra role create --object-id {OID} --kind user -- -ada");
        assert!(told.ends_with(&command), "{told}");
    }

    /// A claim is copied into a command only if it is a GUID.
    #[test]
    fn a_claim_cannot_write_a_command() {
        let hostile = claims(r#"{"idtyp":"app","oid":"x', 'y'); DROP ROLE z; --","appid":"$(id)"}"#);
        for refusal in Refusal::ALL {
            let sign_in = AttemptedSignIn { role: "r", database: "d", token: "t", claims: Some(&hostile) };
            let told = refusal.hint(&sign_in, "role[r]").unwrap_or_default();
            assert!(!told.contains("DROP ROLE") && !told.contains("$("), "{told}");
        }
    }
}

use pgentra_identity::{TokenKind, UnverifiedClaims};

/// A database role that may belong to an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleCandidate {
    /// The role's name, as it goes into the start-up packet.
    pub name: String,
    /// Under what condition it is that.
    pub because: &'static str,
}

/// The role names that fit a token, the likeliest first; empty where the token holds no name.
///
/// A name cannot be computed from a token for sure: roles may have any name, the resource id is missing from many
/// tokens, and a role for a group is named after the group. So this is a help for a person, never a default. The rule for
/// user-assigned identities and users is that of Microsoft's `azure-postgresql-auth`; a system-assigned identity is named
/// after its host (Microsoft: "Manage Microsoft Entra roles in Azure Database for PostgreSQL").
pub fn role_candidates(claims: &UnverifiedClaims) -> Vec<RoleCandidate> {
    let mut found: Vec<RoleCandidate> = Vec::new();
    let mut add = |name: Option<&str>, because| {
        if let Some(name) = name.filter(|name| !name.is_empty())
            && !found.iter().any(|candidate| candidate.name == name)
        {
            found.push(RoleCandidate { name: name.to_owned(), because });
        }
    };
    for claim in ["xms_mirid", "xms_az_rid"] {
        let Some(id) = claims.text(claim) else { continue };
        let because = if is_user_assigned(id) {
            "the role is named after the user-assigned identity"
        } else {
            "the role is named after the resource that has the system-assigned identity"
        };
        // The host of a user-assigned identity says nothing about its role.
        if claim == "xms_mirid" || claims.text("xms_mirid").is_none_or(|id| !is_user_assigned(id)) {
            add(id.rsplit('/').next(), because);
        }
    }
    if claims.kind() != Some(TokenKind::App) {
        for claim in ["upn", "preferred_username", "unique_name"] {
            add(claims.text(claim), "the role is named after the user");
        }
    }
    if claims.kind() == Some(TokenKind::App) {
        add(
            claims.client_id(),
            "the role is named after the application id; more often it has the display name",
        );
    }
    found
}

/// Whether a Resource Manager id is one of a user-assigned identity.
fn is_user_assigned(id: &str) -> bool {
    let mut parts = id.rsplit('/').skip(1);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("userAssignedIdentities"))
        && parts.next().is_some_and(|provider| provider.eq_ignore_ascii_case("Microsoft.ManagedIdentity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/myVm";
    const IDENTITY: &str = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/myIdentity";

    /// Every name that is offered for a token with these claims.
    fn check(claims: &str, expected: &[&str]) {
        let part = |text: &str| {
            // base64url of `text`, without padding
            const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
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
        let token = format!("{}.{}.", part("{}"), part(claims));
        let claims = UnverifiedClaims::read(&token).unwrap();
        let names: Vec<_> = role_candidates(&claims).into_iter().map(|candidate| candidate.name).collect();
        assert_eq!(names, expected, "{claims:?}");
    }

    #[test]
    fn a_user_assigned_identity_gives_its_name() {
        check(
            &format!(r#"{{"idtyp":"app","appid":"a","xms_mirid":"{IDENTITY}","xms_az_rid":"{VM}"}}"#),
            &["myIdentity", "a"],
        );
    }

    #[test]
    fn a_system_assigned_identity_gives_its_host() {
        check(&format!(r#"{{"idtyp":"app","appid":"a","xms_mirid":"{VM}"}}"#), &["myVm", "a"]);
        check(&format!(r#"{{"idtyp":"app","appid":"a","xms_az_rid":"{VM}"}}"#), &["myVm", "a"]);
    }

    #[test]
    fn a_user_gives_the_principal_name() {
        check(
            r#"{"scp":"user_impersonation","upn":"ann@contoso.com","unique_name":"ann@contoso.com"}"#,
            &["ann@contoso.com"],
        );
    }

    /// A resource id that says nothing does not hide the principal name.
    #[test]
    fn an_empty_id_hides_nothing() {
        check(r#"{"xms_mirid":"","upn":"ann@contoso.com"}"#, &["ann@contoso.com"]);
    }

    #[test]
    fn a_token_without_names_gives_none() {
        check(r#"{"oid":"o","sub":"p"}"#, &[]);
    }
}

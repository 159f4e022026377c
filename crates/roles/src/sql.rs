//! Changes as SQL. What is shown is what is run: every value is in the text, as a quoted identifier or an escaped literal.

use aws_lc_rs::digest::{SHA256, digest};
use pgentra_connect::quote::literal;

use super::Flavour;
use super::change::{Change, Defaults, JoinOptions, ObjectName, OptionsChange, Principal, Privilege};
use super::desired::PrincipalRef;
use super::membership::{MembershipOptions, OPTIONS_SINCE};
use super::name::quoted;
use super::object;
use super::privilege::Class;
use super::read::Roles;

/// What statements depend on besides the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) flavour: Flavour,
    pub(crate) can_update: bool,
    /// `server_version_num`.
    pub(crate) version: i32,
}

impl Dialect {
    pub(crate) fn of(roles: &Roles) -> Self {
        Self { flavour: roles.flavour(), can_update: roles.can_update, version: roles.version }
    }

    /// The statements of a change, without semicolons.
    pub(crate) fn statements(self, change: &Change) -> Vec<String> {
        match change {
            Change::Create(principal) => match self.flavour {
                Flavour::Flexible => vec![create_flexible(principal)],
                Flavour::Single => create_single(principal),
            },
            Change::Bind { to, is_marked, comment, .. } => match self.flavour {
                Flavour::Flexible if self.can_update => {
                    vec![function("pgaadauth_update_principal_with_oid", to)]
                }
                Flavour::Flexible => label(to),
                Flavour::Single => bind_single(to, *is_marked, comment.as_deref()),
            },
            Change::Rename { from, to } => {
                vec![format!("ALTER ROLE {} RENAME TO {}", quoted(from), quoted(to))]
            }
            Change::CreateGroup { role } => vec![format!("CREATE ROLE {} NOLOGIN", quoted(role))],
            Change::ForbidLogin { role } => vec![format!("ALTER ROLE {} NOLOGIN", quoted(role))],
            Change::Join { role, group, options } => vec![self.join(role, group, *options)],
            Change::AlterMembership { role, group, options } => {
                vec![self.alter_membership(role, group, *options)]
            }
            Change::Own(ownership) => {
                let statement = |object: &object::OwnedObject| {
                    format!("ALTER {} OWNER TO {}", object.reference(), quoted(&ownership.role))
                };
                ownership.objects.iter().map(statement).collect()
            }
            Change::Leave { role, group } => vec![format!("REVOKE {} FROM {}", quoted(group), quoted(role))],
            Change::Grant(privilege) => privileges(privilege, "GRANT", "TO"),
            Change::Revoke(privilege) => privileges(privilege, "REVOKE", "FROM"),
            Change::GrantDefault(defaults) => vec![default_privileges(defaults, "GRANT", "TO")],
            Change::RevokeDefault(defaults) => vec![default_privileges(defaults, "REVOKE", "FROM")],
            Change::Clear { role, heir, joins, .. } => clear(role, heir.as_deref(), joins),
            Change::Drop { role } => vec![format!("DROP ROLE {}", quoted(role))],
        }
    }
}

impl Dialect {
    /// What is as PostgreSQL has it by default is not written.
    fn join(self, role: &str, group: &str, JoinOptions { options, is_noinherit }: JoinOptions) -> String {
        let statement = format!("GRANT {} TO {}", quoted(group), quoted(role));
        if self.version < OPTIONS_SINCE {
            return if options.admin { format!("{statement} WITH ADMIN OPTION") } else { statement };
        }
        let default = MembershipOptions { inherit: !is_noinherit, ..MembershipOptions::default() };
        match option_list(default, options) {
            list if list.is_empty() => statement,
            list => format!("{statement} WITH {list}"),
        }
    }

    fn alter_membership(self, role: &str, group: &str, OptionsChange { from, to }: OptionsChange) -> String {
        let (role, group) = (quoted(role), quoted(group));
        match (self.version < OPTIONS_SINCE, to.admin) {
            (true, true) => format!("GRANT {group} TO {role} WITH ADMIN OPTION"),
            (true, false) => format!("REVOKE ADMIN OPTION FOR {group} FROM {role}"),
            (false, _) => format!("GRANT {group} TO {role} WITH {}", option_list(from, to)),
        }
    }
}

/// The options that differ.
fn option_list(from: MembershipOptions, to: MembershipOptions) -> String {
    let differing = from.words().into_iter().zip(to.words()).filter(|(from, to)| from.1 != to.1);
    let words = differing.map(|(_, (word, is))| format!("{word} {}", if is { "TRUE" } else { "FALSE" }));
    words.collect::<Vec<_>>().join(", ")
}

fn create_flexible(principal: &Principal) -> String {
    let Principal { role, is_admin, is_mfa, .. } = principal;
    match principal.identity {
        PrincipalRef::Name => {
            format!("SELECT pgaadauth_create_principal({}, {is_admin}, {is_mfa})", literal(role))
        }
        PrincipalRef::ObjectId(_) | PrincipalRef::ClientId(_) => {
            function("pgaadauth_create_principal_with_oid", principal)
        }
    }
}

fn function(name: &str, principal: &Principal) -> String {
    let Principal { role, kind, is_admin, is_mfa, .. } = principal;
    format!("SELECT {name}({}, '{}', '{kind}', {is_admin}, {is_mfa})", literal(role), id(principal.identity))
}

/// What the functions do, by hand (Microsoft: "Manage Microsoft Entra roles", security labels).
fn label(principal: &Principal) -> Vec<String> {
    let Principal { role, kind, is_admin, .. } = principal;
    let admin = if *is_admin { ",admin" } else { "" };
    let role = quoted(role);
    let (attributes, membership) = match is_admin {
        true => ("CREATEROLE CREATEDB", format!("GRANT azure_pg_admin TO {role}")),
        false => ("NOCREATEROLE NOCREATEDB", format!("REVOKE azure_pg_admin FROM {role}")),
    };
    vec![
        format!("ALTER ROLE {role} WITH LOGIN {attributes}"),
        membership,
        format!(
            "SECURITY LABEL FOR \"pgaadauth\" ON ROLE {role} IS 'aadauth,oid={},type={kind}{admin}'",
            id(principal.identity)
        ),
    ]
}

fn create_single(principal: &Principal) -> Vec<String> {
    let role = quoted(&principal.role);
    match principal.identity {
        PrincipalRef::Name => vec![format!("CREATE ROLE {role} WITH LOGIN IN ROLE azure_ad_user")],
        identity => vec![
            NO_LOOK_UP.to_owned(),
            format!("CREATE ROLE {role} WITH LOGIN PASSWORD '{}' IN ROLE azure_ad_user", id(identity)),
            comment(&principal.role, identity, None),
        ],
    }
}

fn bind_single(principal: &Principal, is_marked: bool, old_comment: Option<&str>) -> Vec<String> {
    let role = quoted(&principal.role);
    let mut statements = Vec::new();
    if principal.identity != PrincipalRef::Name {
        statements.push(NO_LOOK_UP.to_owned());
        statements.push(format!("ALTER ROLE {role} WITH LOGIN PASSWORD '{}'", id(principal.identity)));
    }
    if !is_marked {
        statements.push(format!("GRANT azure_ad_user TO {role}"));
    }
    if principal.identity != PrincipalRef::Name {
        statements.push(comment(&principal.role, principal.identity, old_comment));
    }
    statements
}

/// Single Server must not look up the role's name in the tenant: the id in the password decides.
const NO_LOOK_UP: &str = "SET LOCAL aad_validate_oids_in_tenant = off";

const MARK: &str = "[pgentra sha256:";

/// Single Server does not show the principal of a role, so the id is remembered in a comment: as a digest, because there
/// the id is also the role's password.
fn comment(role: &str, identity: PrincipalRef, old: Option<&str>) -> String {
    let kept = old
        .map(without_mark)
        .filter(|kept| !kept.is_empty())
        .map(|kept| format!("{kept} "))
        .unwrap_or_default();
    let text = format!("{kept}{MARK}{}]", fingerprint(identity));
    format!("COMMENT ON ROLE {} IS {}", quoted(role), literal(&text))
}

/// Whether a comment says that a role was bound to this identity.
pub(crate) fn is_bound(comment: Option<&str>, identity: PrincipalRef) -> bool {
    comment.is_some_and(|comment| comment.ends_with(&format!("{MARK}{}]", fingerprint(identity))))
}

fn without_mark(comment: &str) -> &str {
    comment.split_once(MARK).map_or(comment, |(kept, _)| kept.trim_end())
}

fn fingerprint(identity: PrincipalRef) -> String {
    let digest = digest(&SHA256, id(identity).as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn privileges(privilege: &Privilege, verb: &str, preposition: &str) -> Vec<String> {
    let list = privilege.privileges.join(", ");
    let role = quoted(&privilege.role);
    let statement = |keyword: &str, objects: &[String]| {
        format!("{verb} {list} ON {keyword} {} {preposition} {role}", objects.join(", "))
    };
    let qualified = |object: &ObjectName| match &privilege.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&object.name)),
        None => quoted(&object.name),
    };
    match privilege.class {
        Class::Function => {
            let mut statements = Vec::new();
            for (is_procedure, keyword) in [(false, "FUNCTION"), (true, "PROCEDURE")] {
                let objects: Vec<String> = privilege
                    .objects
                    .iter()
                    .filter(|object| object.is_procedure == is_procedure)
                    .map(|object| format!("{}{}", qualified(object), object::arguments(&object.types)))
                    .collect();
                if !objects.is_empty() {
                    statements.push(statement(keyword, &objects));
                }
            }
            statements
        }
        class => {
            let objects: Vec<String> = privilege.objects.iter().map(qualified).collect();
            vec![statement(&class.to_string().to_uppercase(), &objects)]
        }
    }
}

fn default_privileges(defaults: &Defaults, verb: &str, preposition: &str) -> String {
    let Defaults { role, owner, schema, class, privileges, .. } = defaults;
    let schema = schema.as_ref().map(|schema| format!(" IN SCHEMA {}", quoted(schema))).unwrap_or_default();
    format!(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {}{schema} {verb} {} ON {} {preposition} {}",
        quoted(owner),
        privileges.join(", "),
        class.plural().to_uppercase(),
        quoted(role)
    )
}

/// `DROP OWNED` and `REASSIGN OWNED` require membership of the role and of the heir: a user without it becomes a member
/// for the length of the transaction.
fn clear(role: &str, heir: Option<&str>, joins: &[String]) -> Vec<String> {
    let joined = |verb: &'static str, preposition: &'static str| {
        joins.iter().map(move |group| format!("{verb} {} {preposition} CURRENT_USER", quoted(group)))
    };
    let mut statements: Vec<String> = joined("GRANT", "TO").collect();
    statements.push(match heir {
        Some(heir) => format!("REASSIGN OWNED BY {} TO {}", quoted(role), quoted(heir)),
        None => owns_nothing(role),
    });
    statements.push(format!("DROP OWNED BY {}", quoted(role)));
    statements.extend(joined("REVOKE", "FROM"));
    statements
}

/// A statement that fails if the role owns an object: the role may have created it since the plan was made, and
/// `DROP OWNED` would drop it.
fn owns_nothing(role: &str) -> String {
    let body = format!(
        "BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_shdepend d \
         JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid JOIN pg_catalog.pg_database b ON b.oid = d.dbid \
         WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'o' \
         AND b.datname = pg_catalog.current_database() AND r.rolname = {}) \
         THEN RAISE EXCEPTION 'the role owns something by now' USING ERRCODE = 'dependent_objects_still_exist'; \
         END IF; END",
        literal(role)
    );
    format!("DO {}", literal(&body))
}

fn id(identity: PrincipalRef) -> String {
    match identity {
        PrincipalRef::ObjectId(id) | PrincipalRef::ClientId(id) => id.to_string(),
        PrincipalRef::Name => String::new(),
    }
}

/// Whether a role of this kind can be mapped on this flavour in this way.
pub(crate) fn impossible(flavour: Flavour, principal: &Principal, can_update: bool) -> Option<&'static str> {
    match flavour {
        Flavour::Single if principal.is_admin => {
            Some("on Single Server the administrator is set in Azure: az postgres server ad-admin create")
        }
        Flavour::Single if principal.is_mfa => Some("Single Server does not ask for a second factor"),
        Flavour::Flexible if principal.is_mfa && !can_update => {
            Some("this server has no function that asks for a second factor of a role that is there")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::ObjectType;
    use crate::object::TypeName;

    const ID: Uuid = Uuid::from_u128(0x1);
    const ID_TEXT: &str = "00000000-0000-0000-0000-000000000001";

    fn principal(role: &str, identity: PrincipalRef) -> Principal {
        Principal {
            role: role.to_owned(),
            kind: ObjectType::Service,
            identity,
            is_admin: false,
            is_mfa: false,
        }
    }

    fn flexible(can_update: bool, change: &Change) -> Vec<String> {
        Dialect { flavour: Flavour::Flexible, can_update, version: 160_000 }.statements(change)
    }

    fn single(change: &Change) -> Vec<String> {
        Dialect { flavour: Flavour::Single, can_update: false, version: 110_000 }.statements(change)
    }

    fn bind(principal: Principal, comment: Option<&str>) -> Change {
        let comment = comment.map(str::to_owned);
        Change::Bind { to: principal, because: String::new(), is_marked: true, comment }
    }

    #[test]
    fn the_articles_statements() {
        let create = Change::Create(principal("my'user", PrincipalRef::ObjectId(ID)));
        assert_eq!(
            flexible(true, &create),
            [format!(
                "SELECT pgaadauth_create_principal_with_oid('my''user', '{ID_TEXT}', 'service', false, false)"
            )]
        );
        let by_name = Change::Create(principal("myVm", PrincipalRef::Name));
        assert_eq!(flexible(true, &by_name), ["SELECT pgaadauth_create_principal('myVm', false, false)"]);
        let create = single(&Change::Create(principal("myuser", PrincipalRef::ClientId(ID))));
        assert_eq!(
            create[..2],
            [
                "SET LOCAL aad_validate_oids_in_tenant = off".to_owned(),
                format!("CREATE ROLE \"myuser\" WITH LOGIN PASSWORD '{ID_TEXT}' IN ROLE azure_ad_user"),
            ]
        );
        assert!(!create[2].contains(ID_TEXT), "the id is also the password: {create:?}");
        assert_eq!(single(&by_name), ["CREATE ROLE \"myVm\" WITH LOGIN IN ROLE azure_ad_user"]);
    }

    #[test]
    fn a_server_without_the_function_takes_a_label() {
        let mut admin = principal("a\"b", PrincipalRef::ObjectId(ID));
        admin.is_admin = true;
        assert_eq!(
            flexible(false, &bind(admin, None)),
            [
                "ALTER ROLE \"a\"\"b\" WITH LOGIN CREATEROLE CREATEDB".to_owned(),
                "GRANT azure_pg_admin TO \"a\"\"b\"".to_owned(),
                format!(
                    "SECURITY LABEL FOR \"pgaadauth\" ON ROLE \"a\"\"b\" IS 'aadauth,oid={ID_TEXT},type=service,admin'"
                ),
            ]
        );
    }

    #[test]
    fn a_comment_remembers_and_keeps_what_people_wrote() {
        let identity = PrincipalRef::ClientId(ID);
        let of = |comment: Option<&str>| {
            let sql = single(&bind(principal("r", identity), comment)).pop().unwrap();
            sql.strip_prefix("COMMENT ON ROLE \"r\" IS '").unwrap().strip_suffix('\'').unwrap().to_owned()
        };
        let first = of(None);
        assert!(is_bound(Some(&first), identity) && first.starts_with('['));
        assert!(!is_bound(Some(&first), PrincipalRef::ClientId(Uuid::from_u128(2))));
        let second = of(Some("billing team"));
        assert!(is_bound(Some(&second), identity) && second.starts_with("billing team ["));
        assert_eq!(of(Some(&second)), second);
        assert!(!is_bound(None, identity) && !is_bound(Some("billing team"), identity));
    }

    #[test]
    fn functions_and_procedures_are_granted_apart() {
        let named = |name: &str, is_procedure| ObjectName {
            name: name.to_owned(),
            arguments: Some("a integer, b text".to_owned()),
            types: ["int4", "te\"xt"]
                .map(|name| TypeName { schema: "pg_catalog".to_owned(), name: name.to_owned() })
                .into(),
            is_procedure,
        };
        let grant = Change::Grant(Privilege {
            role: "r".to_owned(),
            database: "app".to_owned(),
            class: Class::Function,
            schema: Some("s".to_owned()),
            objects: vec![named("f", false), named("p", true)],
            privileges: vec!["EXECUTE".to_owned()],
            owners: BTreeSet::new(),
        });
        assert_eq!(
            flexible(true, &grant),
            [
                "GRANT EXECUTE ON FUNCTION \"s\".\"f\"(IN \"pg_catalog\".\"int4\", IN \"pg_catalog\".\"te\"\"xt\") TO \"r\"",
                "GRANT EXECUTE ON PROCEDURE \"s\".\"p\"(IN \"pg_catalog\".\"int4\", IN \"pg_catalog\".\"te\"\"xt\") TO \"r\"",
            ]
        );
    }

    #[test]
    fn nothing_that_was_made_meanwhile_is_dropped() {
        let clear = Change::Clear {
            role: "it's".to_owned(),
            database: "app".to_owned(),
            heir: None,
            joins: vec!["it's".to_owned()],
        };
        let statements = flexible(true, &clear);
        assert_eq!(statements[0], "GRANT \"it's\" TO CURRENT_USER");
        assert!(statements[1].starts_with("DO 'BEGIN IF EXISTS"), "{statements:?}");
        assert!(statements[1].contains("''it''''s''"), "{statements:?}");
        assert_eq!(statements[2..], ["DROP OWNED BY \"it's\"", "REVOKE \"it's\" FROM CURRENT_USER"]);
    }
}

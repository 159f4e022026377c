//! Administrators as arguments of `pgentra gateway init`.

use std::str::FromStr;

use pgentra_gateway::{Principal, PrincipalKind};
use uuid::Uuid;

/// An administrator as an argument: `ROLE=GUID`, with `:user`, `:group` or `:service` behind it.
#[derive(Clone, Debug)]
pub(crate) struct AdministratorArgument(pub(crate) Principal);

impl FromStr for AdministratorArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write ROLE=GUID, with :user, :group or :service behind it";
        let (name, rest) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or(FORM)?;
        let (id, kind) = rest.split_once(':').unwrap_or((rest, "user"));
        let object_id: Uuid = id.parse().map_err(|_| format!("`{id}` is no GUID: {FORM}"))?;
        let kind: PrincipalKind = kind.parse().map_err(|error| format!("`{kind}` is {error}"))?;
        Ok(Self(Principal { name: name.to_owned(), object_id, kind }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_is_a_role_an_id_and_a_kind() {
        const ID: &str = "00000000-1111-2222-3333-444444444444";
        for (text, name, kind) in [
            (format!("dba@example.com={ID}"), "dba@example.com", PrincipalKind::User),
            (format!("a=b={ID}:group"), "a=b", PrincipalKind::Group),
            (format!("app={ID}:service"), "app", PrincipalKind::Service),
        ] {
            let AdministratorArgument(admin) = text.parse().unwrap();
            assert_eq!((admin.name.as_str(), admin.kind), (name, kind), "{text}");
        }
        for bad in ["", "dba", "dba=x", &format!("={ID}"), &format!("dba={ID}:robot")] {
            assert!(bad.parse::<AdministratorArgument>().is_err(), "{bad}");
        }
    }
}

//! The security labels by which Flexible Server maps roles.
//!
//! `pgaadauth` holds what an administrator asked for: `aadauth[,oid=GUID][,type=user|group|service][,admin]`;
//! `pgaadauth-int` what the server made of it: `type=…,oid=GUID,tenant_id=GUID`. Both are lists of words, in any order.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;

use super::ObjectType;

/// What the labels of a role say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) object_id: Option<Uuid>,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) kind: Option<ObjectType>,
    pub(crate) is_admin: bool,
    pub(crate) is_mfa: bool,
}

impl Label {
    /// Adds what one label says; what is not understood is left out, as the server's grammar may grow.
    pub(crate) fn read(&mut self, text: &str) {
        for word in text.split(',').map(str::trim) {
            match word.split_once('=') {
                Some(("oid", id)) => self.object_id = id.parse().ok().or(self.object_id),
                Some(("tenant_id", id)) => self.tenant = id.parse().ok().or(self.tenant),
                Some(("type", kind)) => self.kind = kind.parse().ok().or(self.kind),
                None if word == "admin" => self.is_admin = true,
                None if word == "mfa" => self.is_mfa = true,
                _ => {}
            }
        }
    }

    /// The label of every role that has one, by the role's oid.
    pub(crate) async fn of_all(client: &Client) -> Result<BTreeMap<u32, Label>, tokio_postgres::Error> {
        // The internal provider last: it says what is in force.
        let rows = client
            .query(
                "SELECT objoid, label FROM pg_catalog.pg_shseclabel
                 WHERE classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass
                   AND provider IN ('pgaadauth', 'pgaadauth-int')
                 ORDER BY provider",
                &[],
            )
            .await?;
        let mut labels: BTreeMap<u32, Label> = BTreeMap::new();
        for row in rows {
            labels.entry(row.get(0)).or_default().read(row.get(1));
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Uuid = Uuid::from_u128(1);
    const TENANT: Uuid = Uuid::from_u128(2);

    #[test]
    fn both_providers_are_read() {
        let mut label = Label::default();
        label.read(&format!("aadauth,oid={OBJECT},type=service,admin"));
        assert_eq!(
            (label.object_id, label.kind, label.is_admin),
            (Some(OBJECT), Some(ObjectType::Service), true)
        );
        label.read(&format!("type=service,oid={OBJECT},tenant_id={TENANT}"));
        assert_eq!((label.object_id, label.tenant, label.is_mfa), (Some(OBJECT), Some(TENANT), false));
    }

    #[test]
    fn words_that_are_not_understood_are_left_out() {
        for text in ["aadauth", "", "aadauth,oid=nonsense,type=device,colour=blue,,=", "admin=no"] {
            let mut label = Label::default();
            label.read(text);
            assert_eq!(label, Label::default(), "{text}");
        }
    }
}

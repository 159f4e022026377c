//! Security labels, as Flexible Server has them. No module that would check them is loaded here, so they are put into the
//! catalog itself.

use pgentra_local::Flavour;
use pgentra_roles::{Flavour as Found, ObjectType, Roles, Source};
use uuid::Uuid;

use crate::fixture::{Stage, run};

#[test]
fn labels_are_read() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        let (object, tenant) = (Uuid::new_v4(), Uuid::new_v4());
        let superuser = stage.superuser("postgres").await;
        superuser
            .batch_execute(&format!(
                "SET allow_system_table_mods = on;
                 CREATE ROLE labelled LOGIN; CREATE ROLE \"by name\" LOGIN;
                 INSERT INTO pg_catalog.pg_shseclabel (objoid, classoid, provider, label) VALUES
                 ('labelled'::regrole, 'pg_authid'::regclass, 'pgaadauth', 'aadauth,oid={object},type=group,admin'),
                 ('labelled'::regrole, 'pg_authid'::regclass, 'pgaadauth-int', 'type=group,oid={object},tenant_id={tenant}'),
                 ('\"by name\"'::regrole, 'pg_authid'::regclass, 'pgaadauth', 'aadauth'),
                 ('labelled'::regrole, 'pg_authid'::regclass, 'selinux', 'type=user')"
            ))
            .await
            .unwrap();
        let session = stage.administrator("postgres").connect().await.unwrap();
        let roles = Roles::read(session.client()).await.unwrap();
        assert_eq!(roles.flavour(), Found::Flexible);
        let of = |name: &str| roles.entra().iter().find(|role| role.name == name).unwrap();
        let labelled = of("labelled");
        assert_eq!(
            (labelled.kind, labelled.object_id, labelled.tenant, labelled.is_admin, labelled.source),
            (Some(ObjectType::Group), Some(object), Some(tenant), true, Source::Label)
        );
        assert_eq!((of("by name").object_id, of("by name").source), (None, Source::Label));
        let me = of(stage.azure.administrator().user_principal_name());
        assert_eq!((me.source, me.is_admin, me.kind), (Source::Function, true, Some(ObjectType::User)));
        // In another database there are no functions; labels are seen everywhere.
        let other = stage.superuser("template1").await;
        let roles = Roles::read(&other).await.unwrap();
        // Those of the test, and that of the administrator.
        assert_eq!(roles.entra().len(), 3);
    });
}

//! A file on Single Server, which does not show the principal of a role.

use pgentra_roles::{Flavour, Roles, Source};
use uuid::Uuid;

use crate::fixture::{Stage, run};

#[test]
fn a_file_is_applied() {
    run(async {
        let stage = Stage::single().await;
        stage.database("single_app", "CREATE TABLE public.t (); CREATE ROLE single_readers").await;
        let id = stage.azure.vm().client_id();
        let text = format!(
            "[[role]]
             name = 'single vm'
             client_id = '{id}'
             member_of = ['single_readers']
             [[role.grant]]
             schema = 'public'
             tables = '*'
             privileges = ['SELECT']"
        );
        assert_eq!(
            stage.settle("single_app", &text).await,
            [
                format!("+ role \"single vm\": service, client id {id}"),
                "+ role \"single vm\" is a member of single_readers".to_owned(),
                "+ SELECT for \"single vm\" on table public.t in database single_app".to_owned(),
            ]
        );
        let session = stage.vm("single vm", "single_app").await.unwrap();
        session.client().batch_execute("SELECT FROM t").await.unwrap();
        let admin = stage.administrator("postgres").connect().await.unwrap();
        let roles = Roles::read(admin.client()).await.unwrap();
        assert_eq!(roles.flavour(), Flavour::Single);
        let role = roles.entra().iter().find(|role| role.name == "single vm").unwrap();
        assert_eq!((role.source, role.object_id, role.kind), (Source::Membership, None, None));
    });
}

#[test]
fn another_identity_is_seen_and_bound() {
    run(async {
        let stage = Stage::single().await;
        let text = |id: Uuid| format!("[[role]]\nname = 'single_moved'\nclient_id = '{id}'");
        let (other, vm) = (Uuid::new_v4(), stage.azure.vm().client_id());
        // Created by hand, so its principal is unknown.
        let sql = format!(
            "CREATE ROLE single_moved LOGIN PASSWORD '{other}' IN ROLE azure_ad_user; COMMENT ON ROLE single_moved IS 'billing'"
        );
        stage.admin("postgres", &sql).await;
        for id in [other, vm] {
            assert_eq!(
                stage.settle("postgres", &text(id)).await,
                [format!("~ role single_moved: unknown whose it is → service, client id {id}")]
            );
        }
        stage.vm("single_moved", "postgres").await.unwrap();
        let comment = "SELECT shobj_description('single_moved'::regrole, 'pg_authid')";
        let comment = &stage.texts("postgres", comment).await[0];
        assert!(
            comment.starts_with("billing [pgentra sha256:") && !comment.contains(&vm.to_string()),
            "{comment}"
        );
    });
}

#[test]
fn a_plain_role_is_mapped() {
    run(async {
        let stage = Stage::single().await;
        stage.admin("postgres", "CREATE ROLE single_plain").await;
        let id = stage.azure.vm().client_id();
        stage.settle("postgres", &format!("[[role]]\nname = 'single_plain'\nclient_id = '{id}'")).await;
        stage.vm("single_plain", "postgres").await.unwrap();
    });
}

#[test]
fn what_single_server_cannot_do_is_refused() {
    run(async {
        let stage = Stage::single().await;
        let told = stage
            .faults(
                "postgres",
                "[[role]]\nname = 'x'\nadmin = true\n[[role]]\nname = 'y'\nkind = 'user'\nmfa = true",
            )
            .await;
        assert!(told[0].contains("az postgres server ad-admin create"), "{told:?}");
        assert!(told[1].contains("does not ask for a second factor"), "{told:?}");
    });
}

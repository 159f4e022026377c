//! Creating single roles, on both flavours.

use pgentra_roles::{NewRole, ObjectType, Plan, PrincipalRef, RolesError, RolesFile};
use uuid::Uuid;

use crate::fixture::{CLIENT, OBJECT, Stage, Tenant, run};

fn role(name: &str, identity: PrincipalRef) -> NewRole {
    NewRole {
        name: name.parse().unwrap(),
        kind: ObjectType::Service,
        identity,
        is_admin: false,
        is_mfa: false,
    }
}

async fn create(stage: &Stage, role: NewRole) -> Result<Plan, RolesError> {
    let server = stage.server("postgres");
    let plan = role.plan(&server, Some(&Tenant)).await?;
    plan.apply(&server).await?;
    Ok(plan)
}

#[test]
fn the_article_on_both_flavours() {
    run(async {
        let flexible = Stage::flexible().await;
        create(flexible, role("my\"user", PrincipalRef::ObjectId(flexible.azure.vm().object_id())))
            .await
            .unwrap();
        flexible.vm("my\"user", "postgres").await.unwrap();
        let single = Stage::single().await;
        create(single, role("my\"user", PrincipalRef::ClientId(single.azure.vm().client_id())))
            .await
            .unwrap();
        single.vm("my\"user", "postgres").await.unwrap();
        single.vm("my\"user@mydemoserver", "postgres").await.unwrap();
    });
}

#[test]
fn a_client_id_is_looked_up_where_roles_are_mapped_by_object_id() {
    run(async {
        let stage = Stage::flexible().await;
        create(stage, role("looked_up", PrincipalRef::ClientId(CLIENT))).await.unwrap();
        let id = "SELECT object_id::text FROM pgentra.mapping WHERE rolname = 'looked_up'";
        assert_eq!(stage.texts("postgres", id).await, [OBJECT.to_string()]);
        let unknown =
            create(stage, role("no_such_role", PrincipalRef::ClientId(Uuid::new_v4()))).await.unwrap_err();
        assert!(unknown.to_string().contains("no service principal with client id"), "{unknown}");
        let server = stage.server("postgres");
        let alone =
            role("no_such_role", PrincipalRef::ClientId(CLIENT)).plan(&server, None).await.unwrap_err();
        assert!(matches!(alone, RolesError::Directory { .. }), "{alone:?}");
    });
}

#[test]
fn what_cannot_be_made_is_refused() {
    run(async {
        let stage = Stage::flexible().await;
        create(stage, role("once", PrincipalRef::ObjectId(Uuid::new_v4()))).await.unwrap();
        let twice = create(stage, role("once", PrincipalRef::ObjectId(Uuid::new_v4()))).await.unwrap_err();
        assert!(matches!(twice, RolesError::Exists(_)), "{twice:?}");
        let unknown = create(stage, role("no principal of this name", PrincipalRef::Name)).await.unwrap_err();
        assert!(unknown.to_string().contains("pgaadauth_create_principal"), "{unknown}");
        assert!(unknown.hint().unwrap().contains("--object-id"), "{unknown:?}");
        let single = Stage::single().await;
        let admin = NewRole { is_admin: true, ..role("admin", PrincipalRef::ClientId(CLIENT)) };
        let refused = create(single, admin).await.unwrap_err();
        assert!(refused.to_string().contains("az postgres server ad-admin"), "{refused}");
    });
}

#[test]
fn an_administrator_manages_roles() {
    run(async {
        let stage = Stage::flexible().await;
        let id = stage.azure.vm().object_id();
        let admin = NewRole { is_admin: true, ..role("second admin", PrincipalRef::ObjectId(id)) };
        create(stage, admin).await.unwrap();
        let session = stage.vm("second admin", "postgres").await.unwrap();
        let roles = pgentra_roles::Roles::read(session.client()).await.unwrap();
        let found = roles.entra().iter().find(|role| role.name == "second admin").unwrap();
        assert!(found.is_admin && found.object_id == Some(id) && found.tenant == Some(stage.azure.tenant()));
        assert!(RolesFile::parse("", "postgres").unwrap().roles().is_empty());
    });
}

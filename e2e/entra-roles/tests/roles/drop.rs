//! Dropping roles, and the objects that prevent it.

use std::collections::BTreeMap;

use pgentra_roles::{RoleDrop, RolesDrop, RolesError};
use uuid::Uuid;

use crate::fixture::{Stage, lines, run};

async fn make(stage: &Stage, name: &str) {
    let id = Uuid::new_v4();
    let sql =
        format!("SELECT pgaadauth_create_principal_with_oid('{name}', '{id}', 'service', false, false)");
    stage.admin("postgres", &sql).await;
}

async fn drop(stage: &Stage, drop: RoleDrop) -> Result<Vec<String>, RolesError> {
    let server = stage.server("postgres");
    let plan = drop.plan(&server).await?;
    plan.apply(&server).await?;
    Ok(lines(plan.changes()))
}

fn named(name: &str) -> RoleDrop {
    RoleDrop { name: name.to_owned(), ..RoleDrop::default() }
}

async fn exists(stage: &Stage, name: &str) -> bool {
    let sql = format!("SELECT rolname::text FROM pg_roles WHERE rolname = '{name}'");
    !stage.texts("postgres", &sql).await.is_empty()
}

#[test]
fn a_role_that_has_nothing_is_dropped() {
    run(async {
        let stage = Stage::flexible().await;
        make(stage, "bare \"role").await;
        assert_eq!(drop(stage, named("bare \"role")).await.unwrap(), ["- role \"bare \"\"role\""]);
        assert!(!exists(stage, "bare \"role").await);
        let single = Stage::single().await;
        let sql =
            format!("CREATE ROLE single_drop LOGIN PASSWORD '{}' IN ROLE azure_ad_user", Uuid::new_v4());
        single.admin("postgres", &sql).await;
        drop(single, named("single_drop")).await.unwrap();
        assert!(!exists(single, "single_drop").await);
    });
}

#[test]
fn what_is_in_the_way_is_told_and_taken_away_when_asked() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("way_1", "CREATE TABLE public.t ()").await;
        stage.database("way_2", "").await;
        make(stage, "in_the_way").await;
        stage.admin("postgres", "CREATE ROLE way_heir").await;
        stage.admin("way_1", "GRANT SELECT ON t TO in_the_way").await;
        let superuser = stage.superuser("way_2").await;
        superuser
            .batch_execute("CREATE TABLE public.own (); ALTER TABLE public.own OWNER TO in_the_way")
            .await
            .unwrap();

        let error = drop(stage, RoleDrop { revoke: true, ..named("in_the_way") }).await.unwrap_err();
        let RolesError::InTheWay { obstacles, .. } = &error else { panic!("{error:?}") };
        let told: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["has privileges on table t (database \"way_1\")", "owns table own (database \"way_2\")"]
        );
        assert!(error.hint().unwrap().contains("--reassign-to"));
        assert!(exists(stage, "in_the_way").await);

        let unknown = RoleDrop { reassign_to: Some("no_such_role".to_owned()), ..named("in_the_way") };
        assert!(drop(stage, unknown).await.unwrap_err().to_string().contains("no_such_role"));
        let heir = RoleDrop { reassign_to: Some("way_heir".to_owned()), ..named("in_the_way") };
        assert_eq!(
            drop(stage, heir).await.unwrap(),
            [
                "- every privilege of in_the_way in database way_1; what it owns goes to way_heir",
                "- every privilege of in_the_way in database way_2; what it owns goes to way_heir",
                "- role in_the_way",
            ]
        );
        assert!(!exists(stage, "in_the_way").await);
        let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'own'";
        assert_eq!(stage.texts("way_2", owner).await, ["way_heir"]);
        // The role that was signed in gets no further memberships.
        let members = "SELECT m.member::regrole::text FROM pg_auth_members m WHERE m.roleid = 'way_heir'::regrole AND (coalesce((to_jsonb(m)->>'inherit_option')::boolean, true) OR coalesce((to_jsonb(m)->>'set_option')::boolean, true))";
        assert!(stage.texts("postgres", members).await.is_empty());
    });
}

#[test]
fn privileges_alone_are_revoked_when_asked() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("revoked", "CREATE TABLE public.t ()").await;
        make(stage, "only_granted").await;
        stage
            .admin(
                "revoked",
                "GRANT SELECT ON t TO only_granted; GRANT CONNECT ON DATABASE revoked TO only_granted",
            )
            .await;
        let error = drop(stage, named("only_granted")).await.unwrap_err();
        assert!(error.hint().unwrap().contains("--revoke"), "{error:?}");
        drop(stage, RoleDrop { revoke: true, ..named("only_granted") }).await.unwrap();
        assert!(!exists(stage, "only_granted").await);
    });
}

#[test]
fn some_roles_are_not_dropped() {
    run(async {
        let stage = Stage::flexible().await;
        stage.admin("postgres", "CREATE ROLE local_role").await;
        let error = drop(stage, named("local_role")).await.unwrap_err();
        assert!(matches!(error, RolesError::NoSuchRole(_)), "{error:?}");
        let me = stage.azure.administrator().user_principal_name();
        let error = drop(stage, named(me)).await.unwrap_err();
        assert!(matches!(error, RolesError::NotDropped { .. }), "{error:?}");
    });
}

#[test]
fn a_list_of_roles_is_dropped_with_what_they_may_do() {
    run(async {
        let stage = Stage::flexible().await;
        let server = stage.server("postgres");
        stage.database("list_1", "CREATE TABLE public.t ()").await;
        make(stage, "list_mapped").await;
        stage.admin("postgres", "CREATE ROLE list_group NOLOGIN; CREATE ROLE list_plain LOGIN").await;
        stage.admin("list_1", "GRANT SELECT ON t TO list_mapped, list_group").await;
        let superuser = stage.superuser("postgres").await;
        let rows = superuser.query("SELECT rolname::text, oid FROM pg_roles", &[]).await.unwrap();
        let mut numbers: BTreeMap<String, u32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        numbers.insert("list_gone".to_owned(), 1);
        let drop = |names: &[&str]| RolesDrop {
            roles: names.iter().map(|name| ((*name).to_owned(), numbers[*name])).collect(),
        };

        // All of them are looked at before one is dropped.
        let refused = drop(&["list_mapped", "list_plain"]).plan(&server).await.unwrap_err();
        assert!(
            matches!(&refused, RolesError::NotDropped { name, .. } if name == "list_plain"),
            "{refused:?}"
        );
        let refused = drop(&["azure_pg_admin"]).plan(&server).await.unwrap_err();
        assert!(matches!(refused, RolesError::NotDropped { .. }), "{refused:?}");

        // A role that was dropped and made again is another role.
        stage.admin("postgres", "CREATE ROLE list_again NOLOGIN").await;
        let again = RolesDrop { roles: [("list_again".to_owned(), numbers["list_group"])].into() };
        assert_eq!(again.plan(&server).await.unwrap().changes(), []);

        let plan = drop(&["list_mapped", "list_group", "list_gone"]).plan(&server).await.unwrap();
        plan.apply(&server).await.unwrap();
        assert_eq!(
            lines(plan.changes()),
            [
                "- every privilege of list_group in database list_1",
                "- role list_group",
                "- every privilege of list_mapped in database list_1",
                "- role list_mapped",
            ]
        );
        for (name, is_there) in [("list_mapped", false), ("list_group", false), ("list_plain", true)] {
            assert_eq!(exists(stage, name).await, is_there, "{name}");
        }

        stage.admin("postgres", "CREATE ROLE list_owner NOLOGIN").await;
        let owner_of_all = stage.superuser("list_1").await;
        owner_of_all.batch_execute("ALTER TABLE public.t OWNER TO list_owner").await.unwrap();
        let number = superuser.query_one("SELECT 'list_owner'::regrole::oid", &[]).await.unwrap().get(0);
        let owner = RolesDrop { roles: [("list_owner".to_owned(), number)].into() };
        let refused = owner.plan(&server).await.unwrap_err();
        assert!(matches!(refused, RolesError::InTheWay { .. }), "{refused:?}");
        // The same number, whatever the database and the host name.
        let number = server.system_identifier().await.unwrap();
        assert_eq!(stage.server("list_1").system_identifier().await.unwrap(), number);
        // A role that may not ask is told nothing.
        let function = "EXECUTE ON FUNCTION pg_control_system()";
        superuser.batch_execute(&format!("REVOKE {function} FROM PUBLIC")).await.unwrap();
        let unknown = server.system_identifier().await;
        superuser.batch_execute(&format!("GRANT {function} TO PUBLIC")).await.unwrap();
        assert_eq!((unknown.unwrap(), number.is_some()), (None, true));
    });
}

//! Roles that are not in the file. Each test has its own server.

use pgentra_local::Flavour;
use pgentra_roles::{Note, Options, Prune, RolesError};
use uuid::Uuid;

use crate::fixture::{Stage, lines, run};

const PRUNE: Options = Options { prune: Prune::Roles, prune_groups: false, orphans: false };

async fn furnish(stage: &Stage) {
    for (name, is_admin) in [("kept", false), ("extra", false), ("other admin", true)] {
        let id = Uuid::new_v4();
        let sql = format!(
            "SELECT pgaadauth_create_principal_with_oid('{name}', '{id}', 'service', {is_admin}, false)"
        );
        stage.admin("postgres", &sql).await;
    }
    stage.admin("postgres", "CREATE ROLE local_role LOGIN").await;
    stage.database("pruned", "CREATE TABLE public.t (); GRANT SELECT ON t TO extra").await;
}

#[test]
fn only_mapped_roles_are_pruned_and_administrators_only_when_said() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        furnish(&stage).await;
        let text = "[[role]]\nname = 'kept'";
        let me = stage.azure.administrator().user_principal_name().to_owned();
        // Without --prune: reported, and not changed.
        let plan = stage.plan("postgres", text).await.unwrap();
        assert_eq!(plan.changes(), []);
        for name in [&*me, "extra", "other admin"] {
            assert!(plan.notes().contains(&Note::NotInFile(name.to_owned())), "{:?}", plan.notes());
        }
        let plan = stage.plan_with("postgres", text, PRUNE).await.unwrap();
        assert_eq!(lines(plan.changes()), ["- every privilege of extra in database pruned", "- role extra"]);
        plan.apply(&stage.server("postgres")).await.unwrap();
        let admins = Options { prune: Prune::Administrators, ..PRUNE };
        let plan = stage.plan_with("postgres", text, admins).await.unwrap();
        assert_eq!(
            lines(plan.changes()),
            ["~ role \"other admin\": administrator yes → no", "- role \"other admin\""]
        );
        plan.apply(&stage.server("postgres")).await.unwrap();
        let left = "SELECT rolname::text FROM pg_roles WHERE rolname IN ('kept', 'extra', 'other admin', 'local_role') ORDER BY 1";
        assert_eq!(stage.texts("postgres", left).await, ["kept", "local_role"]);
        assert_eq!(stage.plan_with("postgres", text, admins).await.unwrap().changes(), []);
    });
}

#[test]
fn a_role_that_owns_something_keeps_the_plan_from_being_made() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        furnish(&stage).await;
        let superuser = stage.superuser("pruned").await;
        superuser.batch_execute("ALTER TABLE t OWNER TO extra").await.unwrap();
        let error = stage.plan_with("postgres", "[[role]]\nname = 'kept'", PRUNE).await.unwrap_err();
        assert!(matches!(&error, RolesError::Faults(_)), "{error:?}");
        assert!(error.to_string().contains("owns table t (database \"pruned\")"), "{error}");
    });
}

/// What a role makes between the plan and its execution is not dropped with it.
#[test]
fn what_was_made_meanwhile_stays() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        furnish(&stage).await;
        let plan = stage.plan_with("postgres", "[[role]]\nname = 'kept'", PRUNE).await.unwrap();
        let superuser = stage.superuser("pruned").await;
        superuser
            .batch_execute("CREATE TABLE public.late (); ALTER TABLE late OWNER TO extra")
            .await
            .unwrap();
        let error = plan.apply(&stage.server("postgres")).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("2BP01"), "{error:?}");
        let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'late'";
        assert_eq!(stage.texts("pruned", owner).await, ["extra"]);
    });
}

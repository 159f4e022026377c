//! Applying a file to a Flexible Server.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;

use pgentra_roles::directory::BoxFuture;
use pgentra_roles::{MadeRoles, RolesError};
use uuid::Uuid;

use crate::fixture::{CLIENT, OBJECT, Stage, lines, run};

#[test]
fn a_role_with_all_that_can_be_granted() {
    run(async {
        let stage = Stage::flexible().await;
        stage
            .database(
                "full_1",
                "CREATE SCHEMA s;
                 CREATE TABLE s.\"Order\" (n int); CREATE VIEW s.v AS SELECT 1 AS one; CREATE SEQUENCE s.q;
                 CREATE FUNCTION s.f(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
                 CREATE FUNCTION s.f(text, VARIADIC integer[]) RETURNS integer LANGUAGE sql AS 'SELECT 1';
                 CREATE PROCEDURE s.p(INOUT a integer) LANGUAGE sql AS 'SELECT 1';
                 REVOKE ALL ON ALL ROUTINES IN SCHEMA s FROM PUBLIC",
            )
            .await;
        stage.database("full_2", "CREATE TABLE public.t (n int)").await;
        stage.admin("postgres", "CREATE ROLE full_readers").await;
        let id = stage.azure.vm().object_id();
        let text = format!(
            "[[role]]
             name = 'full vm'
             object_id = '{id}'
             member_of = ['full_readers']
             [[role.grant]]
             privileges = ['ALL']
             [[role.grant]]
             schema = 's'
             privileges = ['USAGE']
             [[role.grant]]
             schema = 's'
             tables = ['Order']
             privileges = ['SELECT', 'INSERT']
             [[role.grant]]
             schema = 's'
             tables = '*'
             privileges = 'ALL'
             [[role.grant]]
             schema = 's'
             sequences = ['q']
             privileges = ['USAGE']
             [[role.grant]]
             schema = 's'
             functions = '*'
             privileges = ['EXECUTE']
             [[role.default]]
             on = 'sequences'
             privileges = ['USAGE']
             [[role.default]]
             schema = 's'
             on = 'tables'
             privileges = ['SELECT']
             [[role.grant]]
             database = 'full_2'
             schema = 'public'
             tables = ['t']
             privileges = ['SELECT']"
        );
        let done = stage.settle("full_1", &text).await;
        assert!(done.len() > 8, "{done:#?}");
        // The role signs in and does it.
        let session = stage.vm("full vm", "full_1").await.unwrap();
        let rows = session.client().query("SELECT s.f(1), nextval('s.q')", &[]).await.unwrap();
        assert_eq!(rows.len(), 1);
        session.client().batch_execute("INSERT INTO s.\"Order\" VALUES (1); CALL s.p(1)").await.unwrap();
        let other = stage.vm("full vm", "full_2").await.unwrap();
        other.client().batch_execute("SELECT n FROM t").await.unwrap();
        // A table made later is covered by the default, and is drift as the file says ALL on every table.
        stage.admin("full_1", "CREATE TABLE s.later ()").await;
        session.client().batch_execute("SELECT FROM s.later").await.unwrap();
        let plan = stage.plan("full_1", &text).await.unwrap();
        let [line] = &*lines(plan.changes()) else { panic!("{plan:?}") };
        assert!(
            line.starts_with("+ DELETE, INSERT,") && line.ends_with("on table s.later in database full_1"),
            "{line}"
        );
    });
}

#[test]
fn drift_in_both_directions_is_put_right() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("drift", "CREATE SCHEMA s; CREATE TABLE s.t (); CREATE ROLE drift_group").await;
        let id = Uuid::new_v4();
        let text = format!(
            "[[role]]
             name = 'drifter'
             object_id = '{id}'
             [[role.grant]]
             schema = 's'
             tables = ['t']
             privileges = ['SELECT']"
        );
        stage.settle("drift", &text).await;
        stage
            .admin(
                "drift",
                "REVOKE SELECT ON s.t FROM drifter; GRANT DELETE ON s.t TO drifter; GRANT CREATE ON SCHEMA s TO drifter;
                 GRANT drift_group TO drifter; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO drifter",
            )
            .await;
        let admin = stage.azure.administrator().user_principal_name();
        assert_eq!(
            stage.settle("drift", &text).await,
            [
                "- role drifter is a member of drift_group".to_owned(),
                "+ SELECT for drifter on table s.t in database drift".to_owned(),
                "- CREATE for drifter on schema s in database drift".to_owned(),
                "- DELETE for drifter on table s.t in database drift".to_owned(),
                format!("- SELECT for drifter on new tables of \"{admin}\" in database drift"),
            ]
        );
    });
}

#[test]
fn a_role_is_found_by_its_object_id() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("moved", "CREATE TABLE public.t ()").await;
        let id = stage.azure.vm().object_id();
        let text = |name: &str| {
            format!(
                "[[role]]\nname = '{name}'\nobject_id = '{id}'\n[[role.grant]]\nschema = 'public'\ntables = '*'\nprivileges = 'SELECT'"
            )
        };
        // Others are mapped to the same machine, so this principal is its own.
        let own = Uuid::new_v4();
        let text = |name: &str| text(name).replace(&id.to_string(), &own.to_string());
        stage.settle("moved", &text("old name")).await;
        assert_eq!(
            stage.settle("moved", &text("new name")).await,
            ["~ role \"old name\" is renamed to \"new name\""]
        );
        // The role keeps its privileges.
        let held = "SELECT grantee::text FROM information_schema.role_table_grants WHERE table_name = 't' AND grantee LIKE '% name'";
        assert_eq!(stage.texts("moved", held).await, ["new name"]);
    });
}

#[test]
fn names_move_from_one_role_to_another() {
    run(async {
        let stage = Stage::flexible().await;
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        stage.settle("postgres", &format!("[[role]]\nname = 'chain_a'\nobject_id = '{one}'")).await;
        let text = format!(
            "[[role]]\nname = 'chain_b'\nobject_id = '{one}'\n[[role]]\nname = 'chain_a'\nobject_id = '{two}'"
        );
        assert_eq!(
            stage.settle("postgres", &text).await,
            [
                "~ role chain_a is renamed to chain_b".to_owned(),
                format!("+ role chain_a: service, object id {two}")
            ]
        );
    });
}

#[test]
fn a_principal_made_anew_is_bound_anew() {
    run(async {
        let stage = Stage::flexible().await;
        let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
        let text = |id: Uuid, more: &str| format!("[[role]]\nname = 'reborn'\nobject_id = '{id}'\n{more}");
        stage.settle("postgres", &text(old, "")).await;
        assert_eq!(
            stage.settle("postgres", &text(new, "")).await,
            [format!("~ role reborn: object id {old} → {new}")]
        );
        assert_eq!(
            stage.settle("postgres", &text(new, "kind = 'user'\nadmin = true\nmfa = true")).await,
            ["~ role reborn: kind service → user, administrator no → yes, second factor no → yes"]
        );
        assert_eq!(
            stage.settle("postgres", &text(new, "kind = 'user'")).await,
            ["~ role reborn: administrator yes → no, second factor yes → no"]
        );
    });
}

#[test]
fn a_plain_role_is_mapped() {
    run(async {
        let stage = Stage::flexible().await;
        stage.admin("postgres", "CREATE ROLE adopted").await;
        let id = Uuid::new_v4();
        assert_eq!(
            stage.settle("postgres", &format!("[[role]]\nname = 'adopted'\nobject_id = '{id}'")).await,
            [format!("~ role adopted: is not mapped yet → service, object id {id}")]
        );
    });
}

#[test]
fn by_name_and_by_client_id() {
    run(async {
        let stage = Stage::flexible().await;
        let text =
            format!("[[role]]\nname = 'myVm'\n[[role]]\nname = 'by client id'\nclient_id = '{CLIENT}'");
        assert_eq!(
            stage.settle("postgres", &text).await,
            [
                "+ role \"myVm\": service, looked up by its name".to_owned(),
                format!("+ role \"by client id\": service, object id {OBJECT}"),
            ]
        );
        let told = stage
            .faults("postgres", &format!("[[role]]\nname = 'x'\nclient_id = '{}'", Uuid::new_v4()))
            .await;
        assert!(told[0].contains("the tenant has no service principal with client id"), "{told:?}");
        // The tenant has two of this name: refused by the server, and nothing is kept of the transaction.
        let plan = stage.plan("postgres", "[[role]]\nname = 'before_twin'\nobject_id = '5f3c1a52-0000-4000-8000-000000000077'\n[[role]]\nname = 'twin'").await.unwrap();
        let error = plan.apply(&stage.server("postgres")).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("XX000"));
        assert!(error.hint().unwrap().contains("--object-id"), "{error:?}");
        assert!(
            stage
                .texts("postgres", "SELECT rolname::text FROM pg_roles WHERE rolname = 'before_twin'")
                .await
                .is_empty()
        );
    });
}

/// The second database refuses what only its owner may do. The server only warns; that is found in the rehearsal.
#[test]
fn nothing_is_kept_where_something_cannot_be_granted() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("half_1", "CREATE TABLE public.mine ()").await;
        stage.database("half_2", "CREATE TABLE public.mine ()").await;
        let superuser = stage.superuser("half_2").await;
        superuser.batch_execute("CREATE TABLE public.foreign_table ()").await.unwrap();
        let text = |table: &str| {
            format!(
                "[[role]]\nname = 'half'\nobject_id = '5f3c1a52-0000-4000-8000-0000000000aa'
                 [[role.grant]]\nschema = 'public'\ntables = 'mine'\nprivileges = 'SELECT'
                 [[role.grant]]\ndatabase = 'half_2'\nschema = 'public'\ntables = '{table}'\nprivileges = 'SELECT'"
            )
        };
        let plan = stage.plan("half_1", &text("foreign_table")).await.unwrap();
        let error = plan.apply(&stage.server("half_1")).await.unwrap_err();
        assert!(!matches!(error, RolesError::HalfApplied { .. }), "{error:?}");
        let roles = "SELECT rolname::text FROM pg_roles WHERE rolname = 'half'";
        assert!(stage.texts("postgres", roles).await.is_empty());
        // A missing table is reported before any change.
        let told = stage.faults("half_1", &text("no_such_table")).await;
        assert_eq!(
            told,
            ["line 8: there is no table \"public\".\"no_such_table\" in the database \"half_2\""]
        );
        // With the table that is there it works.
        stage.settle("half_1", &text("mine")).await;
    });
}

#[test]
fn applying_twice_at_once_is_serial() {
    run(async {
        let stage = Stage::flexible().await;
        let text = "[[role]]\nname = 'raced'\nobject_id = '5f3c1a52-0000-4000-8000-0000000000bb'";
        let plans =
            (stage.plan("postgres", text).await.unwrap(), stage.plan("postgres", text).await.unwrap());
        let server = stage.server("postgres");
        let (one, two) = tokio::join!(plans.0.apply(&server), plans.1.apply(&server));
        // The second one gets the error that the role exists already.
        let failed = one.err().or(two.err()).unwrap();
        assert_eq!(failed.sqlstate(), Some("42710"), "{failed:?}");
        assert_eq!(stage.plan("postgres", text).await.unwrap().changes(), []);
    });
}

/// The second database accepts the grant in the rehearsal and refuses it the second time: a
/// sequence tells them apart, because a rollback does not reset it.
#[test]
fn what_was_done_before_a_failure_is_told_and_not_done_again() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("late", "CREATE TABLE public.t ()").await;
        let superuser = stage.superuser("late").await;
        let trap = "CREATE SEQUENCE public.granted;
            GRANT USAGE ON SEQUENCE public.granted TO PUBLIC;
            CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN IF nextval('public.granted') > 1 THEN RAISE EXCEPTION 'not now'; END IF; END $$;
            CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('GRANT') EXECUTE FUNCTION public.refuse()";
        superuser.batch_execute(trap).await.unwrap();
        let text = "[[role]]
name = 'late'
object_id = '5f3c1a52-0000-4000-8000-0000000000cc'
[[role.grant]]
schema = 'public'
tables = 't'
privileges = 'SELECT'";
        let plan = stage.plan("late", text).await.unwrap();
        let error = plan.apply(&stage.server("late")).await.unwrap_err();
        assert!(matches!(&error, RolesError::HalfApplied { done, .. } if done == &["postgres"]), "{error:?}");
        assert_eq!(error.sqlstate(), Some("P0001"));
        assert!(error.hint().unwrap().contains("run it again"), "{error:?}");
        superuser.batch_execute("DROP EVENT TRIGGER refuse").await.unwrap();
        assert_eq!(
            stage.settle("late", text).await,
            ["+ SELECT for late on table public.t in database late"]
        );
    });
}

/// Keeps roles while it sees, from another session, that they are not there yet; or fails.
struct Keeper {
    stage: &'static Stage,
    fails: bool,
    kept: Mutex<BTreeMap<String, u32>>,
}

impl MadeRoles for Keeper {
    fn keep<'a>(
        &'a self,
        roles: &'a BTreeMap<String, u32>,
    ) -> BoxFuture<'a, Result<(), Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let there = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'kept%'";
            assert_eq!(self.stage.texts("postgres", there).await, [""; 0], "they are committed already");
            self.kept.lock().unwrap().extend(roles.clone());
            if self.fails { Err("there is no room".into()) } else { Ok(()) }
        })
    }
}

#[test]
fn which_roles_are_made_is_kept_before_they_are_committed() {
    run(async {
        let stage = Stage::flexible().await;
        let server = stage.server("postgres");
        let id = Uuid::new_v4();
        let text = format!(
            "[[role]]
             name = 'kept'
             object_id = '{id}'
             [[role]]
             name = 'kept group'
             login = false"
        );
        let keeper = |fails| Keeper { stage, fails, kept: Mutex::default() };
        let plan = stage.plan("postgres", &text).await.unwrap();
        let failing = keeper(true);
        let error = plan.apply_keeping(&server, &failing).await.unwrap_err();
        assert!(matches!(error, RolesError::NotKept { .. }) && error.hint().is_some(), "{error:?}");
        let there = "SELECT rolname || ' ' || oid FROM pg_roles WHERE rolname LIKE 'kept%' ORDER BY 1";
        assert_eq!(stage.texts("postgres", there).await, [""; 0]);

        let keeping = keeper(false);
        plan.apply_keeping(&server, &keeping).await.unwrap();
        let kept = keeping.kept.into_inner().unwrap();
        let kept: Vec<String> = kept.iter().map(|(name, oid)| format!("{name} {oid}")).collect();
        assert_eq!((stage.texts("postgres", there).await, kept.len()), (kept, 2));
        // Nothing is made, and nothing is kept.
        let plan = stage.plan("postgres", &text).await.unwrap();
        let untouched = keeper(true);
        plan.apply_keeping(&server, &untouched).await.unwrap();
        stage.admin("postgres", "DROP ROLE kept; DROP ROLE \"kept group\"").await;
    });
}

//! Group roles: they cannot sign in, and no principal is mapped to them; and the options of memberships.

use pgentra_roles::{Note, Options, Prune};
use uuid::Uuid;

use crate::fixture::{Stage, lines, run};

/// A name that means something in SQL, in psql and in a terminal.
const HOSTILE: &str = "gr \\\"$$'; DROP ROLE x; -- 日本語 🦀";

#[test]
fn group_roles_are_made_and_have_members_and_privileges() {
    run(async {
        for stage in Stage::every_version().await {
            stage.database("group_app", "CREATE TABLE public.t (n int)").await;
            let (id, long) = (Uuid::new_v4(), "é".repeat(31));
            let text = format!(
                "[[role]]
             name = \"{HOSTILE}\"
             login = false
             member_of = ['{long}x']
             [[role]]
             name = '{long}x'
             login = false
             [[role.grant]]
             schema = 'public'
             tables = 't'
             privileges = 'SELECT'
             [[role]]
             name = 'group vm'
             object_id = '{id}'
             member_of = [\"{HOSTILE}\"]"
            );
            let done = stage.settle("group_app", &text).await;
            let hostile = "\"gr \"\"$$'; DROP ROLE x; -- 日本語 🦀\"";
            assert_eq!(
                done,
                [
                    format!("+ role {hostile}: without login"),
                    format!("+ role \"{long}x\": without login"),
                    format!("+ role \"group vm\": service, object id {id}"),
                    format!("+ role {hostile} is a member of \"{long}x\""),
                    format!("+ role \"group vm\" is a member of {hostile}"),
                    format!("+ SELECT for \"{long}x\" on table public.t in database group_app"),
                ]
            );
            // The machine reads through two groups.
            let superuser = stage.superuser("group_app").await;
            superuser.batch_execute("SET ROLE \"group vm\"; SELECT n FROM t").await.unwrap();
            // A login that was allowed by hand is taken back.
            stage.admin("postgres", &format!("ALTER ROLE \"{long}x\" LOGIN")).await;
            assert_eq!(
                stage.settle("group_app", &text).await,
                [format!("~ role \"{long}x\": login yes → no")]
            );
        }
    });
}

#[test]
fn group_roles_that_are_not_in_the_file_are_told_and_dropped_when_asked() {
    run(async {
        let stage = Stage::fresh(pgentra_local::Flavour::Flexible).await;
        stage.admin("postgres", "CREATE ROLE kept; CREATE ROLE left; CREATE ROLE named").await;
        stage.database("groups", "CREATE TABLE public.t (); GRANT SELECT ON public.t TO left").await;
        let text = "[[role]]\nname = 'kept'\nlogin = false\nmember_of = ['named']";
        let plan = stage.plan("groups", text).await.unwrap();
        assert_eq!(lines(plan.changes()), ["+ role kept is a member of named"]);
        let has = |name: &str| plan.notes().contains(&Note::NotInFile(name.to_owned()));
        assert!(has("left") && !has("kept") && !has("named"), "{:?}", plan.notes());
        for own in ["azure_pg_admin", "pg_monitor", "pgentra_principal"] {
            assert!(!has(own), "{own}: {:?}", plan.notes());
        }
        let options = Options { prune: Prune::Nothing, prune_groups: true, ..Options::default() };
        let plan = stage.plan_with("groups", text, options).await.unwrap();
        assert_eq!(
            lines(plan.changes()),
            [
                "+ role kept is a member of named",
                "- every privilege of left in database groups",
                "- role left"
            ]
        );
        plan.apply(&stage.server("groups")).await.unwrap();
        assert_eq!(stage.plan_with("groups", text, options).await.unwrap().changes(), []);
        // A file without group roles is about mapped roles alone.
        let plan = stage.plan_with("groups", "", options).await.unwrap();
        assert_eq!(plan.changes(), []);
    });
}

#[test]
fn options_of_memberships_and_their_drift() {
    run(async {
        for stage in Stage::every_version().await {
            stage.admin("postgres", "CREATE ROLE opt_a; CREATE ROLE opt_b").await;
            let text = |options: &str| {
                format!(
                    "[[role]]\nname = 'opt_member'\nlogin = false\nmember_of = ['opt_a', {{ role = 'opt_b'{options} }}]"
                )
            };
            let has_options = stage.version().await >= 160_000;
            if !has_options {
                let told = stage.faults("postgres", &text(", set = false")).await;
                assert!(told[0].contains("from PostgreSQL 16 on"), "{told:?}");
            }
            assert_eq!(
                stage.settle("postgres", &text(", admin = true")).await,
                [
                    "+ role opt_member: without login",
                    "+ role opt_member is a member of opt_a",
                    "+ role opt_member is a member of opt_b, admin yes"
                ]
            );
            assert_eq!(
                stage.settle("postgres", &text("")).await,
                ["~ role opt_member is a member of opt_b: admin yes → no"]
            );
            // By hand, so that it is drift.
            stage.admin("postgres", "GRANT opt_a TO opt_member WITH ADMIN OPTION").await;
            assert_eq!(
                stage.settle("postgres", &text("")).await,
                ["~ role opt_member is a member of opt_a: admin yes → no"]
            );
            if has_options {
                assert_eq!(
                    stage.settle("postgres", &text(", inherit = false, admin = true")).await,
                    ["~ role opt_member is a member of opt_b: admin no → yes, inherit yes → no"]
                );
                assert_eq!(
                    stage.settle("postgres", &text(", inherit = false, set = false, admin = true")).await,
                    ["~ role opt_member is a member of opt_b: set yes → no"]
                );
                stage.admin("postgres", "GRANT opt_a TO opt_member WITH INHERIT FALSE").await;
                // PostgreSQL takes INHERIT from the attribute of the member, the file does not.
                stage.admin("postgres", "CREATE ROLE opt_no NOINHERIT").await;
                let more =
                    format!("{}\n[[role]]\nname = 'opt_no'\nlogin = false\nmember_of = 'opt_a'", text(""));
                assert_eq!(
                    stage.settle("postgres", &more).await,
                    [
                        "~ role opt_member is a member of opt_a: inherit no → yes",
                        "~ role opt_member is a member of opt_b: admin yes → no, inherit no → yes, set no → yes",
                        "+ role opt_no is a member of opt_a"
                    ]
                );
            }
            // Gone from the file, gone from the server.
            let none = "[[role]]\nname = 'opt_member'\nlogin = false";
            assert_eq!(
                stage.settle("postgres", none).await,
                ["- role opt_member is a member of opt_a", "- role opt_member is a member of opt_b"]
            );
        }
    });
}

#[test]
fn some_roles_are_no_group_roles() {
    run(async {
        let stage = Stage::flexible().await;
        let superuser = stage.superuser("postgres").await;
        superuser.batch_execute("CREATE ROLE nogroup_super REPLICATION").await.unwrap();
        let sql = format!(
            "SELECT pgaadauth_create_principal_with_oid('nogroup_mapped', '{}', 'service', false, false)",
            Uuid::new_v4()
        );
        stage.admin("postgres", &sql).await;
        let text = "[[role]]\nname = 'nogroup_super'\nlogin = false\n[[role]]\nname = 'nogroup_mapped'\nlogin = false";
        let told = stage.faults("postgres", text).await;
        assert!(
            told[0].starts_with("line 1: the role \"nogroup_super\" may do what a superuser may"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("line 4: the role \"nogroup_mapped\" is mapped to a principal"),
            "{told:?}"
        );
        assert_eq!(told.len(), 2, "{told:?}");
    });
}

//! Owners: a schema with objects of every kind moves from one owner to another and back, by an administrator who is no
//! superuser.

use pgentra_roles::{Note, RolesError};

use crate::fixture::{Stage, lines, run};

/// What a role without special rights may make, with names that mean something in SQL and in psql.
const MADE: &str = r#"
CREATE TABLE s.numbered (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, a integer, b integer);
CREATE TABLE s.serial_ (id serial, parent integer REFERENCES s.numbered);
CREATE TABLE s."it's ""quoted"" $$ \! :x; --" (n integer);
CREATE TABLE s."日本語 🦀 ä" (n integer);
CREATE TABLE s."line
feed" (n integer);
CREATE TABLE s.a23456789012345678901234567890123456789012345678901234567890123 (n integer);
CREATE TABLE s.parted (n integer) PARTITION BY RANGE (n);
CREATE TABLE s.part PARTITION OF s.parted FOR VALUES FROM (1) TO (2);
CREATE TABLE s.child () INHERITS (s.numbered);
CREATE VIEW s.v AS SELECT id FROM s.numbered;
CREATE MATERIALIZED VIEW s.m AS SELECT id FROM s.numbered;
CREATE SEQUENCE s.q;
CREATE TYPE s.colour AS ENUM ('red', 'green');
CREATE TYPE s.pair AS (a integer, b s.colour);
CREATE TYPE s.span AS RANGE (subtype = integer);
CREATE DOMAIN s.positive AS integer CHECK (VALUE > 0);
CREATE FUNCTION s.f() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION s.f(integer, OUT b integer, "a b" s.pair[]) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION s.f(VARIADIC text[]) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION s."f""x"("char", numeric(10, 2)) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION s.add(s.positive, integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION s.negate(s.pair) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION s.same(s.pair, s.pair) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION s.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON s.numbered FOR EACH ROW EXECUTE FUNCTION s.touch();
CREATE PROCEDURE s.p(INOUT a integer, b text) LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE s.p(b text, OUT a integer) LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE s.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE AGGREGATE s.total(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE OPERATOR s.+ (FUNCTION = s.add, LEFTARG = s.positive, RIGHTARG = integer);
CREATE OPERATOR s.|/ (FUNCTION = s.negate, RIGHTARG = s.pair);
CREATE OPERATOR s.<-> (FUNCTION = s.same, LEFTARG = s.pair, RIGHTARG = s.pair);
CREATE COLLATION s.c (LC_COLLATE = 'C', LC_CTYPE = 'C');
CREATE CONVERSION s.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE STATISTICS s.stat ON a, b FROM s.numbered;
CREATE TEXT SEARCH DICTIONARY s.dict (TEMPLATE = simple);
CREATE TEXT SEARCH CONFIGURATION s.conf (PARSER = "default");
"#;

/// What takes a superuser, and is the old owner's then.
const MADE_BY_SUPERUSER: &str = r#"
CREATE TYPE s.shell;
ALTER TYPE s.shell OWNER TO own_old;
CREATE TYPE s.base;
CREATE FUNCTION s.base_in(cstring) RETURNS s.base LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION s.base_out(s.base) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout';
CREATE TYPE s.base (INPUT = s.base_in, OUTPUT = s.base_out, LIKE = text);
CREATE AGGREGATE s.middle(double precision ORDER BY double precision)
    (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_cont_float8_final);
CREATE OPERATOR FAMILY s.fam USING btree;
CREATE OPERATOR CLASS s.class FOR TYPE integer USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(integer);
CREATE FOREIGN DATA WRAPPER own_fdw;
CREATE SERVER own_server FOREIGN DATA WRAPPER own_fdw;
CREATE FOREIGN TABLE s.far (n integer) SERVER own_server;
CREATE FUNCTION s.of_extension() RETURNS integer LANGUAGE sql AS 'SELECT 1';
ALTER EXTENSION plpgsql ADD FUNCTION s.of_extension();
ALTER TYPE s.base OWNER TO own_old;
ALTER FUNCTION s.base_in(cstring) OWNER TO own_old;
ALTER FUNCTION s.base_out(s.base) OWNER TO own_old;
ALTER ROUTINE s.middle(double precision, double precision) OWNER TO own_old;
ALTER OPERATOR FAMILY s.fam USING btree OWNER TO own_old;
ALTER OPERATOR FAMILY s.class USING hash OWNER TO own_old;
ALTER OPERATOR CLASS s.class USING hash OWNER TO own_old;
ALTER FOREIGN TABLE s.far OWNER TO own_old;
"#;

/// What a role owns in the database, whatever it is: the server's own list.
const OWNED: &str = "SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_shdepend d
    JOIN pg_database b ON b.oid = d.dbid AND b.datname = current_database()
    WHERE d.deptype = 'o' AND d.refclassid = 'pg_authid'::regclass AND d.refobjid = '{role}'::regrole";

/// Memberships by which the administrator could act as another role.
const JOINED: &str = "SELECT m.roleid::regrole::text FROM pg_auth_members m
    WHERE m.member = '\"{user}\"'::regrole AND m.roleid::regrole::text ~ '^own_'
      AND (coalesce((to_jsonb(m)->>'inherit_option')::boolean, true)
           OR coalesce((to_jsonb(m)->>'set_option')::boolean, true))";

fn file(owner: &str) -> String {
    format!(
        "[[role]]\nname = '{owner}'\nlogin = false\n[[role.own]]\n[[role.own]]\nschema = 's'\n[[role.own]]\nschema = 's'\nobjects = '*'\n"
    )
}

#[test]
fn a_schema_with_every_kind_of_object_moves_and_comes_back() {
    run(async {
        for stage in Stage::every_version().await {
            stage.say_version("a schema moves and comes back").await;
            moves_and_comes_back(stage).await;
        }
    });
}

async fn moves_and_comes_back(stage: &Stage) {
    stage.admin("postgres", "CREATE ROLE own_old").await;
    stage.database("own", "").await;
    let superuser = stage.superuser("own").await;
    superuser.batch_execute("CREATE SCHEMA s; ALTER SCHEMA s OWNER TO own_old").await.unwrap();
    superuser.batch_execute(&format!("SET ROLE own_old; {MADE}")).await.unwrap();
    superuser.batch_execute(&format!("RESET ROLE; {MADE_BY_SUPERUSER}")).await.unwrap();
    let owned = async |role: &str| stage.texts("own", &OWNED.replace("{role}", role)).await;
    let user = stage.azure.administrator().user_principal_name();
    let joined = JOINED.replace("{user}", user);

    let before = owned("own_old").await;
    assert!(before.len() >= 45, "{before:#?}");
    // The administrator is no superuser, and is no member of the old owner.
    let is_superuser = format!("SELECT rolname::text FROM pg_roles WHERE rolname = '{user}' AND rolsuper");
    assert_eq!(stage.texts("own", &is_superuser).await, Vec::<String>::new());
    assert_eq!(stage.texts("own", &joined).await, Vec::<String>::new());

    let done = stage.settle("own", &file("own_new")).await;
    assert_eq!(done[0], "+ role own_new: without login");
    assert_eq!(done[1], format!("~ owner of database own: \"{user}\" → own_new"));
    assert_eq!(done[2], "~ owner of schema s in database own: own_old → own_new");
    for line in [
        "~ owner of collation s.c in database own: own_old → own_new",
        "~ owner of domain s.positive in database own: own_old → own_new",
        "~ owner of operator families s.class using hash, s.fam using btree in",
        "~ owner of text search dictionary s.dict in database own: own_old → own_new",
        "~ owner of foreign table s.far in database own: own_old → own_new",
        "~ owner of operators s.+(s.positive, integer), s.<->(s.pair, s.pair), s.|/(NONE, s.pair) in",
        "~ owner of procedures s.p(integer, text), s.p(text) in database own: own_old → own_new",
    ] {
        assert!(done.iter().any(|change| change.starts_with(line)), "{line}: {done:#?}");
    }
    assert_eq!(owned("own_old").await, Vec::<String>::new());
    assert_eq!(owned("own_new").await.len(), before.len());
    // What belongs to the extension stays where it was.
    let extension = "SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname = 'of_extension'";
    assert_ne!(stage.texts("own", extension).await, ["own_new"]);
    // Nothing that the session took is left: no membership, no privilege.
    assert_eq!(stage.texts("own", &joined).await, Vec::<String>::new());

    // Back again, but to an owner whose schema it is not: it may not create objects there, before and after.
    let back = file("own_old").replace("[[role.own]]\nschema = 's'\n[[role.own]]", "[[role.own]]");
    let done = stage.settle("own", &back).await;
    assert_eq!(done[0], "~ owner of database own: own_new → own_old");
    assert!(done[1].starts_with("~ owner of tables "), "{done:#?}");
    let after = owned("own_old").await;
    let left = owned("own_new").await;
    assert_eq!(left, ["schema s"]);
    assert_eq!(after.len(), before.len() - 1);
    let may = "SELECT rolname::text FROM pg_roles WHERE rolname = 'own_old' AND has_schema_privilege(oid, 's', 'CREATE')";
    assert_eq!(stage.texts("own", may).await, Vec::<String>::new());
    assert_eq!(stage.texts("own", &joined).await, Vec::<String>::new());

    // One object by hand to another owner is the next plan.
    superuser.batch_execute("ALTER VIEW s.v OWNER TO own_new").await.unwrap();
    assert_eq!(stage.settle("own", &back).await, ["~ owner of view s.v in database own: own_new → own_old"]);
}

/// The privileges of a role on what it comes to own are its own, and those of the former owner are granted again.
#[test]
fn privileges_follow_the_owner() {
    run(async {
        for stage in Stage::every_version().await {
            stage.admin("postgres", "CREATE ROLE follow_old").await;
            stage.database("follow", "").await;
            let superuser = stage.superuser("follow").await;
            let made = "CREATE ROLE follow_new; CREATE SCHEMA s; ALTER SCHEMA s OWNER TO follow_old;
            SET ROLE follow_old; CREATE TABLE s.t (id serial)";
            superuser.batch_execute(made).await.unwrap();
            superuser.batch_execute("GRANT SELECT ON s.t TO follow_new; RESET ROLE").await.unwrap();
            grant_admin(stage, "follow_new").await;
            let text = "[[role]]
name = 'follow_new'
login = false
[[role.own]]
schema = 's'
[[role.own]]
schema = 's'
objects = '*'
[[role]]
name = 'follow_old'
login = false
[[role.grant]]
schema = 's'
privileges = 'USAGE'
[[role.grant]]
schema = 's'
tables = '*'
privileges = 'SELECT'
[[role.grant]]
schema = 's'
sequences = '*'
privileges = 'USAGE'
[[role.default]]
schema = 's'
owner = 'follow_new'
on = 'tables'
privileges = 'SELECT'";
            assert_eq!(
                stage.settle("follow", text).await,
                [
                    "~ owner of schema s in database follow: follow_old → follow_new",
                    "~ owner of table s.t in database follow: follow_old → follow_new",
                    "+ USAGE for follow_old on schema s in database follow",
                    "+ SELECT for follow_old on table s.t in database follow",
                    "+ USAGE for follow_old on sequence s.t_id_seq in database follow",
                    "+ SELECT for follow_old on new tables of follow_new in schema s in database follow",
                ]
            );
        }
    });
}

/// In a schema of another role the administrator may not even name an object: it has no privilege USAGE there.
#[test]
fn objects_in_a_schema_of_another_role() {
    run(async {
        for stage in Stage::every_version().await {
            stage.admin("postgres", "CREATE ROLE closed_owner; CREATE ROLE closed_new").await;
            stage.database("closed", "CREATE SCHEMA s; CREATE TABLE s.t ()").await;
            let superuser = stage.superuser("closed").await;
            let closed = "ALTER SCHEMA s OWNER TO closed_owner; GRANT CREATE ON SCHEMA s TO closed_new";
            superuser.batch_execute(closed).await.unwrap();
            let reader = "[[role]]
name = 'closed_reader'
login = false
[[role.grant]]
schema = 's'
tables = '*'
privileges = 'SELECT'
";
            assert_eq!(
                stage.settle("closed", reader).await,
                [
                    "+ role closed_reader: without login",
                    "+ SELECT for closed_reader on table s.t in database closed"
                ]
            );
            let none = "[[role]]
name = 'closed_reader'
login = false
[[role.grant]]
privileges = 'CONNECT'
";
            assert_eq!(
                stage.settle("closed", none).await,
                [
                    "+ CONNECT for closed_reader on database closed",
                    "- SELECT for closed_reader on table s.t in database closed"
                ]
            );
            let owner = "[[role]]
name = 'closed_new'
login = false
[[role.own]]
schema = 's'
objects = '*'
[[role.grant]]
schema = 's'
privileges = 'CREATE'
";
            let done = stage.settle("closed", owner).await;
            assert_eq!(done.len(), 1, "{done:?}");
            assert!(done[0].starts_with("~ owner of table s.t in database closed: "), "{done:?}");
        }
    });
}

/// From PostgreSQL 16 on an administrator manages the roles that it may administer.
async fn grant_admin(stage: &Stage, role: &str) {
    let admin = stage.azure.administrator().user_principal_name();
    let sql = format!("GRANT {role} TO \"{admin}\" WITH ADMIN OPTION");
    let superuser = stage.superuser("postgres").await;
    superuser.batch_execute(&sql).await.unwrap();
    if stage.version().await >= 160_000 {
        let options = format!("GRANT {role} TO \"{admin}\" WITH INHERIT FALSE, SET FALSE");
        superuser.batch_execute(&options).await.unwrap();
    }
}

#[test]
fn what_stands_in_the_way_is_told_before_anything_is_changed() {
    run(async {
        for stage in Stage::every_version().await {
            let superuser = stage.superuser("postgres").await;
            let admin = stage.azure.administrator().user_principal_name();
            let roles = format!(
                "CREATE ROLE way_locked; CREATE ROLE way_member; GRANT \"{admin}\" TO way_member; CREATE ROLE way_super BYPASSRLS"
            );
            superuser.batch_execute(&roles).await.unwrap();
            stage
                .database(
                    "way",
                    "CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA c; CREATE SCHEMA d; CREATE SCHEMA e",
                )
                .await;
            let inside = stage.superuser("way").await;
            inside
            .batch_execute(
                "CREATE TABLE a.t (); ALTER TABLE a.t OWNER TO way_super; CREATE TABLE a.u (); ALTER TABLE a.u OWNER TO way_super;
                 CREATE TABLE b.t (); ALTER TABLE b.t OWNER TO way_locked;
                 CREATE TABLE c.t (); ALTER TABLE c.t OWNER TO way_member;
                 CREATE TABLE d.t ()",
            )
            .await
            .unwrap();
            let own = |schema: &str| format!("[[role.own]]\nschema = '{schema}'\nobjects = '*'\n");
            let text = format!(
                "[[role]]\nname = 'way_new'\nlogin = false\n{}{}{}{}{}{}",
                own("a"),
                own("b"),
                own("c"),
                own("d"),
                own("e"),
                own("nowhere")
            );
            let told = stage.faults("way", &text).await;
            let has_options = stage.version().await >= 160_000;
            let is_there = |line: &str| {
                assert!(told.iter().any(|fault| fault.starts_with(line)), "{line}: {told:#?}");
            };
            is_there(
                "line 4: 2 tables such as a.t are owned by \"way_super\" and not by \"way_new\": the role \"way_super\" is the server's own or has the rights of a superuser",
            );
            is_there(
                "line 10: table c.t is owned by \"way_member\" and not by \"way_new\": the role \"way_member\" is a member of",
            );
            is_there(
                "line 13: table d.t is owned by \"azuresu\" and not by \"way_new\": the role \"azuresu\" is the server's own",
            );
            is_there("line 19: there is no schema \"nowhere\" in the database \"way\"");
            if has_options {
                is_there(
                    "line 7: table b.t is owned by \"way_locked\" and not by \"way_new\": the role \"way_locked\" takes members from roles with ADMIN OPTION on it",
                );
            }
            assert_eq!(told.len(), if has_options { 5 } else { 4 }, "{told:#?}");
        }
    });
}

/// A table in use is waited for, and not for ever: the plan is not half done.
#[test]
fn a_lock_is_not_waited_for_for_ever() {
    run(async {
        let stages = Stage::every_version().await;
        let Some(stage) = stages.into_iter().find(|stage| stage.has_timers()) else {
            return println!("skipped: no PostgreSQL is installed");
        };
        stage.database("locked", "CREATE SCHEMA s; CREATE TABLE s.t ()").await;
        let mut reader = stage.superuser("locked").await;
        let transaction = reader.transaction().await.unwrap();
        transaction.query("SELECT FROM s.t", &[]).await.unwrap();
        let text = "[[role]]\nname = 'locked_new'\nlogin = false\n[[role.own]]\nschema = 's'\nobjects = '*'";
        let plan = stage.plan("locked", text).await.unwrap();
        let error = plan.apply(&stage.server("locked")).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("55P03"), "{error:?}");
        assert!(!matches!(error, RolesError::HalfApplied { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("another session"), "{error:?}");
        transaction.rollback().await.unwrap();
        stage.settle("locked", text).await;
    });
}

/// A membership that the administrator has is the same after the plan as before it.
#[test]
fn a_membership_is_given_back_as_it_was() {
    run(async {
        for stage in Stage::every_version().await {
            if stage.version().await < 160_000 {
                continue;
            }
            let user = stage.azure.administrator().user_principal_name();
            stage.admin("postgres", "CREATE ROLE lent_old").await;
            stage.database("lent", "").await;
            stage.admin("postgres", "GRANT lent_old TO CURRENT_USER WITH INHERIT FALSE, SET TRUE").await;
            let superuser = stage.superuser("lent").await;
            superuser
                .batch_execute("CREATE SCHEMA s; CREATE TABLE s.t (); ALTER TABLE s.t OWNER TO lent_old")
                .await
                .unwrap();
            let text =
                "[[role]]\nname = 'lent_new'\nlogin = false\n[[role.own]]\nschema = 's'\nobjects = '*'";
            // The schema is a superuser's: the new owner cannot be allowed to create objects in it.
            let told = stage.faults("lent", text).await;
            assert!(told[0].contains("\"lent_new\" has no privilege CREATE on the schema"), "{told:?}");
            superuser.batch_execute("ALTER SCHEMA s OWNER TO lent_old").await.unwrap();
            let plan = stage.plan("lent", text).await.unwrap();
            assert_eq!(
                lines(plan.changes()),
                [
                    "+ role lent_new: without login",
                    "~ owner of table s.t in database lent: lent_old → lent_new"
                ]
            );
            let joins = |note: &&Note| matches!(note, Note::Joins { role, .. } if role == "lent_old");
            assert_eq!(plan.notes().iter().filter(joins).count(), 1, "{:?}", plan.notes());
            plan.apply(&stage.server("lent")).await.unwrap();
            let rows = format!(
            "SELECT concat_ws(' ', grantor::regrole::text = '\"{user}\"', admin_option, inherit_option, set_option)
             FROM pg_auth_members WHERE member = '\"{user}\"'::regrole AND roleid::regrole::text = 'lent_old'
             ORDER BY 1"
        );
            assert_eq!(stage.texts("lent", &rows).await, ["f t f f", "t f f t"]);
        }
    });
}

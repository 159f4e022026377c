//! A schema with its usual roles, and what becomes of objects that are made later.

use uuid::Uuid;

use crate::fixture::{Stage, run};

#[test]
fn owner_read_write_and_read_only() {
    run(async {
        for stage in Stage::every_version().await {
            stage.admin("postgres", "CREATE ROLE trio_migrator").await;
            stage
            .database(
                "trio",
                "CREATE SCHEMA shop; CREATE TABLE shop.orders (id serial, n int); CREATE DOMAIN shop.small AS int;
                 CREATE FUNCTION shop.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            )
            .await;
            let (vm, reader) = (Uuid::new_v4(), Uuid::new_v4());
            let text = format!(
            "schema = [{{ name = 'shop', owner = 'trio_owner', read_write = 'trio_rw', read_only = 'trio_ro', creators = 'trio_migrator' }}]
[[role]]
name = 'trio_migrator'
login = false
[[role]]
name = 'trio vm'
object_id = '{vm}'
member_of = ['trio_rw']
[[role]]
name = 'trio reader'
object_id = '{reader}'
member_of = ['trio_ro']"
        );
            let done = stage.settle("trio", &text).await;
            for line in [
                "~ owner of schema shop in database trio: ",
                "+ DELETE, INSERT, SELECT, UPDATE for trio_rw on table shop.orders in database trio",
                "+ SELECT for trio_ro on sequence shop.orders_id_seq in database trio",
                "+ USAGE for trio_ro on type shop.small in database trio",
                "+ SELECT for trio_ro on new tables of trio_migrator in schema shop in database trio",
                "+ EXECUTE for trio_rw on new functions of trio_owner in schema shop in database trio",
                "+ CREATE, USAGE for trio_migrator on schema shop in database trio",
            ] {
                assert!(done.iter().any(|change| change.starts_with(line)), "{line}: {done:#?}");
            }
            // A member of the second role writes; one of the third reads and does not write.
            let session = stage.superuser("trio").await;
            session.batch_execute("SET ROLE \"trio vm\"").await.unwrap();
            session.batch_execute("INSERT INTO shop.orders (n) VALUES (1); SELECT shop.f()").await.unwrap();
            let superuser = stage.superuser("trio").await;
            superuser.batch_execute("SET ROLE \"trio reader\"; SELECT n FROM shop.orders").await.unwrap();
            let refused =
                superuser.batch_execute("INSERT INTO shop.orders (n) VALUES (1)").await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "42501");
            // What a creator makes later is covered at once, and is the owner's after the next plan.
            superuser
                .batch_execute("RESET ROLE; SET ROLE trio_migrator; CREATE TABLE shop.later (n int)")
                .await
                .unwrap();
            session.batch_execute("INSERT INTO shop.later VALUES (1)").await.unwrap();
            assert_eq!(
                stage.settle("trio", &text).await,
                ["~ owner of table shop.later in database trio: trio_migrator → trio_owner"]
            );
            session.batch_execute("INSERT INTO shop.later VALUES (2)").await.unwrap();
        }
    });
}

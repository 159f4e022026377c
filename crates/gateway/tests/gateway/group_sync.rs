//! Roles of their own for the members of a group.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use eventually::{DEADLINE, eventually, holds};
use pgentra_emulator::Draft;
use pgentra_gateway::{GROUP_SYNC, UpstreamAddress};
use secrecy::ExposeSecret as _;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::fixture::{RESOURCE, Stage, azure, failure, one, run, token};
use crate::flexible::create;

/// Groups of other tests are synchronised too.
const SYNC: &str =
    "SELECT * FROM pgaadauth_sync_roles_for_group_members() WHERE group_role = 'Prod DB Readonly'";

/// A synchronisation creates roles for the members of all groups: one test at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A superuser session, and the messages of the notices that it gets.
async fn noticing(stage: &Stage) -> (Client, Arc<Mutex<Vec<String>>>) {
    let (service, UpstreamAddress::Unix { dir, port }) = (stage.service(), stage.upstream()) else {
        panic!("a local cloud is reached through a socket");
    };
    let mut config = tokio_postgres::Config::new();
    config.host_path(dir).port(port).user(&service.name).password(service.password.expose_secret());
    let (client, mut connection) = config.dbname("postgres").connect(NoTls).await.unwrap();
    let notices = Arc::<Mutex<Vec<String>>>::default();
    let kept = notices.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                kept.lock().unwrap().push(notice.message().to_owned());
            }
        }
    });
    (client, notices)
}

#[test]
fn members_of_a_group_get_roles_of_their_own() {
    run(async {
        let _turn = TURN.lock().await;
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let (upstream, service) = (stage.upstream(), stage.service());
        let group = azure.new_group("Prod DB Readonly");
        let ada = azure.new_user("Ada Lovelace");
        // The local cloud tells the database who is a member.
        let superuser = stage.superuser().await;
        let known = async |members: i64| {
            let sql = "SELECT count(*) FROM pgentra.membership WHERE group_id = $1::text::uuid";
            eventually(DEADLINE, "the database knows the members", async || {
                let row = superuser.query_one(sql, &[&group.object_id().to_string()]).await.unwrap();
                holds(row.get::<_, i64>(0), |count| *count == members)
            })
            .await;
        };
        admin.batch_execute(&create("Prod DB Readonly", group.object_id(), "group")).await.unwrap();
        let identity = azure.new_identity("group-member");
        azure.join_group(ada.object_id(), group.object_id());
        azure.join_group(identity.object_id(), group.object_id());
        known(2).await;

        let (code, message) = failure(admin.query(SYNC, &[]).await);
        assert_eq!((&*code, &*message), ("55000", "Group sync is not enabled on this server."));
        assert_eq!(one(&admin, &format!("SHOW {GROUP_SYNC}")).await, "off");
        // What a session sets for itself is not the parameter of the server.
        admin.batch_execute(&format!("SET {GROUP_SYNC} = on")).await.unwrap();
        assert_eq!(failure(admin.query(SYNC, &[]).await).0, "55000");

        pgentra_gateway::set_group_sync(&upstream, &service, true).await.unwrap();
        let rows = admin.query(SYNC, &[]).await.unwrap();
        let rows: Vec<[&str; 3]> = rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
        let (name, group_name) = (ada.user_principal_name(), "Prod DB Readonly");
        assert_eq!(rows, [[name, group_name, "added"], [identity.name(), group_name, "added"]]);
        assert!(admin.query(SYNC, &[]).await.unwrap().is_empty());

        // Members sign in under their own names, have the group's rights, and the group still can.
        let joined = azure.users().into_iter().find(|user| user.object_id() == ada.object_id()).unwrap();
        let of_ada = token(&Draft::of_user(&joined, RESOURCE)).await;
        let client = gateway.connect(name, "postgres", &of_ada).await.unwrap();
        assert_eq!(one(&client, &format!("SELECT pg_has_role('{group_name}', 'USAGE')::text")).await, "true");
        assert_eq!(one(&client, &format!("SHOW {GROUP_SYNC}")).await, "on");
        gateway.connect(group_name, "postgres", &of_ada).await.unwrap();
        admin.batch_execute(&format!("ALTER ROLE \"{group_name}\" NOLOGIN")).await.unwrap();
        assert_eq!(gateway.refusal(group_name, "postgres", &of_ada).await.0, "28000");
        assert_eq!(failure(client.query(SYNC, &[]).await).0, "42501");
        drop(client);

        azure.leave_group(ada.object_id(), group.object_id());
        known(1).await;
        let rows = admin.query(SYNC, &[]).await.unwrap();
        let rows: Vec<[&str; 3]> = rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
        assert_eq!(rows, [[name, group_name, "removed"]]);
        assert_eq!(gateway.refusal(name, "postgres", &of_ada).await.0, "28P01");

        // While it is off, nothing changes.
        azure.leave_group(identity.object_id(), group.object_id());
        known(0).await;
        pgentra_gateway::set_group_sync(&upstream, &service, false).await.unwrap();
        pgentra_gateway::sync_groups(&upstream, &service).await.unwrap();
        let exists = format!("SELECT count(*)::text FROM pg_roles WHERE rolname = '{}'", identity.name());
        assert_eq!(one(&admin, &exists).await, "1");
        pgentra_gateway::set_group_sync(&upstream, &service, true).await.unwrap();
        pgentra_gateway::sync_groups(&upstream, &service).await.unwrap();
        assert_eq!(one(&admin, &exists).await, "0");
        pgentra_gateway::set_group_sync(&upstream, &service, false).await.unwrap();
    });
}

#[test]
fn a_member_whose_name_no_role_can_have_is_left_out() {
    run(async {
        let _turn = TURN.lock().await;
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let superuser = stage.superuser().await;
        let group = azure.new_group("Prod DB Writers");
        let quoted = ["o'brien \"quoted\" \\", "$$; DROP ROLE x; --"];
        let left_out = [
            ("pg_app", "PostgreSQL reserves its name"),
            ("public", "PostgreSQL reserves its name"),
            ("none", "PostgreSQL reserves its name"),
            (&*"n".repeat(64), "its name is longer than 63 bytes"),
            ("of another", "a role that is not mapped to it has its name"),
        ];
        admin.batch_execute("CREATE ROLE \"of another\"").await.unwrap();
        for name in left_out.iter().map(|(name, _)| *name).chain(quoted) {
            azure.join_group(azure.new_identity(name).object_id(), group.object_id());
        }
        admin.batch_execute(&create("Prod DB Writers", group.object_id(), "group")).await.unwrap();
        let sql = "SELECT count(*) FROM pgentra.membership b JOIN pgentra.directory d ON d.object_id = b.member_id \
                   WHERE b.group_id = $1::text::uuid";
        eventually(DEADLINE, "the database knows the members", async || {
            let row = superuser.query_one(sql, &[&group.object_id().to_string()]).await.unwrap();
            holds(row.get::<_, i64>(0), |count| *count == 7)
        })
        .await;

        let (client, notices) = noticing(stage).await;
        let rows = client
            .query(
                "SELECT member_role::text FROM pgentra.sync_groups() WHERE group_role = 'Prod DB Writers'",
                &[],
            )
            .await
            .unwrap();
        let mut added: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        added.sort();
        let mut expected = quoted;
        expected.sort_unstable();
        assert_eq!(added, expected);
        let notices = notices.lock().unwrap();
        for (name, reason) in left_out {
            let told = format!("Group sync creates no role for \"{name}\": {reason}.");
            assert!(notices.contains(&told), "{told}: {notices:?}");
        }
    });
}

//! Roles of their own for the members of a group.

use eventually::{DEADLINE, eventually, holds};
use pgentra_emulator::Draft;
use pgentra_gateway::GROUP_SYNC;

use crate::fixture::{RESOURCE, Stage, azure, failure, one, run, token};
use crate::flexible::create;

/// Groups of other tests are synchronised too.
const SYNC: &str =
    "SELECT * FROM pgaadauth_sync_roles_for_group_members() WHERE group_role = 'Prod DB Readonly'";

#[test]
fn members_of_a_group_get_roles_of_their_own() {
    run(async {
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

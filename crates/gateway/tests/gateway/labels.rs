//! Roles that are mapped by `SECURITY LABEL FOR pgaadauth`.

use tokio_postgres::Client;

use crate::fixture::{Stage, azure, failure, one, run, vm_token};
use crate::flexible::create;

async fn labels(client: &Client, role: &str) -> Vec<(String, String)> {
    let sql = "SELECT provider, label FROM pg_seclabels WHERE objtype = 'role' AND objname = quote_ident($1) ORDER BY provider";
    let rows = client.query(sql, &[&role]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn a_label_maps_a_role() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let (oid, tenant) = (azure.vm().object_id(), azure.tenant());
        let label = format!("aadauth, oid={oid}, type=service");
        admin
            .batch_execute(&format!(
                "CREATE ROLE \"by Label\" LOGIN; SECURITY LABEL FOR \"pgaadauth\" ON ROLE \"by Label\" IS '{label}'"
            ))
            .await
            .unwrap();
        let client = gateway.connect("by Label", "postgres", &vm_token().await).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, "by Label");
        let internal = format!("type=service,oid={oid},tenant_id={tenant}");
        let read = labels(&client, "by Label").await;
        assert_eq!(read, [("pgaadauth".to_owned(), label), ("pgaadauth-int".to_owned(), internal.clone())]);

        // In the extended protocol, and as an administrator.
        let label = format!(
            "SECURITY LABEL FOR pgaadauth ON ROLE \"by Label\" IS 'aadauth,oid={oid},type=service,admin'"
        );
        admin.execute(&label, &[]).await.unwrap();
        let listed = "SELECT count(*)::text FROM pgaadauth_list_principals(true) WHERE rolname = 'by Label'";
        assert_eq!(one(&admin, listed).await, "1");
        // What a dump of the roles has last changes nothing.
        let dumped = format!("SECURITY LABEL FOR \"pgaadauth-int\" ON ROLE \"by Label\" IS '{internal}'");
        admin.batch_execute(&dumped).await.unwrap();
        assert_eq!(one(&admin, listed).await, "1");
        assert!(labels(&admin, "by Label").await[0].1.ends_with(",admin"));

        admin.batch_execute("SECURITY LABEL FOR pgaadauth ON ROLE \"by Label\" IS NULL").await.unwrap();
        assert_eq!(labels(&admin, "by Label").await, []);
        assert_eq!(gateway.refusal("by Label", "postgres", &vm_token().await).await.0, "28P01");
        admin.batch_execute("DROP ROLE \"by Label\"").await.unwrap();
    });
}

#[test]
fn a_mapping_by_function_is_shown_as_labels() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let (oid, tenant) = (azure.vm().object_id(), azure.tenant());
        admin.batch_execute(&create("shown", oid, "service")).await.unwrap();
        let expected = [
            ("pgaadauth".to_owned(), format!("aadauth,oid={oid},type=service")),
            ("pgaadauth-int".to_owned(), format!("type=service,oid={oid},tenant_id={tenant}")),
        ];
        assert_eq!(labels(&admin, "shown").await, expected);
        admin.batch_execute("DROP ROLE shown; CREATE ROLE shown").await.unwrap();
        assert_eq!(labels(&admin, "shown").await, []);
        let user = azure.administrator().user_principal_name();
        assert!(labels(&admin, user).await[0].1.ends_with(",admin"));
    });
}

#[test]
fn a_label_keeps_nologin_and_finds_principals_by_name() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let group = azure.group();
        let sql = format!(
            "CREATE ROLE silent; SECURITY LABEL FOR pgaadauth ON ROLE silent IS 'aadauth,oid={},type=group'",
            group.object_id()
        );
        admin.batch_execute(&sql).await.unwrap();
        assert_eq!(
            one(&admin, "SELECT rolcanlogin::text FROM pg_roles WHERE rolname = 'silent'").await,
            "false"
        );
        let name = azure.application().name();
        admin
            .batch_execute(&format!(
                "CREATE ROLE \"{name}\" LOGIN; SECURITY LABEL FOR pgaadauth ON ROLE \"{name}\" IS 'aadauth'"
            ))
            .await
            .unwrap();
        let internal = &labels(&admin, name).await[1].1;
        assert!(
            internal.contains(&format!("type=service,oid={}", azure.application().object_id())),
            "{internal}"
        );
        admin.batch_execute(&format!("DROP ROLE \"{name}\"")).await.unwrap();
    });
}

#[test]
fn labels_are_checked() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute("CREATE ROLE labelled LOGIN; CREATE ROLE twin LOGIN").await.unwrap();
        let oid = azure.vm().object_id();
        let label = |role: &str, text: &str| format!("SECURITY LABEL FOR pgaadauth ON ROLE {role} IS {text}");
        for (sql, code, says) in [
            (label("missing", "'aadauth'"), "42704", "role \"missing\" does not exist"),
            (label("azuresu", &format!("'aadauth,oid={oid},type=service'")), "42501", "permission denied"),
            (label("labelled", "'aadauth'"), "XX000", "its name is not found in the tenant"),
            (label("twin", "'aadauth'"), "XX000", "its name isn't unique in the tenant"),
            (
                label("labelled", &format!("'aadauth,oid={oid}'")),
                "XX000",
                "given object type: 'user', actual object type: 'service'",
            ),
            (label("labelled", "'aadauth,oid=1,type=service'"), "22023", "is not a GUID"),
            (label("labelled", &format!("'oid={oid},type=service'")), "22023", "does not begin with aadauth"),
            (label("labelled", "'aadauth,colour=blue'"), "22023", "\"colour=blue\""),
            ("SECURITY LABEL FOR pgaadauth ON TABLE pg_class IS 'x'".to_owned(), "22023", "is not loaded"),
        ] {
            let (found, message) = failure(admin.batch_execute(&sql).await);
            assert!(found == code && message.contains(says), "{sql}: {found} {message}");
        }
        // An Entra administrator alone can label roles, and in the database of the mapping alone.
        let ordinary = label("labelled", "NULL");
        admin.batch_execute(&create("no_labels", oid, "service")).await.unwrap();
        let client = gateway.connect("no_labels", "postgres", &vm_token().await).await.unwrap();
        assert_eq!(failure(client.batch_execute(&ordinary).await).0, "42501");
        admin.batch_execute("CREATE DATABASE elsewhere").await.unwrap();
        let elsewhere = gateway.connect("no_labels", "elsewhere", &vm_token().await).await.unwrap();
        assert_eq!(failure(elsewhere.batch_execute(&ordinary).await).0, "22023");
    });
}

/// What runs with the rights of the functions' owner is for administrators; the session user alone does
/// not count.
#[test]
fn what_runs_as_its_owner_is_not_for_everyone() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let superuser = stage.superuser().await;
        let sql = "SELECT p.proname::text, has_function_privilege('public', p.oid, 'EXECUTE'), \
                   coalesce(p.proconfig::text, '') LIKE '%search_path=pg_catalog, pg_temp%' \
                   FROM pg_proc p WHERE p.prosecdef AND (p.pronamespace = 'pgentra'::regnamespace \
                       OR p.proname ~ '^(pgaadauth|pgentra)_') ORDER BY 1";
        let found = superuser.query(sql, &[]).await.unwrap();
        let names: Vec<&str> = found.iter().map(|row| row.get(0)).collect();
        assert!(names.contains(&"pgentra_security_label") && names.contains(&"show_label"), "{names:?}");
        for row in &found {
            let (name, is_public, is_fixed): (&str, bool, bool) = (row.get(0), row.get(1), row.get(2));
            assert!(!is_public && is_fixed, "{name}");
        }

        // The administrator in the name of a role that is none.
        let sql = "CREATE ROLE in_its_name; CREATE ROLE not_labelled; GRANT in_its_name TO CURRENT_USER; \
                   SET ROLE in_its_name";
        admin.batch_execute(sql).await.unwrap();
        let label = "SECURITY LABEL FOR pgaadauth ON ROLE not_labelled IS NULL";
        assert_eq!(failure(admin.batch_execute(label).await).0, "42501");
        admin.batch_execute("RESET ROLE").await.unwrap();
        admin.batch_execute(label).await.unwrap();
    });
}

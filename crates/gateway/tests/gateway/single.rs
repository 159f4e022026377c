//! Members of `azure_ad_user`, with the article's own statements.

use pgentra_emulator::Draft;
use uuid::Uuid;

use crate::fixture::{RESOURCE, SERVER_NAME, Stage, failure, one, run};

#[test]
fn the_article_as_it_is_typed() {
    run(async {
        let stage = Stage::single().await;
        let azure = stage.azure();
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let client_id = azure.vm().client_id();
        admin.batch_execute("SET aad_validate_oids_in_tenant = off;").await.unwrap();
        admin
            .batch_execute(&format!(
                "CREATE ROLE myuser WITH LOGIN PASSWORD '{client_id}' IN ROLE azure_ad_user;"
            ))
            .await
            .unwrap();
        for user in ["myuser".to_owned(), format!("myuser@{SERVER_NAME}")] {
            let client = gateway.connect(&user, "postgres", &stage.vm_token()).await.unwrap();
            assert!(one(&client, "SELECT version()").await.starts_with("PostgreSQL "));
            assert_eq!(one(&client, "SELECT current_user::text").await, "myuser");
        }
        // Both statements in one go, as psql -c sends them.
        admin
            .batch_execute(&format!(
                "SET aad_validate_oids_in_tenant = off; CREATE ROLE in_one WITH LOGIN PASSWORD '{client_id}' IN ROLE azure_ad_user;"
            ))
            .await
            .unwrap();
        gateway.connect("in_one", "postgres", &stage.vm_token()).await.unwrap();
    });
}

#[test]
fn the_setting_is_a_setting() {
    run(async {
        let stage = Stage::single().await;
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let show = "SHOW aad_validate_oids_in_tenant";
        assert_eq!(one(&admin, show).await, "on");
        admin.batch_execute("SET aad_validate_oids_in_tenant TO off").await.unwrap();
        assert_eq!(one(&admin, show).await, "off");
        // The same with the extended protocol.
        admin.execute("RESET aad_validate_oids_in_tenant", &[]).await.unwrap();
        assert_eq!(one(&admin, show).await, "on");
        // In other statements the name has no meaning.
        let (code, _) = failure(admin.batch_execute("SELECT aad_validate_oids_in_tenant").await);
        assert_eq!(code, "42703");
    });
}

#[test]
fn an_object_id_as_the_password() {
    run(async {
        let stage = Stage::single().await;
        let azure = stage.azure();
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        for (role, id) in
            [("by_oid", azure.vm().object_id()), ("user_by_oid", azure.administrator().object_id())]
        {
            let sql = format!("CREATE ROLE {role} LOGIN PASSWORD '{id}' IN ROLE azure_ad_user");
            admin.batch_execute(&sql).await.unwrap();
        }
        let user = stage.token(&Draft::of_user(azure.administrator(), RESOURCE));
        gateway.connect("by_oid", "postgres", &stage.vm_token()).await.unwrap();
        gateway.connect("user_by_oid", "postgres", &user).await.unwrap();
    });
}

#[test]
fn roles_made_by_name() {
    run(async {
        let stage = Stage::single().await;
        let azure = stage.azure();
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let group = azure.group().name();
        admin
            .batch_execute(&format!(
                "CREATE ROLE \"{group}\" LOGIN IN ROLE azure_ad_user;
                 CREATE ROLE \"myVm\" LOGIN IN ROLE azure_ad_user;
                 CREATE ROLE \"guest@elsewhere.example\" LOGIN IN ROLE azure_ad_user;
                 CREATE ROLE twin LOGIN IN ROLE azure_ad_user"
            ))
            .await
            .unwrap();
        let user = Draft::of_user(azure.administrator(), RESOURCE);
        let member = stage.token(&user);
        gateway.connect(group, "postgres", &member).await.unwrap();
        // At the second sign-in the role has the gateway's password, and still counts as made by
        // name.
        gateway.connect(&format!("{group}@{SERVER_NAME}"), "postgres", &member).await.unwrap();
        gateway.connect("myVm", "postgres", &stage.vm_token()).await.unwrap();
        // The principal is not in the directory, so the sign-in name in the token is compared.
        let guest = stage.token(&user.clone().claim("upn", "guest@elsewhere.example"));
        gateway.connect("guest@elsewhere.example", "postgres", &guest).await.unwrap();

        let outsider = stage.token(&user.claim("groups", serde_json::json!([])));
        let id = azure.group().object_id();
        for (role, password, expected) in [
            (
                group,
                &outsider,
                format!("Azure AD access token not valid for role {group} (does not contain group ID {id})"),
            ),
            (
                "guest@elsewhere.example",
                &member,
                "Azure AD user principal oid mismatch for role[guest@elsewhere.example].".to_owned(),
            ),
            (
                "guest@elsewhere.example",
                &stage.vm_token(),
                "Service Principal oid mismatch for role[guest@elsewhere.example].".to_owned(),
            ),
            ("myVm", &member, "Azure AD user principal oid mismatch for role[myVm].".to_owned()),
            ("twin", &stage.vm_token(), "Service Principal oid mismatch for role[twin].".to_owned()),
        ] {
            let (code, message, hint) = gateway.refusal(role, "postgres", password).await;
            assert_eq!((&*code, message), ("28000", expected));
            assert!(!hint.is_empty());
        }
    });
}

#[test]
fn a_password_that_is_no_id_of_the_token() {
    run(async {
        let stage = Stage::single().await;
        let azure = stage.azure();
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let (wrong, tool) = (Uuid::from_u128(1), Uuid::from_u128(2));
        admin
            .batch_execute(&format!(
                "CREATE ROLE wrong LOGIN PASSWORD '{wrong}' IN ROLE azure_ad_user;
                 CREATE ROLE tool LOGIN PASSWORD '{tool}' IN ROLE azure_ad_user"
            ))
            .await
            .unwrap();
        let (code, message, _) = gateway.refusal("wrong", "postgres", &stage.vm_token()).await;
        assert_eq!((&*code, &*message), ("28000", "Service Principal oid mismatch for role[wrong]."));
        // The role's password is not accepted as a token.
        let (code, message, _) = gateway.refusal("wrong", "postgres", &wrong.to_string()).await;
        assert_eq!(code, "28000");
        assert!(message.starts_with("The access token has invalid format."));
        // A user who signs in through an application is not the application.
        let user = Draft::of_user(azure.administrator(), RESOURCE).claim("appid", tool.to_string());
        let (code, message, _) = gateway.refusal("tool", "postgres", &stage.token(&user)).await;
        assert_eq!((&*code, &*message), ("28000", "Azure AD user principal oid mismatch for role[tool]."));
        let app = Draft::of_identity(azure.vm(), RESOURCE).claim("appid", tool.to_string());
        gateway.connect("tool", "postgres", &stage.token(&app)).await.unwrap();
    });
}

#[test]
fn other_roles_have_passwords() {
    run(async {
        let stage = Stage::single().await;
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute("CREATE ROLE plain LOGIN PASSWORD 'sesame'").await.unwrap();
        gateway.connect("plain", "postgres", "sesame").await.unwrap();
        gateway.connect(&format!("plain@{SERVER_NAME}"), "postgres", "sesame").await.unwrap();
        assert_eq!(gateway.refusal("plain", "postgres", &stage.vm_token()).await.0, "28P01");
        // Another server's name is a part of the role's name.
        let (code, message, _) = gateway.refusal("plain@elsewhere", "postgres", "sesame").await;
        assert_eq!(
            (&*code, &*message),
            ("28P01", "password authentication failed for user \"plain@elsewhere\"")
        );
        // An ordinary role makes no member of it an Entra role.
        let plain = gateway.connect("plain", "postgres", "sesame").await.unwrap();
        let (code, _) = failure(plain.batch_execute("GRANT azure_ad_user TO plain").await);
        assert_eq!(code, "42501");
    });
}

#[test]
fn a_role_that_leaves_is_no_entra_role_any_more() {
    run(async {
        let stage = Stage::single().await;
        let azure = stage.azure();
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let id = azure.vm().client_id();
        admin
            .batch_execute(&format!("CREATE ROLE leaver LOGIN PASSWORD '{id}' IN ROLE azure_ad_user"))
            .await
            .unwrap();
        gateway.connect("leaver", "postgres", &stage.vm_token()).await.unwrap();
        admin.batch_execute("REVOKE azure_ad_user FROM leaver").await.unwrap();
        assert_eq!(gateway.refusal("leaver", "postgres", &stage.vm_token()).await.0, "28P01");
    });
}

#[test]
fn preparing_again_keeps_what_is_there() {
    run(async {
        let stage = Stage::single().await;
        let azure = stage.azure();
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let id = azure.vm().client_id();
        admin
            .batch_execute(&format!(
                "CREATE ROLE kept_role LOGIN PASSWORD '{id}' IN ROLE azure_ad_user;
                 CREATE ROLE kept_unused LOGIN PASSWORD '{id}' IN ROLE azure_ad_user;
                 CREATE ROLE kept_plain LOGIN PASSWORD 'sesame'"
            ))
            .await
            .unwrap();
        // From its first login on, a role has the gateway's password instead of the id.
        let open = gateway.connect("kept_role", "postgres", &stage.vm_token()).await.unwrap();
        stage.init().await;
        assert_eq!(one(&open, "SELECT current_user::text").await, "kept_role");
        for role in ["kept_role", "kept_unused"] {
            let client = gateway.connect(role, "postgres", &stage.vm_token()).await.unwrap();
            assert_eq!(one(&client, "SELECT current_user::text").await, role);
            let other = stage.token(&Draft::of_identity(azure.user_assigned(), RESOURCE));
            assert_eq!(gateway.refusal(role, "postgres", &other).await.0, "28000");
        }
        gateway.connect("kept_plain", "postgres", "sesame").await.unwrap();
        stage.administrator(&gateway).await;
    });
}

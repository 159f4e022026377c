//! A primary and its standby behind one gateway: which of them takes a client.

use eventually::{DEADLINE, eventually};
use pgentra_emulator::Draft;
use pgentra_gateway::{Config, SessionAttrs, UpstreamAddress};
use pgentra_local::{LocalCloud, RunningGateway};
use secrecy::ExposeSecret as _;
use tokio_postgres::{Client, NoTls};

use crate::fixture::{RESOURCE, Running, Stage, run};

const ROLE: &str = "s_service";

/// A gateway that leads to these servers.
async fn gateway(cloud: &LocalCloud, servers: &[UpstreamAddress], wanted: SessionAttrs) -> Running {
    let config = Config {
        upstream: servers[0].clone(),
        further: servers[1..].to_vec(),
        target_session_attrs: wanted,
        ..cloud.gateway_config()
    };
    Running::new(RunningGateway::start(config, 0).await.unwrap(), cloud.azure().ca_pem())
}

/// Several gateways before one server set the password of a role at its first sign-in.
#[test]
fn gateways_that_sign_a_role_in_for_the_first_time_do_not_disturb_each_other() {
    run(async {
        let stage = Stage::flexible().await;
        let superuser = stage.superuser().await;
        superuser.batch_execute("CREATE ROLE s_adopted LOGIN").await.unwrap();
        let adopt = async || {
            let client = stage.superuser().await;
            for _ in 0..100 {
                client.execute("SELECT pgentra.adopt('s_adopted')", &[]).await.unwrap();
            }
        };
        tokio::join!(adopt(), adopt(), adopt());
    });
}

/// Signs in, and whether the session is at a standby.
async fn at_standby(gateway: &Running, token: &str) -> Result<(Client, bool), String> {
    let told = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    };
    let client = gateway.connect(ROLE, "postgres", token).await.map_err(told)?;
    let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(told)?;
    Ok((client, row.get(0)))
}

#[test]
fn the_first_server_that_fits_takes_a_client_and_a_standby_takes_over() {
    run(async {
        let mut cloud = LocalCloud::builder().start().await.unwrap();
        let oid = cloud.azure().vm().object_id();
        let superuser = cloud.superuser("postgres").await.unwrap();
        let administrator = cloud.azure().administrator().user_principal_name().to_owned();
        let map = format!(
            "SET SESSION AUTHORIZATION \"{administrator}\"; SELECT pgaadauth_create_principal_with_oid('{ROLE}', '{oid}', 'service', false, false)"
        );
        superuser.batch_execute(&map).await.unwrap();
        drop(superuser);
        let standby = cloud.start_standby().await.unwrap();
        let (one, two) = (cloud.gateway_config().upstream, standby.upstream());
        let token = cloud.azure().mint(&Draft::of_identity(cloud.azure().vm(), RESOURCE)).unwrap();
        let token = token.expose_secret().to_owned();

        // The first sign-in sets the role's password, which only the primary can.
        let first = gateway(&cloud, &[two.clone(), one.clone()], SessionAttrs::Primary).await;
        assert!(!at_standby(&first, &token).await.unwrap().1);
        let only = gateway(&cloud, std::slice::from_ref(&two), SessionAttrs::Any).await;
        eventually(DEADLINE, "the standby has the password", async || {
            at_standby(&only, &token).await.is_ok()
        })
        .await;
        for (servers, wanted, is_standby) in [
            ([&one, &two], SessionAttrs::Any, false),
            ([&two, &one], SessionAttrs::Any, true),
            ([&two, &one], SessionAttrs::ReadWrite, false),
            ([&one, &two], SessionAttrs::ReadOnly, true),
            ([&one, &two], SessionAttrs::Standby, true),
            ([&one, &two], SessionAttrs::PreferStandby, true),
        ] {
            let gateway = gateway(&cloud, &servers.map(Clone::clone), wanted).await;
            assert_eq!(at_standby(&gateway, &token).await.map(|(_, is)| is), Ok(is_standby), "{wanted}");
        }
        // A condition holds for one server, too.
        let refused = gateway(&cloud, std::slice::from_ref(&one), SessionAttrs::Standby).await;
        let expected = "57P03 no PostgreSQL server of the gateway fits target_session_attrs=standby";
        assert_eq!(at_standby(&refused, &token).await.map(|(_, is)| is), Err(expected.to_owned()));

        // A cancel request reaches the server of its session, and of no other.
        let reader = gateway(&cloud, &[one.clone(), two.clone()], SessionAttrs::Standby).await;
        let (client, _) = at_standby(&reader, &token).await.unwrap();
        let cancel = client.cancel_token();
        let asleep = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
        let watch = standby.superuser("postgres").await.unwrap();
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
        eventually(DEADLINE, "the statement has begun", async || {
            watch.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        cancel.cancel_query_raw(reader.dial_tls().await, NoTls).await.unwrap();
        let error = asleep.await.unwrap().unwrap_err();
        assert_eq!(error.code().unwrap().code(), "57014");
        drop(watch);

        // The primary is gone: what needs one waits for the standby to take over.
        let writer = gateway(&cloud, &[one.clone(), two.clone()], SessionAttrs::Primary).await;
        assert!(!at_standby(&writer, &token).await.unwrap().1);
        let prefers = gateway(&cloud, &[one.clone(), two.clone()], SessionAttrs::PreferStandby).await;
        let any = gateway(&cloud, &[one, two], SessionAttrs::Any).await;
        cloud.crash().await;
        let expected = "57P03 no PostgreSQL server of the gateway fits target_session_attrs=primary";
        assert_eq!(at_standby(&writer, &token).await.map(|(_, is)| is), Err(expected.to_owned()));
        assert_eq!(at_standby(&any, &token).await.map(|(_, is)| is), Ok(true));
        standby.promote().await.unwrap();
        for gateway in [&writer, &prefers, &any] {
            assert_eq!(at_standby(gateway, &token).await.map(|(_, is)| is), Ok(false));
        }
        standby.stop().await;
    });
}

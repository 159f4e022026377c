//! `pgentra proxy wait`, for scripts that need a running proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use pgentra_proxy_config::{ListenAddr, quantity};
use pgentra_system::System;
use tokio::time::{Instant, sleep, timeout_at};

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(50);

/// Arguments of `pgentra proxy wait`.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Address of the proxy's admin listener. Default: PGENTRA_ADMIN_LISTEN
    #[arg(long, value_name = "ADDR", conflicts_with = "health")]
    admin: Option<ListenAddr>,
    /// Address of the proxy's health listener. Default: PGENTRA_HEALTH_LISTEN
    #[arg(long, value_name = "ADDR")]
    health: Option<ListenAddr>,
    /// Give up after this time: 90s, 5m, or a bare number of seconds.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = timeout, allow_negative_numbers = true)]
    timeout: Duration,
}

/// Returns once `/readiness` is answered with 200. After the time limit the exit code is 3 if the
/// listener answered, and 4 if it did not.
pub(crate) async fn run(system: &System, arguments: Wait) -> Outcome {
    let address = address(system, &arguments)?;
    waiting(&format!("waiting for the proxy at {address}"), ready(system, &arguments, address)).await
}

async fn ready(system: &System, arguments: &Wait, address: SocketAddr) -> Outcome {
    let url = format!("http://{address}/readiness");
    let flag = if arguments.health.is_some() { "--health-listen" } else { "--admin-listen" };
    let deadline = Instant::now() + arguments.timeout;
    loop {
        let asked = timeout_at(deadline, system.http().get(&url)).await;
        let why_not = match asked {
            Ok(Ok(answer)) if answer.status() == 200 => return Ok(()),
            Ok(Ok(answer)) => {
                let said = String::from_utf8_lossy(answer.body()).trim().replace('\n', "; ");
                Problem::new(Blame::Token, format!("the proxy is not ready: {said}"))
                    .hint("its own words are in its log; `pgentra proxy --check` with its arguments tries every target")
            }
            Ok(Err(error)) => unreached((flag, address), &error.to_string()),
            Err(_) => unreached((flag, address), "no answer in time"),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(why_not);
        }
        sleep(PAUSE).await;
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    quantity::time_within(text, 0..=86_400)
}

fn unreached((flag, address): (&str, SocketAddr), why: &str) -> Problem {
    Problem::new(Blame::Network, format!("no answer from the proxy at {address}: {why}"))
        .hint(format!("start the proxy with {flag} {address}, or name the address that it has"))
}

fn address(system: &System, arguments: &Wait) -> Outcome<SocketAddr> {
    let variable = |name: &str| {
        let text = system.env().get(name)?;
        let wrong = |error| Problem::new(Blame::Usage, format!("{name} cannot be `{text}`: {error}"));
        Some(text.parse::<ListenAddr>().map_err(wrong))
    };
    let named = arguments.admin.clone().or_else(|| arguments.health.clone()).map(Ok);
    let named =
        named.or_else(|| variable("PGENTRA_ADMIN_LISTEN")).or_else(|| variable("PGENTRA_HEALTH_LISTEN"));
    match named.transpose()? {
        Some(ListenAddr::Tcp(address)) => Ok(reachable(address)),
        Some(other) => Err(Problem::new(Blame::Usage, format!("{other} is no address to ask at"))
            .hint("write IP:PORT, as in --admin-listen")),
        None => Err(Problem::new(Blame::Usage, "it is not said where the proxy tells whether it is ready")
            .hint("name its --admin-listen with --admin, or its --health-listen with --health")),
    }
}

/// The loopback address in place of a wildcard address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

#[cfg(test)]
mod tests {
    use pgentra_system::Env;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn wait(health: Option<ListenAddr>, timeout: u64) -> Wait {
        Wait { admin: None, health, timeout: Duration::from_secs(timeout) }
    }

    /// Sends these answers, one for each request.
    async fn answers(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /readiness HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    const NOT_YET: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\nno token";
    const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready";

    #[tokio::test]
    async fn it_waits_until_the_proxy_is_ready() {
        let system = System::builder().build();
        let address = answers(&[NOT_YET, READY]).await;
        run(&system, wait(Some(ListenAddr::Tcp(address)), 60)).await.unwrap();
        let env =
            Env::from_map([("PGENTRA_HEALTH_LISTEN", format!("0.0.0.0:{}", answers(&[READY]).await.port()))]);
        run(&System::builder().env(env).build(), wait(None, 60)).await.unwrap();
    }

    #[tokio::test]
    async fn a_wait_in_vain_says_why() {
        let system = System::builder().build();
        let address = answers(&[NOT_YET]).await;
        let problem = run(&system, wait(Some(ListenAddr::Tcp(address)), 0)).await.unwrap_err();
        // Without any time, the answer may be late too.
        assert!([Blame::Token, Blame::Network].contains(&problem.blame()), "{problem:?}");
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let problem = run(&system, wait(Some(ListenAddr::Tcp(free)), 0)).await.unwrap_err();
        assert_eq!(problem.blame(), Blame::Network);
        for place in [None, Some("/run/pg".parse().unwrap())] {
            assert_eq!(run(&system, wait(place, 0)).await.unwrap_err().blame(), Blame::Usage);
        }
    }
}

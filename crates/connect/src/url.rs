//! The same connection as a URI.

use std::fmt::Write as _;

use crate::error::ConnectError;
use crate::keyword as word;
use crate::libpq::root_certificates;
use crate::load_balance::LoadBalanceHosts;
use crate::quote::url_value;
use crate::target::{DEFAULT_CONNECT_TIMEOUT, HostSpec, KeepAlive, SslNegotiation, Target};
use pgentra_wire::session_attrs::SessionAttrs;

impl Target {
    /// The target as a connection URI of libpq (PostgreSQL, "Connection URIs"), without a token: for a program that is
    /// given its password by other means. It may be logged. Read back by [`Target::resolve`] it is the same target.
    ///
    /// Only what differs from libpq's own defaults is in it, and always `sslmode` and `sslrootcert`.
    ///
    /// # Errors
    /// Trusted authorities that are in no file, which is where libpq looks.
    pub fn url(&self) -> Result<String, ConnectError> {
        let mut url = format!("postgresql://{}@", url_value(self.user()));
        for (number, HostSpec { host, port, .. }) in self.endpoints().iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let host = if host.contains(':') { format!("[{host}]") } else { url_value(host) };
            let _ = write!(url, "{comma}{host}:{port}");
        }
        let _ = write!(url, "/{}", url_value(self.database()));
        for (number, (keyword, value)) in self.parameters()?.into_iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            let _ = write!(url, "{mark}{keyword}={}", url_value(&value));
        }
        Ok(url)
    }

    fn parameters(&self) -> Result<Vec<(&'static str, String)>, ConnectError> {
        let mut parameters = vec![
            (word::SSLMODE, self.ssl_mode().to_string()),
            (word::SSLROOTCERT, root_certificates(self)?),
            (word::CONNECT_TIMEOUT, self.connect_timeout().as_secs().to_string()),
        ];
        if self.connect_timeout() == DEFAULT_CONNECT_TIMEOUT {
            parameters.pop();
        }
        if self.endpoints().iter().any(|endpoint| endpoint.address.is_some()) {
            let address =
                |endpoint: &HostSpec| endpoint.address.map(|address| address.to_string()).unwrap_or_default();
            let addresses: Vec<String> = self.endpoints().iter().map(address).collect();
            parameters.push((word::HOSTADDR, addresses.join(",")));
        }
        if self.ssl_negotiation() != SslNegotiation::Postgres {
            parameters.push((word::SSLNEGOTIATION, self.ssl_negotiation().as_str().to_owned()));
        }
        let texts = [(word::APPLICATION_NAME, self.application_name()), (word::OPTIONS, self.options())];
        parameters
            .extend(texts.into_iter().filter_map(|(keyword, value)| Some((keyword, value?.to_owned()))));
        match self.keep_alive() {
            None => parameters.push((word::KEEPALIVES, "0".to_owned())),
            Some(KeepAlive { idle, interval, count }) if self.keep_alive() != Some(KeepAlive::default()) => {
                parameters.push((word::KEEPALIVES_IDLE, idle.as_secs().to_string()));
                parameters.push((word::KEEPALIVES_INTERVAL, interval.as_secs().to_string()));
                parameters.push((word::KEEPALIVES_COUNT, count.to_string()));
            }
            Some(_) => {}
        }
        if self.session_attrs() != SessionAttrs::default() {
            parameters.push((word::TARGET_SESSION_ATTRS, self.session_attrs().to_string()));
        }
        if self.load_balance_hosts() != LoadBalanceHosts::default() {
            parameters.push((word::LOAD_BALANCE_HOSTS, self.load_balance_hosts().as_str().to_owned()));
        }
        if let Some(timeout) = self.user_timeout() {
            parameters.push((word::TCP_USER_TIMEOUT, timeout.as_millis().to_string()));
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use pgentra_system::{Env, Files};

    use super::*;
    use crate::{Layers, Roots};

    fn target(text: &str) -> Target {
        let (env, files) = (Env::from_map::<String, String>([]), Files::in_memory());
        Target::resolve(&Layers::gather(Some(text), &[], &env, &files).unwrap()).unwrap()
    }

    #[test]
    fn a_url_is_read_back_as_the_same_target() {
        for text in [
            "postgresql://myuser@my-server.postgres.database.azure.com/postgres",
            "host=a,b port=1,2 user=u hostaddr=127.0.0.1,::1",
            "host=a,b hostaddr=,10.0.0.1 user=u",
            "host=::1 user='it\\'s' dbname='a/b?c=d&e' sslnegotiation=direct",
            "host=h user='ada#EXT#@contoso.com' dbname='%41 ä' options='-c search_path=a,b -c x=1' application_name='me & you'",
            "host=h user=u connect_timeout=3 keepalives_idle=7 keepalives_count=2",
            "host=h user=u keepalives=0",
            "host=h user=u tcp_user_timeout=1500",
            "host=a,b user=u target_session_attrs=prefer-standby",
            "host=a,b user=u load_balance_hosts=random",
        ] {
            let first = target(text);
            let url = first.url().unwrap();
            let (again, shown) = (target(&url), |target: &Target| {
                let parts = (target.endpoints(), target.user(), target.database(), target.options());
                let more = (
                    target.application_name(),
                    target.connect_timeout(),
                    target.keep_alive(),
                    target.user_timeout(),
                );
                let order = target.load_balance_hosts();
                format!(
                    "{parts:?} {more:?} {:?} {} {order:?}",
                    target.ssl_negotiation(),
                    target.session_attrs()
                )
            });
            assert_eq!(shown(&again), shown(&first), "{url}");
            assert_eq!(again.url().unwrap(), url);
        }
    }

    #[test]
    fn a_url_says_how_to_verify() {
        let url = target("postgresql://myuser@my-server.postgres.database.azure.com").url().unwrap();
        assert_eq!(
            url,
            "postgresql://myuser@my-server.postgres.database.azure.com:5432/myuser?sslmode=verify-full&sslrootcert=system"
        );
    }

    #[test]
    fn authorities_in_no_file_have_no_url() {
        let authority = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        let roots = Roots::from_pem(authority.cert.pem().as_bytes()).unwrap();
        let error = target("host=h user=u").with_roots(roots).url().unwrap_err();
        assert!(error.hint().unwrap().contains("sslrootcert"));
    }
}

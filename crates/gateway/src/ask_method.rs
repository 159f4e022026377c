//! How a client is asked for its token, and how it chooses.

use std::fmt;
use std::str::FromStr;

use pgentra_session::login_error::{LoginError, fatal};

/// The setting by which a client chooses, in the start-up parameter `options`: `-c pgentra.auth=oauth`.
pub const AUTH_SETTING: &str = "pgentra.auth";

/// How a client is asked for its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AskMethod {
    /// AuthenticationCleartextPassword, as Azure Database for PostgreSQL asks: every driver can answer it.
    #[default]
    Password,
    /// AuthenticationSASL with OAUTHBEARER alone, as PostgreSQL 18 asks with `oauth` in `pg_hba.conf`.
    Oauth,
}

impl fmt::Display for AskMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password => "password",
            Self::Oauth => "oauth",
        })
    }
}

impl FromStr for AskMethod {
    type Err = UnknownAskMethod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "password" => Ok(Self::Password),
            "oauth" => Ok(Self::Oauth),
            _ => Err(UnknownAskMethod),
        }
    }
}

/// A text that is not the name of a [`AskMethod`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a way to ask for a token: write \"password\" or \"oauth\"")]
pub struct UnknownAskMethod;

impl AskMethod {
    /// What the client wants; `default` if it does not say.
    pub(crate) fn wanted(setting: Option<&[u8]>, default: Self) -> Result<Self, LoginError> {
        let Some(setting) = setting else { return Ok(default) };
        let text = String::from_utf8_lossy(setting);
        text.parse().map_err(|_| {
            let message = format!("invalid value for parameter \"{AUTH_SETTING}\": \"{text}\"");
            fatal("22023", &message).with_hint("Available values: password, oauth.").into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_they_are_read() {
        for request in [AskMethod::Password, AskMethod::Oauth] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        assert_eq!("OAuth".parse::<AskMethod>(), Err(UnknownAskMethod));
    }

    #[test]
    fn the_client_chooses_and_the_default_stays() {
        let wanted = |setting: Option<&[u8]>, default| AskMethod::wanted(setting, default).ok();
        for default in [AskMethod::Password, AskMethod::Oauth] {
            assert_eq!(wanted(None, default), Some(default));
            assert_eq!(wanted(Some(b"oauth"), default), Some(AskMethod::Oauth));
            assert_eq!(wanted(Some(b"password"), default), Some(AskMethod::Password));
            assert_eq!(wanted(Some(b""), default), None);
            assert_eq!(wanted(Some(b"\xff"), default), None);
        }
    }
}

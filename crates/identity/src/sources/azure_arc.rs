use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::SourceSettings;
use crate::retry::RetryPolicy;
use crate::{AccessToken, NoToken, Selector, SourceName, TokenError, TokenRequest, TokenSource, answer};
use pgentra_system::http::{Request, Response};

/// Where the agent answers if only its program was found.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:40342/metadata/identity/oauth2/token";

/// The version that the Azure SDKs for Go, .NET and Python ask for.
const API_VERSION: &str = "2020-06-01";

/// Where the agent puts its key files on Linux; no other folder is read.
const KEY_FOLDER: &str = "/var/opt/azcmagent/tokens";

/// A longer key file is not one.
const MAX_KEY: usize = 4096;

const NAME: SourceName = SourceName::AzureArc;

/// The agent of Azure Arc (Microsoft: azure-arc/servers/managed-identity-authentication).
///
/// It answers the first request with 401 and the path of a file that only privileged users can read; the second request
/// carries that file's content. The path comes from the process that listens on the port, so it is checked before a read:
/// only a `.key` file of at most 4096 bytes that lies, with every link resolved, in the agent's own folder.
#[derive(Debug)]
pub(super) struct AzureArcSource {
    setup: SourceSettings,
}

impl AzureArcSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let system = &self.setup.system;
        let resource = request.resource.as_str();
        let make = || self.request(resource, None);
        let challenge = RetryPolicy::ARC.send(system.http(), NAME, request.deadline, make).await?;
        let response = if challenge.status() == 401 {
            let key = self.key(&challenge).map_err(|error| error.endpoint_is(challenge.endpoint()))?;
            let make = || self.request(resource, Some(&key));
            RetryPolicy::ARC_WITH_KEY.send(system.http(), NAME, request.deadline, make).await?
        } else {
            challenge
        };
        self.check_identity(&response)?;
        Ok(answer::read_token(NAME, request.resource, &response, system.clock().now())?)
    }

    fn request(&self, resource: &str, key: Option<&Zeroizing<String>>) -> Result<Request, TokenError> {
        let env = self.setup.system.env();
        let endpoint = match (env.get("IDENTITY_ENDPOINT"), env.get("IMDS_ENDPOINT")) {
            (Some(endpoint), Some(_)) => endpoint,
            _ => DEFAULT_ENDPOINT.to_owned(),
        };
        let make = || {
            let request = Request::get(&endpoint)?.header("metadata", "true")?;
            let request = request.query(&[("api-version", API_VERSION), ("resource", resource)])?;
            let request = match &self.setup.selector {
                Selector::ResourceId(id) => request.query(&[("msi_res_id", id)])?,
                _ => request,
            };
            match key {
                Some(key) => request
                    .secret(key)
                    .secret_header("authorization", &Zeroizing::new(format!("Basic {}", **key))),
                None => Ok(request),
            }
        };
        make().map_err(|cause| {
            TokenError::config(NAME, "IDENTITY_ENDPOINT or the key file cannot be used").caused_by(cause)
        })
    }

    /// The content of the key file that the challenge names, if it is one.
    fn key(&self, challenge: &Response) -> Result<Zeroizing<String>, TokenError> {
        let files = self.setup.system.files();
        let header = challenge.header("www-authenticate").unwrap_or_default();
        let path = realm(header).ok_or_else(|| {
            TokenError::bad_answer(NAME, "the agent's challenge does not name a key file as Basic realm=PATH")
        })?;
        let refuse = |why: &str| {
            let shown = challenge.excerpt(path);
            TokenError::bad_answer(
                NAME,
                format!("the agent's challenge names {shown} as its key file, {why}"),
            )
            .with_hint(
                "Whatever answers on the agent's port is not the agent of Azure Arc: nothing was read.",
            )
        };
        let folder = self.key_folder();
        let is_key = |path: &Path| path.extension().is_some_and(|ending| ending == "key");
        if !is_key(Path::new(path)) {
            return Err(refuse("which does not end in .key"));
        }
        if Path::new(path).parent() != Some(&folder) {
            return Err(refuse("which is not in the agent's folder"));
        }
        let unreadable = |cause: std::io::Error| {
            TokenError::config(NAME, "the agent's key file cannot be read").caused_by(cause).with_hint(
                "The agent's keys are for root and the group himds on Linux, for administrators on Windows.",
            )
        };
        let real = files.canonical(path).map_err(unreadable)?;
        let real_folder = files.canonical(&folder).unwrap_or(folder);
        if real.parent() != Some(&real_folder) || !is_key(&real) {
            return Err(refuse("which is a link to another place"));
        }
        let key = files.read_text(&real, MAX_KEY).map(Zeroizing::new).map_err(unreadable)?;
        Ok(Zeroizing::new(key.trim_end().to_owned()))
    }

    fn key_folder(&self) -> PathBuf {
        match self.setup.system.env().get("ProgramData") {
            Some(data) if cfg!(windows) => {
                PathBuf::from(data).join("AzureConnectedMachineAgent").join("Tokens")
            }
            _ => PathBuf::from(KEY_FOLDER),
        }
    }

    /// An older agent ignores the selector and answers with the server's own identity: then no token is better.
    fn check_identity(&self, response: &Response) -> Result<(), TokenError> {
        #[derive(Deserialize)]
        struct Echo {
            msi_res_id: Option<String>,
        }
        let Selector::ResourceId(asked) = &self.setup.selector else { return Ok(()) };
        let echo: Option<Echo> = serde_json::from_slice(response.body()).ok();
        match echo.and_then(|echo| echo.msi_res_id) {
            Some(answered) if answered.eq_ignore_ascii_case(asked) => Ok(()),
            _ => Err(TokenError::bad_answer(
                NAME,
                "the agent does not say that the token is the named identity's",
            )
            .endpoint_is(response.endpoint())
            .with_hint("This agent knows only the server's own identity: update it, or name no identity.")),
        }
    }
}

impl TokenSource for AzureArcSource {
    fn name(&self) -> SourceName {
        NAME
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

/// The path in `Basic realm=PATH`, with or without quotes.
fn realm(header: &str) -> Option<&str> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    let (name, value) = rest.trim().split_once('=')?;
    let is_realm = scheme.eq_ignore_ascii_case("basic") && name.trim().eq_ignore_ascii_case("realm");
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (is_realm && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_basic_realm_is_read() {
        for (header, expected) in [
            ("Basic realm=/a/b.key", Some("/a/b.key")),
            ("basic Realm=\"/a/b.key\"", Some("/a/b.key")),
            ("Bearer realm=/a/b.key", None),
            ("Basic charset=/a/b.key", None),
            ("Basic realm=", None),
            ("Basic", None),
            ("", None),
        ] {
            assert_eq!(realm(header), expected, "{header}");
        }
    }
}

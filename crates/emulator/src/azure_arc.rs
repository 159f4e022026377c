//! The agent of an Azure Arc server (Microsoft: azure-arc, managed-identity-authentication): who can read a file that
//! it writes may have a token.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use uuid::Uuid;

use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::directory::{Identity, Selector};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::imds::{permitted, refusal, token_body};
use crate::keys::KeyError;
use crate::mint::{Draft, random};
use crate::options::AzureArcAgent;

/// How many challenges stay open; the oldest file is removed first. A client answers at once.
const OPEN_CHALLENGES: usize = 32;

pub(crate) const PATH: &str = "/metadata/identity/oauth2/token";

/// The agent: its folder, and the challenges without a response so far. Dropping it removes their files.
#[derive(Debug)]
pub(crate) struct Agent {
    options: AzureArcAgent,
    open: Mutex<VecDeque<Challenge>>,
}

/// A file and what is in it. Dropping it removes the file.
#[derive(Debug)]
struct Challenge {
    file: PathBuf,
    key: SecretString,
}

impl Agent {
    pub(crate) fn new(options: AzureArcAgent) -> Self {
        Self { options, open: Mutex::default() }
    }

    /// Writes a new challenge file and returns its path.
    fn challenge(&self) -> io::Result<PathBuf> {
        let key = random(48).map_err(io::Error::other)?;
        let file = self.options.keys.join(format!("{}.key", Uuid::new_v4()));
        write_private(&file, &key)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_CHALLENGES {
            open.pop_front();
        }
        open.push_back(Challenge { file: file.clone(), key: key.into() });
        Ok(file)
    }

    /// Whether `offered` is in one of the files; it counts once.
    fn redeem(&self, offered: &str) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let position = open.iter().position(|challenge| challenge.key.expose_secret() == offered);
        position.and_then(|position| open.remove(position)).is_some()
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::debug!(%error, file = %self.file.display(), "challenge file was removed already");
        }
    }
}

/// `GET /metadata/identity/oauth2/token`, first without, then with `Authorization: Basic` and the content of the file.
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let Some(agent) = &cloud.arc else { return Ok(Answer::text(StatusCode::NOT_FOUND, "")) };
    if let Err(refused) = permitted(call) {
        return Ok(refused);
    }
    let Some(resource) = call.query.get("resource") else {
        let description = "Required query variable 'resource' is missing";
        return Ok(refusal(StatusCode::BAD_REQUEST, "invalid_request", description));
    };
    let offered = call.header("authorization").and_then(|value| value.strip_prefix("Basic "));
    if !offered.is_some_and(|offered| agent.redeem(offered)) {
        return Ok(challenged(agent));
    }
    let Some((identity, echo)) = identity(cloud, agent, call) else {
        return Ok(refusal(StatusCode::BAD_REQUEST, "invalid_request", "Identity not found"));
    };
    if cloud.resource(resource).is_none() {
        let description = crate::entra::unknown_resource(cloud, resource);
        return Ok(refusal(StatusCode::BAD_REQUEST, "invalid_resource", &description));
    }
    let minted =
        cloud.token(Endpoint::Arc, Caching::Platform, &Draft::of_identity(&identity, resource), tweaks)?;
    let mut body = token_body(cloud, &identity, resource, &minted);
    body.extend(echo.filter(|(name, _)| *name != "client_id").map(|(name, value)| (name, json!(value))));
    Ok(Answer::json(StatusCode::OK, body))
}

fn challenged(agent: &Agent) -> Answer {
    match agent.challenge() {
        Ok(file) => Answer::text(StatusCode::UNAUTHORIZED, "")
            .with_header("Www-Authenticate", format!("Basic realm={}", file.display())),
        Err(error) => {
            tracing::error!(%error, "cannot write the challenge file");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "cannot write the challenge file")
        }
    }
}

/// The identity that the agent answers for, and the selector that it confirms.
fn identity<'a>(
    cloud: &Cloud,
    agent: &Agent,
    call: &'a Call,
) -> Option<(Identity, Option<(&'static str, &'a str)>)> {
    let named = ["client_id", "object_id", "msi_res_id"]
        .into_iter()
        .find_map(|name| call.query.get(name).map(|value| (name, value)))
        .filter(|_| agent.options.user_assigned);
    let Some((name, value)) = named else { return Some((cloud.machine.system_assigned()?, None)) };
    let selector = match name {
        "client_id" => Selector::Client(value),
        "object_id" => Selector::Object(value),
        _ => Selector::Resource(value),
    };
    let found = cloud.machine.identities().into_iter().find(|identity| selector.matches(identity))?;
    Some((found, named))
}

#[cfg(unix)]
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    open.write_all(text.as_bytes())
}

#[cfg(not(unix))]
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).open(file)?.write_all(text.as_bytes())
}

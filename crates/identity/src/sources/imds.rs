use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::SourceSettings;
use crate::retry::RetryPolicy;
use crate::{
    AccessToken, NoToken, Reason, Selector, SourceName, TokenError, TokenRequest, TokenSource, answer,
};
use pgentra_system::http::{HttpError, HttpErrorKind, Request, Response};
use pgentra_system::span;

/// The address of the instance metadata service on every Azure machine.
const HOST: &str = "http://169.254.169.254";

const PATH: &str = "/metadata/identity/oauth2/token";

/// The version that the Azure SDKs for Go, Python and .NET ask for.
const API_VERSION: &str = "2018-02-01";

/// How long one try of the probe may take: shorter ones fail machines under load (azure-sdk-for-go#19389).
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// How often the probe tries when nothing answers at all.
const PROBE_TRIES: usize = 2;

/// How long the probe waits where no other source could be asked: a machine or pod that is just starting, whose metadata
/// service may need seconds (azure-sdk-for-net#9550, #20609) or refuse connections (aad-pod-identity#992).
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the probe waits before it tries again where the connection was refused.
const REFUSED_WAIT: Duration = Duration::from_millis(500);

/// How long after it was first asked the source asks again for an identity that is not known. After that a program
/// asks by itself, whenever it needs a token.
const NEW_FOR: Duration = Duration::from_secs(60);

/// How long "there is no metadata service" is remembered.
const ABSENT_FOR: Duration = Duration::from_secs(60);

/// The instance metadata service (Microsoft: how-to-use-vm-token).
///
/// Where the source was inferred, it is probed first, without the `Metadata` header, so that a laptop learns in a second
/// or two that there is none. Where no other source can be asked after it, the probe waits longer, because all that there
/// is to lose is an error that comes later. Where the source was named, by the program or by
/// `AZURE_POD_IDENTITY_AUTHORITY_HOST`, it is not probed.
#[derive(Debug)]
pub(super) struct ImdsSource {
    setup: SourceSettings,
    /// When it was asked for the first time.
    first: OnceLock<Instant>,
    /// Has it given a token? Then its identity is not a new one.
    has_given: AtomicBool,
    probed: Mutex<Probed>,
}

#[derive(Debug, Clone)]
enum Probed {
    Never,
    Present,
    Absent(Reason, Instant),
}

impl ImdsSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self {
            setup,
            first: OnceLock::new(),
            has_given: AtomicBool::new(false),
            probed: Mutex::new(Probed::Never),
        }
    }

    fn url(&self) -> (String, bool) {
        match self.setup.system.env().get("AZURE_POD_IDENTITY_AUTHORITY_HOST") {
            Some(host) => (format!("{}{PATH}", host.trim_end_matches('/')), true),
            None => (format!("{HOST}{PATH}"), false),
        }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let first = *self.first.get_or_init(Instant::now);
        let (url, address_is_named) = self.url();
        if !self.setup.named && !address_is_named {
            self.probe(&url, request.deadline).await?;
        }
        let make = || self.request(&url, request.resource.as_str()).map_err(unusable);
        let system = &self.setup.system;
        let is_new = first.elapsed() < NEW_FOR && !self.has_given.load(Ordering::Relaxed);
        let policy = RetryPolicy { is_new, ..RetryPolicy::IMDS };
        let response = policy.send(system.http(), SourceName::Imds, request.deadline, make).await?;
        let token = answer::read_token(SourceName::Imds, request.resource, &response, system.clock().now())?;
        self.has_given.store(true, Ordering::Relaxed);
        Ok(token)
    }

    fn request(&self, url: &str, resource: &str) -> Result<Request, HttpError> {
        let request = Request::get(url)?.header("metadata", "true")?;
        let request = request.query(&[("api-version", API_VERSION), ("resource", resource)])?;
        match &self.setup.selector {
            Selector::Default => Ok(request),
            Selector::ClientId(id) => request.query(&[("client_id", &id.to_string())]),
            Selector::ObjectId(id) => request.query(&[("object_id", &id.to_string())]),
            Selector::ResourceId(id) => request.query(&[("msi_res_id", id)]),
        }
    }

    /// Is there a metadata service? What was found is remembered: presence for ever, absence for a minute.
    async fn probe(&self, url: &str, deadline: Instant) -> Result<(), NoToken> {
        let known = self.probed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Probed::Present => return Ok(()),
            Probed::Absent(reason, since) if since.elapsed() < ABSENT_FOR => {
                return Err(NoToken::NotApplicable(reason));
            }
            Probed::Absent(..) | Probed::Never => {}
        }
        let found = self.look(url, deadline).await?;
        let (state, result) = match found {
            None => (Probed::Present, Ok(())),
            Some(reason) => {
                (Probed::Absent(reason.clone(), Instant::now()), Err(NoToken::NotApplicable(reason)))
            }
        };
        *self.probed.lock().unwrap_or_else(PoisonError::into_inner) = state;
        result
    }

    /// Why there is no metadata service here, if so.
    async fn look(&self, url: &str, deadline: Instant) -> Result<Option<Reason>, TokenError> {
        let ends = deadline.min(Instant::now() + PATIENCE);
        let (mut tries, mut limit, mut is_patient) = (0, PROBE_LIMIT, None);
        loop {
            tries += 1;
            let request = Request::get(url).map_err(unusable)?.connect_limit(limit).limit(limit);
            let (why, may_be_late) = match self.setup.system.http().send(request).await {
                Ok(response) => return Ok(impostor(&response).map(Reason::new)),
                Err(error) if has_io_kind(&error, ErrorKind::TimedOut) => ("does not answer", true),
                Err(error) if error.kind() == HttpErrorKind::Timeout => ("does not answer", true),
                Err(error) if error.kind() == HttpErrorKind::Protocol => ("does not speak HTTP", false),
                // A refused connection: the address exists, so the service may be starting. Other errors, such as an
                // unreachable network: the address does not exist here.
                Err(error) => ("cannot be reached", has_io_kind(&error, ErrorKind::ConnectionRefused)),
            };
            let absent = || Ok(Some(Reason::new(format!("the metadata service at {HOST} {why}"))));
            if !may_be_late {
                return absent();
            }
            if !*is_patient.get_or_insert_with(|| self.is_alone()) {
                // A timeout is not a refusal: a busy machine may need another second.
                match why == "does not answer" && tries < PROBE_TRIES {
                    true => continue,
                    false => return absent(),
                }
            }
            if tries == 1 {
                let (longest, source) = (span::shown(PATIENCE), SourceName::Imds);
                tracing::warn!(%source, longest, "the metadata service {why} yet, and no other source is there: waiting for it");
            }
            if why != "does not answer" {
                tokio::time::sleep(REFUSED_WAIT).await;
            }
            // The next try gets all of the time that is left: a service that needs three seconds for each response
            // fails every short try.
            limit = ends.saturating_duration_since(Instant::now());
            if limit < REFUSED_WAIT {
                return absent();
            }
        }
    }

    /// Is there no other source that could be asked in its place?
    fn is_alone(&self) -> bool {
        let system = &self.setup.system;
        let mut programs = self.setup.tools.iter().filter_map(|tool| super::command::program(*tool));
        !programs.any(|program| system.processes().has(program, system.env(), system.files()))
    }
}

impl TokenSource for ImdsSource {
    fn name(&self) -> SourceName {
        SourceName::Imds
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

fn unusable(cause: HttpError) -> TokenError {
    TokenError::config(SourceName::Imds, "the request cannot be made").caused_by(cause)
}

fn has_io_kind(error: &HttpError, kind: ErrorKind) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    error.kind() == HttpErrorKind::Connect && cause.is_some_and(|cause| cause.kind() == kind)
}

/// What is looked for in the answer to a probe; the token, if there is one, is not kept.
#[derive(Deserialize)]
struct Answered {
    access_token: Option<IgnoredAny>,
}

/// Why the answer to a request without the `Metadata` header is not that of a metadata service, if so.
///
/// A real one refuses it, in JSON or plain text; an emulator may answer it with a token. Docker Desktop's network answers
/// 403 for addresses it cannot reach, in the user's language (azure-sdk-for-go#21417).
fn impostor(response: &Response) -> Option<String> {
    let status = response.status();
    match status {
        403 if String::from_utf8_lossy(response.body()).contains("unreachable") => {
            Some(format!("a container network answers for {HOST}: it is unreachable"))
        }
        200..300 => match serde_json::from_slice::<Answered>(response.body()) {
            Ok(Answered { access_token: Some(_) }) => None,
            _ => Some(format!("what answers at {HOST} is not a metadata service (status {status})")),
        },
        300..400 => Some(format!("what answers at {HOST} is not a metadata service (status {status})")),
        _ => None,
    }
}

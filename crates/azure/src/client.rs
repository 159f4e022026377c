//! Requests with a token, retried as far as that is harmless.

use std::time::Duration;

use pgentra_connect::quote;
use pgentra_identity::{AccessToken, Credential, Refreshed, UnverifiedClaims};
use pgentra_system::System;
use pgentra_system::http::{HttpError, HttpErrorKind, Request, Response};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::endpoints::ServiceUrl;
use crate::error::{AzureError, AzureErrorKind};

/// How long one exchange may take.
const ATTEMPT: Duration = Duration::from_secs(30);

/// How long a request may take with all its retries. Resource Manager asks to wait up to a minute or two when it throttles.
const LIMIT: Duration = Duration::from_secs(180);

/// The waits in seconds before the second, third, … attempt, where the service names none.
const WAITS: [u64; 5] = [1, 2, 4, 8, 16];

/// A service that takes tokens.
#[derive(Debug, Clone)]
pub(crate) struct RestClient {
    /// What it is called in messages.
    pub(crate) name: &'static str,
    pub(crate) endpoint: ServiceUrl,
    system: System,
    credential: Credential,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Put,
    Patch,
    Post,
    Delete,
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) body: Option<Value>,
    /// The state that the request is for: in another one it is refused (`If-Match`).
    pub(crate) only_if: Option<String>,
    /// What it is for, as it completes "cannot …".
    pub(crate) doing: &'a str,
}

impl Method {
    /// Whether a request that may have been carried out can be sent again (RFC 9110 section 9.2.2). Of the requests that
    /// are sent here by POST all are questions.
    fn is_idempotent(self) -> bool {
        self != Self::Patch
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn get(url: impl Into<String>, doing: &'a str) -> Self {
        Self { method: Method::Get, url: url.into(), body: None, only_if: None, doing }
    }

    fn request(&self, token: &AccessToken) -> Result<Request, HttpError> {
        let request = match self.method {
            Method::Get => Request::get(&self.url),
            Method::Put => Request::put(&self.url),
            Method::Patch => Request::patch(&self.url),
            Method::Post => Request::post(&self.url),
            Method::Delete => Request::delete(&self.url),
        }?;
        let request = match &self.body {
            Some(body) => request.json(body.to_string()),
            None => request,
        };
        let request = match &self.only_if {
            Some(etag) => request.header("if-match", etag)?,
            None => request,
        };
        let bearer = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
        let request = request.secret_header("authorization", &bearer)?.secret(token.expose_secret());
        request.header("accept", "application/json")
    }
}

impl RestClient {
    pub(crate) fn new(
        name: &'static str,
        endpoint: ServiceUrl,
        system: System,
        credential: Credential,
    ) -> Self {
        Self { name, endpoint, system, credential }
    }

    /// Sends a request until it is answered for good: throttled ones wait as long as they are told, and what may not
    /// have been carried out twice is not sent twice. The answer is a success.
    pub(crate) async fn send(&self, ask: &Ask<'_>) -> Result<Response, AzureError> {
        if !self.endpoint.owns(&ask.url) {
            let message =
                format!("cannot {}: {} sends us to another host, which gets no token", ask.doing, self.name);
            return Err(AzureError::new(AzureErrorKind::Network, message));
        }
        let ends = Instant::now() + LIMIT;
        let mut token = self.token(ask).await?;
        let mut waits = WAITS.into_iter();
        let mut may_refresh = true;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let request = ask.request(&token).map_err(|error| {
                AzureError::new(AzureErrorKind::Usage, format!("cannot {}", ask.doing)).caused_by(error)
            })?;
            let (error, asked_wait) = match self.system.http().send(request.limit(ATTEMPT.min(left))).await {
                Ok(response) if response.is_success() => return Ok(response),
                Ok(response) if response.status() == 401 && may_refresh => {
                    may_refresh = false;
                    let other = self.credential.refresh(&self.endpoint.resource, &token).await;
                    match other {
                        Ok(Refreshed::New(other)) => {
                            token = other;
                            continue;
                        }
                        _ => return Err(self.refusal(ask, &response, &token)),
                    }
                }
                Ok(response) => {
                    let error = self.refusal(ask, &response, &token);
                    let again = match response.status() {
                        429 => true,
                        408 | 500..600 => ask.method.is_idempotent(),
                        _ => false,
                    };
                    if !again {
                        return Err(error);
                    }
                    (error, retry_after(&response))
                }
                Err(cause) => {
                    let again = match cause.kind() {
                        HttpErrorKind::Connect | HttpErrorKind::Resolve | HttpErrorKind::Proxy => true,
                        HttpErrorKind::Timeout | HttpErrorKind::Protocol => ask.method.is_idempotent(),
                        _ => false,
                    };
                    let error = self.unreachable(ask, cause);
                    if !again {
                        return Err(error);
                    }
                    (error, None)
                }
            };
            let Some(wait) = waits.next() else { return Err(error) };
            let resume = Instant::now() + Duration::from_secs(wait).max(asked_wait.unwrap_or_default());
            if resume >= ends {
                return Err(error);
            }
            tracing::debug!(service = self.name, %error, "the request failed; retrying");
            sleep_until(resume).await;
        }
    }

    /// The JSON document that answers a request.
    pub(crate) async fn json(&self, ask: &Ask<'_>) -> Result<Value, AzureError> {
        let response = self.send(ask).await?;
        self.parse(ask.doing, &response)
    }

    /// The same, where a thing that is not there is no failure.
    pub(crate) async fn found(&self, ask: &Ask<'_>) -> Result<Option<Value>, AzureError> {
        match self.json(ask).await {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.kind() == AzureErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn parse(&self, doing: &str, response: &Response) -> Result<Value, AzureError> {
        serde_json::from_slice(response.body()).map_err(|error| {
            let message = format!("cannot {doing}: the answer of {} is not JSON", self.name);
            AzureError::new(AzureErrorKind::Network, message).caused_by(error)
        })
    }

    /// An answer that lacks what it must have.
    pub(crate) fn unusable(&self, doing: &str, what: &str) -> AzureError {
        let message = format!("cannot {doing}: the answer of {} has no {what}", self.name);
        AzureError::new(AzureErrorKind::Network, message)
    }

    async fn token(&self, ask: &Ask<'_>) -> Result<AccessToken, AzureError> {
        let token = self.credential.token(&self.endpoint.resource).await;
        token.map_err(|error| AzureError::of_token(ask.doing, error))
    }

    fn unreachable(&self, ask: &Ask<'_>, cause: HttpError) -> AzureError {
        let unsure = !ask.method.is_idempotent()
            && matches!(cause.kind(), HttpErrorKind::Timeout | HttpErrorKind::Protocol);
        let kind = cause.kind();
        let error = AzureError::of_http(ask.doing, cause);
        match kind {
            _ if unsure => error.hinting("it may have been carried out all the same: look before you try again"),
            HttpErrorKind::Tls => error.hinting(
                "PGENTRA_MANAGEMENT_CA names a file with further roots to trust for Resource Manager and Graph; SSL_CERT_FILE does for all",
            ),
            _ => error.hinting(format!("is {} reachable from here, and HTTPS_PROXY right?", self.endpoint.base)),
        }
    }

    /// Turns a refusal into an error: kind by status and code, with a hint.
    fn refusal(&self, ask: &Ask<'_>, response: &Response, token: &AccessToken) -> AzureError {
        let parsed: Option<Value> = serde_json::from_slice(response.body()).ok();
        let error = parsed.as_ref().map(|body| &body["error"]);
        let text = |member: &str| error.and_then(|error| error[member].as_str());
        let code = text("code").map(|code| response.excerpt(code));
        let said = match text("message") {
            Some(message) => response.excerpt(message),
            None => response.body_excerpt(),
        };
        let status = response.status();
        let kind = match status {
            401 | 403 => AzureErrorKind::Forbidden,
            404 => AzureErrorKind::NotFound,
            409 | 412 => AzureErrorKind::Conflict,
            429 => AzureErrorKind::Throttled,
            _ => AzureErrorKind::Refused,
        };
        let named = code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
        let message = format!("cannot {}: {} answered {status}{named}: {said}", ask.doing, self.name);
        let error = AzureError::new(kind, message).with_code(code);
        match kind {
            AzureErrorKind::Forbidden => error.hinting(self.missing_role(ask, token)),
            AzureErrorKind::Conflict => error.hinting("something else is changing it: try again in a minute"),
            AzureErrorKind::Throttled => {
                error.hinting("Azure is throttling this identity or subscription: try again later")
            }
            AzureErrorKind::NotFound => error
                .hinting("check name, resource group and subscription; who may not see it is told the same"),
            _ => error,
        }
    }

    /// Which role the caller lacks, as the command that assigns it.
    fn missing_role(&self, ask: &Ask<'_>, token: &AccessToken) -> String {
        let claims = UnverifiedClaims::of(token);
        let object_id =
            claims.as_ref().and_then(UnverifiedClaims::object_id).unwrap_or("OBJECT_ID").to_owned();
        if self.name == GRAPH {
            return format!(
                "the identity with object id {object_id} may not read the directory: give it the Entra role Directory Readers, \
                 or name what you mean by its object id"
            );
        }
        let path = ask.url.strip_prefix(&self.endpoint.base).unwrap_or(&ask.url);
        let path = path.split('?').next().unwrap_or_default();
        // A role is assigned at a resource, a resource group or the subscription; a list is none of them.
        let whole = path.split("/administrators").next().unwrap_or(path);
        let whole = whole.split("/federatedIdentityCredentials").next().unwrap_or(whole);
        let scope = match path.to_ascii_lowercase().contains("/resourcegroups/") {
            true => whole,
            false => whole.split("/providers/").next().unwrap_or(whole),
        };
        let writes = ask.method != Method::Get;
        let lower = path.to_ascii_lowercase();
        let role = match writes {
            false => "Reader",
            true if lower.contains("/microsoft.compute/") => "Virtual Machine Contributor",
            true if lower.contains("/microsoft.web/") => "Website Contributor",
            true if lower.contains("/microsoft.managedidentity/") => "Managed Identity Contributor",
            true => "Contributor",
        };
        let more = match writes
            && ask.body.as_ref().is_some_and(|body| !body["identity"]["userAssignedIdentities"].is_null())
        {
            true => {
                "; to assign a user-assigned identity it also takes Managed Identity Operator on that identity"
            }
            false => "",
        };
        let (assignee, scope) = (quote::shell_word(&object_id), quote::shell_word(scope));
        format!("az role assignment create --assignee {assignee} --role '{role}' --scope {scope}{more}")
    }
}

pub(crate) const GRAPH: &str = "Microsoft Graph";

/// The wait that an answer asks for, in whole seconds.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u32 = response.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

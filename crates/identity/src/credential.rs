use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::cache::{Cache, Health};
use crate::chain::Chain;
use crate::decision::{Considered, Verdict};
use crate::sources::{self, AssertionSignature, CommandLine, CommandServer, EntraAuthority, SourceSettings};
use crate::{
    AccessToken, Cloud, ConfigError, Decision, Refreshed, Resource, Selector, SourceName, TokenError,
    TokenSource, detect,
};
use pgentra_system::System;

/// The decision, and the sources to ask.
type Choice = (Vec<Considered>, Vec<Arc<dyn TokenSource>>);

/// How long a request for a token may take, with all retries: enough for a metadata service that says it restarts and
/// takes its 70 s.
const DEADLINE: Duration = Duration::from_secs(90);

/// A way to get tokens: a selection of sources, and a cache. Cheap to clone; clones share the cache.
///
/// Its methods must be called inside a tokio runtime with timers and IO enabled.
#[derive(Clone)]
pub struct Credential(Arc<Inner>);

struct Inner {
    decision: Decision,
    cache: Cache,
}

impl Credential {
    /// A credential that uses this system: its variables, files, clock, HTTP client and programs.
    pub fn builder(system: System) -> CredentialBuilder {
        CredentialBuilder {
            system,
            selector: None,
            source: None,
            cloud: Cloud::default(),
            authority_host: None,
            tenant: None,
            deadline: DEADLINE,
            signature: AssertionSignature::default(),
            command: CommandLine::default(),
            given: None,
        }
    }

    /// A token for this resource, from the cache if it holds one with more than ten seconds to live.
    ///
    /// Cancel-safe: dropping the future abandons the wait, not the request, whose token is then cached.
    ///
    /// # Errors
    /// Why there is none. A failure to refresh a token that is still valid is not an error: see [`Credential::health`].
    pub async fn token(&self, resource: &Resource) -> Result<AccessToken, TokenError> {
        self.0.cache.token(resource).await
    }

    /// Another token than one that a server has rejected.
    ///
    /// Where the cache already holds another, that is the answer. Else the source is asked; it may give the rejected
    /// token again, because platforms keep a token until shortly before its end.
    ///
    /// Cancel-safe, as [`Credential::token`].
    ///
    /// # Errors
    /// Why the source gave none; the cached token stays in use for others.
    pub async fn refresh(
        &self,
        resource: &Resource,
        rejected: &AccessToken,
    ) -> Result<Refreshed, TokenError> {
        self.0.cache.refresh(resource, rejected).await
    }

    /// Reads the cached token in place: takes no lock, allocates nothing, touches no reference count. `None` if the cache
    /// holds none with more than ten seconds to live. A due refresh is started in the background.
    pub fn with_cached<R>(&self, resource: &Resource, read: impl FnOnce(&AccessToken) -> R) -> Option<R> {
        self.0.cache.with_cached(resource, read)
    }

    /// The wall clock that the expiry of tokens is compared with.
    pub fn now(&self) -> SystemTime {
        self.0.cache.now()
    }

    /// Which source was chosen and why.
    pub fn decision(&self) -> &Decision {
        &self.0.decision
    }

    /// How the token for a resource is doing: its expiry, and the failures since the last success.
    pub fn health(&self, resource: &Resource) -> Health {
        self.0.cache.health(resource)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?})", self.0.decision.sources().collect::<Vec<_>>())
    }
}

/// Puts a [`Credential`] together. Each setting has a default.
#[derive(Debug)]
pub struct CredentialBuilder {
    system: System,
    selector: Option<Selector>,
    source: Option<SourceName>,
    cloud: Cloud,
    authority_host: Option<String>,
    tenant: Option<String>,
    deadline: Duration,
    signature: AssertionSignature,
    command: CommandLine,
    given: Option<Arc<dyn TokenSource>>,
}

impl CredentialBuilder {
    /// Which identity is meant. Default: the one with the client id in `AZURE_CLIENT_ID`, else the host's default.
    pub fn selector(mut self, selector: Selector) -> Self {
        self.selector = Some(selector);
        self
    }

    /// The source to ask. Default: detected. A named source is not probed, and its absence is a failure.
    pub fn source(mut self, source: SourceName) -> Self {
        self.source = Some(source);
        self
    }

    /// The cloud, for its authority. Default: [`Cloud::Public`].
    pub fn cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = cloud;
        self
    }

    /// Entra's address, an https URL. Default: `AZURE_AUTHORITY_HOST`, else the cloud's.
    pub fn authority_host(mut self, url: impl Into<String>) -> Self {
        self.authority_host = Some(url.into());
        self
    }

    /// The tenant, a GUID or a domain name, for the sources that need one. Default: what the source's variable says.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// How long a request for a token may take, with all retries. Default: 90 s. After it, `token` gives one error.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How the source `client-certificate` signs. Default: [`AssertionSignature::Ps256`].
    pub fn assertion_signature(mut self, signature: AssertionSignature) -> Self {
        self.signature = signature;
        self
    }

    /// A command that prints a token, or JSON as azure-cli's, and its arguments; it becomes the source, `exec`. It gets
    /// the resource in the variable `PGENTRA_RESOURCE`, and the server in those of [`CommandServer`]. A bare token must
    /// be a JWT, so that its `exp` claim can be read, or have a [`CredentialBuilder::command_lifetime`].
    pub fn command<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.command.words = words.into_iter().map(Into::into).collect();
        self.source = Some(SourceName::Exec);
        self
    }

    /// How long a token of the command is valid, from the moment that the command ends. Of this, what the command says
    /// and the `exp` claim, the earliest counts. Default: without the other two, a token is an error.
    pub fn command_lifetime(mut self, lifetime: Duration) -> Self {
        self.command.lifetime = Some(lifetime);
        self
    }

    /// The server and role that the tokens of the command are for. Default: unknown, which is empty variables.
    pub fn command_server(mut self, server: CommandServer) -> Self {
        self.command.server = server;
        self
    }

    /// A custom source. No other source is asked then.
    pub fn custom(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.given = Some(source);
        self
    }

    /// The credential. Reads the environment and looks for files; makes no request.
    ///
    /// # Errors
    /// When settings or variables contradict each other, or the source cannot honour the selector.
    pub fn build(self) -> Result<Credential, ConfigError> {
        let (selector, selector_from) = self.chosen_selector()?;
        let (considered, sources) = match &self.given {
            Some(source) => {
                let one =
                    Considered::new(source.name(), "the program gave it", &[]).verdict_is(Verdict::First);
                (vec![one], vec![source.clone()])
            }
            None => self.choose(&selector)?,
        };
        let decision = Decision::new(considered, selector.clone(), selector_from);
        tracing::info!(
            source = decision.source().map(SourceName::as_str),
            variables = ?decision.variables(),
            selector = %decision.selector(),
            "token source chosen"
        );
        let chain = Arc::new(Chain::new(sources, selector));
        let cache = Cache::new(chain, self.system.clock().clone(), self.deadline);
        Ok(Credential(Arc::new(Inner { decision, cache })))
    }

    fn chosen_selector(&self) -> Result<(Selector, &'static str), ConfigError> {
        if let Some(selector) = &self.selector {
            return Ok((selector.clone(), ""));
        }
        let Some(text) = self.system.env().get("AZURE_CLIENT_ID") else { return Ok((Selector::Default, "")) };
        let id: Uuid = text.trim().parse().map_err(|_| {
            ConfigError::new("the environment variable AZURE_CLIENT_ID is not a client id")
                .with_hint("A client id is a GUID, such as 00000000-0000-0000-0000-000000000000.")
        })?;
        Ok((Selector::ClientId(id), "from AZURE_CLIENT_ID"))
    }

    fn choose(&self, selector: &Selector) -> Result<Choice, ConfigError> {
        let (mut considered, named) = match self.source {
            Some(name) => (self.named(name), true),
            None => {
                let detected = detect::detect(&self.system)?;
                (detected.considered, detected.named)
            }
        };
        let tools = considered.iter().filter(|one| one.verdict() != Verdict::No).map(Considered::source);
        // A developer tool gives tokens for its signed-in user only, so a selector excludes it.
        let can_ask_tools = self.selector.as_ref().is_none_or(|selector| !selector.is_named());
        let tools = tools.filter(|source| can_ask_tools && source.is_developer_tool()).collect();
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| !sources::is_tenant(tenant)) {
            let message = format!("`{}` is not a tenant", tenant.escape_debug());
            return Err(ConfigError::new(message).with_hint(
                "A tenant is a GUID or a domain name, such as contoso.onmicrosoft.com: az account show --query tenantId",
            ));
        }
        let setup = SourceSettings {
            system: self.system.clone(),
            selector: selector.clone(),
            named,
            authority: self.authority()?,
            tenant: self.tenant.clone(),
            audience: self.cloud.federation_audience(),
            signature: self.signature,
            command: self.command.clone(),
            tools,
        };
        let mut sources = Vec::new();
        for one in considered.iter_mut().filter(|one| one.verdict() != Verdict::No) {
            let mut setup = setup.clone();
            if one.source().is_developer_tool() && self.selector.is_none() {
                // AZURE_CLIENT_ID names a managed identity or an application, as in the Azure SDKs; not a person.
                setup.selector = Selector::Default;
            }
            match sources::build(one.source(), &setup) {
                Ok(source) => sources.push(source),
                Err(error) if one.verdict() == Verdict::First || named => return Err(error),
                Err(error) => *one = Considered::new(one.source(), error.to_string(), &[]),
            }
        }
        Ok((considered, sources))
    }

    /// The named source first, then the others with the reason for each.
    fn named(&self, name: SourceName) -> Vec<Considered> {
        let mut considered = vec![Considered::new(name, "it was named", &[]).verdict_is(Verdict::First)];
        // `AZURE_TOKEN_CREDENTIALS` does not restrict a source that the program names.
        if let Ok(detected) = detect::detect(&self.system) {
            let others = detected.considered.into_iter().filter(|one| one.source() != name);
            considered.extend(others.map(|one| match one.verdict() {
                Verdict::No => one,
                _ => Considered::new(one.source(), format!("{name} was named"), one.variables()),
            }));
        }
        considered
    }

    fn authority(&self) -> Result<EntraAuthority, ConfigError> {
        if let Some(url) = &self.authority_host {
            return EntraAuthority::parse(url, "the authority host");
        }
        match self.system.env().get("AZURE_AUTHORITY_HOST") {
            Some(url) => EntraAuthority::parse(&url, "AZURE_AUTHORITY_HOST"),
            None => EntraAuthority::parse(self.cloud.authority_host(), "the cloud's authority"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgentra_system::Env;

    #[tokio::test]
    async fn nothing_that_can_be_printed_shows_a_secret() {
        let variables = [
            ("HTTPS_PROXY", "http://user:hunter2@127.0.0.1:1"),
            ("AZURE_CLIENT_SECRET", "hunter2"),
            ("AZURE_CLIENT_ID", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"),
            ("AZURE_TENANT_ID", "t.example"),
        ];
        let system = System::builder().env(Env::from_map(variables)).build();
        // The proxy's settings are read when they are first needed.
        let request = system.http().get("https://login.invalid.example:1/");
        drop(futures_util::FutureExt::now_or_never(request));
        let builder = Credential::builder(system.clone()).command(["give-token", "--password=hunter2"]);
        let shown = format!("{system:?} {builder:?}");
        let credential = Credential::builder(system).build().unwrap();
        let shown = format!("{shown} {credential:?} {:?} {}", credential.0.cache, credential.decision());
        assert!(shown.contains("give-token") && shown.contains("client-secret"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVy"), "{shown}");
    }

    #[test]
    fn the_selector_comes_from_the_program_before_the_environment() {
        let variables = [("AZURE_CLIENT_ID", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a")];
        let system = System::builder().env(Env::from_map(variables)).build();
        let of = |builder: CredentialBuilder| builder.build().unwrap().decision().to_string();
        let from_environment = of(Credential::builder(system.clone()));
        assert!(
            from_environment
                .ends_with("client id 853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a (from AZURE_CLIENT_ID)")
        );
        let from_program = of(Credential::builder(system).selector(Selector::Default));
        assert!(from_program.ends_with("asked for: the host's default identity"), "{from_program}");
    }
}

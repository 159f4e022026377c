use std::io;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::SourceSettings;
use super::printed::CommandOutput;
use crate::answer::UncheckedToken;
use crate::{
    AccessToken, NoToken, Reason, SourceName, TokenError, TokenErrorKind, TokenRequest, TokenSource, answer,
    expiry,
};
use pgentra_system::excerpt;
use pgentra_system::{Finished, Invocation};

/// How long a program may take: `az` needs up to three seconds, more with a cold disk.
const LIMIT: Duration = Duration::from_secs(20);

/// A program that prints a token: `az`, `azd`, or one that the user names.
///
/// The first two run in a folder of the system's, so that a program of that name in the current folder is not run. Where
/// they were inferred, their failures mean that they do not apply here: a user need not be signed in.
#[derive(Debug)]
pub(super) struct Cli {
    setup: SourceSettings,
    name: SourceName,
}

impl Cli {
    pub(super) fn new(name: SourceName, setup: SourceSettings) -> Self {
        Self { setup, name }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        match self.run(request).await {
            Ok(token) => Ok(token),
            Err(error) if self.setup.named => Err(error.into()),
            Err(error) => Err(NoToken::NotApplicable(Reason::new(error.message()))),
        }
    }

    async fn run(&self, request: TokenRequest<'_>) -> Result<AccessToken, TokenError> {
        let call = self.call(request)?;
        let system = &self.setup.system;
        let limit = LIMIT.min(request.deadline.saturating_duration_since(Instant::now()));
        let finished = system.processes().run(&call, system.env(), limit).await;
        let finished = finished.map_err(|cause| self.not_run(&call.program, cause))?;
        if finished.code != Some(0) {
            return Err(self.failed(&call.program, &finished));
        }
        self.read(request, &finished)
    }

    fn call(&self, request: TokenRequest<'_>) -> Result<Invocation, TokenError> {
        let scope = request.resource.scope();
        let tenant = self.setup.tenant.as_deref();
        let Some(program) = program(self.name) else { return self.users_call(request) };
        let (mut arguments, tenant_flag, colours) = match self.name {
            SourceName::AzureDeveloperCli => (
                vec!["auth", "token", "-o", "json", "--no-prompt", "--scope", &scope],
                "--tenant-id",
                ("NO_COLOR", "1"),
            ),
            _ => (
                vec!["account", "get-access-token", "-o", "json", "--scope", &scope],
                "--tenant",
                ("AZURE_CORE_NO_COLOR", "true"),
            ),
        };
        arguments.extend(tenant.into_iter().flat_map(|tenant| [tenant_flag, tenant]));
        let folder =
            if cfg!(windows) { self.setup.system.env().get("SYSTEMROOT") } else { Some("/".to_owned()) };
        Ok(Invocation {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            variables: vec![(colours.0.to_owned(), colours.1.to_owned())],
            folder,
        })
    }

    fn users_call(&self, request: TokenRequest<'_>) -> Result<Invocation, TokenError> {
        let command = &self.setup.command;
        let Some((program, arguments)) = command.words.split_first() else {
            return Err(TokenError::config(self.name, "there is no command"));
        };
        Ok(Invocation {
            program: program.clone(),
            arguments: arguments.to_vec(),
            variables: command.server.variables(request.resource),
            folder: None,
        })
    }

    fn read(&self, request: TokenRequest<'_>, finished: &Finished) -> Result<AccessToken, TokenError> {
        let now = self.setup.system.clock().now();
        let printed = CommandOutput::read(self.name, &finished.stdout)?;
        let Some(token) = printed.token else {
            return Err(TokenError::bad_answer(self.name, "the program printed JSON without a token"));
        };
        let stated = printed.expires_on.as_ref().and_then(|value| expiry::parse(value, now));
        let stated = stated.or_else(|| expiry::parse_rfc3339(printed.expires_on_text.as_deref()?));
        let relative = || printed.expires_in.as_ref().and_then(expiry::parse_seconds).map(|left| now + left);
        let stated = stated.or_else(relative);
        let lifetime = self.setup.command.lifetime.filter(|_| self.name == SourceName::Exec);
        let given = lifetime.map(|lifetime| now + lifetime);
        let unchecked = UncheckedToken {
            text: token,
            resource: printed.resource.as_ref().and_then(Value::as_str),
            expires_on: [stated, given].into_iter().flatten().min(),
            refresh_in: None,
            now,
        };
        unchecked.check(self.name, request.resource).inspect(|token| answer::warn_of_clock(token, now))
    }

    fn not_run(&self, program: &str, cause: io::Error) -> TokenError {
        let (kind, message) = match cause.kind() {
            io::ErrorKind::NotFound => (TokenErrorKind::Config, format!("{program} is not installed")),
            io::ErrorKind::TimedOut => (TokenErrorKind::Timeout, format!("{program} took too long")),
            _ => (TokenErrorKind::Config, format!("{program} cannot be run")),
        };
        let hint = match self.name {
            SourceName::AzureCli => "Install the Azure CLI, then: az login",
            SourceName::AzureDeveloperCli => "Install the Azure Developer CLI, then: azd auth login",
            _ => "The command must be on the PATH, need no input and end by itself.",
        };
        TokenError::new(kind, message).at(self.name).caused_by(cause).with_hint(hint)
    }

    fn failed(&self, program: &str, finished: &Finished) -> TokenError {
        let said = excerpt(&String::from_utf8_lossy(&finished.stderr), &[]);
        let signed_out = ["az login", "azd auth login"].iter().any(|text| said.contains(text));
        let error = |message| TokenError::new(TokenErrorKind::Refused { status: 0 }, message).at(self.name);
        match (self.name, signed_out) {
            (SourceName::AzureCli, true) => {
                error(format!("no user is signed in to {program}")).with_hint("Sign in: az login")
            }
            (SourceName::AzureDeveloperCli, true) => {
                error(format!("no user is signed in to {program}")).with_hint("Sign in: azd auth login")
            }
            _ => {
                let code =
                    finished.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
                let message = match said.is_empty() {
                    true => format!("{program} ended with {code} and said nothing"),
                    false => format!("{program} ended with {code}: {said}"),
                };
                error(message).with_hint(match self.name {
                    SourceName::AzureCli => {
                        "Run it by hand: az account get-access-token --resource-type oss-rdbms"
                    }
                    SourceName::AzureDeveloperCli => "Run it by hand: azd auth token",
                    // Its arguments are not repeated: any of them may be a secret, and the hint goes into logs too.
                    _ => "Run the command of --token-command by hand (token_command in a file).",
                })
            }
        }
    }
}

/// The program of a tool; none for a command of the user's.
pub(super) fn program(name: SourceName) -> Option<&'static str> {
    match name {
        // On Windows azure-cli is a batch file, which is only found by its whole name.
        SourceName::AzureCli if cfg!(windows) => Some("az.cmd"),
        SourceName::AzureCli => Some("az"),
        SourceName::AzureDeveloperCli => Some("azd"),
        _ => None,
    }
}

impl TokenSource for Cli {
    fn name(&self) -> SourceName {
        self.name
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

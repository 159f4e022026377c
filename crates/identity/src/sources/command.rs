use std::fmt;
use std::io;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Setup;
use crate::excerpt::excerpt;
use crate::processes::{Call, Finished};
use crate::{
    AccessToken, NoToken, Reason, SourceName, TokenError, TokenErrorKind, TokenRequest, TokenSource, answer,
    expiry,
};

/// How long a program may take: `az` needs up to three seconds, more with a cold disk.
const LIMIT: Duration = Duration::from_secs(20);

/// A program of the user's and its arguments. `Debug` shows the program alone: arguments may be secrets.
#[derive(Clone, Default)]
pub(crate) struct CommandLine(pub(crate) Vec<String>);

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {} arguments", self.0.first(), self.0.len().saturating_sub(1))
    }
}

/// A program that prints a token: `az`, `azd`, or one that the user names.
///
/// The first two run in a folder of the system's, so that a program of that name in the current folder is not run. Where
/// they were inferred, their failures mean that they do not apply here: nobody said that somebody is signed in.
#[derive(Debug)]
pub(super) struct Cli {
    setup: Setup,
    name: SourceName,
}

/// What programs print: azure-cli, azd, or an OAuth answer.
#[derive(Deserialize)]
struct Printed {
    #[serde(alias = "accessToken", alias = "access_token")]
    token: Option<Zeroizing<String>>,
    /// Seconds since 1970.
    expires_on: Option<Value>,
    /// A date text: RFC 3339 from azd, local time without an offset from azure-cli, which is of no use.
    #[serde(rename = "expiresOn")]
    expires_on_text: Option<String>,
    expires_in: Option<Value>,
}

impl Cli {
    pub(super) fn new(name: SourceName, setup: Setup) -> Self {
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
        let world = &self.setup.world;
        let limit = LIMIT.min(request.deadline.saturating_duration_since(Instant::now()));
        let finished = world.processes().run(&call, world.env(), limit).await;
        let finished = finished.map_err(|cause| self.not_run(&call.program, cause))?;
        if finished.code != Some(0) {
            return Err(self.failed(&call.program, &finished));
        }
        self.read(request, &finished)
    }

    fn call(&self, request: TokenRequest<'_>) -> Result<Call, TokenError> {
        let scope = request.resource.scope();
        let tenant = self.setup.tenant.as_deref();
        if tenant.is_some_and(|tenant| tenant.starts_with('-')) {
            return Err(TokenError::config(self.name, "the tenant is neither a GUID nor a domain name"));
        }
        let (program, mut arguments, tenant_flag) = match self.name {
            SourceName::AzureCli => {
                ("az", vec!["account", "get-access-token", "-o", "json", "--scope", &scope], "--tenant")
            }
            SourceName::AzureDeveloperCli => {
                ("azd", vec!["auth", "token", "-o", "json", "--no-prompt", "--scope", &scope], "--tenant-id")
            }
            _ => return self.users_call(request),
        };
        arguments.extend(tenant.into_iter().flat_map(|tenant| [tenant_flag, tenant]));
        // On Windows azure-cli is a batch file, which is only found by its whole name.
        let program = if cfg!(windows) && program == "az" { "az.cmd" } else { program };
        let folder =
            if cfg!(windows) { self.setup.world.env().get("SYSTEMROOT") } else { Some("/".to_owned()) };
        Ok(Call {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            variables: Vec::new(),
            folder,
        })
    }

    fn users_call(&self, request: TokenRequest<'_>) -> Result<Call, TokenError> {
        let Some((program, arguments)) = self.setup.command.0.split_first() else {
            return Err(TokenError::config(self.name, "there is no command"));
        };
        Ok(Call {
            program: program.clone(),
            arguments: arguments.to_vec(),
            variables: vec![("PGENTRA_RESOURCE".to_owned(), request.resource.as_str().to_owned())],
            folder: None,
        })
    }

    fn read(&self, request: TokenRequest<'_>, finished: &Finished) -> Result<AccessToken, TokenError> {
        let now = self.setup.world.clock().now();
        let text = Zeroizing::new(String::from_utf8_lossy(&finished.stdout).trim().to_owned());
        let printed = if is_wrapped(&text) {
            return Err(TokenError::bad_answer(
                self.name,
                "the program printed a token in quotes or brackets",
            )
            .with_hint("Let it print the token alone: with az, add -o tsv, or leave --query out."));
        } else if text.starts_with('{') {
            serde_json::from_str(&text).map_err(|_| {
                TokenError::bad_answer(self.name, "the program printed JSON that cannot be read")
            })?
        } else {
            Printed { token: Some(text), expires_on: None, expires_on_text: None, expires_in: None }
        };
        let Some(token) = printed.token else {
            return Err(TokenError::bad_answer(self.name, "the program printed JSON without a token"));
        };
        let stated = printed.expires_on.as_ref().and_then(|value| expiry::parse(value, now));
        let stated = stated.or_else(|| expiry::parse_rfc3339(printed.expires_on_text.as_deref()?));
        let relative = || printed.expires_in.as_ref().and_then(expiry::parse_seconds).map(|left| now + left);
        answer::finish(self.name, request.resource, token, (stated.or_else(relative), None, now))
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
                error(format!("nobody is signed in to {program}")).with_hint("Sign in: az login")
            }
            (SourceName::AzureDeveloperCli, true) => {
                error(format!("nobody is signed in to {program}")).with_hint("Sign in: azd auth login")
            }
            _ => {
                let code =
                    finished.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
                let message = format!("{program} ended with {code}");
                let message = if said.is_empty() { message } else { format!("{message}: {said}") };
                error(message).with_hint(self.by_hand())
            }
        }
    }

    /// A command of the user's is not repeated: its arguments may be secrets, and a hint reaches clients of a proxy.
    fn by_hand(&self) -> &'static str {
        match self.name {
            SourceName::AzureCli => {
                "Run the same by hand: az account get-access-token --resource-type oss-rdbms"
            }
            SourceName::AzureDeveloperCli => "Run the same by hand: azd auth token",
            _ => "Run the token command by hand: it must print a token and end with exit code 0.",
        }
    }
}

/// Whether a text is a token as a JSON string, or one in a list or in braces, as `az … --query` prints it without `-o tsv`.
fn is_wrapped(text: &str) -> bool {
    let inner = text.trim_start_matches(['[', '{']).trim_start();
    let Some(rest) = inner.strip_prefix(['"', '\'']) else { return false };
    let end = rest.find(['"', '\'']).unwrap_or(rest.len());
    let after = rest[end..].trim_start_matches(['"', '\'']).trim_start();
    // A name in an object has its value behind it.
    !after.starts_with(':')
}

impl TokenSource for Cli {
    fn name(&self) -> SourceName {
        self.name
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_quotes_or_brackets_is_told_from_json() {
        for (text, wrapped) in [
            (r#""eyJh.b.c""#, true),
            ("'eyJh.b.c'", true),
            (r#"{"eyJh.b.c"}"#, true),
            ("[\n  \"eyJh.b.c\"\n]", true),
            (r#"[["eyJh.b.c"]]"#, true),
            (r#"{"accessToken":"eyJh.b.c"}"#, false),
            ("{\n  \"accessToken\" : \"eyJh.b.c\"\n}", false),
            ("eyJh.b.c", false),
            ("{}", false),
            ("", false),
            ("\"", true),
        ] {
            assert_eq!(is_wrapped(text), wrapped, "{text}");
        }
    }
}

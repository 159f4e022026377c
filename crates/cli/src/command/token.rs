//! `pgentra token`.

use pgentra_identity::{AccessToken, UnverifiedClaims};
use pgentra_system::System;
use serde::Serialize;
use serde_json::json;

use crate::arguments::Token;
use crate::blame::Blame;
use crate::options::Format;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::time::unix;
use crate::{output, sign_in, token_file};

/// Prints an access token on stdout, or writes it into a file.
pub(crate) async fn run(system: &System, mut arguments: Token) -> Outcome {
    if let Some(file) = arguments.file.take() {
        return token_file::run(system, &arguments, file).await;
    }
    let target = sign_in::target_of_environment(system);
    let (credential, resource) = sign_in::credential_for(system, &arguments.identity, target.as_ref())?;
    let token = waiting("waiting for a token", credential.token(&resource)).await?;
    if arguments.decode {
        return decode(&token, arguments.output.output);
    }
    match arguments.output.output {
        Format::Text => output::exact(&format!("{}\n", token.expose_secret())),
        Format::Json => output::json(&TokenDocument {
            access_token: token.expose_secret(),
            expires_on: unix(token.expires_on()),
            resource: token.resource().as_str(),
            source: token.source().to_string(),
            token_type: "Bearer",
        }),
    }
}

/// Prints the token's claims without the signature, so that the output cannot be used to sign in.
fn decode(token: &AccessToken, format: Format) -> Outcome {
    let claims = UnverifiedClaims::of(token).ok_or_else(|| {
        Problem::new(Blame::Token, "the token is not a JSON Web Token, so there is nothing to read in it")
            .hint("print it as it is: pgentra token")
    })?;
    if format == Format::Text {
        output::say("what the token says of itself, not verified:");
    }
    output::json(&json!({ "header": claims.header(), "claims": claims.payload(), "verified": false }))
}

/// The document of `pgentra token -o json`; the names are OAuth's and IMDS's.
#[derive(Serialize)]
struct TokenDocument<'a> {
    access_token: &'a str,
    /// Seconds since 1970, as IMDS and az 2.54 give it.
    expires_on: u64,
    resource: &'a str,
    source: String,
    token_type: &'static str,
}

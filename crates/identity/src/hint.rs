//! The next thing to try, for each failure that has one.

use crate::{Selector, SourceName, TokenError, TokenErrorKind, transient};

/// Adds a hint to an error that has none.
pub(crate) fn add(error: TokenError, selector: &Selector) -> TokenError {
    if error.hint().is_some() {
        return error;
    }
    match hint(&error, selector) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn hint(error: &TokenError, selector: &Selector) -> Option<String> {
    let source = error.source_name()?;
    if let Some(hint) = error.code().and_then(transient::hint) {
        return Some(hint.to_owned());
    }
    match error.kind() {
        TokenErrorKind::Refused { status } => {
            refused(source, status, &error.to_string(), selector).or_else(|| {
                let is_foreign = matches!(status, 300..400 | 403..=407);
                error.endpoint().filter(|_| is_foreign && source == SourceName::Imds).map(intercepted)
            })
        }
        TokenErrorKind::Network | TokenErrorKind::Timeout => Some(unreachable(source, error.endpoint())),
        TokenErrorKind::Config => Some(format!(
            "{source} needs its variables and files as the platform sets them. Is this the right host for it? Leave the \
             source unnamed to have it detected."
        )),
        // Only a source with an HTTP endpoint: the hint is a curl command.
        TokenErrorKind::BadAnswer | TokenErrorKind::Audience => error.endpoint().map(intercepted),
        _ => None,
    }
}

/// A captive portal, a transparent proxy or a container network answers in place of the token source.
fn intercepted(endpoint: &str) -> String {
    format!(
        "Something else than Azure seems to answer there. See what it says: curl -i -H Metadata:true '{endpoint}'"
    )
}

fn refused(source: SourceName, status: u16, text: &str, selector: &Selector) -> Option<String> {
    let hint = match (source, status) {
        (_, 429) => "Too many requests: share one process or one token among the programs on this machine.".to_owned(),
        (SourceName::Imds, 400) if text.contains("Multiple user assigned") => {
            "This machine has several identities: name one by client id, object id or resource id; AZURE_CLIENT_ID does too."
                .to_owned()
        }
        (SourceName::Imds, 400) if text.contains("Identity not found") => match selector {
            Selector::Default => "An identity that was just assigned may take a minute to appear: try again. A machine without one \
                 gets one with: az vm identity assign -g RESOURCE_GROUP -n VM"
                .to_owned(),
            named => format!(
                "An identity that was just assigned may take a minute to appear: try again. Is one with {named} assigned to \
                 this machine? az vm identity show -g RESOURCE_GROUP -n VM"
            ),
        },
        (SourceName::AppService, 400 | 500) => match selector {
            Selector::Default => "Without a named identity the system-assigned one is meant: is it enabled? A \
                                  user-assigned one must be named; AZURE_CLIENT_ID does."
                .to_owned(),
            named => format!("Is an identity with {named} assigned to this app, and is the resource right?"),
        },
        (_, 400..500) if text.contains("AudienceNotSupported") => {
            "Azure Cloud Shell gives tokens for few resources: use the source azure-cli there.".to_owned()
        }
        (_, 500..600) => "The token service itself is failing: try again in a minute.".to_owned(),
        _ => return None,
    };
    Some(hint)
}

fn unreachable(source: SourceName, endpoint: Option<&str>) -> String {
    match source {
        SourceName::Imds if endpoint.is_some_and(|endpoint| !endpoint.contains("//169.254.169.254/")) => {
            "AZURE_POD_IDENTITY_AUTHORITY_HOST names that address: is a metadata service, or a local Azure, running there? The \
             machine's own is asked after: unset AZURE_POD_IDENTITY_AUTHORITY_HOST"
                .to_owned()
        }
        SourceName::Imds => {
            "Is this an Azure virtual machine? Its metadata service answers at 169.254.169.254, not \
                             through a proxy, and not in a container whose network blocks that address."
                .to_owned()
        }
        SourceName::WorkloadIdentity
        | SourceName::GitHubActions
        | SourceName::AzurePipelines
        | SourceName::ClientSecret
        | SourceName::ClientCertificate => {
            "Can this machine reach the authority over https? HTTPS_PROXY, NO_PROXY, \
                                            SSL_CERT_FILE and AZURE_AUTHORITY_HOST are respected."
                .to_owned()
        }
        _ => format!("Is the token service of {source} running, and is its variable right?"),
    }
}

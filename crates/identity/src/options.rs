use std::ops::RangeInclusive;
use std::time::Duration;

use pgentra_system::System;

use crate::{Cloud, CommandServer, ConfigError, Credential, Resource, Selector, SourceName};

/// Which identity, and which tokens: what a [`Credential`] is built from, as plain values that can be compared and be the
/// key of a map. For programs whose users choose an identity by flags or in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentityOptions {
    /// Which managed identity. Default: `AZURE_CLIENT_ID`, else the host's own identity.
    pub selector: Option<Selector>,
    /// The token source. Default: it is detected.
    pub source: Option<SourceName>,
    /// A shell command that prints a token, as the source. Default: none.
    pub token_command: Option<String>,
    /// How long a token of the command is valid. Default: the token or the command's output says it.
    pub token_lifetime: Option<Duration>,
    /// The server and role that tokens of the command are for. Default: unknown.
    pub command_server: CommandServer,
    /// The Entra tenant, a GUID or a domain name. Default: `AZURE_TENANT_ID`.
    pub tenant: Option<String>,
    /// The Azure cloud. Default: the public one.
    pub cloud: Cloud,
    /// The API that the tokens are for. Default: PostgreSQL in the cloud.
    pub resource: Option<Resource>,
    /// The time limit of a token request. Default: [`IdentityOptions::TOKEN_TIMEOUT`].
    pub token_timeout: Duration,
}

impl IdentityOptions {
    /// The default of [`IdentityOptions::token_timeout`], 80 seconds: a metadata service that restarts is back within 70
    /// seconds (Microsoft: how-to-use-vm-token), and a few more.
    pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(80);
    /// The values in seconds that a program accepts for [`IdentityOptions::token_timeout`].
    pub const TOKEN_TIMEOUTS: RangeInclusive<u64> = 1..=3600;
    /// The values in seconds that a program accepts for [`IdentityOptions::token_lifetime`]: of a shorter life too little
    /// is left when the server checks the token, and no service issues tokens for more than a week.
    pub const TOKEN_LIFETIMES: RangeInclusive<u64> = 30..=604_800;

    /// Builds the credential. It is independent of [`IdentityOptions::resource`]: one credential keeps tokens for several.
    ///
    /// # Errors
    /// Options that contradict each other or the environment.
    pub fn credential(&self, system: &System) -> Result<Credential, ConfigError> {
        if let (Some(_), Some(source)) =
            (&self.token_command, self.source.filter(|one| *one != SourceName::Exec))
        {
            return Err(ConfigError::new(format!(
                "a token command and the source {source} exclude each other"
            ))
            .with_hint("leave out one of them"));
        }
        if self.token_lifetime.is_some() && self.token_command.is_none() {
            return Err(ConfigError::new("a token lifetime is for a token command, and there is none")
                .with_hint("leave it out: every other source says when its tokens end"));
        }
        let mut builder = Credential::builder(system.clone()).cloud(self.cloud).deadline(self.token_timeout);
        // Without an option AZURE_CLIENT_ID may name the identity.
        if let Some(selector) = &self.selector {
            builder = builder.selector(selector.clone());
        }
        if let Some(tenant) = &self.tenant {
            builder = builder.tenant(tenant);
        }
        if let Some(command) = &self.token_command {
            builder = builder.command(["/bin/sh", "-c", command]).command_server(self.command_server.clone());
        }
        if let Some(lifetime) = self.token_lifetime {
            builder = builder.command_lifetime(lifetime);
        }
        if let Some(source) = self.source {
            builder = builder.source(source);
        }
        builder.build()
    }

    /// The API that the tokens are for.
    pub fn resource(&self) -> Resource {
        self.resource.clone().unwrap_or_else(|| self.cloud.postgres_resource())
    }

    /// Parses the name of a token source, in upper or lower case.
    ///
    /// # Errors
    /// The possible names, in a text that continues a sentence which begins with the setting.
    pub fn parse_source(text: &str) -> Result<SourceName, String> {
        text.to_ascii_lowercase().parse().map_err(|_| {
            let names: Vec<_> = SourceName::ALL
                .iter()
                .filter(|name| **name != SourceName::Exec)
                .map(|name| name.as_str())
                .collect();
            format!("is one of {}, not `{text}`", names.join(", "))
        })
    }

    /// Parses the name of an Azure cloud, in upper or lower case.
    ///
    /// # Errors
    /// The possible names, in a text that continues a sentence which begins with the setting.
    pub fn parse_cloud(text: &str) -> Result<Cloud, String> {
        text.to_ascii_lowercase().parse().map_err(|_| format!("is public, usgov or china, not `{text}`"))
    }

    /// Checks a tenant: a GUID or a domain name (RFC 1035: 253 characters at most).
    ///
    /// # Errors
    /// What a tenant is, in a text that continues a sentence which begins with the setting.
    pub fn parse_tenant(text: &str) -> Result<String, String> {
        let is_name = (1..=253).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
        if is_name {
            Ok(text.to_owned())
        } else {
            Err(format!("takes a GUID or a domain name such as contoso.onmicrosoft.com, not `{text}`"))
        }
    }
}

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            selector: None,
            source: None,
            token_command: None,
            token_lifetime: None,
            command_server: CommandServer::default(),
            tenant: None,
            cloud: Cloud::default(),
            resource: None,
            token_timeout: Self::TOKEN_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_in_any_case() {
        assert_eq!(IdentityOptions::parse_source("IMDS"), Ok(SourceName::Imds));
        assert_eq!(IdentityOptions::parse_cloud("USGov"), Ok(Cloud::UsGov));
        let error = IdentityOptions::parse_source("imsd").unwrap_err();
        assert!(error.contains("imds, app-service") && !error.contains("exec"), "{error}");
        assert!(IdentityOptions::parse_cloud("mars").is_err());
    }

    #[test]
    fn a_tenant_is_a_guid_or_a_domain_name() {
        let tenant = IdentityOptions::parse_tenant;
        for good in ["contoso.onmicrosoft.com", "00000000-1111-2222-3333-444444444444", "organizations"] {
            assert_eq!(tenant(good), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a/b", "a?b", "ä.example", &"x".repeat(254)] {
            assert!(tenant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_options_reach_the_credential() {
        let selector = Selector::ResourceId("/subscriptions/x".to_owned());
        let options = IdentityOptions {
            selector: Some(selector.clone()),
            source: Some(SourceName::Imds),
            cloud: Cloud::UsGov,
            ..IdentityOptions::default()
        };
        let credential = options.credential(&System::builder().build()).unwrap();
        assert_eq!(credential.decision().selector(), &selector);
        assert_eq!(options.resource(), Cloud::UsGov.postgres_resource());
        let both = IdentityOptions { token_command: Some("print it".to_owned()), ..options };
        assert!(both.credential(&System::builder().build()).is_err());
        let lifetime =
            IdentityOptions { token_lifetime: Some(Duration::from_secs(900)), ..IdentityOptions::default() };
        let error = lifetime.credential(&System::builder().build()).unwrap_err();
        assert!(error.to_string().contains("a token command"), "{error}");
    }
}

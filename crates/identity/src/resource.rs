use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest resource that is accepted. Entra's own limit for an application id URI is 255 characters; this leaves
/// room for anything a private cloud may use and keeps requests small.
const MAX_LENGTH: usize = 1024;

/// What a token is for: the application id URI of an API, which becomes the token's `aud` claim.
///
/// Parsed from the URI itself (`https://ossrdbms-aad.database.windows.net`), from any other application id that Entra
/// accepts (`api://…`, a GUID), or from an OAuth scope that ends in `/.default`, whose suffix is removed as every Azure
/// SDK does. A trailing slash is part of the resource and is kept: for some clouds it decides the `aud` claim.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(Arc<str>);

impl Resource {
    /// The resource as the metadata endpoints want it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource as Entra's v2.0 token endpoint wants it: with `/.default` appended.
    pub fn scope(&self) -> String {
        format!("{}/.default", self.0)
    }

    pub(crate) fn from_static(text: &'static str) -> Self {
        Self(Arc::from(text))
    }
}

impl FromStr for Resource {
    type Err = InvalidResource;

    fn from_str(text: &str) -> Result<Self, InvalidResource> {
        let resource = text.strip_suffix("/.default").unwrap_or(text);
        if resource.is_empty() {
            return Err(InvalidResource("it is empty"));
        }
        if resource.len() > MAX_LENGTH {
            return Err(InvalidResource("it is longer than 1024 bytes"));
        }
        // Programs are given the resource as an argument.
        if resource.starts_with('-') {
            return Err(InvalidResource("it starts with a hyphen"));
        }
        if resource.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidResource("it contains a blank or a control character"));
        }
        Ok(Self(Arc::from(resource)))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({:?})", self.0)
    }
}

/// A text that cannot be a [`Resource`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a resource to get a token for: {0}")]
pub struct InvalidResource(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_and_its_resource_are_the_same() {
        for (text, resource, scope) in [
            ("https://a.example", "https://a.example", "https://a.example/.default"),
            ("https://a.example/.default", "https://a.example", "https://a.example/.default"),
            // The double slash is documented: `aud` then ends in a slash.
            ("https://a.example//.default", "https://a.example/", "https://a.example//.default"),
            (
                "api://AzureADTokenExchange",
                "api://AzureADTokenExchange",
                "api://AzureADTokenExchange/.default",
            ),
        ] {
            let parsed: Resource = text.parse().unwrap();
            assert_eq!((parsed.as_str(), parsed.scope().as_str()), (resource, scope), "{text}");
        }
    }

    #[test]
    fn rubbish_is_refused() {
        for text in ["", "/.default", "a b", "a\r\nHost: b", "--tenant", "\u{0}"] {
            assert!(text.parse::<Resource>().is_err(), "{text:?}");
        }
        assert!("x".repeat(1025).parse::<Resource>().is_err());
    }
}

//! How the command line names a host.

use std::fmt;
use std::str::FromStr;

use pgentra_azure::arm::AzureHostType;

/// A host whose identity signs in: `KIND/NAME`, or the name of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostRef {
    /// A resource that has identities.
    Azure(AzureHostType, String),
    /// A user-assigned identity, wherever it is used.
    Identity(String),
    /// A service account of a Kubernetes cluster at AKS.
    Aks { cluster: String, namespace: String, account: String },
    /// Workflows of a repository at GitHub, in one of its environments if that is named.
    GitHub { owner: String, repository: String, environment: Option<String> },
}

/// The words before the slash, and the forms, for help and completion.
pub(crate) const FORMS: [&str; 9] = [
    "vm/NAME",
    "vmss/NAME",
    "webapp/NAME",
    "functionapp/NAME",
    "containerapp/NAME",
    "arc/NAME",
    "identity/NAME",
    "aks/CLUSTER/NAMESPACE/SERVICEACCOUNT",
    "github/OWNER/REPOSITORY[@ENVIRONMENT]",
];

/// The word of each type of resource.
const TYPES: [(&str, AzureHostType); 6] = [
    ("vm", AzureHostType::VirtualMachine),
    ("vmss", AzureHostType::ScaleSet),
    ("webapp", AzureHostType::WebApp),
    ("functionapp", AzureHostType::FunctionApp),
    ("containerapp", AzureHostType::ContainerApp),
    ("arc", AzureHostType::ArcServer),
];

impl FromStr for HostRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("a host is the name of a virtual machine, or {}", FORMS.join(", "));
        let Some((kind, rest)) = text.split_once('/') else {
            let is_name = !text.is_empty();
            return is_name
                .then(|| Self::Azure(AzureHostType::VirtualMachine, text.to_owned()))
                .ok_or_else(wrong);
        };
        let kind = kind.to_ascii_lowercase();
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(wrong());
        }
        let known = TYPES.iter().find(|(word, _)| *word == kind);
        match (known, kind.as_str(), &parts[..]) {
            (Some((_, kind)), _, [name]) => Ok(Self::Azure(*kind, (*name).to_owned())),
            (None, "identity", [name]) => Ok(Self::Identity((*name).to_owned())),
            (None, "aks", [cluster, namespace, account]) => {
                let is_name = |text: &str| {
                    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
                };
                if !is_name(namespace) || !is_name(account) {
                    return Err(wrong());
                }
                Ok(Self::Aks {
                    cluster: (*cluster).to_owned(),
                    namespace: (*namespace).to_owned(),
                    account: (*account).to_owned(),
                })
            }
            // The name of an environment may have slashes and more.
            (None, "github", [owner, _, ..]) => {
                let (_, rest) = rest.split_once('/').unwrap_or_default();
                let (repository, environment) = match rest.split_once('@') {
                    Some((repository, environment)) => (repository, Some(environment)),
                    None => (rest, None),
                };
                let is_name = |text: &str| {
                    !text.is_empty()
                        && text
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
                };
                if !is_name(owner) || !is_name(repository) || environment.is_some_and(str::is_empty) {
                    return Err(wrong());
                }
                Ok(Self::GitHub {
                    owner: (*owner).to_owned(),
                    repository: repository.to_owned(),
                    environment: environment.map(str::to_owned),
                })
            }
            _ => Err(wrong()),
        }
    }
}

/// As the command line names it.
impl fmt::Display for HostRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Azure(kind, name) => {
                let word = TYPES.iter().find(|(_, one)| one == kind).map_or("vm", |(word, _)| word);
                write!(f, "{word}/{name}")
            }
            Self::Identity(name) => write!(f, "identity/{name}"),
            Self::Aks { cluster, namespace, account } => write!(f, "aks/{cluster}/{namespace}/{account}"),
            Self::GitHub { owner, repository, environment } => {
                write!(f, "github/{owner}/{repository}")?;
                environment.iter().try_for_each(|environment| write!(f, "@{environment}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_and_written() {
        for (text, shown) in [
            ("myVm", "vm/myVm"),
            ("vm/myVm", "vm/myVm"),
            ("WebApp/my-app", "webapp/my-app"),
            ("identity/x", "identity/x"),
            ("aks/c/default/my-app", "aks/c/default/my-app"),
            ("github/owner/my.repo", "github/owner/my.repo"),
            ("github/owner/repo@prod/eu: 1", "github/owner/repo@prod/eu: 1"),
        ] {
            assert_eq!(text.parse::<HostRef>().unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "/",
            "vm/",
            "vm/a/b",
            "lambda/x",
            "aks/c/ns",
            "aks/c/n s/x",
            "aks/c/ns/x/y",
            "github/owner",
            "github/owner/",
            "github/owner/repo@",
            "github/owner/@env",
            "github/o w/repo",
            "github/owner/repo/more",
        ] {
            assert!(text.parse::<HostRef>().unwrap_err().contains("containerapp/NAME"), "{text}");
        }
    }
}

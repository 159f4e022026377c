//! Which source applies here: from the environment, in the order of the Azure SDK for Go.

use crate::decision::{Considered, Verdict};
use crate::{ConfigError, SourceName};
use pgentra_system::System;

/// A source, and the variables that must all be set for it.
struct Rule {
    source: SourceName,
    needs: &'static [&'static str],
}

/// The sources that the environment decides, in order. Once one matches it is definite: it gives a token or fails.
///
/// Order: azidentity's DefaultAzureCredential (environment, workload identity), then managed identities in the order of
/// MSAL Go's `GetSource`. `IDENTITY_ENDPOINT` and `MSI_ENDPOINT` are shared by several sources; the other variables tell
/// them apart. The 2017-09-01 protocol of App Service sets the pair that the SDKs take for Azure Machine Learning;
/// `WEBSITE_SITE_NAME`, which App Service always sets, tells those two apart.
const RULES: &[Rule] = &[
    Rule {
        source: SourceName::ClientSecret,
        needs: &["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"],
    },
    Rule {
        source: SourceName::ClientCertificate,
        needs: &["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_CERTIFICATE_PATH"],
    },
    Rule {
        source: SourceName::WorkloadIdentity,
        needs: &["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"],
    },
    Rule {
        source: SourceName::GitHubActions,
        needs: &[
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "AZURE_CLIENT_ID",
            "AZURE_TENANT_ID",
        ],
    },
    Rule {
        source: SourceName::AzurePipelines,
        needs: &[
            "SYSTEM_OIDCREQUESTURI",
            "SYSTEM_ACCESSTOKEN",
            "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
            "AZURESUBSCRIPTION_CLIENT_ID",
            "AZURESUBSCRIPTION_TENANT_ID",
        ],
    },
    Rule {
        source: SourceName::ServiceFabric,
        needs: &["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"],
    },
    Rule { source: SourceName::AppService, needs: &["IDENTITY_ENDPOINT", "IDENTITY_HEADER"] },
    Rule { source: SourceName::AppService2017, needs: &["MSI_ENDPOINT", "MSI_SECRET", "WEBSITE_SITE_NAME"] },
    Rule { source: SourceName::AzureMl, needs: &["MSI_ENDPOINT", "MSI_SECRET"] },
    Rule { source: SourceName::CloudShell, needs: &["MSI_ENDPOINT"] },
    Rule { source: SourceName::AzureArc, needs: &["IDENTITY_ENDPOINT", "IMDS_ENDPOINT"] },
];

/// The sources that are tried where the environment decides nothing, in order.
const TRIED: &[(SourceName, &str)] = &[
    (SourceName::Imds, "no variable names another source, and every Azure virtual machine has one"),
    (SourceName::AzureCli, "a user may be signed in to az"),
    (SourceName::AzureDeveloperCli, "a user may be signed in to azd"),
];

/// Everything but the developer's tools.
const PRODUCTION: &[SourceName] = &[
    SourceName::ClientSecret,
    SourceName::ClientCertificate,
    SourceName::WorkloadIdentity,
    SourceName::GitHubActions,
    SourceName::AzurePipelines,
    SourceName::ServiceFabric,
    SourceName::AppService,
    SourceName::AppService2017,
    SourceName::AzureMl,
    SourceName::CloudShell,
    SourceName::AzureArc,
    SourceName::Imds,
];

const MANAGED_IDENTITIES: &[SourceName] = &[
    SourceName::ServiceFabric,
    SourceName::AppService,
    SourceName::AppService2017,
    SourceName::AzureMl,
    SourceName::CloudShell,
    SourceName::AzureArc,
    SourceName::Imds,
];

/// What `AZURE_TOKEN_CREDENTIALS` can say, in lower case, and which sources are then considered (Microsoft: credential
/// chains, "Exclude a credential type category" and "Use a specific credential").
const CREDENTIALS: &[(&str, &[SourceName])] = &[
    ("dev", &[SourceName::AzureCli, SourceName::AzureDeveloperCli]),
    ("environmentcredential", &[SourceName::ClientSecret, SourceName::ClientCertificate]),
    ("workloadidentitycredential", &[SourceName::WorkloadIdentity]),
    ("managedidentitycredential", MANAGED_IDENTITIES),
    ("azurepipelinescredential", &[SourceName::AzurePipelines]),
    ("azureclicredential", &[SourceName::AzureCli]),
    ("azuredeveloperclicredential", &[SourceName::AzureDeveloperCli]),
];

/// The sources that `AZURE_TOKEN_CREDENTIALS` leaves; `None` in `sources`: all of them.
struct Allowed {
    sources: Option<&'static [SourceName]>,
    /// Is one credential named? Then its absence is a failure, as in the SDKs.
    is_one: bool,
}

/// The sources in order, and whether what is asked was named rather than inferred.
pub(crate) struct Detected {
    pub(crate) considered: Vec<Considered>,
    pub(crate) named: bool,
}

/// Considers every source, in order.
pub(crate) fn detect(system: &System) -> Result<Detected, ConfigError> {
    let allowed = allowed(system)?;
    let forbidden = |source| allowed.sources.is_some_and(|sources| !sources.contains(&source));
    let mut considered = Vec::new();
    let mut first: Option<SourceName> = None;
    for rule in RULES {
        let missing: Vec<_> = rule.needs.iter().copied().filter(|name| !system.env().has(name)).collect();
        let applies = missing.is_empty();
        // The variables do not reach every process on an Arc server; MSAL takes the agent's program as a sign as well.
        let himds = rule.source == SourceName::AzureArc && !applies && agent_is_installed(system);
        let one = match first {
            _ if forbidden(rule.source) => not_allowed(rule.source),
            // Considered, so that `whoami` can show which variables were overruled.
            Some(first) if applies || himds => {
                Considered::new(rule.source, format!("{first} comes before it"), rule.needs)
            }
            _ if applies => {
                Considered::new(rule.source, are_set(rule.needs), rule.needs).verdict_is(Verdict::First)
            }
            _ if himds => Considered::new(rule.source, "the agent of Azure Arc is installed", &[])
                .verdict_is(Verdict::First),
            _ => Considered::new(rule.source, are_not_set(&missing), rule.needs),
        };
        if one.verdict() == Verdict::First {
            first = Some(rule.source);
        }
        considered.push(one);
    }
    // A source without variables is found only by asking it, and so it comes after all that have some.
    for (source, reason) in TRIED {
        considered.push(match first {
            _ if forbidden(*source) => not_allowed(*source),
            Some(first) => Considered::new(*source, format!("{first} comes before it"), &[]),
            None => Considered::new(*source, *reason, &[]).verdict_is(Verdict::Later),
        });
    }
    if first.is_none() {
        first_of_the_rest(&mut considered, &allowed);
    }
    Ok(Detected { considered, named: allowed.is_one })
}

/// Where no variable decided, the first that can be tried is the first; where none can be, the one that was named, so
/// that it says what it lacks.
fn first_of_the_rest(considered: &mut [Considered], allowed: &Allowed) {
    let named = allowed.sources.and_then(|sources| sources.first());
    let index = considered.iter().position(|one| one.verdict() == Verdict::Later);
    let index = index.or_else(|| considered.iter().position(|one| Some(&one.source()) == named));
    if let Some(one) = index.and_then(|index| considered.get_mut(index)) {
        *one = one.clone().verdict_is(Verdict::First);
    }
}

fn allowed(system: &System) -> Result<Allowed, ConfigError> {
    let Some(text) = system.env().get("AZURE_TOKEN_CREDENTIALS") else {
        return Ok(Allowed { sources: None, is_one: false });
    };
    let name = text.trim().to_ascii_lowercase();
    // `prod` and `dev` choose groups: a source in them that is absent is skipped, not reported as a failure.
    if name == "prod" {
        return Ok(Allowed { sources: Some(PRODUCTION), is_one: false });
    }
    let known = CREDENTIALS.iter().find(|(known, _)| *known == name);
    let (_, sources) = known.ok_or_else(|| {
        ConfigError::new("AZURE_TOKEN_CREDENTIALS names a credential that is not supported here").with_hint(
            "Supported: prod, dev, EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential, \
             AzurePipelinesCredential, AzureCliCredential, AzureDeveloperCliCredential.",
        )
    })?;
    Ok(Allowed { sources: Some(sources), is_one: name != "dev" })
}

fn not_allowed(source: SourceName) -> Considered {
    Considered::new(source, "AZURE_TOKEN_CREDENTIALS does not allow it", &["AZURE_TOKEN_CREDENTIALS"])
}

/// The program of the Arc agent, where MSAL Go, .NET, Python and the Azure SDK for Rust look for it.
fn agent_is_installed(system: &System) -> bool {
    let windows = ["ProgramFiles", "ProgramData"].into_iter().filter_map(|name| system.env().get(name));
    let windows = windows.map(|folder| format!("{folder}\\AzureConnectedMachineAgent\\himds.exe"));
    let mut places = windows.chain(["/opt/azcmagent/bin/himds".to_owned()]);
    places.any(|place| system.files().is_file(place))
}

fn are_set(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is set"),
        _ => format!("{} are set", list(names)),
    }
}

fn are_not_set(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is not set"),
        _ => format!("{} are not set", list(names)),
    }
}

fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Selector};
    use pgentra_system::{Env, Files};

    fn decide(variables: &[&str], himds: bool) -> Decision {
        let files = Files::in_memory();
        if himds {
            files.put("/opt/azcmagent/bin/himds", "");
        }
        let variables = variables
            .iter()
            .map(|name| (name.trim_start_matches('!'), if name.starts_with('!') { "" } else { "x" }));
        let system = System::builder().env(Env::from_map(variables)).files(files).build();
        Decision::new(detect(&system).unwrap().considered, Selector::Default, "")
    }

    #[test]
    fn go_decides_the_same() {
        let workload = ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"];
        for (variables, himds, expected) in [
            (&[][..], false, SourceName::Imds),
            (&[], true, SourceName::AzureArc),
            (&["IDENTITY_ENDPOINT"], false, SourceName::Imds),
            (&["IDENTITY_ENDPOINT", "IDENTITY_HEADER"], false, SourceName::AppService),
            (&["IDENTITY_ENDPOINT", "!IDENTITY_HEADER"], false, SourceName::Imds),
            (
                &["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"],
                false,
                SourceName::ServiceFabric,
            ),
            (
                &["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "!IDENTITY_SERVER_THUMBPRINT"],
                false,
                SourceName::AppService,
            ),
            (&["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IMDS_ENDPOINT"], true, SourceName::AppService),
            (&["IDENTITY_ENDPOINT", "IMDS_ENDPOINT"], false, SourceName::AzureArc),
            (&["MSI_ENDPOINT"], false, SourceName::CloudShell),
            (&["MSI_ENDPOINT"], true, SourceName::CloudShell),
            (&["MSI_ENDPOINT", "!MSI_SECRET"], false, SourceName::CloudShell),
            (&["MSI_ENDPOINT", "MSI_SECRET"], false, SourceName::AzureMl),
            (&["MSI_ENDPOINT", "MSI_SECRET", "WEBSITE_SITE_NAME"], false, SourceName::AppService2017),
            (&["MSI_ENDPOINT", "IDENTITY_ENDPOINT", "IMDS_ENDPOINT"], false, SourceName::CloudShell),
            (&workload, false, SourceName::WorkloadIdentity),
            (&["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "!AZURE_TENANT_ID"], false, SourceName::Imds),
            (&["AZURE_CLIENT_ID"], false, SourceName::Imds),
        ] {
            let decision = decide(variables, himds);
            assert_eq!(decision.source(), Some(expected), "{variables:?}\n{decision}");
        }
    }

    #[test]
    fn azure_token_credentials_narrows_the_choice() {
        let app = [("IDENTITY_ENDPOINT", "x"), ("IDENTITY_HEADER", "x")];
        for (value, variables, expected, named) in [
            ("prod", &[][..], &[SourceName::Imds][..], false),
            ("Prod", &app, &[SourceName::AppService], false),
            ("dev", &app, &[SourceName::AzureCli, SourceName::AzureDeveloperCli], false),
            ("ManagedIdentityCredential", &[], &[SourceName::Imds], true),
            ("managedidentitycredential", &app, &[SourceName::AppService], true),
            ("AzureCliCredential", &app, &[SourceName::AzureCli], true),
            ("WorkloadIdentityCredential", &app, &[SourceName::WorkloadIdentity], true),
            ("EnvironmentCredential", &[], &[SourceName::ClientSecret], true),
            ("", &[], &[SourceName::Imds, SourceName::AzureCli, SourceName::AzureDeveloperCli], false),
        ] {
            let variables = variables.iter().copied().chain([("AZURE_TOKEN_CREDENTIALS", value)]);
            let detected = detect(&System::builder().env(Env::from_map(variables)).build()).unwrap();
            let decision = Decision::new(detected.considered, Selector::Default, "");
            assert_eq!(decision.sources().collect::<Vec<_>>(), expected, "{value}\n{decision}");
            assert_eq!((decision.source(), detected.named), (expected.first().copied(), named), "{value}");
        }
        let system =
            System::builder().env(Env::from_map([("AZURE_TOKEN_CREDENTIALS", "VisualStudioCredential")]));
        assert!(detect(&system.build()).is_err());
    }

    #[test]
    fn every_source_that_can_be_detected_is_named_with_its_reason() {
        let decision = decide(&["MSI_ENDPOINT"], false);
        let told = decision.to_string();
        for line in [
            "cloud-shell is asked: MSI_ENDPOINT is set",
            "app-service is not asked: IDENTITY_ENDPOINT and IDENTITY_HEADER are not set",
            "azure-ml is not asked: MSI_SECRET is not set",
            "imds is not asked: cloud-shell comes before it",
            "asked for: the host's default identity",
        ] {
            assert!(told.contains(line), "{line:?} is not in\n{told}");
        }
        assert_eq!(decision.variables(), ["MSI_ENDPOINT"]);
        assert_eq!(decision.sources().collect::<Vec<_>>(), [SourceName::CloudShell]);
    }
}

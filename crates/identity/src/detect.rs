//! Which source applies here: from the environment, in the order of the Azure SDK for Go.

use crate::decision::{Considered, Verdict};
use crate::{SourceName, World};

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
const TRIED: &[(SourceName, &str)] =
    &[(SourceName::Imds, "no variable names another source, and every Azure virtual machine has one")];

/// Considers every source, in order.
pub(crate) fn detect(world: &World) -> Vec<Considered> {
    let mut considered = Vec::new();
    let mut first: Option<SourceName> = None;
    for rule in RULES {
        let missing: Vec<_> = rule.needs.iter().copied().filter(|name| !world.env().has(name)).collect();
        let applies = missing.is_empty();
        let himds = rule.source == SourceName::AzureArc && !applies && agent_is_installed(world);
        let one = match first {
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
    for (source, reason) in TRIED {
        considered.push(match first {
            Some(first) => Considered::new(*source, format!("{first} comes before it"), &[]),
            None => Considered::new(*source, *reason, &[]).verdict_is(Verdict::Later),
        });
    }
    if first.is_none()
        && let Some(one) = considered.iter_mut().find(|one| one.verdict() == Verdict::Later)
    {
        *one = one.clone().verdict_is(Verdict::First);
    }
    considered
}

/// The program of the Arc agent, where MSAL Go, .NET, Python and the Azure SDK for Rust look for it.
fn agent_is_installed(world: &World) -> bool {
    let windows = ["ProgramFiles", "ProgramData"].into_iter().filter_map(|name| world.env().get(name));
    let windows = windows.map(|folder| format!("{folder}\\AzureConnectedMachineAgent\\himds.exe"));
    let mut places = windows.chain(["/opt/azcmagent/bin/himds".to_owned()]);
    places.any(|place| world.files().is_file(place))
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
    use crate::{Decision, Env, Files, Selector};

    fn decide(variables: &[&str], himds: bool) -> Decision {
        let files = Files::in_memory();
        if himds {
            files.put("/opt/azcmagent/bin/himds", "");
        }
        let variables = variables
            .iter()
            .map(|name| (name.trim_start_matches('!'), if name.starts_with('!') { "" } else { "x" }));
        let world = World::builder().env(Env::from_map(variables)).files(files).build();
        Decision::new(detect(&world), Selector::Default, "")
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

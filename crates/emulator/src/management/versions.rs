//! Which api-versions a resource provider knows. A program that works here with one that Azure does not have would fail
//! there.

use hyper::StatusCode;

use super::answers::refusal;
use super::resource_groups::LOCATION;
use crate::exchange::Answer;

/// `Microsoft.DBforPostgreSQL/flexibleServers` (Azure/azure-rest-api-specs, postgresql).
const FLEXIBLE_SERVERS: [&str; 18] = [
    "2020-02-14-preview",
    "2021-06-01-preview",
    "2021-06-01",
    "2022-01-20-preview",
    "2022-03-08-preview",
    "2022-12-01",
    "2023-03-01-preview",
    "2023-06-01-preview",
    "2023-12-01-preview",
    "2024-03-01-preview",
    "2024-08-01",
    "2024-11-01-preview",
    "2025-01-01-preview",
    "2025-06-01-preview",
    "2025-08-01",
    "2026-01-01-preview",
    "2026-04-01-preview",
    "2026-10-01",
];

/// `Microsoft.ManagedIdentity/userAssignedIdentities` (Azure/azure-rest-api-specs, msi).
const IDENTITIES: [&str; 11] = [
    "2015-08-31-preview",
    "2018-11-30",
    "2021-09-30-preview",
    "2022-01-31-preview",
    "2023-01-31",
    "2023-07-31-preview",
    "2024-11-30",
    "2025-01-31-preview",
    "2025-05-31-preview",
    "2026-04-30",
    "2026-05-31",
];

/// `Microsoft.HorizonDb/clusters` (Microsoft: templates/microsoft.horizondb/change-log/clusters).
const HORIZON_DB: [&str; 3] = ["2026-01-20-preview", "2026-05-01-preview", "2026-10-01-preview"];

/// The first version of Resource Manager.
const FIRST: &str = "2014-04-01";

/// `Err` where Azure would refuse `version` for a resource of this type. The providers of machines and of Resource Manager
/// itself have dozens of versions, and new ones every month: for those any date until `today` will do.
pub(super) fn check(kind: &str, version: &str, today: &str) -> Result<(), Answer> {
    let known: &[&str] = match kind {
        "Microsoft.DBforPostgreSQL/flexibleServers" => &FLEXIBLE_SERVERS,
        "Microsoft.ManagedIdentity/userAssignedIdentities" => &IDENTITIES,
        "Microsoft.HorizonDb/clusters" => &HORIZON_DB,
        _ => &[],
    };
    let date = version.get(..10).unwrap_or_default();
    if known.is_empty() {
        let good = is_version(version) && (FIRST..=today).contains(&date);
        return if good { Ok(()) } else { Err(invalid(version)) };
    }
    if known.iter().any(|known| known.eq_ignore_ascii_case(version)) {
        return Ok(());
    }
    if !is_version(version) {
        return Err(invalid(version));
    }
    let name = kind.split_once('/').map_or(kind, |(_, name)| name);
    let message = format!(
        "No registered resource provider found for location '{LOCATION}' and API version '{version}' for type '{name}'. \
         The supported api-versions are '{}'. The supported locations are '{LOCATION}'.",
        known.join(", ")
    );
    Err(refusal(StatusCode::BAD_REQUEST, "NoRegisteredProviderFound", &message))
}

fn invalid(version: &str) -> Answer {
    let message = format!("The api-version '{version}' is invalid.");
    refusal(StatusCode::BAD_REQUEST, "InvalidApiVersionParameter", &message)
}

/// `2024-11-01`, or with `-preview` behind it.
fn is_version(text: &str) -> bool {
    let text = text.strip_suffix("-preview").unwrap_or(text);
    let parts: Vec<&str> = text.split('-').collect();
    let shape: Vec<usize> = parts
        .iter()
        .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|part| part.len())
        .collect();
    shape == [4, 2, 2] && parts.len() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_that_azure_has() {
        let (servers, identities, machines) = (
            "Microsoft.DBforPostgreSQL/flexibleServers",
            "Microsoft.ManagedIdentity/userAssignedIdentities",
            "Microsoft.Compute/virtualMachines",
        );
        for (kind, version, good) in [
            (servers, "2025-08-01", true),
            (servers, "2026-10-01", true),
            (servers, "2026-10-01-preview", false),
            (servers, "2030-01-01", false),
            (servers, "latest", false),
            ("Microsoft.HorizonDb/clusters", "2026-10-01-preview", true),
            ("Microsoft.HorizonDb/clusters", "2026-10-01", false),
            (identities, "2024-11-30", true),
            (identities, "2024-11-01", false),
            (machines, "2024-11-01", true),
            (machines, "2026-11-28", true),
            (machines, "2026-11-29", false),
            (machines, "2010-01-01", false),
            (machines, "2024-11-01-x", false),
            ("", "2022-12-01", true),
            ("", "2030-01-01", false),
        ] {
            assert_eq!(check(kind, version, "2026-11-28").is_ok(), good, "{kind} {version}");
        }
    }

    #[test]
    fn a_version_is_a_date() {
        for (text, good) in [
            ("2024-11-01", true),
            ("2026-04-01-preview", true),
            ("2024-11", false),
            ("latest", false),
            ("2024-11-01-x", false),
        ] {
            assert_eq!(is_version(text), good, "{text}");
        }
    }
}

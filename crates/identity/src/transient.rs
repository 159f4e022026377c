//! Which refusals pass by themselves, and what each means: the one table for retries and hints.

use http::StatusCode;

use crate::answer::{self, RefusalText};
use pgentra_system::http::Response;

/// A code of Entra's (Microsoft: reference-error-codes).
struct Code {
    names: &'static [&'static str],
    /// May the same request succeed a few seconds later?
    passes: Passes,
    hint: &'static str,
}

const NO_RECORD: &str = "No federated credential of the application matches. A new one may take some minutes to be known everywhere: try again. \
     Compare issuer (also its trailing slash), subject (also its case) and audience: az identity federated-credential list";

const CODES: &[Code] = &[
    // Azure/azure-workload-identity#340, #977, #1200, kedacore/keda#8152: 70021 until 2024, since then one code each for
    // issuer, audience and subject. Seen for minutes after a credential was made, and now and then without a reason.
    Code {
        names: &["AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213"],
        passes: Passes::Soon,
        hint: NO_RECORD,
    },
    // Azure/login#517, microsoft/Agents#202: the record is known, and differs in a way that Entra names.
    Code { names: &["AADSTS7002137", "AADSTS7002138"], passes: Passes::Never, hint: NO_RECORD },
    // Azure/AKS#4029, Azure/azure-cli#28863.
    Code {
        names: &["AADSTS90061", "AADSTS50166"],
        passes: Passes::Soon,
        hint: "Entra cannot reach the issuer of the service account tokens: its discovery document must be public.",
    },
    // RequestTimeout, RequestBudgetExceededError ("A transient error has occurred. Try again."), MsodsServiceUnavailable.
    Code {
        names: &["AADSTS90012", "AADSTS90024", "AADSTS90033", "temporarily_unavailable"],
        passes: Passes::Soon,
        hint: "Entra itself is failing: try again in a minute.",
    },
    // TenantThrottlingError.
    Code {
        names: &["AADSTS90055"],
        passes: Passes::Throttled,
        hint: "Too many requests from this tenant: share one process or one token among the programs.",
    },
    // LoopDetected: Entra blocks a client that repeats a request. A retry prolongs the block.
    Code {
        names: &["AADSTS50196"],
        passes: Passes::Never,
        hint: "Entra refuses the same request repeated too often: wait some minutes, and share one process or one token among the programs.",
    },
    Code {
        names: &["AADSTS700024"],
        passes: Passes::Never,
        hint: "The assertion is not valid at this time: is its file being renewed, is the clock right?",
    },
    Code {
        names: &["AADSTS700016"],
        passes: Passes::Never,
        hint: "The application is unknown in that tenant: compare AZURE_CLIENT_ID and AZURE_TENANT_ID.",
    },
    Code {
        names: &["AADSTS90002"],
        passes: Passes::Never,
        hint: "There is no such tenant: check AZURE_TENANT_ID and the cloud.",
    },
    // The tenant is not in this cloud: a retry gets the same refusal.
    Code {
        names: &["AADSTS900382"],
        passes: Passes::Never,
        hint: "The application is of another cloud: check --cloud and AZURE_AUTHORITY_HOST.",
    },
    Code {
        names: &["AADSTS7000215"],
        passes: Passes::Never,
        hint: "The client secret is wrong: its value is needed, not its id.",
    },
    Code {
        names: &["AADSTS7000222"],
        passes: Passes::Never,
        hint: "The client secret has expired: create another one.",
    },
    Code {
        names: &["AADSTS700027"],
        passes: Passes::Never,
        hint: "The certificate is not registered with the application, or it has expired.",
    },
    Code {
        names: &["AADSTS50001", "AADSTS500011"],
        passes: Passes::Never,
        hint: "The tenant does not know this resource: check it, and the cloud.",
    },
];

/// Whether the same request may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passes {
    /// A retry gets the same refusal.
    Never,
    /// A retry within the waits of the endpoint may succeed.
    Soon,
    /// As [`Passes::Soon`], once others ask less.
    Throttled,
    /// An identity that was just assigned is not known yet.
    WhenKnown,
}

/// Whether a refusal may be temporary although its status alone does not call for a retry.
pub(crate) fn passes(response: &Response) -> Passes {
    let refusal = answer::read_refusal(response);
    match refusal.code.as_deref().and_then(code) {
        Some(Code { passes: passes @ (Passes::Soon | Passes::Throttled), .. }) => *passes,
        _ if is_unknown_identity(response.status(), &refusal) => Passes::WhenKnown,
        _ => Passes::Never,
    }
}

/// A hint for the user, by error code.
pub(crate) fn hint(name: &str) -> Option<&'static str> {
    code(name).map(|code| code.hint)
}

fn code(name: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.names.contains(&name))
}

/// The metadata service does not know the identity: `Identity not found` of the machine's own (Azure/aad-pod-identity#436,
/// #1102), and of the metadata service of AAD Pod Identity that none is assigned to the pod yet (#472).
fn is_unknown_identity(status: u16, refusal: &RefusalText) -> bool {
    let says = |words: &str| refusal.text.contains(words);
    match StatusCode::from_u16(status) {
        Ok(StatusCode::BAD_REQUEST) => says("Identity not found"),
        Ok(StatusCode::FORBIDDEN) => says("AzureAssignedIdentity") || says("assigned identities for pod"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code that is listed twice would have two meanings, of which one is never read.
    #[test]
    fn each_code_is_listed_once() {
        let mut names = CODES.iter().flat_map(|code| code.names).collect::<Vec<_>>();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

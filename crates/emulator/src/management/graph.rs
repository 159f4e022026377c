//! The directory through Microsoft Graph v1.0: who may ask, and the form of an answer.

use jiff::Timestamp;
use pgentra_directory::{GraphApi, GraphError, GraphRequest, ManagedPrincipal};
use serde_json::json;
use uuid::Uuid;

use super::answers::with_status;
use super::bearer;
use crate::cloud::Cloud;
use crate::directory::{Identity, IdentityKind};
use crate::exchange::{Answer, Call};

/// The versions in a path. Terraform's provider asks for some objects under the second.
pub(super) const VERSIONS: [&str; 2] = ["/v1.0/", "/beta/"];

/// Answers any request below a version.
pub(super) fn answer(cloud: &Cloud, call: &Call) -> Answer {
    let answered = match bearer::at_graph(cloud, call) {
        Err(message) => Err(GraphError::invalid_token(message)),
        Ok(caller) if !caller.may_read_directory(cloud) => Err(GraphError::denied()),
        Ok(caller) => {
            let query: Vec<(&str, &str)> = call.query.pairs().collect();
            let below = VERSIONS.iter().find_map(|version| call.path.strip_prefix(version));
            let level = call.header("consistencylevel").unwrap_or_default();
            let request = GraphRequest {
                method: &call.method,
                path: below.unwrap_or_default(),
                query: &query,
                is_advanced: level.eq_ignore_ascii_case("eventual"),
                body: &call.body,
                caller: caller.object_id,
                may_change: caller.is_owner(cloud),
            };
            directory(cloud).answer(&request)
        }
    };
    let answer = match answered {
        Ok(answer) => match answer.body {
            Some(body) => with_status(answer.status, body),
            None => Answer::text(answer.status, ""),
        },
        Err(refusal) => refused(cloud, call, refusal),
    };
    answer.with_header("OData-Version", "4.0")
}

fn directory(cloud: &Cloud) -> GraphApi<'_> {
    GraphApi {
        principals: &cloud.principals,
        managed: cloud.managed_identities().into_iter().map(managed).collect(),
        administrator: cloud.directory.administrator.object_id(),
        address: &cloud.addresses.graph,
        tenant: cloud.directory.ids.tenant,
        domain: &cloud.directory.domain,
        now: cloud.clock.unix(),
    }
}

fn managed(identity: Identity) -> ManagedPrincipal {
    let explicit = match identity.kind() {
        IdentityKind::SystemAssigned => "isExplicit=False",
        IdentityKind::UserAssigned => "isExplicit=True",
    };
    let Identity { name, client_id, object_id, resource_id, .. } = identity;
    ManagedPrincipal { name, client_id, object_id, alternative_names: vec![explicit.to_owned(), resource_id] }
}

/// The error form of Graph (Microsoft: errors).
fn refused(cloud: &Cloud, call: &Call, refusal: GraphError) -> Answer {
    let date = Timestamp::from_second(cloud.clock.unix())
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string())
        .unwrap_or_default();
    let request = Uuid::new_v4().to_string();
    let client = call.header("client-request-id").unwrap_or(&request).to_owned();
    let inner = json!({ "date": date, "request-id": request, "client-request-id": client });
    let error = json!({ "code": refusal.code, "message": refusal.message, "innerError": inner });
    Answer::json(refusal.status, vec![("error", error)])
}

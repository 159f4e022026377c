//! The directory through Microsoft Graph v1.0: service principals, users, groups.

mod filter;

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answers::json_answer;
use super::bearer;
use crate::cloud::Cloud;
use crate::directory::{Group, Identity, IdentityKind, User};
use crate::exchange::{Answer, Call};
use filter::ODataFilter;

/// How many objects a page has if the client does not say (Microsoft: paging).
const PAGE: usize = 100;
/// How many it may have at most.
const LARGEST_PAGE: usize = 999;
/// How many ids `getByIds` takes.
const MOST_IDS: usize = 1_000;

/// How many group ids `checkMemberGroups` takes.
const MOST_GROUP_IDS: usize = 20;

/// A refusal: status, code and message.
type GraphError = (StatusCode, &'static str, String);

/// Answers any request below `/v1.0`.
pub(super) fn answer(cloud: &Cloud, call: &Call) -> Answer {
    let answered = match bearer::at_graph(cloud, call) {
        Err(message) => Err((StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", message.to_owned())),
        Ok(caller) if !caller.may_read_directory(cloud) => {
            let message = "Insufficient privileges to complete the operation.".to_owned();
            Err((StatusCode::FORBIDDEN, "Authorization_RequestDenied", message))
        }
        Ok(_) => dispatch(cloud, call),
    };
    answered.unwrap_or_else(|refusal| refused(cloud, call, refusal)).with_header("OData-Version", "4.0")
}

/// A set of objects, by the word in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectSet {
    ServicePrincipals,
    Users,
    Groups,
    DirectoryObjects,
}

impl ObjectSet {
    const ALL: [Self; 4] = [Self::ServicePrincipals, Self::Users, Self::Groups, Self::DirectoryObjects];

    fn name(self) -> &'static str {
        match self {
            Self::ServicePrincipals => "servicePrincipals",
            Self::Users => "users",
            Self::Groups => "groups",
            Self::DirectoryObjects => "directoryObjects",
        }
    }

    fn objects(self, cloud: &Cloud) -> Vec<Value> {
        match self {
            Self::ServicePrincipals => service_principals(cloud),
            Self::Users => cloud.subscription.users().iter().map(|one| user(cloud, one)).collect(),
            Self::Groups => cloud.subscription.groups().iter().map(group).collect(),
            Self::DirectoryObjects => [Self::ServicePrincipals, Self::Users, Self::Groups]
                .into_iter()
                .flat_map(|set| set.objects(cloud).into_iter().map(move |object| set.tagged(object)))
                .collect(),
        }
    }

    /// In a mixed collection each object says what it is.
    fn tagged(self, mut object: Value) -> Value {
        let kind = match self {
            Self::ServicePrincipals => "servicePrincipal",
            Self::Users => "user",
            _ => "group",
        };
        object["@odata.type"] = json!(format!("#microsoft.graph.{kind}"));
        object
    }
}

fn dispatch(cloud: &Cloud, call: &Call) -> Result<Answer, GraphError> {
    let path = call.path.trim_start_matches("/v1.0/");
    let parts: Vec<&str> = path.split('/').collect();
    let set = |word: &str| ObjectSet::ALL.into_iter().find(|set| set.name().eq_ignore_ascii_case(word));
    match (&call.method, &parts[..]) {
        (&Method::POST, [objects, "getByIds"]) if set(objects) == Some(ObjectSet::DirectoryObjects) => {
            by_ids(cloud, call)
        }
        (&Method::GET, [word]) => match set(word) {
            Some(ObjectSet::DirectoryObjects) | None => by_key(cloud, call, word),
            Some(set) => page(cloud, call, set),
        },
        (&Method::GET, [word, id]) => {
            let set = set(word).ok_or_else(|| no_segment(word))?;
            let matches = |object: &Value| {
                ["id", "userPrincipalName"]
                    .into_iter()
                    .any(|member| object[member].as_str().is_some_and(|text| text.eq_ignore_ascii_case(id)))
            };
            one(cloud, call, set.objects(cloud).into_iter().find(matches), (set, id))
        }
        (&Method::POST, [word, id, "checkMemberGroups"]) => member_groups(cloud, call, set(word), id),
        (&Method::PATCH, [word, id]) => enable(cloud, call, set(word), id),
        (&Method::GET, _) => Err(no_segment(path)),
        (method, _) => Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "Request_BadRequest",
            format!("Specified HTTP method '{method}' is not allowed for the request target."),
        )),
    }
}

/// `servicePrincipals(appId='…')`
fn by_key(cloud: &Cloud, call: &Call, word: &str) -> Result<Answer, GraphError> {
    let key = word.split_once('(').and_then(|(set, key)| {
        let id = key.strip_prefix("appId='")?.strip_suffix("')")?;
        set.eq_ignore_ascii_case(ObjectSet::ServicePrincipals.name()).then_some(id)
    });
    let id = key.ok_or_else(|| no_segment(word))?;
    let matches = |object: &Value| object["appId"].as_str().is_some_and(|text| text.eq_ignore_ascii_case(id));
    let found = service_principals(cloud).into_iter().find(matches);
    one(cloud, call, found, (ObjectSet::ServicePrincipals, id))
}

fn one(
    cloud: &Cloud,
    call: &Call,
    found: Option<Value>,
    (set, id): (ObjectSet, &str),
) -> Result<Answer, GraphError> {
    let object = found.ok_or_else(|| no_object(id))?;
    let mut answer = Map::new();
    let context = format!("{}/v1.0/$metadata#{}/$entity", cloud.addresses.graph, set.name());
    answer.insert("@odata.context".to_owned(), json!(context));
    answer.extend(selected(call, object));
    Ok(json_answer(Value::Object(answer)))
}

/// A page of a set, filtered.
fn page(cloud: &Cloud, call: &Call, set: ObjectSet) -> Result<Answer, GraphError> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, "Request_UnsupportedQuery", message);
    let filter = match call.query.get("$filter") {
        None => None,
        Some(text) => {
            Some(ODataFilter::parse(text).ok_or_else(|| bad(format!("Invalid filter clause: {text}")))?)
        }
    };
    let number = |name: &'static str, default: usize| match call.query.get(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| bad(format!("Invalid value of {name}: {text}"))),
    };
    let (top, start) = (number("$top", PAGE)?.clamp(1, LARGEST_PAGE), number("$skiptoken", 0)?);
    let objects = set.objects(cloud).into_iter();
    let all: Vec<Value> =
        objects.filter(|object| filter.as_ref().is_none_or(|filter| filter.holds(object))).collect();
    let mut answer = json!({
        "@odata.context": format!("{}/v1.0/$metadata#{}", cloud.addresses.graph, set.name()),
    });
    // A count is an advanced query: without the header it is left out.
    let advanced =
        call.header("consistencylevel").is_some_and(|level| level.eq_ignore_ascii_case("eventual"));
    if advanced && call.query.get("$count") == Some("true") {
        answer["@odata.count"] = json!(all.len());
    }
    if start.saturating_add(top) < all.len() {
        answer["@odata.nextLink"] = json!(next_link(cloud, call, start + top));
    }
    let shown = all.into_iter().skip(start).take(top).map(|object| Value::Object(selected(call, object)));
    answer["value"] = shown.collect();
    Ok(json_answer(answer))
}

/// The same request, from object number `start` on.
fn next_link(cloud: &Cloud, call: &Call, start: usize) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in ["$filter", "$select", "$top", "$count"] {
        if let Some(value) = call.query.get(name) {
            query.append_pair(name, value);
        }
    }
    query.append_pair("$skiptoken", &start.to_string());
    format!("{}{}?{}", cloud.addresses.graph, call.path, query.finish())
}

/// `POST /directoryObjects/getByIds`: those of the ids that exist.
fn by_ids(cloud: &Cloud, call: &Call) -> Result<Answer, GraphError> {
    let bad = |message: &str| (StatusCode::BAD_REQUEST, "Request_BadRequest", message.to_owned());
    let body: Value =
        serde_json::from_slice(&call.body).map_err(|_| bad("Unable to read JSON request payload."))?;
    let ids: Option<Vec<Uuid>> = body["ids"]
        .as_array()
        .and_then(|ids| ids.iter().map(|id| id.as_str().and_then(|id| id.parse().ok())).collect());
    let ids = ids.ok_or_else(|| bad("Invalid GUID in the collection 'ids'."))?;
    if ids.len() > MOST_IDS {
        return Err(bad("The number of ids exceeds the limit of 1000."));
    }
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let objects = ObjectSet::DirectoryObjects.objects(cloud).into_iter();
    let found = objects.filter(|object| ids.iter().any(|id| object["id"] == id.as_str()));
    Ok(json_answer(json!({
        "@odata.context": format!("{}/v1.0/$metadata#directoryObjects", cloud.addresses.graph),
        "value": found.map(|object| Value::Object(selected(call, object))).collect::<Vec<_>>(),
    })))
}

/// `POST /{set}/{id}/checkMemberGroups`: those of the groups that the object is a member of.
fn member_groups(cloud: &Cloud, call: &Call, set: Option<ObjectSet>, id: &str) -> Result<Answer, GraphError> {
    let bad = |message: &str| (StatusCode::BAD_REQUEST, "Request_BadRequest", message.to_owned());
    let member = existing(cloud, set, id)?;
    let body: Value =
        serde_json::from_slice(&call.body).map_err(|_| bad("Unable to read JSON request payload."))?;
    let ids: Option<Vec<Uuid>> = body["groupIds"]
        .as_array()
        .and_then(|ids| ids.iter().map(|id| id.as_str().and_then(|id| id.parse().ok())).collect());
    let ids = ids.ok_or_else(|| bad("Invalid GUID in the collection 'groupIds'."))?;
    if ids.len() > MOST_GROUP_IDS {
        return Err(bad("The number of group ids exceeds the limit of 20."));
    }
    let found: Vec<Uuid> =
        ids.into_iter().filter(|group| cloud.subscription.is_member(member, *group)).collect();
    Ok(json_answer(json!({
        "@odata.context": format!("{}/v1.0/$metadata#Collection(Edm.String)", cloud.addresses.graph),
        "value": found,
    })))
}

/// `PATCH /{set}/{id}`: of all that an account has, `accountEnabled` alone can change here.
fn enable(cloud: &Cloud, call: &Call, set: Option<ObjectSet>, id: &str) -> Result<Answer, GraphError> {
    let account = existing(cloud, set, id)?;
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    match (body.as_object().map(Map::len), body["accountEnabled"].as_bool()) {
        (Some(1), Some(is_enabled)) => cloud.subscription.set_enabled(account, is_enabled),
        _ => {
            let message = "Only 'accountEnabled' can be changed.".to_owned();
            return Err((StatusCode::BAD_REQUEST, "Request_BadRequest", message));
        }
    }
    Ok(Answer::text(StatusCode::NO_CONTENT, ""))
}

/// The object id of an object that exists.
fn existing(cloud: &Cloud, set: Option<ObjectSet>, id: &str) -> Result<Uuid, GraphError> {
    let set = set.ok_or_else(|| no_segment(id))?;
    let objects = set.objects(cloud).into_iter();
    let found = objects.filter_map(|object| object["id"].as_str()?.parse::<Uuid>().ok());
    let mut named = found.filter(|found| found.to_string().eq_ignore_ascii_case(id));
    named.next().ok_or_else(|| no_object(id))
}

/// The members that `$select` names; what an object is stays.
fn selected(call: &Call, object: Value) -> Map<String, Value> {
    let Value::Object(mut members) = object else { return Map::new() };
    if let Some(select) = call.query.get("$select") {
        let names: Vec<&str> = select.split(',').map(str::trim).collect();
        members.retain(|name, _| name.starts_with('@') || names.contains(&name.as_str()));
    }
    members
}

fn service_principals(cloud: &Cloud) -> Vec<Value> {
    let mut all = Vec::new();
    let application = &cloud.directory.application;
    if cloud.subscription.has_application() {
        let (client, object) = (application.client_id, application.object_id);
        all.push(principal(cloud, (&application.name, client, object), "Application", Vec::new()));
    }
    let machine = cloud.machine.system_assigned();
    all.extend(machine.iter().map(|identity| managed(cloud, identity)));
    all.extend(cloud.holders.system_assigned().iter().map(|identity| managed(cloud, identity)));
    all.extend(cloud.subscription.identities().iter().map(|identity| managed(cloud, identity)));
    all
}

fn managed(cloud: &Cloud, identity: &Identity) -> Value {
    let Identity { name, client_id, object_id, resource_id, .. } = identity;
    let explicit = match identity.kind() {
        IdentityKind::SystemAssigned => "isExplicit=False",
        IdentityKind::UserAssigned => "isExplicit=True",
    };
    let alternative = vec![explicit.to_owned(), resource_id.clone()];
    principal(cloud, (name, *client_id, *object_id), "ManagedIdentity", alternative)
}

fn principal(
    cloud: &Cloud,
    (name, client_id, object_id): (&str, Uuid, Uuid),
    kind: &str,
    alternative_names: Vec<String>,
) -> Value {
    json!({
        "id": object_id,
        "accountEnabled": cloud.subscription.is_enabled(object_id),
        "alternativeNames": alternative_names,
        "appDisplayName": (kind == "Application").then_some(name),
        "appId": client_id,
        "appOwnerOrganizationId": (kind == "Application").then_some(cloud.directory.ids.tenant),
        "displayName": name,
        "servicePrincipalNames": [client_id],
        "servicePrincipalType": kind,
    })
}

fn user(cloud: &Cloud, user: &User) -> Value {
    json!({
        "id": user.object_id,
        "accountEnabled": cloud.subscription.is_enabled(user.object_id),
        "displayName": user.name,
        "userPrincipalName": user.user_principal_name,
    })
}

fn group(group: &Group) -> Value {
    json!({ "id": group.object_id, "displayName": group.name, "securityEnabled": true })
}

fn no_object(id: &str) -> GraphError {
    let message = format!(
        "Resource '{id}' does not exist or one of its queried reference-property objects are not present."
    );
    (StatusCode::NOT_FOUND, "Request_ResourceNotFound", message)
}

fn no_segment(word: &str) -> GraphError {
    (StatusCode::BAD_REQUEST, "BadRequest", format!("Resource not found for the segment '{word}'."))
}

/// The error form of Graph (Microsoft: errors).
fn refused(cloud: &Cloud, call: &Call, (status, code, message): GraphError) -> Answer {
    let date = Timestamp::from_second(cloud.clock.unix())
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string())
        .unwrap_or_default();
    let request = Uuid::new_v4().to_string();
    let client = call.header("client-request-id").unwrap_or(&request).to_owned();
    let inner = json!({ "date": date, "request-id": request, "client-request-id": client });
    let error = json!({ "code": code, "message": message, "innerError": inner });
    Answer::json(status, vec![("error", error)])
}

//! Collections: pages, filters, and the members that are asked for.

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{GraphAnswer, GraphApi, GraphError, GraphRequest};
use super::filter::ODataFilter;
use super::place::{DirectoryPlace, ObjectSet};

/// How many objects a page has if the client does not say (Microsoft: paging).
const PAGE: usize = 100;
/// How many it may have at most.
const LARGEST_PAGE: usize = 999;
/// How many ids `getByIds` takes.
const MOST_IDS: usize = 1_000;

impl GraphApi<'_> {
    /// An answer with one object.
    pub(super) fn one(
        &self,
        status: StatusCode,
        request: &GraphRequest<'_>,
        set: ObjectSet,
        object: Value,
    ) -> GraphAnswer {
        let mut answer = Map::new();
        let context = format!("{}#{}/$entity", self.metadata(), set.name());
        answer.insert("@odata.context".to_owned(), json!(context));
        answer.extend(selected(request, object));
        GraphAnswer { status, body: Some(Value::Object(answer)) }
    }

    /// A page of a set, filtered.
    pub(super) fn page(
        &self,
        request: &GraphRequest<'_>,
        place: &DirectoryPlace<'_>,
    ) -> Result<GraphAnswer, GraphError> {
        if place.set == ObjectSet::DirectoryObjects {
            return Err(GraphError::no_segment(request.path));
        }
        let mut objects = self.objects(place.set);
        if let Some(cast) = place.cast {
            objects.retain(|object| is_kind(object, cast));
        }
        self.collection(request, place.set.name(), objects)
    }

    /// A page of these objects, filtered.
    pub(super) fn collection(
        &self,
        request: &GraphRequest<'_>,
        context: &str,
        objects: Vec<Value>,
    ) -> Result<GraphAnswer, GraphError> {
        let bad = |message: String| GraphError {
            status: StatusCode::BAD_REQUEST,
            code: "Request_UnsupportedQuery",
            message,
        };
        let filter = match request.parameter("$filter") {
            None => None,
            Some(text) => {
                Some(ODataFilter::parse(text).ok_or_else(|| bad(format!("Invalid filter clause: {text}")))?)
            }
        };
        let number = |name: &'static str, default: usize| match request.parameter(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| bad(format!("Invalid value of {name}: {text}"))),
        };
        let (top, start) = (number("$top", PAGE)?.clamp(1, LARGEST_PAGE), number("$skiptoken", 0)?);
        let objects = objects.into_iter();
        let all: Vec<Value> =
            objects.filter(|object| filter.as_ref().is_none_or(|filter| filter.holds(object))).collect();
        let mut answer = json!({ "@odata.context": format!("{}#{context}", self.metadata()) });
        // A count is an advanced query: without the header it is left out.
        if request.is_advanced && request.parameter("$count") == Some("true") {
            answer["@odata.count"] = json!(all.len());
        }
        if start.saturating_add(top) < all.len() {
            answer["@odata.nextLink"] = json!(self.next_link(request, start + top));
        }
        let shown =
            all.into_iter().skip(start).take(top).map(|object| Value::Object(selected(request, object)));
        answer["value"] = shown.collect();
        Ok(GraphAnswer::ok(answer))
    }

    /// The same request, from object number `start` on.
    fn next_link(&self, request: &GraphRequest<'_>, start: usize) -> String {
        let encoded = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let kept = ["$filter", "$select", "$top", "$count"].into_iter();
        let kept = kept.filter_map(|name| Some(format!("{name}={}", encoded(request.parameter(name)?))));
        let query: Vec<String> = kept.chain([format!("$skiptoken={start}")]).collect();
        format!("{}/v1.0/{}?{}", self.address, request.path, query.join("&"))
    }

    /// `POST /directoryObjects/getByIds`: those of the ids that exist.
    pub(super) fn by_ids(&self, request: &GraphRequest<'_>) -> Result<GraphAnswer, GraphError> {
        let body = request.object()?;
        let ids =
            ids(body.get("ids")).ok_or_else(|| GraphError::bad("Invalid GUID in the collection 'ids'."))?;
        if ids.len() > MOST_IDS {
            return Err(GraphError::bad("The number of ids exceeds the limit of 1000."));
        }
        let kinds: Vec<&str> = body
            .get("types")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let objects = self.objects(ObjectSet::DirectoryObjects).into_iter();
        let found = objects.filter(|object| ids.iter().any(|id| object["id"] == id.as_str()));
        let found = found.filter(|object| kinds.is_empty() || kinds.iter().any(|kind| is_kind(object, kind)));
        let found: Vec<Value> = found.map(|object| Value::Object(selected(request, object))).collect();
        let context = format!("{}#directoryObjects", self.metadata());
        Ok(GraphAnswer::ok(json!({ "@odata.context": context, "value": found })))
    }
}

/// The members that `$select` names; what an object is stays.
pub(super) fn selected(request: &GraphRequest<'_>, object: Value) -> Map<String, Value> {
    let Value::Object(mut members) = object else { return Map::new() };
    if let Some(select) = request.parameter("$select") {
        let names: Vec<&str> = select.split(',').map(str::trim).collect();
        members.retain(|name, _| name.starts_with('@') || names.contains(&name.as_str()));
    }
    members
}

/// An array of GUIDs.
pub(super) fn ids(array: Option<&Value>) -> Option<Vec<Uuid>> {
    array?.as_array()?.iter().map(|id| id.as_str()?.parse().ok()).collect()
}

/// Whether an object that says what it is has this type.
pub(super) fn is_kind(object: &Value, kind: &str) -> bool {
    let named = object["@odata.type"].as_str().and_then(|name| name.rsplit('.').next());
    named.is_some_and(|named| named.eq_ignore_ascii_case(kind))
}

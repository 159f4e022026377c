//! Microsoft Graph v1.0 on the principals of the tenant.

mod actions;
mod api;
mod changes;
mod filter;
mod objects;
mod pages;
mod place;
mod relations;

use http::{Method, StatusCode};

pub use api::{GraphAnswer, GraphApi, GraphError, GraphRequest};
use place::DirectoryPlace;

impl GraphApi<'_> {
    /// Answers a request.
    ///
    /// # Errors
    /// What Graph refuses, in its words.
    pub fn answer(&self, request: &GraphRequest<'_>) -> Result<GraphAnswer, GraphError> {
        let parts = place::parts(request.path);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let is_tenant = |part: &str| part.eq_ignore_ascii_case(&self.tenant.to_string());
        let parts = if parts.first().is_some_and(|part| is_tenant(part)) { &parts[1..] } else { &parts };
        let place = DirectoryPlace::of(parts, request.caller)?;
        let is_read = request.method == Method::GET || place.is_question();
        if !is_read && !request.may_change {
            return Err(GraphError::denied());
        }
        request.known_options()?;
        match (request.method.as_str(), place.key, &place.below[..]) {
            ("GET", None, []) => self.page(request, &place),
            ("GET", Some(key), []) => {
                let object = self.find(place.set, key)?;
                Ok(self.one(StatusCode::OK, request, place.set, object))
            }
            ("POST", None, ["getByIds"]) => self.by_ids(request),
            ("POST", None, []) => self.create(request, &place),
            ("PATCH", Some(key), []) => self.update(request, place.set, key),
            ("DELETE", Some(key), []) => self.delete(place.set, key),
            ("POST", Some(key), [action]) if actions::IS_ACTION.contains(action) => {
                self.act(request, place.set, key, action)
            }
            (_, Some(key), ["federatedIdentityCredentials", rest @ ..]) => {
                self.credentials(request, place.set, key, rest)
            }
            (_, Some(key), [relation, rest @ ..]) => self.relation(request, (&place, key), relation, rest),
            ("GET", _, _) => Err(GraphError::no_segment(request.path)),
            _ => Err(GraphError::no_method(request.method)),
        }
    }
}

//! A request to Graph, its answer or refusal, and the tenant that is asked.

use std::fmt;

use http::{Method, StatusCode};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::principals::{ManagedPrincipal, Principals};

/// A refusal in the words of Graph (Microsoft: errors).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct GraphError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

/// The status and the body of an answer. Debug leaves the body out, which may have a new secret.
#[derive(Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct GraphAnswer {
    pub status: StatusCode,
    pub body: Option<Value>,
}

/// A request whose caller is known. Debug leaves the body out, which may have a password.
#[derive(Clone, Copy)]
pub struct GraphRequest<'a> {
    /// The HTTP method.
    pub method: &'a Method,
    /// The path below the version, as it was sent: `groups/{id}/members`.
    pub path: &'a str,
    /// Names and values of the query.
    pub query: &'a [(&'a str, &'a str)],
    /// Whether it has the header `ConsistencyLevel: eventual`.
    pub is_advanced: bool,
    /// The body, which is JSON where there is one.
    pub body: &'a [u8],
    /// The object id of the caller.
    pub caller: Uuid,
    /// Whether the caller may change the directory.
    pub may_change: bool,
}

impl fmt::Debug for GraphAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl fmt::Debug for GraphRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, query, is_advanced, body: _, caller, may_change } = self;
        f.debug_struct("GraphRequest")
            .field("method", method)
            .field("path", path)
            .field("query", query)
            .field("is_advanced", is_advanced)
            .field("caller", caller)
            .field("may_change", may_change)
            .finish_non_exhaustive()
    }
}

/// The query options that are read, and those that change nothing here: objects have no members to expand, and there
/// is one format.
const OPTIONS: [&str; 7] = ["$filter", "$select", "$top", "$count", "$skiptoken", "$expand", "$format"];

impl<'a> GraphRequest<'a> {
    /// Refuses a query option that is not known: its effect would be missing in the answer.
    pub(super) fn known_options(&self) -> Result<(), GraphError> {
        let is_unknown = |name: &&str| name.starts_with('$') && !OPTIONS.contains(name);
        match self.query.iter().map(|(name, _)| *name).find(is_unknown) {
            None => Ok(()),
            Some(name) => Err(GraphError {
                status: StatusCode::BAD_REQUEST,
                code: "Request_UnsupportedQuery",
                message: format!("The query option '{name}' is not supported."),
            }),
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query.iter().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| *value)
    }

    /// The body as an object.
    pub(super) fn object(&self) -> Result<Map<String, Value>, GraphError> {
        match serde_json::from_slice(self.body) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(GraphError::bad(
                "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.",
            )),
        }
    }
}

/// Graph over the tenant as it is at one moment.
#[derive(Debug)]
pub struct GraphApi<'a> {
    /// Users, groups and applications.
    pub principals: &'a Principals,
    /// Managed identities, which cannot be changed here.
    pub managed: Vec<ManagedPrincipal>,
    /// The user who cannot be deleted.
    pub administrator: Uuid,
    /// Its own address, without the version.
    pub address: &'a str,
    /// Id of the tenant.
    pub tenant: Uuid,
    /// The verified domain of the tenant.
    pub domain: &'a str,
    /// Seconds since 1970.
    pub now: i64,
}

impl GraphApi<'_> {
    pub(super) fn metadata(&self) -> String {
        format!("{}/v1.0/$metadata", self.address)
    }
}

impl GraphAnswer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Some(body) }
    }

    pub(super) fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None }
    }
}

impl GraphError {
    /// 403: what this caller may not do, and what none may.
    #[must_use]
    pub fn denied() -> Self {
        let message = "Insufficient privileges to complete the operation.".to_owned();
        Self { status: StatusCode::FORBIDDEN, code: "Authorization_RequestDenied", message }
    }

    /// 401: a token that is not taken, and why.
    #[must_use]
    pub fn invalid_token(message: &str) -> Self {
        let (status, code) = (StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken");
        Self { status, code, message: message.to_owned() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "Request_BadRequest", message: message.into() }
    }

    pub(super) fn no_value(member: &str, kind: &str) -> Self {
        Self::bad(format!("A value is required for property '{member}' of resource '{kind}'."))
    }

    pub(super) fn no_object(id: &str) -> Self {
        let message = format!(
            "Resource '{id}' does not exist or one of its queried reference-property objects are not present."
        );
        Self { status: StatusCode::NOT_FOUND, code: "Request_ResourceNotFound", message }
    }

    pub(super) fn no_segment(word: &str) -> Self {
        let message = format!("Resource not found for the segment '{word}'.");
        Self { status: StatusCode::BAD_REQUEST, code: "BadRequest", message }
    }

    pub(super) fn no_method(method: &Method) -> Self {
        let message = format!("Specified HTTP method '{method}' is not allowed for the request target.");
        Self { status: StatusCode::METHOD_NOT_ALLOWED, code: "Request_BadRequest", message }
    }

    pub(super) fn full() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "Directory_QuotaExceeded",
            message: "The directory object quota limit for the tenant has been exceeded.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_body() {
        let (method, body) = (Method::POST, br#"{"passwordProfile":{"password":"hidden"}}"#);
        let request = GraphRequest {
            method: &method,
            path: "users",
            query: &[],
            is_advanced: false,
            body,
            caller: Uuid::nil(),
            may_change: true,
        };
        let answer = GraphAnswer::ok(serde_json::json!({ "secretText": "hidden" }));
        let shown = format!("{request:?} {answer:?}");
        // A slice of bytes would be shown as numbers.
        assert!(
            shown.contains("users") && !shown.contains("hidden") && !shown.contains("104, 105"),
            "{shown}"
        );
    }
}

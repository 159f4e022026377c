//! One request and its answer, as values: endpoints are functions from one to the other.

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;

/// A request, read in full.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Parameters,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The endpoint treats the request as if it had the header `Metadata: true`.
    pub(crate) is_probe: bool,
}

impl Call {
    /// A header's value; `None` if it is missing or not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of `Authorization: Bearer`, whose scheme is in any case (RFC 9110 section 11.1).
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// The body, read as `application/x-www-form-urlencoded`.
    pub(crate) fn form(&self) -> Parameters {
        Parameters::parse(&self.body)
    }

    /// Whether the header `Metadata: true` is there, which proves that no browser or open proxy sent the request.
    pub(crate) fn has_metadata_header(&self) -> bool {
        self.is_probe || self.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// Parameters of a query or form, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn parse(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The first value of `name`. Empty counts as missing, as in the real services.
    pub(crate) fn get(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of `name` that are not empty.
    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| &**value)
    }

    /// All names and values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| &**key)
    }
}

/// A JSON object whose members keep their order.
pub(crate) type Object = Vec<(&'static str, Value)>;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Object(Object),
    Text(String),
}

impl Answer {
    /// A JSON object, sent as `application/json; charset=utf-8`.
    pub(crate) fn json(status: StatusCode, object: Object) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned())];
        Self { status, headers, body: Body::Object(object) }
    }

    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let headers = vec![("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())];
        Self { status, headers, body: Body::Text(text.into()) }
    }

    /// Another content type than the one it has.
    pub(crate) fn typed(mut self, content_type: &str) -> Self {
        self.headers.retain(|(name, _)| name != "Content-Type");
        self.with_header("Content-Type", content_type)
    }

    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl Body {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Object(object) => {
                let members: Vec<String> =
                    object.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    /// Turns numbers to text and text that is a number to a number, at the first level.
    pub(crate) fn swap_types(&mut self) {
        if let Self::Object(object) = self {
            for (_, value) in object {
                let swapped = match &*value {
                    Value::Number(number) => Some(Value::String(number.to_string())),
                    Value::String(text) => text.parse::<i64>().ok().map(Value::from),
                    _ => None,
                };
                *value = swapped.unwrap_or_else(|| value.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_keep_their_order_and_are_escaped() {
        let body = Body::Object(vec![("z", json!("a\"b")), ("a", json!(1)), ("n", json!({"x": []}))]);
        assert_eq!(body.into_text(), r#"{"z":"a\"b","a":1,"n":{"x":[]}}"#);
    }

    #[test]
    fn types_swap_and_text_stays_text() {
        let mut body = Body::Object(vec![("t", json!("Bearer")), ("i", json!("3599")), ("n", json!(7))]);
        body.swap_types();
        assert_eq!(body.into_text(), r#"{"t":"Bearer","i":3599,"n":"7"}"#);
    }

    #[test]
    fn an_empty_parameter_counts_as_missing() {
        let query = Parameters::parse(b"resource=&client_id=a%20b&client_id=c");
        assert_eq!(query.get("resource"), None);
        assert_eq!(query.all("client_id").collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(query.keys().count(), 3);
    }
}

//! A JSON object read strictly and shallowly: every member once, texts borrowed, no value built for members that are not read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// More members than this is no token of Entra's (they have about thirty), and looking for doubles is quadratic.
const MEMBERS_LIMIT: usize = 256;

/// The members of a JSON object. A name that occurs twice is an error: readers disagree about which one counts
/// (RFC 8259 section 4), and a disagreement about a claim is a way in.
#[derive(Debug)]
pub(crate) struct JsonObject<'a>(Vec<(Cow<'a, str>, ClaimValue<'a>)>);

/// A member's value, as deep as claims go.
#[derive(Debug)]
pub(crate) enum ClaimValue<'a> {
    Text(Cow<'a, str>),
    /// A whole number from 0 to 2^64 - 1. A number written with a point or an exponent is `Other`.
    Number(u64),
    Bool(bool),
    /// A list whose every element is a text.
    Texts(Vec<Cow<'a, str>>),
    /// An object, of which only the names are kept.
    Names(Vec<Cow<'a, str>>),
    Other,
}

impl<'a> JsonObject<'a> {
    /// Reads exactly one object; anything else, or anything after it, is `None`.
    pub(crate) fn parse(json: &'a [u8]) -> Option<JsonObject<'a>> {
        serde_json::from_slice(json).ok()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ClaimValue<'a>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = JsonObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(32);
                while let Some(Name(name)) = map.next_key()? {
                    refuse_double(&name, members.iter().map(|(known, _)| known))?;
                    members.push((name, map.next_value()?));
                }
                Ok(JsonObject(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ClaimValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = ClaimValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(ClaimValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(ClaimValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(ClaimValue::Number(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(ClaimValue::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(ClaimValue::Other)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(ClaimValue::Bool(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(ClaimValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(Element(element)) = list.next_element()? {
            match (&mut texts, element) {
                (Some(texts), Some(text)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(ClaimValue::Other, ClaimValue::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            refuse_double(&name, names.iter())?;
            names.push(name);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(ClaimValue::Names(names))
    }
}

fn refuse_double<'k, E: Error>(
    name: &str,
    known: impl ExactSizeIterator<Item = &'k Cow<'k, str>>,
) -> Result<(), E> {
    if known.len() >= MEMBERS_LIMIT {
        return Err(E::custom("too many members"));
    }
    for other in known {
        if other == name {
            return Err(E::custom("a member occurs twice"));
        }
    }
    Ok(())
}

/// A member's name, borrowed where it needs no unescaping.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(TextVisitor).map(Name)
    }
}

/// An element of a list: its text, or that it is something else.
struct Element<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Element<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNot;
        impl<'de> Visitor<'de> for TextOrNot {
            type Value = Option<Cow<'de, str>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Some(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Some(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
        deserializer.deserialize_any(TextOrNot).map(Element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_what_claims_need() {
        let json =
            br#"{"t":"a\u0062","n":7,"b":true,"l":["x","y"],"o":{"p":1},"f":1.5,"m":-1,"u":null,"x":["x",[1]]}"#;
        let object = JsonObject::parse(json).unwrap();
        assert!(matches!(object.get("t"), Some(ClaimValue::Text(t)) if t == "ab"));
        assert!(matches!(object.get("n"), Some(ClaimValue::Number(7))));
        assert!(matches!(object.get("b"), Some(ClaimValue::Bool(true))));
        assert!(matches!(object.get("l"), Some(ClaimValue::Texts(l)) if l == &["x", "y"]));
        assert!(matches!(object.get("o"), Some(ClaimValue::Names(o)) if o == &["p"]));
        for other in ["f", "m", "u", "x"] {
            assert!(matches!(object.get(other), Some(ClaimValue::Other)), "{other}");
        }
        assert!(object.get("absent").is_none());
    }

    #[test]
    fn a_name_may_occur_once() {
        for twice in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":3}"#,
            r#"{"o":{"groups":"src1","groups":"src2"}}"#,
            r#"{"unknown":1,"unknown":2}"#,
        ] {
            assert!(JsonObject::parse(twice.as_bytes()).is_none(), "{twice}");
        }
    }

    #[test]
    fn anything_but_one_object_is_nothing() {
        for json in ["", "[]", "1", "null", "\"a\"", "{}{}", "{} x", "{", "{\"a\"", "{1:2}", "\u{feff}{}"] {
            assert!(JsonObject::parse(json.as_bytes()).is_none(), "{json}");
        }
        assert!(JsonObject::parse(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn members_are_bounded() {
        let many = |n: usize| {
            let members: Vec<String> = (0..n).map(|i| format!("\"m{i}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(JsonObject::parse(many(MEMBERS_LIMIT).as_bytes()).is_some());
        assert!(JsonObject::parse(many(MEMBERS_LIMIT + 1).as_bytes()).is_none());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(60_000), "]".repeat(60_000));
        // Refused or skipped, but answered: the parser neither recurses without bound nor builds the tree.
        let _ = JsonObject::parse(deep.as_bytes());
        let deep_in_object = format!("{{\"a\":{{\"b\":{}{}}}}}", "[".repeat(60_000), "]".repeat(60_000));
        assert!(matches!(
            JsonObject::parse(deep_in_object.as_bytes()).unwrap().get("a"),
            Some(ClaimValue::Names(_))
        ));
    }
}

//! `$filter`, as far as clients that look for identities use it (OData 4.01 part 2, section 5.1.1).

use serde_json::Value;

/// One condition on a member of an object.
#[derive(Debug, PartialEq, Eq)]
enum Term {
    /// `member eq 'value'`, without regard to case, as Graph compares text.
    Equal(String, String),
    /// `startswith(member,'value')`, without regard to case.
    StartsWith(String, String),
    /// `member/any(x:x eq 'value')`
    Any(String, String),
    /// `member in ('value','value')`
    In(String, Vec<String>),
    /// `member eq true`
    Is(String, bool),
}

/// Conditions, all of which must hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ODataFilter(Vec<Term>);

impl ODataFilter {
    /// Reads the text of `$filter`; `None` if the expression is not supported.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut terms = Vec::new();
        loop {
            let (term, after) = term(rest)?;
            terms.push(term);
            rest = after.trim_start();
            if rest.is_empty() {
                return Some(Self(terms));
            }
            rest = rest.strip_prefix("and ")?.trim_start();
        }
    }

    pub(super) fn holds(&self, object: &Value) -> bool {
        self.0.iter().all(|term| term.holds(object))
    }
}

impl Term {
    fn holds(&self, object: &Value) -> bool {
        let text = |member: &str| object[member].as_str().unwrap_or_default();
        match self {
            Self::Equal(member, value) => text(member).eq_ignore_ascii_case(value),
            Self::StartsWith(member, value) => {
                text(member).get(..value.len()).is_some_and(|start| start.eq_ignore_ascii_case(value))
            }
            Self::Any(member, value) => {
                object[member].as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == Some(value)))
            }
            Self::Is(member, value) => object[member].as_bool() == Some(*value),
            Self::In(member, values) => values.iter().any(|value| text(member).eq_ignore_ascii_case(value)),
        }
    }
}

fn term(text: &str) -> Option<(Term, &str)> {
    let begins = text.get(..11).filter(|begin| begin.eq_ignore_ascii_case("startswith("));
    if let Some(rest) = begins.and(text.get(11..)) {
        let (member, rest) = name(rest.trim_start())?;
        let (value, rest) = quoted(rest.trim_start().strip_prefix(',')?.trim_start())?;
        return Some((Term::StartsWith(member, value), rest.trim_start().strip_prefix(')')?));
    }
    let (member, rest) = name(text)?;
    if let Some(rest) = rest.strip_prefix("/any(") {
        let (variable, rest) = name(rest)?;
        let (again, rest) = name(rest.strip_prefix(':')?)?;
        let (value, rest) = quoted(rest.strip_prefix(" eq ")?)?;
        return (variable == again).then_some((Term::Any(member, value), rest.strip_prefix(')')?));
    }
    if let Some(rest) = rest.strip_prefix(" eq ") {
        for (word, value) in [("true", true), ("false", false)] {
            if let Some(rest) = rest.trim_start().strip_prefix(word) {
                return Some((Term::Is(member, value), rest));
            }
        }
        let (value, rest) = quoted(rest.trim_start())?;
        return Some((Term::Equal(member, value), rest));
    }
    let mut rest = rest.strip_prefix(" in ")?.trim_start().strip_prefix('(')?.trim_start();
    let mut values = Vec::new();
    loop {
        let (value, after) = quoted(rest)?;
        values.push(value);
        match after.trim_start().strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None => return Some((Term::In(member, values), after.trim_start().strip_prefix(')')?)),
        }
    }
}

fn name(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name.to_owned(), rest))
}

/// A text in quotes; a quote in it is doubled.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        /// Texts that begin well and go on somehow: a filter or none, never a panic.
        #[test]
        fn no_text_is_too_much(text in r"(startswith\(a,'|a eq '|a in \('|a/any\(x:x eq ')?[a'(), é:/]{0,12}") {
            if let Some(filter) = ODataFilter::parse(&text) {
                filter.holds(&json!({"a": "é'a", "b": ["a"]}));
            }
        }

        #[test]
        fn any_value_is_found_by_itself(value in ".*") {
            let text = format!("appId eq '{}'", value.replace('\'', "''"));
            let filter = ODataFilter::parse(&text).unwrap();
            let object = json!({ "appId": value });
            prop_assert!(filter.holds(&object));
        }
    }

    #[test]
    fn conditions_select() {
        let object =
            json!({"displayName": "O'Brien's VM", "appId": "a-1", "names": ["a-1", "x"], "on": true});
        for (text, holds) in [
            ("displayName eq 'O''Brien''s VM'", true),
            ("displayName eq 'o''brien''s vm'", true),
            ("displayName eq 'O'", false),
            ("startswith(displayName,'O''B')", true),
            ("startswith(displayName, 'B')", false),
            ("startsWith(displayName, 'o')", true),
            ("displayName eq 'O''Brien''s VM' and on eq true", true),
            ("on eq false", false),
            ("names/any(c:c eq 'x')", true),
            ("names/any(c:c eq 'y')", false),
            ("appId in ('b', 'a-1')", true),
            ("appId eq 'a-1' and startswith(displayName,'O')", true),
            ("appId eq 'a-1' and displayName eq 'x'", false),
        ] {
            assert_eq!(ODataFilter::parse(text).map(|filter| filter.holds(&object)), Some(holds), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "displayName",
            "displayName eq x",
            "displayName eq 'x",
            "displayName ne 'x'",
            "displayName eq 'x' or appId eq 'y'",
            "startswith(displayName,'x'",
            "names/any(c:d eq 'x')",
            "appId in ()",
            "displayName eq 'x' and",
        ] {
            assert_eq!(ODataFilter::parse(text), None, "{text}");
        }
    }
}

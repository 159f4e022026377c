//! What a path names: a set of objects, one of them, and what is below.

use percent_encoding::percent_decode_str;
use serde_json::Value;
use uuid::Uuid;

use super::api::GraphError;

/// The parts of a path, decoded.
pub(super) fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

/// A set of objects, by the word in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectSet {
    Applications,
    ServicePrincipals,
    Users,
    Groups,
    DirectoryObjects,
    Domains,
}

impl ObjectSet {
    const ALL: [Self; 6] = [
        Self::Applications,
        Self::ServicePrincipals,
        Self::Users,
        Self::Groups,
        Self::DirectoryObjects,
        Self::Domains,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Applications => "applications",
            Self::ServicePrincipals => "servicePrincipals",
            Self::Users => "users",
            Self::Groups => "groups",
            Self::DirectoryObjects => "directoryObjects",
            Self::Domains => "domains",
        }
    }

    /// The type of its objects, `user` in `#microsoft.graph.user`.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Applications => "application",
            Self::ServicePrincipals => "servicePrincipal",
            Self::Users => "user",
            Self::Groups => "group",
            Self::DirectoryObjects => "directoryObject",
            Self::Domains => "domain",
        }
    }
}

/// How a path names an object of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryKey<'a> {
    /// By its object id, or a user by the sign-in name, or a domain by its name.
    Id(&'a str),
    /// `(appId='…')`
    App(&'a str),
    /// The caller.
    Me(Uuid),
}

impl DirectoryKey<'_> {
    pub(super) fn matches(self, object: &Value) -> bool {
        let is = |member: &str, text: &str| {
            object[member].as_str().is_some_and(|it| it.eq_ignore_ascii_case(text))
        };
        match self {
            Self::Id(id) => is("id", id) || is("userPrincipalName", id),
            Self::App(id) => is("appId", id),
            Self::Me(id) => is("id", &id.to_string()),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::App(text) => text,
            Self::Me(_) => "me",
        }
    }
}

/// A place in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryPlace<'a> {
    pub(super) set: ObjectSet,
    pub(super) key: Option<DirectoryKey<'a>>,
    pub(super) below: Vec<&'a str>,
    /// The type to which the path narrows its objects: `user` in `…/members/microsoft.graph.user`.
    pub(super) cast: Option<&'a str>,
}

impl<'a> DirectoryPlace<'a> {
    pub(super) fn of(parts: &[&'a str], caller: Uuid) -> Result<Self, GraphError> {
        let Some((first, rest)) = parts.split_first() else { return Err(GraphError::no_segment("")) };
        if first.eq_ignore_ascii_case("me") {
            return Ok(Self::below(ObjectSet::Users, Some(DirectoryKey::Me(caller)), rest));
        }
        let (word, key) = match first.split_once('(') {
            Some((word, key)) => {
                let key = key.strip_suffix(')').ok_or_else(|| GraphError::no_segment(first))?;
                let quoted = |text: &'a str| text.strip_prefix('\'')?.strip_suffix('\'');
                let key = match key.split_once('=') {
                    Some(("appId", id)) => quoted(id).map(DirectoryKey::App),
                    Some(_) => None,
                    None => quoted(key).map(DirectoryKey::Id),
                };
                (word, Some(key.ok_or_else(|| GraphError::no_segment(first))?))
            }
            None => (*first, None),
        };
        let set = ObjectSet::ALL.into_iter().find(|set| set.name().eq_ignore_ascii_case(word));
        let set = set.ok_or_else(|| GraphError::no_segment(word))?;
        let by_app = matches!(set, ObjectSet::Applications | ObjectSet::ServicePrincipals);
        if matches!(key, Some(DirectoryKey::App(_))) && !by_app {
            return Err(GraphError::no_segment(first));
        }
        match (key, rest) {
            (None, [id, rest @ ..]) if !is_type(id) && *id != "getByIds" => {
                Ok(Self::below(set, Some(DirectoryKey::Id(id)), rest))
            }
            (key, rest) => Ok(Self::below(set, key, rest)),
        }
    }

    fn below(set: ObjectSet, key: Option<DirectoryKey<'a>>, rest: &[&'a str]) -> Self {
        let cast = rest.iter().find(|part| is_type(part)).and_then(|part| part.rsplit('.').next());
        let below = rest.iter().copied().filter(|part| !is_type(part)).collect();
        Self { set, key, below, cast }
    }

    /// Whether a POST to it changes nothing.
    pub(super) fn is_question(&self) -> bool {
        let words =
            ["getByIds", "checkMemberGroups", "checkMemberObjects", "getMemberGroups", "getMemberObjects"];
        matches!(self.below[..], [word] if words.contains(&word))
    }
}

/// Whether a part of a path is the name of a type.
fn is_type(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    lower.starts_with("microsoft.graph.") || lower.starts_with("graph.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_place() {
        let me = Uuid::from_u128(7);
        for (path, set, key, below, cast) in [
            ("users/a%40b", ObjectSet::Users, Some(DirectoryKey::Id("a@b")), vec![], None),
            ("users('$x')", ObjectSet::Users, Some(DirectoryKey::Id("$x")), vec![], None),
            ("me/ownedObjects", ObjectSet::Users, Some(DirectoryKey::Me(me)), vec!["ownedObjects"], None),
            (
                "servicePrincipals(appId='1')",
                ObjectSet::ServicePrincipals,
                Some(DirectoryKey::App("1")),
                vec![],
                None,
            ),
            ("directoryObjects/getByIds", ObjectSet::DirectoryObjects, None, vec!["getByIds"], None),
            (
                "Groups/1/members/microsoft.graph.user",
                ObjectSet::Groups,
                Some(DirectoryKey::Id("1")),
                vec!["members"],
                Some("user"),
            ),
            (
                "servicePrincipals/Microsoft.Graph.AgentIdentity",
                ObjectSet::ServicePrincipals,
                None,
                vec![],
                Some("AgentIdentity"),
            ),
        ] {
            let parts = parts(path);
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            assert_eq!(
                DirectoryPlace::of(&parts, me),
                Ok(DirectoryPlace { set, key, below, cast }),
                "{path}"
            );
        }
        for path in ["", "nothing", "users(appId='1')", "servicePrincipals(appId=1)", "groups('1'"] {
            let parts = parts(path);
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            assert!(DirectoryPlace::of(&parts, me).is_err(), "{path}");
        }
    }
}

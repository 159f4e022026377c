//! Members of groups, and owners: one object's relations to others.

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{GraphAnswer, GraphApi, GraphError, GraphRequest};
use super::objects::id_of;
use super::pages::is_kind;
use super::place::{DirectoryKey, DirectoryPlace, ObjectSet};

/// A relation that clients change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Members,
    Owners,
}

impl Relation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Owners => "owners",
        }
    }
}

/// Relations of which there are none here.
const ALWAYS_EMPTY: [&str; 3] = ["appRoleAssignments", "appRoleAssignedTo", "oauth2PermissionGrants"];

impl GraphApi<'_> {
    /// `…/members`, `…/members/$ref`, `…/members/{id}/$ref` and the like.
    pub(super) fn relation(
        &self,
        request: &GraphRequest<'_>,
        (place, key): (&DirectoryPlace<'_>, DirectoryKey<'_>),
        word: &str,
        rest: &[&str],
    ) -> Result<GraphAnswer, GraphError> {
        let subject = self.object_id(place.set, key)?;
        let changed = [Relation::Members, Relation::Owners].into_iter().find(|it| it.name() == word);
        let changed = changed.filter(|it| *it == Relation::Owners || place.set == ObjectSet::Groups);
        match (request.method.as_str(), changed, rest) {
            ("GET", _, []) => {
                let mut objects = self.related_objects(subject, place.set, word)?;
                if let Some(cast) = place.cast {
                    objects.retain(|object| is_kind(object, cast));
                }
                self.collection(request, "directoryObjects", objects)
            }
            ("POST", Some(relation), ["$ref"]) => {
                let body = request.object()?;
                let address = body.get("@odata.id").and_then(Value::as_str).unwrap_or_default();
                let other = self.reference(address)?;
                if self.related(relation, subject).contains(&id_of(&other)) {
                    return Err(GraphError::bad(format!(
                        "One or more added object references already exist for the following modified properties: '{word}'."
                    )));
                }
                self.relate(relation, subject, &other)?;
                Ok(GraphAnswer::nothing())
            }
            ("GET" | "DELETE", Some(relation), [id, "$ref"]) => {
                let other = id.parse().ok().filter(|id| self.related(relation, subject).contains(id));
                let other: Uuid = other.ok_or_else(|| GraphError::no_object(id))?;
                if request.method == http::Method::GET {
                    let url = format!("{}/v1.0/directoryObjects/{other}", self.address);
                    let context = format!("{}#$ref", self.metadata());
                    let body =
                        json!({ "@odata.context": context, "@odata.id": url, "id": other, "url": url });
                    return Ok(GraphAnswer { status: StatusCode::OK, body: Some(body) });
                }
                self.part(relation, subject, other);
                Ok(GraphAnswer::nothing())
            }
            ("GET", ..) => Err(GraphError::no_segment(word)),
            _ => Err(GraphError::no_method(request.method)),
        }
    }

    fn related_objects(&self, subject: Uuid, set: ObjectSet, word: &str) -> Result<Vec<Value>, GraphError> {
        let memberships = || self.principals.memberships().into_iter();
        let ids: Vec<Uuid> = match (set, word) {
            (ObjectSet::Groups, "members" | "transitiveMembers") => self.related(Relation::Members, subject),
            (_, "owners") => self.related(Relation::Owners, subject),
            (_, "memberOf" | "transitiveMemberOf") => {
                memberships().filter(|(_, member)| *member == subject).map(|(group, _)| group).collect()
            }
            (ObjectSet::Users | ObjectSet::ServicePrincipals, "ownedObjects") => {
                let owners = self.principals.state().owners.clone();
                owners.into_iter().filter(|(_, owner)| *owner == subject).map(|(object, _)| object).collect()
            }
            (_, word) if ALWAYS_EMPTY.contains(&word) => Vec::new(),
            _ => return Err(GraphError::no_segment(word)),
        };
        let all = self.objects(ObjectSet::DirectoryObjects).into_iter();
        Ok(all.filter(|object| ids.contains(&id_of(object))).collect())
    }

    /// The object ids to which `subject` has this relation.
    pub(super) fn related(&self, relation: Relation, subject: Uuid) -> Vec<Uuid> {
        let pairs: Vec<(Uuid, Uuid)> = match relation {
            Relation::Members => self.principals.memberships(),
            Relation::Owners => self.principals.state().owners.iter().copied().collect(),
        };
        pairs.into_iter().filter(|(object, _)| *object == subject).map(|(_, other)| other).collect()
    }

    /// Makes an object a member or an owner of another.
    pub(super) fn relate(&self, relation: Relation, subject: Uuid, other: &Value) -> Result<(), GraphError> {
        if is_kind(other, "group") {
            return Err(GraphError::bad(
                "The local directory has no groups in groups: a member is a user or a service principal.",
            ));
        }
        let other = id_of(other);
        let made = match relation {
            Relation::Members => self.principals.join_group(other, subject),
            Relation::Owners => self.principals.add_owner(subject, other),
        };
        made.map_err(|_| GraphError::full())
    }

    /// Ends that an object is a member or an owner of another.
    pub(super) fn part(&self, relation: Relation, subject: Uuid, other: Uuid) {
        match relation {
            Relation::Members => self.principals.leave_group(other, subject),
            Relation::Owners => {
                self.principals.change(|state| state.owners.remove(&(subject, other)));
            }
        }
    }
}

/// The object id in an address such as `https://graph.microsoft.com/v1.0/directoryObjects/{id}`, whose host does not
/// matter.
pub(super) fn referenced(address: &str) -> Option<Uuid> {
    let last = address.rsplit('/').next()?;
    let id = last.rsplit_once('(').map_or(last, |(_, id)| id.trim_end_matches(')').trim_matches('\''));
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_an_object() {
        let id = Uuid::from_u128(7);
        for address in [
            format!("https://graph.microsoft.com/v1.0/directoryObjects/{id}"),
            format!("https://localhost:1/beta/{}/users/{id}", Uuid::nil()),
            format!("https://graph.microsoft.com/v1.0/users('{id}')"),
        ] {
            assert_eq!(referenced(&address), Some(id), "{address}");
        }
        assert_eq!((referenced(""), referenced("https://x/unknown")), (None, None));
    }
}

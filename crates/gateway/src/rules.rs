//! Rules of which principals may use which roles, in the place of a mapping in the database.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use pgentra_verify::{Groups, Principal, SubjectKind};
use pgentra_wire::fields::Fields;
use uuid::Uuid;

use crate::membership::is_member;
use crate::refusal;

/// What a principal has to be. A condition whose list is empty holds for every principal, except
/// that one of `object_ids`, `app_ids`, `groups`, `app_roles` and `usernames` has to name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrincipalRule {
    /// Object ids (`oid`) of users and service principals.
    pub object_ids: Vec<Uuid>,
    /// Client ids (`appid`, `azp`) of applications that sign in by themselves.
    pub app_ids: Vec<Uuid>,
    /// Object ids of groups; the token has to list one of them.
    pub groups: Vec<Uuid>,
    /// App roles (`roles`) of the application that the token is for.
    pub app_roles: Vec<String>,
    /// Sign-in names (`upn`, `preferred_username`) of users. Names are reused, object ids are not.
    pub usernames: Vec<String>,
    /// The tenants (`tid`) whose principals are meant.
    pub tenants: Vec<Uuid>,
    /// Whether the token has to say that a second factor was used.
    pub needs_second_factor: bool,
}

/// The rules of a server: a role that has none does not sign in with tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleRules {
    /// Who may use each role.
    pub roles: HashMap<String, Vec<PrincipalRule>>,
    /// Who may use all of these roles.
    pub administrators: Vec<PrincipalRule>,
    /// Who may use none, whatever another rule says.
    pub denied: Vec<PrincipalRule>,
}

/// Rules that can be replaced while clients are served. Clones share one state.
#[derive(Clone, Debug)]
pub struct SharedRules(Arc<ArcSwap<RoleRules>>);

impl SharedRules {
    /// The first rules.
    pub fn new(rules: RoleRules) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(rules)))
    }

    /// Replaces the rules for logins that begin from now on.
    pub fn replace(&self, rules: RoleRules) {
        self.0.store(Arc::new(rules));
    }

    /// The rules in force.
    pub fn current(&self) -> Arc<RoleRules> {
        self.0.load_full()
    }
}

impl RoleRules {
    /// Whether the role signs in with tokens.
    pub(crate) fn has(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    /// The groups that decide whether a principal may use the role.
    pub(crate) fn groups(&self, role: &str) -> Vec<Uuid> {
        let of_role = self.roles.get(role).map(Vec::as_slice).unwrap_or_default();
        let rules = of_role.iter().chain(&self.administrators).chain(&self.denied);
        let groups: BTreeSet<Uuid> = rules.flat_map(|rule| rule.groups.iter().copied()).collect();
        groups.into_iter().collect()
    }

    /// Whether the owner of a verified token may use this role. `further` are groups that the directory
    /// confirms.
    pub(crate) fn authorize(
        &self,
        role: &str,
        principal: &Principal,
        further: Option<&[Uuid]>,
    ) -> Result<(), Fields> {
        if self.denied.iter().any(|rule| rule.names(principal, further)) {
            return Err(refusal::denied(role));
        }
        // Its token does not list its groups, so it could be in one that is denied.
        let is_unknown = *principal.groups() == Groups::Overage && further.is_none();
        if is_unknown && self.denied.iter().any(|rule| !rule.groups.is_empty() && rule.is_for(principal)) {
            return Err(refusal::denied_if_member(role));
        }
        let of_role = self.roles.get(role).map(Vec::as_slice).unwrap_or_default();
        let mut lacks_factor = false;
        for rule in of_role.iter().chain(&self.administrators) {
            if !rule.names(principal, further) {
                continue;
            }
            if !rule.needs_second_factor || principal.multi_factor() {
                return Ok(());
            }
            lacks_factor = true;
        }
        if lacks_factor {
            return Err(refusal::no_second_factor());
        }
        Err(refusal::no_rule(role, principal))
    }
}

impl PrincipalRule {
    /// Whether the rule is for the principal's tenant.
    fn is_for(&self, principal: &Principal) -> bool {
        self.tenants.is_empty() || principal.tenant().is_some_and(|tenant| self.tenants.contains(&tenant))
    }

    /// Whether the rule means this principal. The second factor is not compared.
    fn names(&self, principal: &Principal, further: Option<&[Uuid]>) -> bool {
        if !self.is_for(principal) {
            return false;
        }
        let is_app = principal.kind() == SubjectKind::App;
        // A user's token names the application that the user signed in with: that is not the user.
        let by_app = is_app && principal.app_id().is_some_and(|id| self.app_ids.contains(&id));
        // The sign-in name of an application is not one.
        let by_name = !is_app
            && principal
                .user_principal_name()
                .is_some_and(|name| self.usernames.iter().any(|known| known.eq_ignore_ascii_case(name)));
        self.object_ids.contains(&principal.object_id())
            || by_app
            || by_name
            || self.groups.iter().any(|group| is_member(principal, *group, further))
            || self.app_roles.iter().any(|role| principal.app_roles().contains(role))
    }
}

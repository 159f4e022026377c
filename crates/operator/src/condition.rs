//! Conditions of a resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The server is as the resource says.
pub(crate) const READY: &str = "Ready";
/// The server and the resource were compared.
pub(crate) const PLANNED: &str = "Planned";

/// What a condition says now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) is: bool,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// Sets a condition. Its time is that of the last change of its status, as Kubernetes' conventions want it.
pub(crate) fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    said: Said<'_>,
    (generation, now): (Option<i64>, &Time),
) {
    let status = if said.is { "True" } else { "False" };
    let before = conditions.iter().position(|condition| condition.type_ == type_);
    let before = before.map(|at| conditions.remove(at));
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: said.reason.to_owned(),
        message: said.message.to_owned(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or_else(|| now.clone()),
    });
    conditions.sort_by(|one, two| one.type_.cmp(&two.type_));
}

/// What a condition says.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_change_of_the_status() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let mut conditions = Vec::new();
        let said = |is, reason| Said { is, reason, message: "" };
        set(&mut conditions, READY, said(false, "ServerUnreachable"), (Some(1), &at(1)));
        set(&mut conditions, PLANNED, said(false, "ServerUnreachable"), (Some(1), &at(1)));
        set(&mut conditions, READY, said(false, "SignInRefused"), (Some(2), &at(2)));
        let ready = find(&conditions, READY).unwrap();
        assert_eq!((&*ready.reason, &ready.last_transition_time), ("SignInRefused", &at(1)));
        assert_eq!(ready.observed_generation, Some(2));
        set(&mut conditions, READY, said(true, "Applied"), (Some(2), &at(3)));
        assert_eq!(find(&conditions, READY).unwrap().last_transition_time, at(3));
        assert_eq!(conditions.len(), 2);
    }
}

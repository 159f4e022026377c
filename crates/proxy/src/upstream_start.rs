//! The start-up that the server gets for a client.

use pgentra_connect::Target;
use pgentra_session::client::server_start;
use pgentra_session::login_error::LoginError;
use pgentra_wire::startup::StartupMessage;

use crate::options::Naming;
use crate::refusal;

/// The client's own start-up as `role`, with the role and database of the target, and the target's
/// `application_name` and `options` where the client sent none.
pub(crate) fn upstream_start(
    target: &Target,
    naming: Naming,
    role: &[u8],
    start: &StartupMessage,
) -> Result<StartupMessage, LoginError> {
    let asked = start.get("database").filter(|name| !name.is_empty());
    let role = decide("role", naming, target.named_user(), role)?;
    let database = match (target.named_database(), asked) {
        (Some(named), Some(asked)) => Some(decide("database", naming, Some(named), asked)?),
        (Some(named), None) => Some(named.as_bytes()),
        (None, asked) => asked,
    };
    let mut upstream = server_start(start, role)?;
    let defaults = [("application_name", target.application_name()), ("options", target.options())];
    let missing = |name: &str| start.get(name).is_none();
    let defaults = defaults.into_iter().filter(|(name, _)| missing(name));
    let defaults = defaults.filter_map(|(name, value)| Some((name, value?.as_bytes())));
    for (name, value) in database.map(|name| ("database", name)).into_iter().chain(defaults) {
        upstream = upstream.with(name, value)?;
    }
    Ok(upstream)
}

/// The role or database to use, where the target may have set one.
fn decide<'a>(
    what: &str,
    naming: Naming,
    named: Option<&'a str>,
    asked: &'a [u8],
) -> Result<&'a [u8], LoginError> {
    match (named.map(str::as_bytes), naming) {
        (None, _) => Ok(asked),
        (Some(named), Naming::Pinned) => Ok(named),
        (Some(named), Naming::Same) if named == asked => Ok(named),
        (Some(named), Naming::Same) => Err(refusal::name_mismatch(what, named, asked).into()),
    }
}

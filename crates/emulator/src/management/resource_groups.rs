//! Which resource group a resource is in.

use hyper::StatusCode;

use super::answers::{not_found, refusal};
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::Answer;

/// Where every resource of the local Azure is.
pub(super) const LOCATION: &str = "westeurope";

/// The resource group called `name`.
pub(super) fn group(cloud: &Cloud, name: &str) -> Result<String, Answer> {
    cloud.subscription.resource_group(name).ok_or_else(|| {
        let message = format!("Resource group '{name}' could not be found.");
        refusal(StatusCode::NOT_FOUND, "ResourceGroupNotFound", &message)
    })
}

/// Whether this group has the resources that the local cloud starts with, or no group is given.
pub(super) fn is_home(cloud: &Cloud, in_group: Option<&str>) -> Result<bool, Answer> {
    in_group.map_or(Ok(true), |name| Ok(group(cloud, name)? == RESOURCE_GROUP))
}

/// `Err` unless `named` is the one resource of this kind that the local cloud starts with.
pub(super) fn only(
    cloud: &Cloud,
    kind: &str,
    (in_group, named): (&str, &str),
    name: &str,
) -> Result<(), Answer> {
    let holder = group(cloud, in_group)?;
    if holder == RESOURCE_GROUP && named.eq_ignore_ascii_case(name) {
        return Ok(());
    }
    Err(not_found(kind, named, &holder))
}

/// The path of something in a resource group, as Azure writes resource ids.
pub(super) fn resource_id(cloud: &Cloud, group: &str, rest: &str) -> String {
    let subscription = cloud.directory.ids.subscription;
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{rest}")
}

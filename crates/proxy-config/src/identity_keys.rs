//! The settings that say whose tokens sign clients in.

use pgentra_identity::{IdentityOptions, Resource, Selector};
use pgentra_settings::Form;

use crate::key::{Key, Set};
use crate::settings::TargetSettings;

pub(crate) const CLIENT_ID: Key = Key {
    name: "client_id",
    form: Form::Text,
    value: "GUID",
    default: "",
    help: None,
    excludes: &["object_id", "resource_id", "token_command", "token_lifetime"],
    set: Set::Target(|target, given| {
        select(target, Selector::ClientId(given.guid()?));
        Ok(())
    }),
};

pub(crate) const OBJECT_ID: Key = Key {
    name: "object_id",
    form: Form::Text,
    value: "GUID",
    default: "",
    help: None,
    excludes: &["client_id", "resource_id", "token_command", "token_lifetime"],
    set: Set::Target(|target, given| {
        select(target, Selector::ObjectId(given.guid()?));
        Ok(())
    }),
};

pub(crate) const RESOURCE_ID: Key = Key {
    name: "resource_id",
    form: Form::Text,
    value: "ID",
    default: "",
    help: None,
    excludes: &["client_id", "object_id", "token_command", "token_lifetime"],
    set: Set::Target(|target, given| {
        select(target, Selector::ResourceId(given.text()?.to_owned()));
        Ok(())
    }),
};

pub(crate) const SOURCE: Key = Key {
    name: "source",
    form: Form::Text,
    value: "NAME",
    default: "",
    help: None,
    excludes: &["token_command", "token_lifetime"],
    set: Set::Target(|target, given| {
        target.identity.source = Some(given.read(IdentityOptions::parse_source)?);
        (target.identity.token_command, target.identity.token_lifetime) = (None, None);
        Ok(())
    }),
};

pub(crate) const TOKEN_COMMAND: Key = Key {
    name: "token_command",
    form: Form::Text,
    value: "CMD",
    default: "",
    help: None,
    excludes: &["client_id", "object_id", "resource_id", "source"],
    set: Set::Target(|target, given| {
        let identity = &mut target.identity;
        (identity.selector, identity.source) = (None, None);
        identity.token_command = Some(given.text()?.to_owned());
        Ok(())
    }),
};

pub(crate) const TOKEN_LIFETIME: Key = Key {
    name: "token_lifetime",
    form: Form::Time,
    value: "TIME",
    default: "",
    help: None,
    excludes: &["client_id", "object_id", "resource_id", "source"],
    set: Set::Target(|target, given| {
        given.time(IdentityOptions::TOKEN_LIFETIMES).map(|value| target.identity.token_lifetime = Some(value))
    }),
};

pub(crate) const TENANT: Key = Key {
    name: "tenant",
    form: Form::Text,
    value: "TENANT",
    default: "",
    help: None,
    excludes: &[],
    set: Set::Target(|target, given| {
        given.read(IdentityOptions::parse_tenant).map(|value| target.identity.tenant = Some(value))
    }),
};

pub(crate) const CLOUD: Key = Key {
    name: "cloud",
    form: Form::Text,
    value: "CLOUD",
    default: "public",
    help: None,
    excludes: &[],
    set: Set::Target(|target, given| {
        given.read(IdentityOptions::parse_cloud).map(|value| target.identity.cloud = value)
    }),
};

pub(crate) const RESOURCE: Key = Key {
    name: "resource",
    form: Form::Text,
    value: "URI",
    default: "",
    help: None,
    excludes: &[],
    set: Set::Target(|target, given| {
        target.identity.resource = Some(given.parsed::<Resource>()?);
        Ok(())
    }),
};

pub(crate) const TOKEN_TIMEOUT: Key = Key {
    name: "token_timeout",
    form: Form::Time,
    value: "TIME",
    default: "80s",
    help: None,
    excludes: &[],
    set: Set::Target(|target, given| {
        given.time(IdentityOptions::TOKEN_TIMEOUTS).map(|value| target.identity.token_timeout = value)
    }),
};

/// Sets the identity in place of a token command.
fn select(target: &mut TargetSettings, selector: Selector) {
    target.identity.selector = Some(selector);
    (target.identity.token_command, target.identity.token_lifetime) = (None, None);
}

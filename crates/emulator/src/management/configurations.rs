//! Parameters of the flexible server (Microsoft.DBforPostgreSQL/flexibleServers/configurations): the parameter of group sync.

use serde_json::{Value, json};

use super::answers::{body, collection, json_answer, not_found};
use super::servers;
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::{Answer, Call};
use crate::options::ServerOptions;
use crate::subscription::Effect;

const KIND: &str = "Microsoft.DBforPostgreSQL/flexibleServers/configurations";
const GROUP_SYNC: &str = "pgaadauth.enable_group_sync";

/// `GET …/configurations`
pub(super) fn list(cloud: &Cloud, group: &str, server: &str) -> Result<Answer, Answer> {
    Ok(collection(vec![shown(cloud, servers::server(cloud, group, server)?)]))
}

/// `GET …/configurations/{name}`
pub(super) fn show(cloud: &Cloud, (group, server): (&str, &str), name: &str) -> Result<Answer, Answer> {
    let server = servers::server(cloud, group, server)?;
    known(server, name)?;
    Ok(json_answer(shown(cloud, server)))
}

/// The parameter of this server, as the API shows it.
pub(super) fn found(cloud: &Cloud, resource: &str) -> Option<Value> {
    resource.ends_with(GROUP_SYNC).then(|| cloud.server.as_ref().map(|server| shown(cloud, server)))?
}

/// `PUT` or `PATCH …/configurations/{name}`: 202; the parameter is set when the operation ends.
pub(super) fn change(
    cloud: &Cloud,
    call: &Call,
    (group, server): (&str, &str),
    name: &str,
) -> Result<Answer, Answer> {
    let server = servers::server(cloud, group, server)?;
    known(server, name)?;
    let body = body(call)?;
    let value = &body["properties"]["value"];
    // `az … parameter set` without a value asks for the default, by its source.
    let is_default = body["properties"]["source"].as_str() == Some("system-default");
    let is_on = match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("on") => true,
        Some("off") => false,
        None if is_default => false,
        _ => return Err(servers::invalid("value")),
    };
    servers::change(cloud, server, &format!("configurations/{GROUP_SYNC}"), Effect::GroupSync(is_on))
}

fn known(server: &ServerOptions, name: &str) -> Result<(), Answer> {
    if name.eq_ignore_ascii_case(GROUP_SYNC) {
        return Ok(());
    }
    Err(not_found(KIND, &format!("{}/{name}", server.name), RESOURCE_GROUP))
}

fn shown(cloud: &Cloud, server: &ServerOptions) -> Value {
    let is_on = cloud.subscription.is_group_sync(cloud.clock.unix());
    json!({
        "properties": {
            "value": if is_on { "on" } else { "off" },
            "defaultValue": "off",
            "dataType": "Boolean",
            "allowedValues": "on,off",
            "source": if is_on { "user-override" } else { "system-default" },
            "isDynamicConfig": true,
            "isReadOnly": false,
            "isConfigPendingRestart": false,
        },
        "id": format!("{}/configurations/{GROUP_SYNC}", servers::id(cloud, server)),
        "name": GROUP_SYNC,
        "type": KIND,
    })
}

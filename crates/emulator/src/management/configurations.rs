//! Parameters of the flexible server (Microsoft.DBforPostgreSQL/flexibleServers/configurations): those of group sync and of
//! the built-in PgBouncer.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{body, collection, json_answer, not_found, refusal};
use super::servers;
use crate::cloud::Cloud;
use crate::directory::RESOURCE_GROUP;
use crate::exchange::{Answer, Call};
use crate::options::ServerOptions;
use crate::subscription::{Effect, PGBOUNCER_ENABLED};

const KIND: &str = "Microsoft.DBforPostgreSQL/flexibleServers/configurations";
const GROUP_SYNC: &str = "pgaadauth.enable_group_sync";
/// The longest value in bytes: that of a list of names.
const LONGEST: usize = 1024;

/// A parameter of the server.
struct ServerParameter {
    name: &'static str,
    default: &'static str,
    values: Values,
}

/// What a parameter can be.
enum Values {
    /// One of two words; the first is true.
    Boolean([&'static str; 2]),
    Integer(u32, u32),
    Enumeration(&'static [&'static str]),
    /// Names with commas.
    Names,
}

/// Names and defaults are Azure's (Microsoft: concepts-pgbouncer). The ranges are not in that documentation.
const PARAMETERS: [ServerParameter; 11] = [
    ServerParameter::new(GROUP_SYNC, "off", Values::Boolean(["on", "off"])),
    ServerParameter::new("pgbouncer.default_pool_size", "50", Values::Integer(1, 4950)),
    ServerParameter::new(PGBOUNCER_ENABLED, "false", Values::Boolean(["true", "false"])),
    ServerParameter::new("pgbouncer.ignore_startup_parameters", "", Values::Names),
    ServerParameter::new("pgbouncer.max_client_conn", "5000", Values::Integer(1, 50_000)),
    ServerParameter::new("pgbouncer.max_prepared_statements", "0", Values::Integer(0, 5000)),
    ServerParameter::new("pgbouncer.min_pool_size", "0", Values::Integer(0, 4950)),
    ServerParameter::new(
        "pgbouncer.pool_mode",
        "transaction",
        Values::Enumeration(&["session", "transaction", "statement"]),
    ),
    ServerParameter::new("pgbouncer.query_wait_timeout", "120", Values::Integer(0, 86_400)),
    ServerParameter::new("pgbouncer.server_idle_timeout", "600", Values::Integer(0, 86_400)),
    ServerParameter::new("pgbouncer.stats_users", "", Values::Names),
];

impl ServerParameter {
    const fn new(name: &'static str, default: &'static str, values: Values) -> Self {
        Self { name, default, values }
    }

    /// The value as it is stored; `None`: it cannot be this parameter's.
    fn accept(&self, value: &str) -> Option<String> {
        let lower = value.to_ascii_lowercase();
        match &self.values {
            Values::Boolean(words) => {
                let is_true = match &*lower {
                    "true" | "on" => true,
                    "false" | "off" => false,
                    _ => return None,
                };
                Some(words[usize::from(!is_true)].to_owned())
            }
            Values::Integer(least, most) => {
                let number: u32 = value.parse().ok()?;
                (*least..=*most).contains(&number).then(|| number.to_string())
            }
            Values::Enumeration(words) => words.contains(&&*lower).then_some(lower),
            Values::Names if value.len() > LONGEST || value.chars().any(char::is_control) => None,
            Values::Names => Some(value.to_owned()),
        }
    }

    /// `dataType` and `allowedValues`.
    fn described(&self) -> (&'static str, String) {
        match &self.values {
            Values::Boolean(words) => ("Boolean", words.join(",")),
            Values::Integer(least, most) => ("Integer", format!("{least}-{most}")),
            Values::Enumeration(words) => ("Enumeration", words.join(",")),
            Values::Names => ("String", String::new()),
        }
    }
}

/// `GET …/configurations`
pub(super) fn list(cloud: &Cloud, group: &str, server: &str) -> Result<Answer, Answer> {
    let server = servers::server(cloud, group, server)?;
    Ok(collection(PARAMETERS.iter().map(|parameter| shown(cloud, server, parameter)).collect()))
}

/// `GET …/configurations/{name}`
pub(super) fn show(cloud: &Cloud, (group, server): (&str, &str), name: &str) -> Result<Answer, Answer> {
    let server = servers::server(cloud, group, server)?;
    Ok(json_answer(shown(cloud, server, known(server, name)?)))
}

/// Whether it is a parameter of PgBouncer with a value as it is stored.
pub(crate) fn is_pgbouncer_setting(name: &str, value: &str) -> bool {
    let mut others = PARAMETERS.iter().filter(|parameter| parameter.name != GROUP_SYNC);
    others.any(|parameter| parameter.name == name && parameter.accept(value).as_deref() == Some(value))
}

/// The parameter of this server, as the API shows it.
pub(super) fn found(cloud: &Cloud, resource: &str) -> Option<Value> {
    let (_, name) = resource.rsplit_once("/configurations/")?;
    let parameter = PARAMETERS.iter().find(|parameter| parameter.name == name)?;
    Some(shown(cloud, cloud.server.as_ref()?, parameter))
}

/// `PUT` or `PATCH …/configurations/{name}`: 202; the parameter is set when the operation ends.
pub(super) fn change(
    cloud: &Cloud,
    call: &Call,
    (group, server): (&str, &str),
    name: &str,
) -> Result<Answer, Answer> {
    let server = servers::server(cloud, group, server)?;
    let parameter = known(server, name)?;
    let body = body(call)?;
    let value = &body["properties"]["value"];
    // `az … parameter set` without a value asks for the default, by its source.
    let is_default = body["properties"]["source"].as_str() == Some("system-default");
    let value = match value.as_str().map(|value| parameter.accept(value)) {
        Some(Some(value)) => value,
        None if is_default => parameter.default.to_owned(),
        _ => return Err(servers::invalid("value")),
    };
    let effect = match parameter.name {
        GROUP_SYNC => Effect::GroupSync(value == "on"),
        name => {
            let missing = server.pgbouncer_missing.as_ref();
            if let Some(reason) = missing.filter(|_| (name, &*value) == (PGBOUNCER_ENABLED, "true")) {
                return Err(refusal(StatusCode::BAD_REQUEST, "InvalidParameterValue", reason));
            }
            Effect::PgBouncer { parameter: name, value }
        }
    };
    servers::change(cloud, server, &format!("configurations/{}", parameter.name), effect)
}

fn known(server: &ServerOptions, name: &str) -> Result<&'static ServerParameter, Answer> {
    let found = PARAMETERS.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| not_found(KIND, &format!("{}/{name}", server.name), RESOURCE_GROUP))
}

fn shown(cloud: &Cloud, server: &ServerOptions, parameter: &ServerParameter) -> Value {
    let now = cloud.clock.unix();
    let value = match parameter.name {
        GROUP_SYNC => cloud.subscription.is_group_sync(now).then(|| "on".to_owned()),
        name => cloud.subscription.pgbouncer(name, now),
    };
    let value = value.unwrap_or_else(|| parameter.default.to_owned());
    let (data_type, allowed) = parameter.described();
    json!({
        "properties": {
            "value": value,
            "defaultValue": parameter.default,
            "dataType": data_type,
            "allowedValues": allowed,
            "source": if value == parameter.default { "system-default" } else { "user-override" },
            "isDynamicConfig": true,
            "isReadOnly": false,
            "isConfigPendingRestart": false,
        },
        "id": format!("{}/configurations/{}", servers::id(cloud, server), parameter.name),
        "name": parameter.name,
        "type": KIND,
    })
}

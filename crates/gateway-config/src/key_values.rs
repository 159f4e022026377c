//! How the values of some keys are read.

use pgentra_gateway::{AskMethod, Flavour, Unmapped};
use pgentra_settings::{ListenAddr, RawValue};
use pgentra_verify::Cloud;

use crate::settings::{GatewayProcessSettings, ServerSettings};

pub(crate) fn admin(process: &mut GatewayProcessSettings, given: &RawValue<'_>) -> Result<(), String> {
    let place = given.parsed::<ListenAddr>()?;
    if !place.is_local() {
        return Err(format!(
            "cannot be {place}: every client that reaches it may end the gateway; health_listen has probes and metrics alone"
        ));
    }
    process.telemetry.admin_listen = Some(place.tcp()?);
    Ok(())
}

pub(crate) fn health(process: &mut GatewayProcessSettings, given: &RawValue<'_>) -> Result<(), String> {
    process.telemetry.health_listen = Some(given.parsed::<ListenAddr>()?.tcp()?);
    Ok(())
}

pub(crate) fn flavour(server: &mut ServerSettings, given: &RawValue<'_>) -> Result<(), String> {
    server.flavour = match given.text()? {
        "flexible" => Some(Flavour::Flexible),
        "single" => Some(Flavour::Single),
        "none" => None,
        other => return Err(format!("is flexible, single or none, not `{other}`")),
    };
    Ok(())
}

pub(crate) fn unmapped(text: &str) -> Result<Unmapped, String> {
    match text {
        "refuse" => Ok(Unmapped::Refuse),
        "password" => Ok(Unmapped::Password),
        other => Err(format!("is refuse or password, not `{other}`")),
    }
}

pub(crate) fn ask_method(text: &str) -> Result<AskMethod, String> {
    text.parse().map_err(|_| format!("is password or oauth, not `{text}`"))
}

pub(crate) fn cloud(text: &str) -> Result<Cloud, String> {
    match text {
        "public" => Ok(Cloud::Public),
        "usgov" => Ok(Cloud::UsGov),
        "china" => Ok(Cloud::China),
        other => Err(format!("is public, usgov or china, not `{other}`")),
    }
}

/// Keys that come over the network in clear text could be anyone's.
pub(crate) fn keys_url(text: &str) -> Result<String, String> {
    let is_local = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
    if text.starts_with("https://") || is_local.iter().any(|start| text.starts_with(start)) {
        return Ok(text.to_owned());
    }
    Err(format!("begins with https://, and `{text}` does not"))
}

pub(crate) fn session_attrs(it: &mut ServerSettings, given: &RawValue<'_>) -> Result<(), String> {
    let text = given.text()?;
    let known = "it is any, read-write, read-only, primary, standby or prefer-standby";
    it.target_session_attrs = text.parse().map_err(|()| format!("cannot be `{text}`: {known}"))?;
    Ok(())
}

//! The checks of source, token and claims: is there a token, and is it valid for this server?
//!
//! The token is not verified here; the checks report only what cannot match.

use std::time::{Duration, SystemTime};

use pgentra_connect::role_candidates;
use pgentra_identity::{AccessToken, Cloud, TokenKind, UnverifiedClaims};
use pgentra_system::System;

use super::azure_name::cloud_of;
use super::check::Check;
use super::redact::Redactor;
use super::report::{Report, Stage};
use super::settings::Settings;
use crate::catalogue::Finding;
use crate::options::Identity;
use crate::time::{date, unix};

/// Synchronised clocks differ by milliseconds, and Entra tolerates five minutes.
const CLOCKS_AGREE: Duration = Duration::from_secs(120);

pub(crate) async fn check(
    system: &System,
    (settings, identity): (&Settings, &Identity),
    report: &mut Report,
    redactor: &mut Redactor,
) -> Stage<AccessToken> {
    let token = match settings.credential.token(&settings.resource).await {
        Ok(token) => token,
        Err(error) => {
            let finding = Finding::from(&error);
            for (source, reason) in error.reasons() {
                report.fact(finding.check(), &source.to_string(), reason.to_string());
            }
            return Err(report.fail(finding, &error, error.hint()));
        }
    };
    report.pass(Check::Answer, format!("{} answers", token.source()));
    report.pass(Check::Token, format!("a token from {}", token.source()));
    claims(system, (settings, identity), &token, (report, redactor))?;
    Ok(token)
}

fn claims(
    system: &System,
    (settings, identity): (&Settings, &Identity),
    token: &AccessToken,
    (report, redactor): (&mut Report, &mut Redactor),
) -> Stage {
    let Some(claims) = UnverifiedClaims::of(token) else {
        // A token need not be a JWT: its format is for the resource only.
        for check in [Check::Form, Check::Audience, Check::Tenant, Check::Owner] {
            report.skip(check, "the token is not a JSON Web Token, so it cannot be read");
        }
        time(system, token, report);
        return Ok(());
    };
    for claim in ["upn", "preferred_username", "unique_name"] {
        redactor.add("user", claims.text(claim).unwrap_or_default());
    }
    for claim in ["xms_mirid", "xms_az_rid"] {
        redactor.add("resource", claims.text(claim).unwrap_or_default());
    }
    // An application id is masked as an id.
    for candidate in role_candidates(&claims).iter().filter(|one| uuid::Uuid::try_parse(&one.name).is_err()) {
        redactor.add("role", &candidate.name);
    }
    report.pass(Check::Form, "a JSON Web Token; what it says is not verified here");
    audience(settings, &claims, report)?;
    tenant(system, identity, &claims, report);
    time(system, token, report);
    clock(token, &claims, report);
    owner(&claims, report);
    Ok(())
}

/// The server refuses a token for another resource. A v2.0 token names an application instead of a
/// resource, so it shows nothing.
fn audience(settings: &Settings, claims: &UnverifiedClaims, report: &mut Report) -> Stage {
    let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
    let asked = settings.resource.as_str();
    let Some(audience) = claims.text("aud").filter(|audience| uuid::Uuid::try_parse(audience).is_err())
    else {
        report.skip(Check::Audience, "the token names no resource");
        return Ok(());
    };
    if !same(audience, asked) {
        let summary = format!("the token is for {audience}, and was asked for {asked}");
        let hint = "a command behind --token-command finds what to ask for in PGENTRA_RESOURCE; with az: az account get-access-token --resource-type oss-rdbms";
        return Err(report.fail_saying(
            Finding::ClaimsAudience,
            summary,
            (Vec::new(), Some(hint.to_owned())),
        ));
    }
    // Azure's servers compare the audience byte by byte.
    let bare = audience.trim_end_matches('/');
    if bare != audience && Cloud::ALL.iter().any(|cloud| cloud.postgres_resource().as_str() == bare) {
        let summary = format!(
            "the token is for {audience}, with a slash at its end; servers take tokens for {bare} alone"
        );
        let hint = format!("leave --resource out; as a scope it is {bare}/.default, with one slash");
        return Err(report.fail_saying(Finding::ClaimsAudience, summary, (Vec::new(), Some(hint))));
    }
    let endpoints = settings.connector.target().endpoints();
    let wrong = endpoints.iter().find_map(|endpoint| {
        let cloud = cloud_of(&endpoint.host)?;
        (!same(audience, cloud.postgres_resource().as_str())).then_some((endpoint, cloud))
    });
    if let Some((endpoint, cloud)) = wrong {
        let wanted = cloud.postgres_resource();
        let summary = format!("the token is for {audience}, and {} takes tokens for {wanted}", endpoint.host);
        let hint = format!("leave --resource out and say --cloud {cloud}");
        return Err(report.fail_saying(Finding::ClaimsAudience, summary, (Vec::new(), Some(hint))));
    }
    let of_azure = Cloud::ALL.iter().any(|cloud| same(audience, cloud.postgres_resource().as_str()));
    let known = if of_azure {
        ""
    } else {
        ", which is none of Azure Database for PostgreSQL: only the server decides"
    };
    report.pass(Check::Audience, format!("{audience}{known}"));
    Ok(())
}

/// The tenant of a managed identity is that of its subscription; the setting is ignored.
fn tenant(system: &System, identity: &Identity, claims: &UnverifiedClaims, report: &mut Report) {
    let Some(tenant) = claims.tenant() else {
        report.skip(Check::Tenant, "the token names no tenant");
        return;
    };
    let named = identity.tenant.clone().or_else(|| system.env().get("AZURE_TENANT_ID"));
    let other = named.filter(|named| uuid::Uuid::try_parse(named).is_ok_and(|id| Ok(id) != tenant.parse()));
    match other {
        Some(other) => report.warn(
            Finding::ClaimsTenant,
            format!("the token is of tenant {tenant}, and {other} was named"),
            None,
        ),
        None => report.pass(Check::Tenant, tenant),
    }
}

/// A token that had expired on arrival is refused earlier, so this one is still valid.
fn time(system: &System, token: &AccessToken, report: &mut Report) {
    let left = token.expires_on().duration_since(system.clock().now()).unwrap_or_default().as_secs();
    let summary =
        format!("ends at {}, in {} h {} min", date(unix(token.expires_on())), left / 3600, left % 3600 / 60);
    report.pass(Check::Time, summary);
}

fn clock(token: &AccessToken, claims: &UnverifiedClaims, report: &mut Report) {
    let ours = token.received_on();
    let theirs = token.source_time();
    // Without a date from the source: a token that is not valid yet shows that the issuer's clock
    // is ahead.
    let theirs = theirs.or_else(|| claims.time("nbf").filter(|nbf| *nbf > ours));
    let Some(theirs) = theirs else {
        report.skip(Check::Clock, "the source does not say what time it is there");
        return;
    };
    let (difference, word) = difference(ours, theirs);
    if difference <= CLOCKS_AGREE {
        report.pass(Check::Clock, format!("within {} s of the token source's", difference.as_secs().max(1)));
        return;
    }
    let summary = format!(
        "this machine's clock is {} min {word} the token source's: it says {}, the source says {}",
        difference.as_secs() / 60,
        date(unix(ours)),
        date(unix(theirs))
    );
    report.warn(Finding::ClockWrong, summary, None);
}

/// The difference between two clocks, and the direction.
fn difference(ours: SystemTime, theirs: SystemTime) -> (Duration, &'static str) {
    match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    }
}

fn owner(claims: &UnverifiedClaims, report: &mut Report) {
    let kind = match claims.kind() {
        Some(TokenKind::App) => "an application or managed identity",
        Some(TokenKind::User) => "a user",
        _ => "of an unknown kind",
    };
    match claims.object_id() {
        Some(object_id) => report.pass(Check::Owner, format!("object id {object_id}, {kind}")),
        None => report.skip(Check::Owner, format!("the token has no object id; it is {kind}")),
    }
    let facts = [
        ("client id", claims.client_id()),
        ("user", claims.text("upn").or_else(|| claims.text("preferred_username"))),
        ("resource id", claims.text("xms_mirid")),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            report.fact(Check::Owner, name, value);
        }
    }
    for candidate in role_candidates(claims) {
        report.fact(Check::Owner, "role that fits", format!("{}, if {}", candidate.name, candidate.because));
    }
}

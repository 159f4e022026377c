//! The lines of the audit log: a JSON object each, with client and role. One is written for the start
//! of a session, one for its end, and one for each client that was refused.

use std::time::SystemTime;

use pgentra_observe::rfc3339;
use serde::Serialize;
use uuid::Uuid;

use super::names::{Names, SignIn};

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    Start,
    End,
    Refused,
}

/// One line. Unknown values, and values of other events, are left out.
#[derive(Debug, Serialize)]
pub(super) struct AuditLine<'a> {
    pub(super) time: String,
    pub(super) event: Event,
    /// Identifies the process: sessions are numbered from 1 in each.
    pub(super) instance: Uuid,
    pub(super) target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<u64>,
    pub(super) client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) application_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backend_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sqlstate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_to_server: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_to_client: Option<u64>,
}

impl<'a> AuditLine<'a> {
    pub(super) fn new(
        (time, instance): (SystemTime, Uuid),
        event: Event,
        target: &'a str,
        client: &'a str,
        names: &'a Names,
    ) -> Self {
        Self {
            time: rfc3339(time),
            event,
            instance,
            target,
            session: None,
            client,
            client_role: names.client_role.as_deref(),
            role: names.role.as_deref(),
            database: names.database.as_deref(),
            application_name: names.application_name.as_deref(),
            tenant: None,
            object_id: None,
            client_id: None,
            backend_pid: None,
            sqlstate: None,
            message: None,
            ended_by: None,
            seconds: None,
            bytes_to_server: None,
            bytes_to_client: None,
        }
    }

    pub(super) fn signed_in(mut self, sign_in: &'a SignIn) -> Self {
        let identity = sign_in.identity.as_ref();
        self.tenant = identity.and_then(|identity| identity.tenant());
        self.object_id = identity.and_then(|identity| identity.object_id());
        self.client_id = identity.and_then(|identity| identity.client_id());
        self.backend_pid = sign_in.backend_pid;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_json() {
        static NAMES: Names = Names { client_role: None, role: None, database: None, application_name: None };
        let line = AuditLine::new((SystemTime::UNIX_EPOCH, Uuid::nil()), Event::Refused, "t", "c", &NAMES);
        let line = AuditLine { sqlstate: Some("28000"), message: Some("one\n\"quoted\""), ..line };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"time":"1970-01-01T00:00:00.000Z","event":"refused","instance":"00000000-0000-0000-0000-000000000000","target":"t","client":"c","sqlstate":"28000","message":"one\n\"quoted\""}"#
        );
    }
}

//! Waiting for what takes time (Microsoft: async-operations).

use std::time::Duration;

use pgentra_system::http::Response;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::ResourceManager;
use crate::client::{Ask, retry_after};
use crate::{AzureError, AzureErrorKind};

/// How often to ask where the service does not say; and the longest wait that is believed.
const INTERVAL: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

impl ResourceManager {
    /// Returns when the operation that this answer began has ended well.
    ///
    /// Cancel-safe: the operation itself goes on.
    pub(super) async fn finish(&self, began: &Response, doing: &str) -> Result<(), AzureError> {
        let ends = Instant::now() + self.patience.0;
        let (url, is_status) = match (began.header("azure-asyncoperation"), began.header("location")) {
            (Some(url), _) => (url.to_owned(), true),
            (None, Some(url)) if began.status() == 202 => (url.to_owned(), false),
            _ => return Ok(()),
        };
        let mut wait = retry_after(began);
        loop {
            let resume = Instant::now() + wait.unwrap_or(INTERVAL).clamp(Duration::from_millis(100), LONGEST);
            if resume > ends {
                let seconds = self.patience.0.as_secs();
                let message = format!(
                    "cannot {doing} to its end: the operation is still running at Azure after {seconds} s"
                );
                return Err(AzureError::new(AzureErrorKind::StillRunning, message)
                    .hinting("it goes on there: look again in some minutes with `pgentra identity show` or `server-admin list`"));
            }
            sleep_until(resume).await;
            let answer = self.client.send(&Ask::get(&*url, doing)).await?;
            wait = retry_after(&answer);
            if !is_status {
                if answer.status() != 202 {
                    return Ok(());
                }
                continue;
            }
            let body = self.client.parse(doing, &answer)?;
            match body["status"].as_str() {
                Some("Succeeded") => return Ok(()),
                Some("Failed" | "Canceled") => return Err(failed(doing, &body, &answer)),
                // Services have words of their own for what has not ended.
                Some(_) => {}
                None => return Err(self.client.unusable(doing, "status of the operation")),
            }
        }
    }
}

fn failed(doing: &str, body: &Value, answer: &Response) -> AzureError {
    let text = |member: &str| body["error"][member].as_str().map(|text| answer.excerpt(text));
    let status = body["status"].as_str().unwrap_or_default().to_lowercase();
    let said = text("message").unwrap_or_else(|| "Azure says no more".to_owned());
    let kind = if status == "canceled" { AzureErrorKind::Conflict } else { AzureErrorKind::Refused };
    let error = AzureError::new(kind, format!("cannot {doing}: the operation {status}: {said}"));
    let error = error.with_code(text("code"));
    // The error of a flexible server for a new administrator whose role exists already.
    if said.contains("Updating an existing principal isn't supported") {
        return error.hinting(
            "it has a role in the database already: find it with `pgentra role list`, drop it with `pgentra role drop NAME`, \
             and add the administrator again",
        );
    }
    error
}

//! What a `scenario.toml` holds.
//!
//! `{server}` and `{port}` in variables and answers stand for the scripted server; `{jwt exp nbf}` in a token stands for an
//! unsigned token with these claims, the second optional.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Scenario {
    /// What this is about, in prose.
    pub(crate) about: String,
    /// The time of day at the start, in seconds since 1970.
    #[serde(default = "now")]
    pub(crate) now: u64,
    #[serde(default = "resource")]
    pub(crate) resource: String,
    pub(crate) selector: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) cloud: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) deadline_s: Option<u64>,
    /// What is at 169.254.169.254: the scripted server (`server`), or nothing (`closed`).
    #[serde(default)]
    pub(crate) metadata: Metadata,
    /// The address on which the scripted server listens.
    #[serde(default = "listen")]
    pub(crate) listen: String,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
    /// The programs that are installed, by name and arguments.
    #[serde(default)]
    pub(crate) program: Vec<Program>,
    /// The command of the source `exec`.
    pub(crate) command: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) exchange: Vec<Exchange>,
    /// Fragments of what is logged.
    #[serde(default)]
    pub(crate) logs: Vec<String>,
    /// What must come of it; more than one: asked again, with a new credential unless it says otherwise.
    pub(crate) outcome: Vec<Outcome>,
}

/// A program, what it must be called with, and what it does.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) stdout: String,
    #[serde(default)]
    pub(crate) stderr: String,
    #[serde(default)]
    pub(crate) code: i32,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metadata {
    Server,
    #[default]
    Closed,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Exchange {
    /// Method and target, exactly.
    pub(crate) expect: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Headers that must not be there.
    #[serde(default)]
    pub(crate) without: Vec<String>,
    /// The form, exactly; `*` stands for any value.
    pub(crate) form: Option<BTreeMap<String, String>>,
    /// How often this is expected.
    #[serde(default = "once")]
    pub(crate) times: u32,
    pub(crate) answer: Answer,
}

#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// This many letters are appended to the body.
    pub(crate) padding: usize,
    /// Seconds before the answer.
    pub(crate) after_s: u64,
    /// Seconds before each byte of it.
    pub(crate) drip_s: u64,
    /// The connection is closed after this many bytes.
    pub(crate) cut: Option<usize>,
    /// Sent instead of an HTTP answer.
    pub(crate) raw: Option<String>,
    /// Nothing is sent and the connection stays open.
    pub(crate) hang: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Outcome {
    /// Seconds that pass before.
    pub(crate) after_s: u64,
    /// Ask the same credential as before.
    pub(crate) again: bool,
    pub(crate) token: Option<String>,
    pub(crate) expires_on: Option<u64>,
    pub(crate) refresh_in: Option<u64>,
    pub(crate) source: Option<String>,
    pub(crate) decided: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) status: Option<u16>,
    /// Fragments of the error and its causes.
    pub(crate) says: Vec<String>,
    /// Fragments of the hint.
    pub(crate) hint: Vec<String>,
    /// Least and most seconds on the paused clock.
    pub(crate) took_s: Option<[f64; 2]>,
}

impl Scenario {
    /// What must never be shown: secrets of the environment, contents of files, tokens.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let named = |name: &str| {
            ["SECRET", "HEADER", "ACCESSTOKEN", "REQUEST_TOKEN", "PASSWORD"]
                .iter()
                .any(|part| name.contains(part))
        };
        let variables = self.env.iter().filter(|(name, _)| named(name)).map(|(_, value)| value.clone());
        let files = self.files.values().map(|content| content.trim().to_owned());
        let tokens = self.outcome.iter().filter_map(|outcome| outcome.token.as_deref()).map(expand);
        variables.chain(files).chain(tokens).filter(|secret| secret.len() >= 6).collect()
    }
}

/// Replaces `{jwt exp}` by a token.
pub(crate) fn expand(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{jwt ") else { return text.to_owned() };
    let (times, after) = rest.split_once('}').unwrap();
    let (exp, nbf) = times.split_once(' ').unwrap_or((times, "0"));
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let token =
        format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(&format!(r#"{{"exp":{exp},"nbf":{nbf}}}"#)));
    format!("{before}{token}{}", expand(after))
}

fn now() -> u64 {
    1_800_000_000
}

fn resource() -> String {
    "https://ossrdbms-aad.database.windows.net".to_owned()
}

fn listen() -> String {
    "127.0.0.1".to_owned()
}

fn once() -> u32 {
    1
}

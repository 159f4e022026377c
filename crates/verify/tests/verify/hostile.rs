//! Every row of `hostile.json` is a token that an attacker might send, with the expected rejection.

use std::error::Error as _;

use pgentra_verify::{Rejection, TOKEN_LIMIT, Verifier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::mint::{
    AUDIENCE, NOW_SECONDS, Script, TENANT, TENANT_KEY, UNPUBLISHED_KEY, app_claims, document, hmac_token,
    merge, now, policy, verifier,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    why: String,
    expect: String,
    /// Changes to the header of a good token.
    header: Option<Value>,
    /// Changes to the claims of a good token.
    claims: Option<Value>,
    /// The header, as it stands.
    raw_header: Option<Value>,
    /// The payload, as it stands.
    raw_claims: Option<Value>,
    /// One claim whose value no JSON library would write.
    raw_claim: Option<(String, String)>,
    /// Members added behind the last claim.
    append_claims: Option<String>,
    /// The public key that the tenant does not publish goes into the header under this name.
    embed: Option<String>,
    /// Who signs, and how. Default: the tenant.
    sign: Option<String>,
    /// What happens to the finished token.
    then: Option<String>,
    /// The token, as it stands.
    token: Option<Value>,
}

#[tokio::test]
async fn each_row_gets_its_answer() {
    let rows = table();
    assert!(rows.iter().filter(|row| row.expect != "good").count() >= 120);
    let mut wrong = Vec::new();
    for row in rows {
        let token = row.build();
        // A verifier for each row: what one row leaves behind must not help another.
        let verifier = verifier();
        for attempt in 1..=2 {
            let answer = verifier.verify(&token, now()).await;
            if let Err(rejection) = &answer {
                assert_no_token(rejection, &token);
            }
            let answer = answer.map_or_else(|rejection| code(&rejection), |_| "good".to_owned());
            if answer != row.expect {
                wrong.push(format!("{}\n  expected {}, attempt {attempt} got {answer}", row.why, row.expect));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_token_cut_anywhere_is_refused() {
    let verifier = verifier();
    let token = crate::mint::sign(&app_claims());
    for end in 0..token.len() {
        let cut = &token[..end];
        assert!(verifier.verify(cut, now()).await.is_err(), "cut at {end}");
        assert!(verifier.verify(&token[end + 1..], now()).await.is_err(), "begun after {end}");
    }
    verifier.verify(&token, now()).await.unwrap();
}

#[tokio::test]
async fn a_token_changed_anywhere_is_refused() {
    let verifier = verifier();
    let token = crate::mint::sign(&app_claims());
    verifier.verify(&token, now()).await.unwrap();
    for at in 0..token.len() {
        for replacement in ['A', 'b', '-', '.', '\0'] {
            let mut changed = token.clone();
            changed.replace_range(at..=at, &replacement.to_string());
            if changed != token {
                assert!(verifier.verify(&changed, now()).await.is_err(), "{replacement:?} at {at}");
            }
        }
    }
}

/// What is published for others: `tests/hostile-tokens.json`. It holds public keys and tokens, and no private key: a new
/// one signs them whenever the file is written.
#[derive(Serialize, Deserialize)]
struct Published {
    about: String,
    /// The time at which the tokens are judged, in seconds since 1970, and how far clocks may differ.
    now: u64,
    leeway: u64,
    tenant: Uuid,
    issuers: Vec<String>,
    audiences: Vec<String>,
    keys: Value,
    tokens: Vec<PublishedToken>,
}

#[derive(Serialize, Deserialize)]
struct PublishedToken {
    why: String,
    /// `good`, or the reason: a variant of `pgentra_verify::Rejection`, with what it names.
    expect: String,
    /// What Azure Database for PostgreSQL says, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    token: String,
}

const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile-tokens.json");

const ABOUT: &str = "Tokens that a server must refuse, and a few that it must accept, with the keys of the issuer, \
    as of the time `now`. A row is a mistake or an attack of its own. Written by the test \
    `write_the_published_table` of pgentra-verify.";

fn table() -> Vec<Row> {
    serde_json::from_str(include_str!("hostile.json")).unwrap()
}

/// The words of Azure Database for PostgreSQL Flexible Server since 2025.
fn azures_words(expect: &str) -> Option<String> {
    Some(match expect {
        "good" => return None,
        "Expired" => "The access token has expired. Acquire a new token and try again.".to_owned(),
        "Audience" => format!(
            "The access token doesn't have a valid audience claim. Acquire a new token for resource \"{AUDIENCE}\""
        ),
        "MissingClaim/oid" => {
            "The access token doesn't have a valid oid claim. Acquire a new token and try again".to_owned()
        }
        malformed if malformed.starts_with("NotAToken") => {
            "The access token has invalid format. Please ensure the \
            token is passed exactly as returned by the authentication endpoint and retry."
                .to_owned()
        }
        _ => "An error occurred while validating the access token. Please acquire a new token and retry"
            .to_owned(),
    })
}

/// The published table has the rows of this one, and its tokens get their answers with its own keys.
#[tokio::test]
async fn the_published_table_is_true() {
    let published: Published = serde_json::from_str(&std::fs::read_to_string(PUBLISHED).unwrap()).unwrap();
    let rows = table();
    let of = |why: &str, expect: &str| (why.to_owned(), expect.to_owned(), azures_words(expect));
    let expected: Vec<_> = rows.iter().map(|row| of(&row.why, &row.expect)).collect();
    let found: Vec<_> =
        published.tokens.iter().map(|it| (it.why.clone(), it.expect.clone(), it.message.clone())).collect();
    assert_eq!(found, expected, "run the test write_the_published_table");
    assert_eq!((published.now, published.about.as_str()), (NOW_SECONDS, ABOUT));
    let policy = policy();
    assert_eq!((published.tenant, published.leeway), (TENANT, policy.leeway().as_secs()));
    assert_eq!((&*published.issuers, &*published.audiences), (policy.issuers(), policy.audiences()));
    let keys = published.keys.to_string().into_bytes();
    let verifier = Verifier::new(policy, Script::always(keys));
    for row in &published.tokens {
        let answer = verifier.verify(&row.token, now()).await;
        let answer = answer.map_or_else(|rejection| code(&rejection), |_| "good".to_owned());
        assert_eq!(answer, row.expect, "{}", row.why);
    }
}

#[test]
#[ignore = "it writes a file of the tree: run it after the table has changed"]
fn write_the_published_table() {
    let policy = policy();
    let rows = table();
    let tokens = rows.iter().map(|row| PublishedToken {
        why: row.why.clone(),
        expect: row.expect.clone(),
        message: azures_words(&row.expect),
        token: row.build(),
    });
    let published = Published {
        about: ABOUT.to_owned(),
        now: NOW_SECONDS,
        leeway: policy.leeway().as_secs(),
        tenant: TENANT,
        issuers: policy.issuers().to_owned(),
        audiences: policy.audiences().to_owned(),
        keys: serde_json::from_slice(&document(&[&TENANT_KEY])).unwrap(),
        tokens: tokens.collect(),
    };
    let text = serde_json::to_string_pretty(&published).unwrap();
    std::fs::write(PUBLISHED, text + "\n").unwrap();
}

impl Row {
    fn build(&self) -> String {
        if let Some(token) = &self.token {
            return text(token);
        }
        let header = self.raw_header.as_ref().map_or_else(|| self.header(), text);
        let payload = self.raw_claims.as_ref().map_or_else(|| self.payload(), text);
        let with_signature = |signature: &str| {
            let signed = TENANT_KEY.token(&header, &payload);
            format!("{}.{signature}", &signed[..signed.rfind('.').unwrap()])
        };
        let token = match self.sign.as_deref() {
            None => TENANT_KEY.token(&header, &payload),
            Some("unpublished") => UNPUBLISHED_KEY.token(&header, &payload),
            Some("hmac-pem") => hmac_token(&header, &payload, TENANT_KEY.public_pem().as_bytes()),
            Some("hmac-der") => hmac_token(&header, &payload, &TENANT_KEY.public_der()),
            Some("nothing") => with_signature(""),
            Some("short") => with_signature("AA"),
            // r and s of an ECDSA signature, both zero.
            Some("psychic") => with_signature(&"A".repeat(86)),
            Some("zeros") => with_signature(&"A".repeat(342)),
            Some(other) => panic!("no such signer: {other}"),
        };
        self.then.as_deref().map_or(token.clone(), |then| change(&token, then))
    }

    fn header(&self) -> String {
        let mut header = TENANT_KEY.header();
        if let Some(changes) = &self.header {
            merge(&mut header, &expand(changes));
        }
        if let Some(name) = &self.embed {
            header[name] = UNPUBLISHED_KEY.jwk();
        }
        header.to_string()
    }

    fn payload(&self) -> String {
        let mut claims = app_claims();
        if let Some(changes) = &self.claims {
            merge(&mut claims, &expand(changes));
        }
        if let Some((name, raw)) = &self.raw_claim {
            claims[name] = "$raw".into();
            return claims.to_string().replace("\"$raw\"", raw);
        }
        let mut payload = claims.to_string();
        if let Some(members) = &self.append_claims {
            payload.truncate(payload.len() - 1);
            payload = format!("{payload},{members}}}");
        }
        payload
    }
}

/// What people and attackers do to a finished token.
fn change(token: &str, how: &str) -> String {
    let dots: Vec<usize> = token.match_indices('.').map(|(at, _)| at).collect();
    let (header, payload, signature) =
        (&token[..dots[0]], &token[dots[0] + 1..dots[1]], &token[dots[1] + 1..]);
    let flip = |part: &str, at: usize| {
        let new = if &part[at..=at] == "A" { "B" } else { "A" };
        format!("{}{new}{}", &part[..at], &part[at + 1..])
    };
    match how {
        "json" => format!("{{\"access_token\":\"{token}\"}}"),
        "quote" => format!("\"{token}\""),
        "crlf" => format!("{token}\r\n"),
        "zero-width" => format!("{token}\u{200b}"),
        "swapped" => format!("{payload}.{header}.{signature}"),
        "many-claims" => {
            let mut claims = app_claims();
            for number in 0..300 {
                claims[format!("z{number}")] = 1.into();
            }
            crate::mint::sign(&claims)
        }
        "newline" => format!("{token}\n"),
        "blank" => format!(" {token}"),
        "bearer" => format!("Bearer {token}"),
        "four-parts" => format!("{token}.AAAA"),
        "five-parts" => format!("{token}.AAAA.AAAA"),
        "twice" => format!("{token}{token}"),
        "pad" => format!("{token}=="),
        "pad-header" => format!("{header}=.{payload}.{signature}"),
        // 256 bytes leave four unused bits in the last of 342 characters; the canonical one is A, Q, g or w.
        "stray-bits" => {
            let last = token.chars().last().unwrap();
            assert!("AQgw".contains(last));
            format!("{}{}", &token[..token.len() - 1], char::from(last as u8 + 1))
        }
        "alphabet" => format!("{header}.{payload}.{}+/", &signature[2..]),
        "unicode" => format!("{header}.{payload}.é{}", &signature[2..]),
        "flip-payload" => format!("{header}.{}.{signature}", flip(payload, 10)),
        "flip-signature" => format!("{header}.{payload}.{}", flip(signature, 10)),
        "other-header" => {
            let mut other = TENANT_KEY.header();
            other["typ"] = "at+jwt".into();
            let other = TENANT_KEY.token(&other.to_string(), "{}");
            format!("{}.{payload}.{signature}", &other[..other.find('.').unwrap()])
        }
        "giant" => format!("{token}{}", "A".repeat(TOKEN_LIMIT + 1 - token.len())),
        other => panic!("no such change: {other}"),
    }
}

/// `{"$repeat": [text, n]}` and `{"$wrap": [before, open, n]}` stand for texts too long to write down.
fn text(value: &Value) -> String {
    match (value.as_str(), value.get("$repeat"), value.get("$wrap")) {
        (Some(text), ..) => text.to_owned(),
        (_, Some(repeat), _) => {
            repeat[0].as_str().unwrap().repeat(usize::try_from(repeat[1].as_u64().unwrap()).unwrap())
        }
        (.., Some(wrap)) => {
            let depth = usize::try_from(wrap[2].as_u64().unwrap()).unwrap();
            format!("{}{}", wrap[0].as_str().unwrap(), wrap[1].as_str().unwrap().repeat(depth))
        }
        _ => panic!("no text: {value}"),
    }
}

fn expand(changes: &Value) -> Value {
    let mut changes = changes.clone();
    for change in changes.as_object_mut().unwrap().values_mut() {
        if change.get("$repeat").is_some() {
            *change = text(change).into();
        }
    }
    changes
}

fn code(rejection: &Rejection) -> String {
    match rejection {
        Rejection::NotAToken(malformed) => format!("NotAToken/{malformed:?}"),
        Rejection::MissingClaim(name) => format!("MissingClaim/{name}"),
        Rejection::BadClaim(name) => format!("BadClaim/{name}"),
        Rejection::Audience { .. } => "Audience".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Neither a rejection nor anything behind it may show a part of the token.
fn assert_no_token(rejection: &Rejection, token: &str) {
    let mut said = format!("{rejection:?} {rejection}");
    let mut source = rejection.source();
    while let Some(error) = source {
        said.push_str(&format!(" {error:?} {error}"));
        source = error.source();
    }
    for part in token.split('.').filter(|part| part.len() >= 16) {
        assert!(!said.contains(part), "{said}");
    }
}

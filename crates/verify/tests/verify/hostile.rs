//! Every row of `hostile.json` is a token that an attacker might send, with the expected rejection.

use std::error::Error as _;

use pgentra_verify::{Rejection, TOKEN_LIMIT};
use serde::Deserialize;
use serde_json::Value;

use crate::mint::{TENANT_KEY, UNPUBLISHED_KEY, app_claims, hmac_token, merge, now, verifier};

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
    token: Option<String>,
}

#[tokio::test]
async fn each_row_gets_its_answer() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("hostile.json")).unwrap();
    assert!(rows.len() > 120);
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

impl Row {
    fn build(&self) -> String {
        if let Some(token) = &self.token {
            return token.clone();
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

//! What the gateway of the local cloud accepts as a token.

use std::fs;

use crate::papers::trusting;
use crate::stage::Stage;
use crate::wire::{Step, Stream, TERMINATE, Talk, message, query, send, start};

const AREA: &str = "tokens";
const REFUSED: &str = "R3 E28000 . | R3 E28P01 . | R3 E08P01 .";

pub(crate) fn probes(stage: &Stage<'_>) {
    let token = stage.token("vm", &[]);
    let other = stage.token("user-assigned", &[]);
    let administrators = stage.token("admin", &[]);
    let elsewhere = stage.token("vm", &["--resource", "https://management.azure.com"]);
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let [header, claims, signature] = parts(&token).try_into().unwrap();
    let others = parts(&other);
    let reversed: String = token.chars().rev().collect();
    let with_end = |text: String| [text.as_bytes(), b"\0"].concat();
    for (name, password, expected) in [
        ("a good one", with_end(token.clone()), "R3 R0 ZI ."),
        ("a type in front", with_end(format!("Bearer {token}")), REFUSED),
        ("in single quotes", with_end(format!("'{token}'")), REFUSED),
        ("as JSON", with_end(format!("{{\"access_token\":\"{token}\"}}")), REFUSED),
        ("twice", with_end(format!("{token}{token}")), REFUSED),
        ("twice, with a comma", with_end(format!("{token},{token}")), REFUSED),
        ("a mark of byte order in front", with_end(format!("\u{feff}{token}")), REFUSED),
        ("a vertical tab behind", with_end(format!("{token}\u{b}")), REFUSED),
        ("a NUL byte inside", with_end(format!("{header}\0.{claims}.{signature}")), REFUSED),
        ("words behind the end", [with_end(token.clone()), b"more".to_vec()].concat(), REFUSED),
        ("no end", token.clone().into_bytes(), REFUSED),
        ("in capitals", with_end(token.to_uppercase()), REFUSED),
        ("from behind", with_end(reversed), REFUSED),
        ("another's claims", with_end(format!("{header}.{}.{signature}", others[1])), REFUSED),
        ("another's signature", with_end(format!("{header}.{claims}.{}", others[2])), REFUSED),
        (
            "signature and claims in the other order",
            with_end(format!("{header}.{signature}.{claims}")),
            REFUSED,
        ),
        ("the header twice", with_end(format!("{header}.{header}.{signature}")), REFUSED),
        ("no claims", with_end(format!("{header}..{signature}")), REFUSED),
        ("dots", with_end("..".to_owned()), REFUSED),
        ("a percent-encoded dot", with_end(token.replacen('.', "%2e", 1)), REFUSED),
        ("a full-width dot", with_end(token.replacen('.', "\u{ff0e}", 1)), REFUSED),
        (
            "a space in the signature",
            with_end(format!("{header}.{claims}.{} {}", &signature[..9], &signature[9..])),
            REFUSED,
        ),
        ("in 16 bits", token.bytes().flat_map(|byte| [byte, 0]).chain([0, 0]).collect(), REFUSED),
        ("for another resource", with_end(elsewhere), REFUSED),
        ("of another identity", with_end(other.clone()), REFUSED),
        ("of the administrator", with_end(administrators), REFUSED),
        ("an empty one", b"\0".to_vec(), REFUSED),
        ("no byte", Vec::new(), REFUSED),
        ("a kilobyte of dots", with_end(".".repeat(1024)), REFUSED),
        ("a password", with_end("secret".to_owned()), REFUSED),
        ("the role's name", with_end(stage.role.clone()), REFUSED),
        ("the tenant", with_end(stage.cloud.text("/tenant_id")), REFUSED),
    ] {
        stage.answered(AREA, name, &stage.sign_in(&stage.role, &password), expected);
    }
    conversations(stage, &message(b'p', &with_end(token)));
}

/// A valid token in the wrong place or message.
fn conversations(stage: &Stage<'_>, good: &[u8]) {
    let tls = trusting(&fs::read_to_string(stage.cloud.text("/server/sslrootcert")).unwrap());
    let begin = || Stream::tls(stage.gateway(), &tls, false);
    let first = start(&[("user", &stage.role), ("database", "postgres")]);
    for (name, parts, expected) in [
        (
            "before it is asked for",
            vec![[first.clone(), good.to_vec(), TERMINATE.to_vec()].concat()],
            "R3 R0 ZI .",
        ),
        (
            "a second one behind it",
            vec![[first.clone(), good.to_vec(), good.to_vec()].concat()],
            "R3 R0 ZI E08P01 .",
        ),
        (
            "a bad one, then a good one",
            vec![[first.clone(), message(b'p', b"x\0"), good.to_vec()].concat()],
            REFUSED,
        ),
        ("a Query instead", vec![[first.clone(), query("SELECT 1")].concat()], REFUSED),
        (
            "a message of 70,000 bytes",
            vec![[first.clone(), message(b'p', &[b'x'; 70_000])].concat()],
            "R3 E08P01 . | R3 E28000 . | R3 .",
        ),
        (
            "a message of two gigabytes, begun",
            vec![[&first[..], b"p\x7f\xff\xff\xffeyJ"].concat()],
            "R3 E08P01 . | R3 .",
        ),
        ("half a message", vec![[&first[..], &good[..50]].concat()], "R3 ."),
        (
            "a byte at a time",
            std::iter::once(first.clone())
                .chain(good.iter().map(|byte| vec![*byte]))
                .chain([TERMINATE.to_vec()])
                .collect(),
            "R3 R0 ZI .",
        ),
    ] {
        let mut steps: Vec<Step> = parts.into_iter().map(send).collect();
        if name.starts_with("half") || name.ends_with("begun") {
            steps.push(Step::Shut);
        }
        stage.answered(AREA, name, &Talk::of(begin(), &steps), expected);
    }
    let clear = [send([first, good.to_vec()].concat())];
    stage.answered(AREA, "in the clear", &Talk::of(Stream::tcp(stage.gateway()), &clear), "E28000 .");
}

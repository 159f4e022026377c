//! What the gateway of the local cloud takes for a token.

use std::fs;

use crate::papers::trusting;
use crate::stage::Stage;
use crate::wire::{Step, Stream, TERMINATE, Talk, message, query, send, start};

const AREA: &str = "tokens";

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
    let refused = "R3 E28000 . | R3 E28P01 . | R3 E08P01 .";
    for (name, password, expected) in [
        ("a good one", with_end(token.clone()), "R3 R0 ZI ."),
        ("a type in front", with_end(format!("Bearer {token}")), refused),
        ("in single quotes", with_end(format!("'{token}'")), refused),
        ("as JSON", with_end(format!("{{\"access_token\":\"{token}\"}}")), refused),
        ("twice", with_end(format!("{token}{token}")), refused),
        ("twice, with a comma", with_end(format!("{token},{token}")), refused),
        ("a mark of byte order in front", with_end(format!("\u{feff}{token}")), refused),
        ("a vertical tab behind", with_end(format!("{token}\u{b}")), refused),
        ("a NUL byte inside", with_end(format!("{header}\0.{claims}.{signature}")), refused),
        ("words behind the end", [with_end(token.clone()), b"more".to_vec()].concat(), refused),
        ("no end", token.clone().into_bytes(), refused),
        ("in capitals", with_end(token.to_uppercase()), refused),
        ("from behind", with_end(reversed), refused),
        ("another's claims", with_end(format!("{header}.{}.{signature}", others[1])), refused),
        ("another's signature", with_end(format!("{header}.{claims}.{}", others[2])), refused),
        ("signature and claims in the other order", with_end(format!("{header}.{signature}.{claims}")), refused),
        ("the header twice", with_end(format!("{header}.{header}.{signature}")), refused),
        ("no claims", with_end(format!("{header}..{signature}")), refused),
        ("dots", with_end("..".to_owned()), refused),
        ("a percent-encoded dot", with_end(token.replacen('.', "%2e", 1)), refused),
        ("a full-width dot", with_end(token.replacen('.', "\u{ff0e}", 1)), refused),
        ("a space in the signature", with_end(format!("{header}.{claims}.{} {}", &signature[..9], &signature[9..])), refused),
        ("in 16 bits", token.bytes().flat_map(|byte| [byte, 0]).chain([0, 0]).collect(), refused),
        ("for another resource", with_end(elsewhere), refused),
        ("of another identity", with_end(other.clone()), refused),
        ("of the administrator", with_end(administrators), refused),
        ("an empty one", b"\0".to_vec(), refused),
        ("no byte", Vec::new(), refused),
        ("a kilobyte of dots", with_end(".".repeat(1024)), refused),
        ("a password", with_end("secret".to_owned()), refused),
        ("the role's name", with_end(stage.role.clone()), refused),
        ("the tenant", with_end(stage.cloud.text("/tenant_id")), refused),
    ] {
        stage.answered(AREA, name, &stage.sign_in(&stage.role, &password), expected);
    }
    let tls = trusting(&fs::read_to_string(stage.cloud.text("/server/sslrootcert")).unwrap());
    let begin = || Stream::tls(stage.gateway(), &tls, false);
    let first = start(&[("user", &stage.role), ("database", "postgres")]);
    let good = message(b'p', &with_end(token.clone()));
    for (name, parts, expected) in [
        ("before it is asked for", vec![[first.clone(), good.clone(), TERMINATE.to_vec()].concat()], "R3 R0 ZI ."),
        ("a second one behind it", vec![[first.clone(), good.clone(), good.clone()].concat()], "R3 R0 ZI E08P01 ."),
        ("a bad one, then a good one", vec![[first.clone(), message(b'p', b"x\0"), good.clone()].concat()], refused),
        ("a Query instead", vec![[first.clone(), query("SELECT 1")].concat()], refused),
        ("a message of 70,000 bytes", vec![[first.clone(), message(b'p', &[b'x'; 70_000])].concat()], "R3 E08P01 . | R3 E28000 . | R3 ."),
        ("a message of two gigabytes, begun", vec![[&first[..], b"p\x7f\xff\xff\xffeyJ"].concat()], "R3 E08P01 . | R3 ."),
        ("half a message", vec![[&first[..], &good[..50]].concat()], "R3 ."),
        ("a byte at a time", std::iter::once(first.clone()).chain(good.iter().map(|byte| vec![*byte])).chain([TERMINATE.to_vec()]).collect(), "R3 R0 ZI ."),
    ] {
        let mut steps: Vec<Step> = parts.into_iter().map(send).collect();
        steps.push(Step::Shut);
        stage.answered(AREA, name, &Talk::of(begin(), &steps), expected);
    }
    let clear = [send([first, good].concat()), Step::Shut];
    stage.answered(AREA, "in the clear", &Talk::of(Stream::tcp(stage.gateway()), &clear), "E28000 .");
}

//! Answers of a metadata service: only a well-formed answer with a token of the requested resource
//! is accepted.

use crate::commands::{Probe, run};
use crate::peers::answering;
use crate::stage::{Stage, unnamed};

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer: its name, its bytes, the exit code.
type Answer = (&'static str, Vec<u8>, &'static str);

/// The answer of a service in order, with this token.
fn good(token: &str) -> String {
    format!(
        "{{\"access_token\":\"{token}\",\"expires_in\":\"86400\",\"expires_on\":\"4102444800\",\"resource\":\
         \"https://ossrdbms-aad.database.windows.net\",\"token_type\":\"Bearer\"}}"
    )
}

fn json(text: &str) -> Vec<u8> {
    http("200 OK", "Content-Type: application/json\r\n", text.as_bytes())
}

fn chunked(headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}Connection: close\r\n\r\n{body}")
        .into_bytes()
}

/// Bodies that are almost a token's JSON.
fn bodies(stage: &Stage<'_>, token: &str) -> Vec<Answer> {
    let good = good(token);
    let with = |from: &str, to: &str| json(&good.replacen(from, to, 1));
    let token_is = |value: &str| json(&good.replacen(&format!("\"{token}\""), value, 1));
    let in_16_bits: Vec<u8> = good.bytes().flat_map(|byte| [byte, 0]).collect();
    let parts: Vec<&str> = token.split('.').collect();
    let chunk = format!("{:x}", good.len());
    vec![
        ("in order", json(&good), "0"),
        ("in chunks", chunked("", &format!("{chunk}\r\n{good}\r\n0\r\n\r\n")), "0"),
        (
            "in chunks with words",
            chunked("", &format!("{chunk};evil=\"x\"\r\n{good}\r\n0\r\nX: y\r\n\r\n")),
            "0",
        ),
        ("no reason", [&b"HTTP/1.1 200"[..], &json(&good)[15..]].concat(), "0"),
        ("JSON and words", json(&format!("{good} and more")), "3"),
        ("JSON twice", json(&format!("{good}{good}")), "3"),
        ("JSON in a list", json(&format!("[{good}]")), "3"),
        ("JSON in a text", json(&format!("{good:?}")), "3"),
        ("JSON in JSON", json(&format!("{{\"token\":{good}}}")), "3"),
        ("null", json("null"), "3"),
        ("a number", json("1e999"), "3"),
        ("a list of lists", json(&"[".repeat(9_000)), "3"),
        ("JSON in 16 bits", http("200 OK", "", &in_16_bits), "3"),
        ("JSON with comments", json(&format!("/* x */ {good}")), "3"),
        ("JSON with a comma too many", json(&good.replace('}', ",}")), "3"),
        ("JSON in single quotes", json(&good.replace('"', "'")), "3"),
        ("JSON that is no text", http("200 OK", "", b"{\"access_token\":\"\xff\xfe\"}"), "3"),
        ("JSON without an end", json(&good[..good.len() - 1]), "3"),
        ("a token that is null", token_is("null"), "3"),
        ("a token that is an object", token_is("{\"value\":\"x\"}"), "3"),
        ("a token that is a list", token_is("[\"x\"]"), "3"),
        ("a token that is true", token_is("true"), "3"),
        ("a token without its signature", token_is(&format!("\"{}.{}.\"", parts[0], parts[1])), "3 | 0"),
        ("a token of a space", token_is("\" \""), "3"),
        ("a token with a tab", token_is(&format!("\"{token}\\t\"")), "3"),
        ("a token with a line feed", token_is(&format!("\"{token}\\n\"")), "3"),
        ("a token beyond ASCII", token_is(&format!("\"{token}\\u00e9\"")), "3"),
        ("a token with half a surrogate", token_is("\"\\ud800\""), "3"),
        (
            "a token of another resource",
            {
                let elsewhere = stage.token("vm", &["--resource", "https://management.azure.com"]);
                json(&good.replacen(token, &elsewhere, 1))
            },
            "3",
        ),
        ("expiry in words", with("\"4102444800\"", "\"never\""), "3 | 0"),
        ("expiry below zero", with("\"4102444800\"", "\"-1\""), "0 | 3"),
        ("expiry at zero", with("\"4102444800\"", "\"0\""), "3"),
        ("expiry of long ago, in the answer alone", with("\"4102444800\"", "\"1\""), "0 | 3"),
        (
            "another resource, and a token of ours",
            with("https://ossrdbms-aad.database.windows.net", "https://management.azure.com"),
            "0 | 3",
        ),
        ("another key", with("access_token", "Access_Token"), "3"),
    ]
}

/// Statuses and heads.
fn heads(token: &str) -> Vec<Answer> {
    let good = good(token);
    let chunk = format!("{:x}", good.len());
    vec![
        ("204", http("204 No Content", "", b""), "3"),
        ("206", http("206 Partial Content", "Content-Range: bytes 0-9/10\r\n", good.as_bytes()), "3"),
        ("300", http("300 Multiple Choices", "Location: http://evil.example/\r\n", good.as_bytes()), "3"),
        ("304", http("304 Not Modified", "", b""), "3"),
        (
            "401",
            http("401 Unauthorized", "WWW-Authenticate: Basic realm=/etc/shadow\r\n", good.as_bytes()),
            "3",
        ),
        ("403", http("403 Forbidden", "", b"\x1b]0;evil\x07\x1b[2J"), "3"),
        ("407", http("407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n", b""), "3"),
        ("418 and a token", http("418 I'm a teapot", "", good.as_bytes()), "3"),
        (
            "400 and a token in its words",
            http(
                "400 Bad Request",
                "",
                format!("{{\"error\":\"x\",\"error_description\":\"{token}\"}}").as_bytes(),
            ),
            "3",
        ),
        (
            "400 in 500 KB",
            http(
                "400 Bad Request",
                "",
                format!("{{\"error\":\"x\",\"error_description\":\"{}\"}}", "y".repeat(500_000)).as_bytes(),
            ),
            "3",
        ),
        (
            "400 with colours",
            http(
                "400 Bad Request",
                "",
                b"{\"error\":\"\\u001b[31mx\",\"error_description\":\"a\\r\\nerror: b\\u009b2J\\u202ec\"}",
            ),
            "3",
        ),
        ("400 with a reason of colours", http("400 \x1b[31mBad", "", b"{}"), "3"),
        ("600", http("600 What", "", good.as_bytes()), "3"),
        ("status 20", http("20 OK", "", good.as_bytes()), "3"),
        (
            "version 2",
            json(&good)
                .iter()
                .copied()
                .enumerate()
                .map(|(at, byte)| if at == 5 { b'2' } else { byte })
                .collect(),
            "3",
        ),
        ("no head", good.clone().into_bytes(), "3"),
        ("a head that does not end", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n".to_vec(), "3"),
        ("a header without a colon", http("200 OK", "evil\r\n", good.as_bytes()), "3"),
        (
            "a header of 200 KB",
            http("200 OK", &format!("X: {}\r\n", "y".repeat(200_000)), good.as_bytes()),
            "3",
        ),
        ("ten thousand headers", http("200 OK", &"X: y\r\n".repeat(10_000), good.as_bytes()), "3"),
        ("a NUL byte in a header", http("200 OK", "X: a\0b\r\n", good.as_bytes()), "3"),
        ("two lengths", http("200 OK", "Content-Length: 4\r\n", good.as_bytes()), "3"),
        (
            "a length that is too long",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{good}", good.len() + 1).into_bytes(),
            "3",
        ),
        ("chunks without an end", chunked("", &format!("{chunk}\r\n{good}\r\n")), "3"),
        (
            "a chunk that is too long",
            chunked("", &format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len() + 1)),
            "3",
        ),
        ("a chunk in words", chunked("", &format!("evil\r\n{good}\r\n0\r\n\r\n")), "3"),
        ("a chunk below zero", chunked("", &format!("-1\r\n{good}\r\n0\r\n\r\n")), "3"),
        (
            "an encoding that was not asked for",
            http(
                "200 OK",
                "Content-Encoding: gzip\r\n",
                b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0",
            ),
            "3",
        ),
        (
            "a web page",
            http("200 OK", "Content-Type: text/html\r\n", b"<html><script>alert(1)</script></html>"),
            "3",
        ),
        ("TLS", b"\x15\x03\x03\0\x02\x02\x28".to_vec(), "3"),
        ("PostgreSQL", b"E\0\0\0\x10SFATAL\0C28000\0\0".to_vec(), "3"),
        ("nothing", Vec::new(), "3"),
        ("a form", http("200 OK", "", format!("access_token={token}&expires_on=4102444800").as_bytes()), "3"),
        ("the token alone", http("200 OK", "Content-Type: text/plain\r\n", token.as_bytes()), "3"),
    ]
}

pub(crate) fn probes(stage: &Stage<'_>) {
    let token = stage.token("vm", &[]);
    let answers = [bodies(stage, &token), heads(&token)].concat();
    let commands: Vec<Probe<'_>> = answers
        .into_iter()
        .map(|(name, answer, expected)| {
            let address = format!("http://127.0.0.1:{}", answering(answer));
            // answers that are retried until the time limit get a short limit
            let patience = if expected == "3" { "2" } else { "20" };
            let run = stage
                .lab
                .pgentra(&["whoami", "--token-timeout", patience])
                .envs(unnamed(stage.cloud.env("vm")))
                .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", address);
            (name.to_owned(), run, expected)
        })
        .collect();
    run(stage, "the metadata service", commands);
}

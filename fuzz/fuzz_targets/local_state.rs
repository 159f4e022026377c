//! Any bytes are the state of a local cloud or none: each path is a plain one, and no length is trusted.
#![no_main]

use std::io::{Read, Write};
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use pgentra_local_state::{StateMember, walk};
use serde_json::json;

/// A tar archive whose first entry is `first` and whose second one has `second` as its header and content.
fn archive(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..13].copy_from_slice(b"manifest.json");
    header[124..135].copy_from_slice(format!("{:011o}", first.len()).as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    let mut bytes = signed(&header);
    bytes.extend_from_slice(first);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let (header, content) = second.split_at(second.len().min(512));
    let mut padded = header.to_vec();
    padded.resize(512, 0);
    bytes.extend(signed(&padded));
    bytes.extend_from_slice(content);
    bytes
}

/// A header with the right sum, which no other input would have.
fn signed(header: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn read(bytes: &[u8]) {
    let _ = walk(bytes, |member| {
        match member {
            StateMember::Manifest(_) => {}
            StateMember::Folder(path) => check(path),
            StateMember::File(path, content) => {
                check(path);
                let mut taken = Vec::new();
                // A damaged archive has an end too.
                let _ = content.take(1 << 20).read_to_end(&mut taken);
            }
        }
        Ok(true)
    });
}

fn check(path: &str) {
    assert!(!path.is_empty() && path.len() <= 255);
    assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains(['\\', '\0'])));
}

fn read_in_gzip(first: &[u8], second: &[u8]) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let _ = gzip.write_all(&archive(first, second));
    read(&gzip.finish().unwrap_or_default());
}

/// A manifest whose tenant has nothing in it, and no key.
static MANIFEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let id = "00000000-0000-4000-8000-000000000001";
    let ids = [
        "tenant", "subscription", "vm_id", "vm_client", "vm_object", "user_assigned_client", "user_assigned_object",
        "application_client", "application_object", "application_registration", "administrator_object",
        "group_object",
    ];
    let ids: serde_json::Map<_, _> = ids.map(|name| (name.to_owned(), id.into())).into_iter().collect();
    let secrets = ["app_service", "service_fabric", "machine_learning", "github", "pipelines"];
    let secrets: serde_json::Map<_, _> = secrets.map(|name| (name.to_owned(), "x".into())).into_iter().collect();
    let manifest = json!({
        "format": "pgentra local cloud", "version": 1, "written_by": "0.1.0", "flavour": "flexible",
        "postgresql": { "version": "17.5", "platform": "x86_64-linux", "password": "x" },
        "azure": {
            "ids": ids, "secret": "x", "keys": [], "secrets": secrets, "service_connection": id, "ahead": 0,
            "machine": [], "holders": {}, "federation": "https://localhost:1", "authority": "https://localhost:2/",
            "refresh_tokens": [], "certificates": [],
            "principals": {
                "users": [], "groups": [], "registrations": [], "agents": [], "members": [], "owners": [], "disabled": [],
                "details": {},
            },
            "subscription": {
                "resource_groups": [], "identities": [], "tags": {}, "federated": [], "role_assignments": [],
                "administrators": [], "is_group_sync": false, "pgbouncer": {},
            },
        },
        "faults": [], "client_certificate": "",
    });
    let manifest = manifest.to_string().into_bytes();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let _ = gzip.write_all(&archive(&manifest, b""));
    let found = walk(&*gzip.finish().unwrap_or_default(), |member| Ok(!matches!(member, StateMember::Manifest(_))));
    assert!(found.is_ok(), "what follows the manifest would not be read: {found:?}");
    manifest
});

fuzz_target!(|data: &[u8]| {
    read(data);
    read_in_gzip(&MANIFEST, data);
    let (first, second) = data.split_at(data.len() / 2);
    read_in_gzip(first, second);
});

use std::fs;

use serde_json::Value;

use crate::{Lab, client, pgentra};

/// The colour scheme and the width in pixels of each look at a page.
const VIEWS: [&str; 8] = [
    "light-1280",
    "dark-1280",
    "light-500",
    "dark-500",
    "light-1121",
    "light-1000",
    "light-961",
    "light-320",
];

/// Looks at a page in headless Chromium, once it shows `awaited`, and after these steps of
/// `clients/browser.mjs`. Returns what it shows (`text`) and copies (`copied`).
///
/// The pictures are written to `FOLDER/NAME` in the target folder, for people who change the page.
///
/// # Panics
/// If a script fails, the policy of the page refuses something, the page scrolls to the side, or
/// light and dark are the same.
pub fn look(lab: &Lab, url: &str, picture: (&str, &str), awaited: &str, steps: &[Value]) -> Value {
    let profile = lab.path().join("chromium");
    let folder = pgentra().ancestors().nth(2).unwrap().join(picture.0).join(picture.1);
    for folder in [&profile, &folder] {
        fs::create_dir_all(folder).unwrap();
    }
    let node = client("venv/bin/node").display().to_string();
    let browser = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/browser.mjs");
    let (profile, folder) = (profile.display().to_string(), folder.display().to_string());
    let steps: Vec<String> = steps.iter().map(Value::to_string).collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let words = [&[&*node, browser, &profile, url, awaited, &folder][..], &steps, &VIEWS].concat();
    let done = lab.program(&words).env("TMPDIR", &profile).done();
    let report: Value = serde_json::from_str(done.ok()).unwrap();
    assert_eq!(report["errors"], Value::Array(vec![]), "{report:#}");
    let views = report["views"].as_array().unwrap();
    assert_eq!(views.len(), VIEWS.len());
    for view in views {
        assert_eq!(view["content"], view["width"], "the page scrolls to the side: {view}");
        let file = format!("{folder}/{}.png", view["name"].as_str().unwrap());
        assert!(fs::metadata(&file).unwrap().len() > 10_000, "{file} shows nothing");
    }
    assert_ne!(views[0]["ground"], views[1]["ground"], "light and dark");
    report
}

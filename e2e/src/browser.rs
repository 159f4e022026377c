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

/// The names of all fields of a document that a page of the documentation does not have, as
/// `field`, `….field`, or with brackets behind it. Fields of the objects in `maps` are data.
pub fn undocumented(status: &Value, maps: &[&str], page: &str) -> Vec<String> {
    let mut fields = Vec::new();
    collect_fields(status, maps, &mut fields);
    assert!(fields.len() > 40, "{fields:?}");
    let has = |field: &String| {
        let mut ways = ["`", "."]
            .into_iter()
            .flat_map(|before| ["`", "[]`"].map(|after| format!("{before}{field}{after}")));
        ways.any(|way| page.contains(&way))
    };
    fields.retain(|field| !has(field));
    fields
}

fn collect_fields(value: &Value, maps: &[&str], fields: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        fields.push(name.clone());
        if !maps.contains(&name.as_str()) {
            collect_fields(value, maps, fields);
        }
    }
    value.as_array().into_iter().flatten().for_each(|value| collect_fields(value, maps, fields));
}

//! The dashboard and the alert rules in `deploy/`: Prometheus reads them, and every metric that they name is one of the proxy's.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Flavour, Lab, client, have};
use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(path)
}

const RULES: &str = "prometheus/pgentra-proxy.rules.yml";

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(deploy("grafana/pgentra-proxy.json")).unwrap()).unwrap()
}

/// All panels, those of rows among them.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().collect()
}

/// The queries of the dashboard, as Prometheus gets them.
fn queries(dashboard: &Value) -> Vec<String> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap_or_else(|| panic!("no query: {panel:#}"));
            queries.push(query.replace("$__rate_interval", "5m"));
        }
    }
    queries
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    words.filter(|word| word.starts_with("pgentra_")).map(str::to_owned).collect()
}

/// The names of the series in an answer of `/metrics`.
fn series(metrics: &str) -> BTreeSet<String> {
    metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// All metrics of a proxy: it has had a session, refused a client, and writes an audit log.
#[test]
fn every_metric_that_is_named_exists_and_every_one_is_shown() {
    if !have(&["curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let audit = format!("--audit={}", lab.path().join("audit.jsonl").display());
    let proxy = lab.proxy(cloud.env("vm"), &["--listen=0", "--admin-listen=0", &audit], 1);
    let line = proxy.await_line("admin on ");
    let admin = line.split("admin on ").nth(1).unwrap().trim_end_matches('/').to_owned();
    for (database, is_served) in [("postgres", true), ("nowhere", false)] {
        let conninfo =
            format!("host=127.0.0.1 port={} user=myVm dbname={database} sslmode=disable", proxy.port());
        let done = lab.program(&["psql", "-Atc", "SELECT 1", &conninfo]).done();
        assert_eq!(done.status.success(), is_served, "{done:?}");
    }
    let metrics = lab.program(&["curl", "-sS", &format!("{admin}/metrics")]).done().ok().to_owned();
    let there = series(&metrics);
    assert!(there.len() > 25, "{metrics}");
    let rules = fs::read_to_string(deploy(RULES)).unwrap();
    let shown = named(&queries(&dashboard()).join("\n"));
    // The variables of the dashboard, and the rules.
    let variables = named(&dashboard()["templating"].to_string());
    let alerts: BTreeSet<_> =
        rules.lines().filter(|line| !line.trim_start().starts_with("description")).flat_map(named).collect();
    for metric in shown.iter().chain(&variables).chain(&alerts) {
        let is_there = there.contains(metric) || there.contains(&format!("{metric}_bucket"));
        assert!(is_there, "/metrics has no {metric}");
    }
    assert!(alerts.len() > 8, "{alerts:?}");
    let is_shown = |metric: &str| {
        let histogram = metric.strip_suffix("_count").or_else(|| metric.strip_suffix("_sum"));
        shown.contains(metric) || histogram.is_some_and(|name| shown.contains(&format!("{name}_bucket")))
    };
    let missing: Vec<_> = there.iter().filter(|metric| !is_shown(metric)).collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
    drop((proxy, cloud));
}

#[test]
fn prometheus_reads_the_rules_and_their_tests_pass() {
    if !have(&["promtool"]) {
        return;
    }
    let lab = Lab::new();
    let promtool = client("bin/promtool").display().to_string();
    for (program, number, (written, broken), fails) in [
        ("proxy", 8, ("== 1", "== 2"), "PgentraProxyTargetFailing"),
        ("gateway", 4, ("ready == 0", "ready == 2"), "PgentraGatewayNotReady"),
    ] {
        let rules = deploy(&format!("prometheus/pgentra-{program}.rules.yml")).display().to_string();
        let checked = lab.program(&[&promtool, "check", "rules", "--lint-fatal", &rules]).done();
        assert!(checked.ok().contains(&format!("SUCCESS: {number} rules found")), "{checked:?}");
        let tests = deploy(&format!("prometheus/pgentra-{program}.rules.test.yml")).display().to_string();
        let tested = lab.program(&[&promtool, "test", "rules", &tests]).done();
        assert!(tested.ok().contains("SUCCESS"), "{tested:?}");
        // Every alert has a test, and the tests can fail.
        let (rules, tests) = (fs::read_to_string(&rules).unwrap(), fs::read_to_string(&tests).unwrap());
        let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert_eq!(alerts.len(), number);
        for alert in alerts {
            assert!(
                tests.contains(&format!("alertname: {alert}\n        exp_alerts:")),
                "no test fires {alert}"
            );
        }
        let file = lab.path().join(format!("pgentra-{program}.rules.yml"));
        fs::write(file, rules.replace(written, broken)).unwrap();
        let broken = lab.path().join("tests.yml");
        fs::write(&broken, tests).unwrap();
        let tested = lab.program(&[&promtool, "test", "rules", &broken.display().to_string()]).done();
        assert!(!tested.status.success() && tested.stderr.contains(fails), "{tested:?}");
    }
}

/// Each query of the dashboard is a rule in a file that Prometheus checks.
#[test]
fn prometheus_reads_every_query_of_the_dashboard() {
    if !have(&["promtool"]) {
        return;
    }
    let lab = Lab::new();
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    let check = |queries: &[String]| {
        let rules: Vec<_> = queries
            .iter()
            .enumerate()
            .map(|(number, query)| serde_json::json!({"record": format!("query:{number}"), "expr": query}))
            .collect();
        let file = lab.path().join("queries.yml");
        // JSON is YAML.
        let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
        fs::write(&file, groups.to_string()).unwrap();
        let promtool = client("bin/promtool").display().to_string();
        lab.program(&[&promtool, "check", "rules", &file.display().to_string()]).done()
    };
    let checked = check(&queries);
    assert!(checked.ok().contains(&format!("SUCCESS: {} rules found", queries.len())), "{checked:?}");
    assert!(queries.len() > 20);
    assert!(!check(&["sum(".to_owned()]).status.success());
    // The dashboard can be filtered by target, and no two panels have one place or one id.
    let text = dashboard.to_string();
    let names: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "job", "instance", "target"]);
    for name in names {
        assert!(
            text.contains(&format!("${name}")) || text.contains(&format!("${{{name}}}")),
            "{name} is not used"
        );
    }
    let panels = panels(&dashboard);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    let places: BTreeSet<_> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    assert_eq!((ids.len(), places.len()), (panels.len(), panels.len()));
}

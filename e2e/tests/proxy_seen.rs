//! Telemetry of `pgentra proxy`, read by the programs of its users: curl, Prometheus' parsers, jq,
//! a browser.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;

use e2e::{Cloud, Flavour, Lab, Proxy, client, have};

/// A proxy to a local cloud that has had a session, and refused a client.
struct Stage<'lab> {
    lab: &'lab Lab,
    cloud: Cloud<'lab>,
    proxy: Proxy<'lab>,
    admin: String,
    health: String,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let audit = lab.path().join("audit.jsonl");
        let arguments = ["--listen=0", "--admin-listen=0", "--health-listen=0", "--log-format=json"];
        let audit = format!("--audit={}", audit.display());
        let proxy = lab.proxy(cloud.env("vm"), &[&arguments[..], &[&audit]].concat(), 1);
        let [admin, health] = ["admin on ", "health on "].map(|what| {
            let line = proxy.await_line(what);
            let url = line.split(what).nth(1).unwrap();
            url.split("/\"").next().unwrap().to_owned()
        });
        let stage = Self { lab, cloud, proxy, admin, health };
        stage.psql("postgres", "SELECT 42").ok();
        stage.psql("nowhere", "SELECT 42");
        stage
    }

    fn psql(&self, database: &str, sql: &str) -> e2e::Done<'_> {
        let conninfo = format!("host=127.0.0.1 port={} user=myVm dbname={database}", self.proxy.port());
        self.lab.program(&["psql", "-Atc", sql, &conninfo]).done()
    }

    fn get(&self, url: &str) -> String {
        self.lab.program(&["curl", "-sS", "--fail-with-body", url]).done().ok().to_owned()
    }

    /// The text of the page once its script has run.
    fn page(&self) -> String {
        let profile = self.lab.path().join("chromium");
        fs::create_dir_all(&profile).unwrap();
        let words = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--virtual-time-budget=5000",
            "--dump-dom",
            &format!("--user-data-dir={}", profile.display()),
            &self.admin,
        ];
        // The browser leaves temporary files.
        self.lab.program(&words).env("TMPDIR", &profile).done().ok().to_owned()
    }
}

/// Invariant 2: all output of this test is searched for tokens when the lab ends.
#[test]
fn prometheus_reads_the_metrics_and_json_is_json() {
    if !have(&["curl", "psql", "python"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/read_metrics.py");
    let python = client("venv/bin/python");
    for (format, accept) in
        [("text", "text/plain"), ("openmetrics", "application/openmetrics-text;version=1.0.0")]
    {
        for listener in [&stage.admin, &stage.health] {
            let (accept, url) = (format!("Accept: {accept}"), format!("{listener}/metrics"));
            let metrics = lab.program(&["curl", "-sS", "-H", &accept, &url]).done().ok().to_owned();
            let words = [python.to_str().unwrap(), reader, format];
            let families = lab.program(&words).input(&metrics).done().ok().to_owned();
            for family in [
                "pgentra_proxy_sessions counter 1",
                "pgentra_proxy_open_seconds histogram 85",
                "pgentra_proxy_token_life_left_seconds gauge 1",
                "pgentra_proxy_refusals counter 1",
            ] {
                assert!(families.lines().any(|line| line == family), "no `{family}` in {families}");
            }
        }
    }
    let audit = lab.path().join("audit.jsonl").display().to_string();
    let object_id = stage.cloud.identity("system-assigned")["object_id"].as_str().unwrap().to_owned();
    let events = lab.program(&["jq", "-r", "[.event, .object_id // .sqlstate] | join(\" \")", &audit]).done();
    assert_eq!(events.ok(), format!("start {object_id}\nend {object_id}\nrefused 28000\n"));
    stage.proxy.await_line("a client was refused");
    let words = ["jq", "-r", "select(.message | test(\"^listening|was refused\")) | .level"];
    let log = lab.program(&words).input(&stage.proxy.said()).done();
    assert_eq!(log.ok(), "INFO\nINFO\n", "every line is an object");
    assert_eq!(stage.get(&format!("{}/status.json", stage.admin)).matches(&object_id).count(), 1);
}

#[test]
fn promtool_finds_nothing_to_complain_about_in_the_metrics() {
    if !have(&["curl", "psql", "promtool"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let metrics = stage.get(&format!("{}/metrics", stage.admin));
    assert!(metrics.contains("pgentra_proxy_sessions_total"), "{metrics}");
    let promtool = client("bin/promtool");
    let checked = lab.program(&[promtool.to_str().unwrap(), "check", "metrics"]).input(&metrics).done();
    assert_eq!((checked.ok(), checked.stderr.as_str()), ("", ""), "{metrics}");
    // The linter does report violations.
    let wrong = "# TYPE pgentra_wrong_total gauge\npgentra_wrong_total 1\n";
    let checked = lab.program(&[promtool.to_str().unwrap(), "check", "metrics"]).input(wrong).done();
    assert!(!checked.status.success(), "{checked:?}");
}

#[test]
fn a_browser_shows_the_status_page() {
    if !have(&["chromium", "curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let page = stage.page();
    let object_id = stage.cloud.identity("system-assigned")["object_id"].as_str().unwrap().to_owned();
    for shown in ["✓ ready", "min left", &object_id, "none open", "1 × 28000", "and not \"nowhere\""] {
        assert!(page.contains(shown), "no {shown:?} in {page}");
    }
    assert!(page.contains("aria-valuetext=\"0 of 100\""), "{page}");
    drop(stage);
    // The browser's helper processes end after it.
    lab.await_processes();
}

#[test]
fn it_is_waited_for_and_quits_when_asked() {
    if !have(&["curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let admin = stage.admin.strip_prefix("http://").unwrap();
    lab.pgentra(&["proxy", "wait", "--admin", admin]).within(60).done().ok();
    let ready = stage.get(&format!("{}/readiness", stage.health));
    assert_eq!(ready, "ready\n1 target: 0 serving, 1 idle, 0 failing\n");
    let url = format!("{}/quitquitquit", stage.admin);
    let refused = lab.program(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url]).done();
    assert_eq!(refused.ok(), "403");
    assert_eq!(lab.program(&["curl", "-sS", "-X", "POST", &url]).done().ok(), "draining\n");
    let Stage { cloud, proxy, .. } = stage;
    assert!(proxy.ended().success());
    drop(cloud);
}

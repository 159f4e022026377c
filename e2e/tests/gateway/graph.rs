//! The gateway asks Microsoft Graph about principals, here that of the local cloud.

use e2e::{Lab, have};

use crate::stage::Stage;

#[test]
fn a_disabled_principal_is_refused_and_graph_may_be_down() {
    if !have(&["postgresql", "psql", "jq", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (_server, settings) = stage.scram_server(&format!("app={vm_id}:service"));
    let file = stage.write(
        "gateway.toml",
        &format!("{}account_check = 'session'\ngroup_overage = 'graph'\n{settings}", stage.settings),
    );
    // The application of the local cloud may read the directory.
    let application = stage.cloud.env("client-secret");
    let start = |env: &std::collections::BTreeMap<String, String>| {
        lab.gateway_of(env.clone(), &["--config", &file], 1)
    };
    let gateway = start(&application);
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");

    let graph = stage.cloud.env("vm")["PGENTRA_GRAPH_ENDPOINT"].clone();
    let root = stage.cloud.env("vm")["PGSSLROOTCERT"].clone();
    let enable = |is_enabled: bool| {
        let words = ["token", "--resource", "https://graph.microsoft.com"];
        let token = lab.pgentra(&words).envs(application.clone()).token();
        let header = stage.write("header", &format!("Authorization: Bearer {token}"));
        let url = format!("{graph}/v1.0/servicePrincipals/{vm_id}");
        let body = format!("{{\"accountEnabled\": {is_enabled}}}");
        let words = [
            "curl",
            "-sS",
            "--fail-with-body",
            "--cacert",
            &root,
            "-X",
            "PATCH",
            "-H",
            &format!("@{header}"),
            "-d",
            &body,
            &url,
        ];
        lab.program(&words).done().ok();
        std::fs::remove_file(&header).unwrap();
    };
    enable(false);
    // Another process has no answer from before.
    drop(gateway);
    let gateway = start(&application);
    let done = stage.sign_in(&gateway, "app", &vm, "SELECT 1");
    assert!(done.stderr.contains("is disabled or was deleted"), "{}", done.stderr);
    gateway.await_line("the principal of a token is disabled or gone");
    let token = stage.write("vm.token", &vm);
    let words = ["gateway", "--check", "--config", &file, "--token-file", &token, "--role", "app"];
    let done = lab.pgentra(&words).envs(application.clone()).done();
    std::fs::remove_file(token).unwrap();
    assert!(done.stdout.contains("is disabled or was deleted"), "{}", done.stdout);
    enable(true);
    drop(gateway);
    let gateway = start(&application);
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
    drop(gateway);

    // An identity without the permission is as good as a Graph that is down.
    let machine = stage.cloud.env("vm");
    let gateway = start(&machine);
    let done = stage.sign_in(&gateway, "app", &vm, "SELECT 1");
    assert!(done.stderr.contains("cannot ask Microsoft Graph"), "{}", done.stderr);
    gateway.await_line("Directory Readers");
    drop(gateway);
    stage.write(
        "gateway.toml",
        &format!("{}account_check = 'login'\ngraph_down = 'allow'\n{settings}", stage.settings),
    );
    let gateway = start(&machine);
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
    gateway.await_line("allowed by graph_down");
    drop(gateway);

    let two = format!("{}account_check = 'login'\n{settings}", stage.settings)
        .replace("tenant = '", "tenant = ['11111111-2222-3333-4444-555555555555', '")
        .replacen("'\nissuer", "']\nissuer", 1);
    let file = stage.write("gateway.toml", &two);
    let done = lab.pgentra(&["gateway", "--check-config", "--config", &file]).done();
    assert!(done.fails(2).contains("needs exactly one tenant"), "{}", done.stderr);
}

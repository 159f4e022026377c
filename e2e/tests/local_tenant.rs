//! `pgentra local identity`, `user` and `group` on a running cloud.

use e2e::{Flavour, Lab, User};
use eventually::{DEADLINE, eventually_blocking};
use serde_json::Value;

#[test]
fn principals_come_and_go_while_the_cloud_runs() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let on = |host: &str, script: &str| lab.shell(script).envs(cloud.env(host)).done();
    let local = |words: &str| on("vm", &format!("pgentra local {words}"));
    let names = |words: &str| -> Vec<String> {
        let list: Vec<Value> = serde_json::from_value(local(words).json()).unwrap();
        list.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("identity list -o json"), ["myIdentity"]);
    assert_eq!(names("identity add my-api -o json"), ["myIdentity", "my-api"]);
    let shown = local("identity list -o json").json()[1].clone();
    let client = shown["client_id"].as_str().unwrap().to_owned();

    // It is on the VM, and PostgreSQL knows it by name.
    let create = "pgentra role create my-api --kind service";
    eventually_blocking(DEADLINE, "PostgreSQL knows the identity", || {
        let done = on("admin", create);
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
    let query = format!("pgentra query --client-id {client} -U my-api -c 'SELECT current_user'");
    assert!(on("vm", &query).ok().contains("my-api"));

    assert_eq!(names("user add 'Jörg Müller' -o json").len(), 2);
    assert_eq!(local("user add 'Jörg Müller'").fault(2, &["jörg.müller@", "already"]), None);
    assert_eq!(names("user remove 'Jörg Müller' -o json").len(), 1);
    assert_eq!(names("group add developers -o json").last().unwrap(), "developers");
    assert!(local("group list").ok().contains("developers"));
    let found = on("admin", "pgentra identity find developers --kind group -o json").json();
    assert!(found.to_string().contains("developers"), "{found}");

    let administrator = cloud.env("admin")["PGUSER"].clone();
    assert!(names("group members developers -o json").is_empty());
    assert_eq!(names("group add-member developers my-api -o json"), ["my-api"]);
    assert_eq!(names("group add-member developers 'Local Administrator' -o json").len(), 2);
    assert_eq!(names("group members developers -o json").len(), 2);
    assert_eq!(names(&format!("group remove-member developers {administrator} -o json")), ["my-api"]);

    for (words, said) in [
        ("group members nobody", "no group \"nobody\""),
        ("group add-member developers nobody", "no user, identity or application \"nobody\""),
        ("group remove-member developers myIdentity", "is not a member of the group"),
        ("identity add my-api", "has a principal \"my-api\" already"),
        ("identity add ab", "3 to 64 letters"),
        ("user remove nobody", "no user \"nobody\""),
        ("group add ''", "1 to 64 characters"),
    ] {
        assert_eq!(local(words).fault(2, &[said]), None, "{words}");
    }
    assert_eq!(local(&format!("user remove '{administrator}'")).fault(2, &["cannot be removed"]), None);

    assert_eq!(names("identity remove my-api -o json"), ["myIdentity"]);
    assert!(!on("vm", &query).status.success(), "the VM has it no more");
    let group = local("group list -o json").json();
    let id = group.as_array().unwrap().last().unwrap()["object_id"].as_str().unwrap().to_owned();
    assert!(!names(&format!("group remove {id} -o json")).contains(&"developers".to_owned()));
}

#[test]
fn a_seed_gives_the_same_ids_under_any_name() {
    let ids = |name: &str, more: &[&str]| {
        let lab = Lab::of(User::Ours);
        let cloud = lab.cloud(Flavour::Flexible, &[&["--name", name], more].concat());
        let ids = [cloud.text("/tenant_id"), cloud.text("/identities/0/object_id")];
        drop(cloud);
        ids
    };
    let first = ids("one", &["--seed", "nightly"]);
    assert_eq!(ids("two", &["--seed", "nightly"]), first);
    assert_ne!(ids("one", &[]), first);
}

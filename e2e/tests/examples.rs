//! The example of each pool runs against a local cloud with the one command that `docs/rust.md`
//! gives for it.

use e2e::{Flavour, Lab, example_with};

const PAGE: &str = include_str!("../../docs/rust.md");

#[test]
fn each_pool_signs_in() {
    let commands: Vec<Vec<&str>> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("`cargo run ")?.strip_suffix('`'))
        .map(|words| words.split(' ').collect())
        .collect();
    let names: Vec<_> = commands.iter().filter_map(|words| words.last().copied()).collect();
    assert_eq!(names, ["deadpool", "bb8", "diesel_async", "sqlx", "sea_orm"], "the commands of docs/rust.md");
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for words in commands {
        let ["--package", package, "--features", feature, "--example", name] = words[..] else {
            panic!("another form of command: {words:?}");
        };
        let program = example_with(package, name, feature);
        let done = lab.program(&[program.to_str().unwrap()]).envs(cloud.env("vm")).done();
        assert!(done.ok().contains("signed in as myVm"), "{done:?}");
    }
}

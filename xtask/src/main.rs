//! The project's own commands: `cargo xtask check`, `cargo xtask test`, `cargo xtask fuzz`.
#![expect(clippy::print_stdout, reason = "a chore talks to the person who runs it")]

mod bench;
mod book;
mod budgets;
mod cluster;
mod cycles;
mod dependencies;
mod dist;
mod fuzz;
mod imports;
mod invariants;
mod journeys;
mod local_starts;
mod msrv;
mod names;
mod package;
mod pictures;
mod platforms;
mod prose;
mod seams;
mod test;
mod tree;
mod type_names;

use anyhow::Result;
use clap::{Parser, Subcommand};

fn main() -> Result<()> {
    let root = tree::root()?;
    match Arguments::parse().chore {
        Chore::Bench { name, arguments } => bench::run(&root, &name, &arguments),
        Chore::BenchPictures => pictures::write(&root),
        Chore::Book => book::run(&root),
        Chore::Check => check(&root),
        Chore::Cluster { action } => cluster::run(&root, action),
        Chore::Dist(options) => dist::run(&root, &options),
        Chore::Fuzz { runs, seed } => fuzz::run(&root, runs, seed),
        Chore::Package => package::run(&root),
        Chore::Platforms(options) => platforms::run(&root, &options),
        Chore::Test { arguments } => test::run(&root, &arguments),
    }
}

/// Development commands of the pgentra workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure pgentra side by side with its peers and print the ratios.
    Bench {
        /// The benchmark. `local` measures how long a local cloud takes to start.
        #[arg(value_parser = ["token", "proxy", "gateway", "local"])]
        name: String,
        /// Arguments for the benchmark: `proxy` takes --rounds, --seconds, --megabytes, --only,
        /// --ways and --write, and `local` --runs, --at-a-time, --rounds and --profile, then `--` and
        /// arguments for every start, such as `--snapshot FILE`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Draw the pictures of docs/bench-proxy.md from its tables; `bench proxy --write docs` does it too.
    BenchPictures,
    /// Build the documentation as a site, with a page for each file of the repository that it links to, and check its links.
    Book,
    /// Compare the code with ARCHITECTURE.md: dependencies, budgets, names, wording, journeys,
    /// invariants, 0 import cycles.
    Check,
    /// A Kubernetes of two nodes on this machine, for the tests in a cluster.
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Make everything that can be installed, in target/artifacts, with a table of it.
    Dist(dist::Options),
    /// Build every fuzz target and run each for a bounded number of inputs.
    Fuzz {
        /// Number of inputs for each target.
        #[arg(long, default_value_t = 200_000)]
        runs: u64,
        /// Seed of the random inputs: the same seed makes the same inputs, 0 makes new ones.
        #[arg(long, default_value_t = 0)]
        seed: u32,
    },
    /// Package every crate that may be published, and build each from its package.
    Package,
    /// Compile the libraries and the binary for systems on which no test runs, as far as their standard library can be had.
    Platforms(platforms::Options),
    /// Install what the tests need, then run all of them.
    Test {
        /// Arguments for `cargo test`, for example a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn check(root: &std::path::Path) -> Result<()> {
    let workspace = imports::Workspace::read(root)?;
    let journeys = journeys::read(root)?;
    let cycles = cycles::check(&workspace);
    let cycles_found = cycles.len();
    let mut faults = dependencies::check(root)?;
    faults.extend(budgets::check(root)?);
    faults.extend(cycles);
    faults.extend(journeys::check(root, &workspace, &journeys));
    faults.extend(invariants::check(root)?);
    faults.extend(seams::check(root)?);
    faults.extend(names::check(root)?);
    faults.extend(msrv::check(root)?);
    faults.extend(prose::check(root)?);
    faults.extend(type_names::check(root)?);
    for fault in &faults {
        println!("{fault}");
    }
    anyhow::ensure!(faults.is_empty(), "{} rule(s) of ARCHITECTURE.md broken", faults.len());
    let (crates, dependencies) = dependencies::count(root)?;
    let (longest, lines) = budgets::longest(root)?;
    println!("crates                 {crates}");
    println!("dependencies of those  {dependencies}");
    println!("import cycles          {cycles_found}");
    println!("longest file           {lines} lines: {}", longest.display());
    print!("{}", journeys::table(journeys));
    println!("dependencies, budgets, names, wording, journeys and invariants are as ARCHITECTURE.md says");
    Ok(())
}

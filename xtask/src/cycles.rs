//! Import cycles among the files of a crate: what a file imports must not import that file, however many files are between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::imports::{Module, Workspace};

/// The shortest import cycle of each crate below `crates/`, as a fault; nothing where there is none.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, parsed) in workspace.crates() {
        if let Some(cycle) = shortest_cycle(&parsed.imports()) {
            let files: Vec<_> = cycle.iter().map(|module| parsed.name_of(module)).collect();
            faults.push(format!("crates/{name}: import cycle: {}", files.join(" -> ")));
        }
    }
    faults
}

/// The shortest cycle, its first member again at its end.
fn shortest_cycle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    imports.keys().filter_map(|start| path_back(imports, start)).min_by_key(Vec::len)
}

/// The shortest way from a file back to itself.
fn path_back(imports: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> Option<Vec<Module>> {
    let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in imports.get(at).into_iter().flatten() {
            if next == start {
                let mut path = vec![start.clone()];
                let mut step = at;
                while step != start {
                    path.push(step.clone());
                    step = before.get(step)?;
                }
                path.push(start.clone());
                path.reverse();
                return Some(path);
            }
            if !before.contains_key(next) {
                before.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::imports::Crate;

    fn cycle(files: &[(&str, &str)]) -> Option<Vec<String>> {
        let sources: Vec<_> =
            files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        let parsed = Crate::parse(&sources).unwrap();
        let cycle = shortest_cycle(&parsed.imports())?;
        Some(cycle.iter().map(|module| parsed.name_of(module)).collect())
    }

    #[test]
    fn a_cycle_is_found_whatever_form_the_import_has() {
        for (a, b) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b::B;", "use super::a::{self, A};"),
            ("fn f() { crate::b::g() }", "struct X(super::a::A);"),
            ("use crate::{b::B};", "use crate::A;"),
            ("use crate::b::*;", "use crate::a;"),
        ] {
            let found = cycle(&[("lib.rs", "mod a; mod b; pub use a::A;"), ("a.rs", a), ("b.rs", b)]);
            assert_eq!(found.unwrap(), ["a.rs", "b.rs", "a.rs"], "{a} {b}");
        }
    }

    #[test]
    fn a_parent_and_its_child_are_a_cycle_where_each_imports_of_the_other() {
        let parent = ("p/mod.rs", "mod child; use self::child::C; pub struct P;");
        let lib = ("lib.rs", "mod p;");
        assert_eq!(cycle(&[lib, parent, ("p/child.rs", "use super::P;")]).unwrap().len(), 3);
        assert_eq!(cycle(&[lib, parent, ("p/child.rs", "pub struct C;")]), None);
        // A parent that hands its child's items on does not use them.
        let hands_on = ("p/mod.rs", "mod child; pub use self::child::C; pub struct P;");
        assert_eq!(cycle(&[lib, hands_on, ("p/child.rs", "use super::P;")]), None);
    }

    #[test]
    fn tests_and_other_crates_make_no_cycle() {
        let a = "use crate::b::B; #[cfg(test)] mod tests { use crate::b::X; }";
        let b = "use a::A; use tokio::a::B; #[cfg(test)] mod tests { use crate::a::A; }";
        assert_eq!(cycle(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]), None);
    }

    #[test]
    fn the_shortest_cycle_is_shown() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "use crate::a::A; use crate::b::B;"),
        ];
        assert_eq!(cycle(&files).unwrap().len(), 3);
    }
}

//! Type names that more than one crate defines: one word for one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod};

use crate::tree;

/// Most names of the table: more of them would be the rule, not the exception.
const MOST: usize = 15;

/// Names in several crates that CONTRIBUTING.md does not list, and rows of that list without use.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root.join("CONTRIBUTING.md")).context("CONTRIBUTING.md")?;
    let defined = defined(tree::rust(root)?)?;
    Ok(faults(&listed(&page), &defined))
}

/// Type name → the crates that define it.
type Defined = BTreeMap<String, BTreeSet<String>>;

fn faults(listed: &BTreeSet<String>, defined: &Defined) -> Vec<String> {
    let shared = |name: &str| defined.get(name).is_some_and(|crates| crates.len() > 1);
    let mut faults: Vec<String> = defined
        .iter()
        .filter(|(name, crates)| crates.len() > 1 && !listed.contains(*name))
        .map(|(name, crates)| {
            let crates: Vec<&str> = crates.iter().map(String::as_str).collect();
            format!("the type name {name} is defined in {}: rename all but one", crates.join(", "))
        })
        .collect();
    let unused = listed.iter().filter(|name| !shared(name));
    faults
        .extend(unused.map(|name| format!("CONTRIBUTING.md lists {name}, which one crate at most defines")));
    if listed.len() > MOST {
        faults.push(format!("CONTRIBUTING.md lists {} type names; at most {MOST}", listed.len()));
    }
    faults
}

/// The first cells of the table under "Type names".
fn listed(page: &str) -> BTreeSet<String> {
    page.lines()
        .skip_while(|line| *line != "### Type names")
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn defined(sources: Vec<(PathBuf, String)>) -> Result<Defined> {
    let mut defined = Defined::new();
    for (path, text) in sources {
        let Some(name) = crate_of(&path) else { continue };
        let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        let mut types = Types::default();
        types.visit_file(&file);
        for ident in types.0 {
            defined.entry(ident).or_default().insert(name.clone());
        }
    }
    Ok(defined)
}

/// The folder of the crate that a source file below `crates/*/src` belongs to; none for its tests.
fn crate_of(path: &Path) -> Option<String> {
    let mut parts = path.strip_prefix("crates").ok()?.iter();
    let name = parts.next()?.to_string_lossy().into_owned();
    let is_source = parts.next()? == "src" && parts.all(|part| part != "tests" && part != "tests.rs");
    is_source.then_some(name)
}

/// The names of structs, enums, traits and aliases, also inside functions; not of tests.
#[derive(Default)]
struct Types(BTreeSet<String>);

impl Types {
    fn add(&mut self, name: &Ident) {
        self.0.insert(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Enum(it) => self.add(&it.ident),
            Item::Struct(it) => self.add(&it.ident),
            Item::Trait(it) => self.add(&it.ident),
            Item::Type(it) => self.add(&it.ident),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Ident>().is_ok_and(|argument| argument == "test")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> (PathBuf, String) {
        (path.into(), text.to_owned())
    }

    #[test]
    fn a_name_in_two_crates_is_found_unless_it_is_listed() {
        let defined = defined(vec![
            source("crates/a/src/x.rs", "struct Door; fn f() { enum Inside {} } type Twice = u8;"),
            source("crates/a/src/y.rs", "struct Twice;"),
            source("crates/b/src/lib.rs", "trait Door {} mod m { struct Inside; }"),
            source("crates/b/src/tests/x.rs", "struct Twice;"),
            source("crates/b/tests/x.rs", "struct Twice;"),
            source("crates/c/src/lib.rs", "#[cfg(test)] mod tests { struct Twice; }"),
        ])
        .unwrap();
        let listed =
            |page: &str| listed(&format!("x\n### Type names\n\n| name |\n|---|\n{page}## Next\n| `Z` |"));
        assert_eq!(
            faults(&listed(""), &defined),
            [
                "the type name Door is defined in a, b: rename all but one",
                "the type name Inside is defined in a, b: rename all but one"
            ]
        );
        assert_eq!(faults(&listed("| `Door` | x |\n| `Inside` | x |\n"), &defined), Vec::<String>::new());
        let unused = faults(&listed("| `Door` | x |\n| `Inside` | x |\n| `Twice` | x |\n"), &defined);
        assert_eq!(unused, ["CONTRIBUTING.md lists Twice, which one crate at most defines"]);
    }
}

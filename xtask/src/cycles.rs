//! Import cycles among the files of a crate: what a file imports must not import that file, however many files are between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::tree;

/// A module's path within its crate: empty for the root.
type Module = Vec<String>;

/// One crate: what each of its files imports.
#[derive(Debug, Default)]
struct Crate {
    /// The file of each module that has one.
    files: BTreeMap<Module, PathBuf>,
    /// What a module hands on under its own name: name → where it comes from.
    reexports: BTreeMap<(Module, String), Module>,
    /// The paths that each file names, resolved to begin at the crate's root.
    named: Vec<(Module, Module)>,
}

/// The shortest import cycle of each crate below `crates/`, as a fault; nothing where there is none.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (name, sources) in by_crate(tree::rust(root)?) {
        let parsed = Crate::parse(&sources)?;
        if let Some(cycle) = shortest_cycle(&parsed.imports()) {
            let files: Vec<_> = cycle.iter().map(|module| parsed.name_of(module)).collect();
            faults.push(format!("crates/{name}: import cycle: {}", files.join(" -> ")));
        }
    }
    Ok(faults)
}

/// The sources of each crate, by the path below its `src`.
fn by_crate(sources: Vec<(PathBuf, String)>) -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let mut crates: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (path, text) in sources {
        let Ok(below) = path.strip_prefix("crates") else { continue };
        let mut parts = below.components();
        let Some(name) = parts.next() else { continue };
        let Ok(file) = parts.as_path().strip_prefix("src") else { continue };
        // Tests are not part of what they test.
        if !file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
            let name = name.as_os_str().to_string_lossy().into_owned();
            crates.entry(name).or_default().push((file.to_owned(), text));
        }
    }
    crates
}

impl Crate {
    fn parse(sources: &[(PathBuf, String)]) -> Result<Self> {
        let mut parsed = Self::default();
        for (path, _) in sources {
            parsed.files.insert(module_of(path), path.clone());
        }
        for (path, text) in sources {
            let module = module_of(path);
            let file = syn::parse_file(text).with_context(|| path.display().to_string())?;
            let mut reader = Reader { krate: &mut parsed, at: module.clone(), file: module };
            reader.visit_file(&file);
        }
        Ok(parsed)
    }

    /// File → the files that it imports from.
    fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, path) in &self.named {
            let to = self.file_of(path);
            if to != *from {
                imports.entry(from.clone()).or_default().insert(to);
            }
        }
        imports
    }

    /// The module with a file of its own in which the item of this path is defined.
    fn file_of(&self, path: &[String]) -> Module {
        let mut path = path.to_vec();
        // A chain of re-exports is no longer than there are re-exports.
        for _ in 0..=self.reexports.len() {
            let module = self.deepest(&path);
            let next =
                path.get(module.len()).and_then(|name| self.reexports.get(&(module.clone(), name.clone())));
            match next {
                Some(target) => path = [target.clone(), path[module.len() + 1..].to_vec()].concat(),
                None => return module,
            }
        }
        self.deepest(&path)
    }

    fn deepest(&self, path: &[String]) -> Module {
        (0..=path.len())
            .rev()
            .map(|length| path[..length].to_vec())
            .find(|it| self.files.contains_key(it))
            .unwrap_or_default()
    }

    fn name_of(&self, module: &Module) -> String {
        self.files.get(module).map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`.
fn module_of(path: &Path) -> Module {
    let mut parts: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if let Some(last) = parts.pop() {
        let stem = last.trim_end_matches(".rs");
        if !["lib", "main", "mod"].contains(&stem) {
            parts.push(stem.to_owned());
        }
    }
    parts
}

/// Collects the paths that a file names.
struct Reader<'a> {
    krate: &'a mut Crate,
    /// The module that is read, which may be written inside the file.
    at: Module,
    file: Module,
}

impl Reader<'_> {
    /// A path as it begins at the root, if it is of this crate.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.at.clone(),
            "super" => {
                let mut base = self.at.clone();
                base.pop()?;
                let supers = rest.iter().take_while(|part| *part == "super").count();
                for _ in 0..supers {
                    base.pop()?;
                }
                return Some([base, rest[supers..].to_vec()].concat());
            }
            name => {
                // A child module of this one, or something of another crate.
                let child = [self.at.clone(), vec![name.to_owned()]].concat();
                return self.krate.files.contains_key(&child).then(|| [child, rest.to_vec()].concat());
            }
        };
        Some([base, rest.to_vec()].concat())
    }

    fn name(&mut self, path: &[String]) -> Option<Module> {
        let path = self.resolve(path)?;
        self.krate.named.push((self.file.clone(), path.clone()));
        Some(path)
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() {
            self.at.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.at.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        let is_handed_on = !matches!(item.vis, Visibility::Inherited);
        for (path, name) in leaves {
            let Some(target) = (if is_handed_on { self.resolve(&path) } else { self.name(&path) }) else {
                continue;
            };
            if is_handed_on {
                self.krate.reexports.insert((self.at.clone(), name), target);
            }
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let text = call.tokens.to_string().replace(" :: ", "::").replace(":: ", "::").replace(" ::", "::");
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            let parts: Vec<String> = word.split("::").map(str::to_owned).collect();
            if parts.len() > 1 && parts.iter().all(|p| !p.is_empty()) {
                self.name(&parts);
            }
        }
        visit::visit_macro(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if path.leading_colon.is_none() && parts.len() > 1 {
            self.name(&parts);
        }
        visit::visit_path(self, path);
    }
}

/// The leaves of a `use` tree: each path, and the name that it gets.
fn flatten(tree: &UseTree, prefix: &mut Module, leaves: &mut Vec<(Module, String)>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, leaves);
            prefix.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, leaves)),
        UseTree::Glob(_) => leaves.push((prefix.clone(), "*".to_owned())),
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((prefix.clone(), prefix.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => leaf(prefix, name.ident.to_string(), name.ident.to_string(), leaves),
        UseTree::Rename(rename) => leaf(prefix, rename.ident.to_string(), rename.rename.to_string(), leaves),
    }
}

fn leaf(prefix: &Module, item: String, name: String, leaves: &mut Vec<(Module, String)>) {
    leaves.push(([prefix.clone(), vec![item]].concat(), name));
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
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
    use super::*;

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

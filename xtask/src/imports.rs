//! What the files of the workspace import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::tree;

/// A module's path within its crate: empty for the root.
pub(crate) type Module = Vec<String>;

/// One crate: what each of its files imports.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    /// The file of each module that has one.
    files: BTreeMap<Module, PathBuf>,
    /// What a module hands on under its own name: name → where it comes from.
    reexports: BTreeMap<(Module, String), Module>,
    /// The paths that each file names, resolved to begin at the crate's root.
    named: Vec<(Module, Module)>,
    /// The modules that each file declares with `mod`.
    declared: Vec<(Module, Module)>,
    /// The paths in other crates of the workspace that each file names.
    outside: Vec<(Module, Outside)>,
    /// The types of other files to which each file adds methods.
    extended: Vec<(Module, Module)>,
}

/// A path in another crate of the workspace.
#[derive(Debug)]
struct Outside {
    /// The folder of the crate below `crates/`.
    krate: String,
    /// The path from that crate's root.
    path: Module,
}

/// What the crates below `crates/` import, by their folders.
#[derive(Debug)]
pub(crate) struct Workspace(BTreeMap<String, Crate>);

impl Workspace {
    /// Reads the files of every crate, without their tests.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        Self::parse(tree::rust(root)?)
    }

    fn parse(sources: Vec<(PathBuf, String)>) -> Result<Self> {
        let crates = by_crate(sources).into_iter();
        Ok(Self(crates.map(|(name, sources)| Ok((name, Crate::parse(&sources)?))).collect::<Result<_>>()?))
    }

    /// Every crate with its folder.
    pub(crate) fn crates(&self) -> impl Iterator<Item = (&String, &Crate)> {
        self.0.iter()
    }

    /// The files that this file imports or declares as modules. Paths begin with the crate's folder:
    /// `proxy/src/serve.rs`.
    pub(crate) fn imported_by(&self, file: &str) -> BTreeSet<String> {
        let Some((name, inside)) = file.split_once("/src/") else { return BTreeSet::new() };
        let Some(krate) = self.0.get(name) else { return BTreeSet::new() };
        let module = module_of(Path::new(inside));
        let within = krate.named.iter().chain(&krate.declared).filter(|(from, _)| *from == module);
        let within = within.map(|(_, path)| (name, krate, path));
        let outside = krate.outside.iter().filter(|(from, _)| *from == module).filter_map(|(_, outside)| {
            let (name, krate) = self.0.get_key_value(&outside.krate)?;
            Some((name.as_str(), krate, &outside.path))
        });
        within
            .chain(outside)
            .map(|(name, krate, path)| format!("{name}/src/{}", krate.name_of(&krate.file_of(path))))
            .collect()
    }

    /// The files of the types to which this file adds methods.
    pub(crate) fn extended_by(&self, file: &str) -> BTreeSet<String> {
        let Some((name, inside)) = file.split_once("/src/") else { return BTreeSet::new() };
        let Some(krate) = self.0.get(name) else { return BTreeSet::new() };
        let module = module_of(Path::new(inside));
        let extended = krate.extended.iter().filter(|(from, _)| *from == module);
        extended.map(|(_, path)| format!("{name}/src/{}", krate.name_of(&krate.file_of(path)))).collect()
    }
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
    pub(crate) fn parse(sources: &[(PathBuf, String)]) -> Result<Self> {
        let mut parsed = Self::default();
        for (path, _) in sources {
            parsed.files.insert(module_of(path), path.clone());
        }
        for (path, text) in sources {
            let module = module_of(path);
            let file = syn::parse_file(text).with_context(|| path.display().to_string())?;
            let mut reader =
                Reader { krate: &mut parsed, at: module.clone(), file: module, names: BTreeMap::new() };
            reader.visit_file(&file);
        }
        Ok(parsed)
    }

    /// File → the files that it imports from.
    pub(crate) fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
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

    pub(crate) fn name_of(&self, module: &Module) -> String {
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
    /// What the file imports by a name of its own.
    names: BTreeMap<String, Module>,
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
        if let Some((first, rest)) = path.split_first()
            && let Some(name) = first.strip_prefix("pgentra_")
        {
            let outside = Outside { krate: name.replace('_', "-"), path: rest.to_vec() };
            self.krate.outside.push((self.file.clone(), outside));
            return None;
        }
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

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let (None, syn::Type::Path(extended)) = (&item.trait_, &*item.self_ty) {
            let path: Vec<_> = extended.path.segments.iter().map(|part| part.ident.to_string()).collect();
            let target = match &path[..] {
                [name] => self.names.get(name).cloned(),
                path => self.resolve(path),
            };
            self.krate.extended.extend(target.map(|target| (self.file.clone(), target)));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let module = [self.at.clone(), vec![item.ident.to_string()]].concat();
        if item.content.is_some() {
            let outer = std::mem::replace(&mut self.at, module);
            visit::visit_item_mod(self, item);
            self.at = outer;
        } else {
            self.krate.declared.push((self.file.clone(), module));
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
            self.names.insert(name.clone(), target.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_imported_from_another_crate_is_the_file_that_defines_it() {
        let sources = [
            ("crates/a/src/lib.rs", "mod part; pub use part::Part; mod alone;"),
            ("crates/a/src/part.rs", "pub struct Part;"),
            ("crates/a/src/alone.rs", "pub struct Alone;"),
            (
                "crates/b-c/src/lib.rs",
                "mod d; use d::D; use pgentra_a::Part; fn f() { pgentra_b_c::g(); other::h(); }",
            ),
            ("crates/b-c/src/d.rs", "#[cfg(test)] mod tests { use pgentra_a::Part; }"),
        ];
        let sources = sources.map(|(path, text)| (PathBuf::from(path), text.to_owned())).to_vec();
        let workspace = Workspace::parse(sources).unwrap();
        let imported = |file| Vec::from_iter(workspace.imported_by(file));
        assert_eq!(imported("b-c/src/lib.rs"), ["a/src/part.rs", "b-c/src/d.rs", "b-c/src/lib.rs"]);
        assert_eq!(imported("a/src/lib.rs"), ["a/src/alone.rs", "a/src/part.rs"]);
        assert!(imported("b-c/src/d.rs").is_empty() && imported("none/src/lib.rs").is_empty());
    }

    #[test]
    fn methods_may_be_in_another_file_than_their_type() {
        let sources = [
            ("crates/a/src/lib.rs", "mod part; mod more; mod show; pub struct Own;"),
            ("crates/a/src/part.rs", "pub struct Part<T>(T); impl<T> Part<T> {}"),
            ("crates/a/src/more.rs", "use crate::part::Part; impl<T> Part<T> {} impl crate::Own {}"),
            ("crates/a/src/show.rs", "use crate::part::Part; impl Clone for Part {}"),
        ];
        let sources = sources.map(|(path, text)| (PathBuf::from(path), text.to_owned())).to_vec();
        let workspace = Workspace::parse(sources).unwrap();
        let extended = |file| Vec::from_iter(workspace.extended_by(file));
        assert_eq!(extended("a/src/more.rs"), ["a/src/lib.rs", "a/src/part.rs"]);
        assert!(extended("a/src/part.rs").is_empty() && extended("a/src/show.rs").is_empty());
    }
}

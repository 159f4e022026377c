//! `cargo xtask book`: the documentation as a site, in which every link leads somewhere.
//!
//! mdBook knows the pages of `docs/` alone. Links to other files of the repository get a page each that shows the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree;

/// The folder in the site for files of the repository that are no pages.
const FILES: &str = "files";

/// Builds the site in target/book, and prints how many links it has.
///
/// # Errors
/// mdBook fails, or is not installed; or a link leads nowhere.
pub(crate) fn run(root: &Path) -> Result<()> {
    let site = root.join("target/book");
    let installed = root.join("target/tools/bin/mdbook");
    let mdbook = if installed.is_file() { installed } else { "mdbook".into() };
    if site.exists() {
        // A page of an earlier run would hide a dead link.
        fs::remove_dir_all(&site)?;
    }
    let built = Command::new(mdbook).args(["build", "docs"]).current_dir(root).status();
    let built =
        built.context("cannot run mdbook; cargo install mdbook --no-default-features --features search")?;
    ensure!(built.success(), "mdbook build docs failed");

    let tracked: BTreeSet<PathBuf> = tree::files(root)?.into_iter().collect();
    let mut shown = BTreeSet::new();
    for page in pages(&site)? {
        let text = fs::read_to_string(site.join(&page))?;
        let changed = with_links(&text, |link| {
            let outside = Outside::of(link, &page, &tracked)?;
            let to = outside.link();
            shown.insert(outside);
            Some(to)
        });
        fs::write(site.join(&page), changed)?;
    }
    for outside in &shown {
        outside.write(root, &site, &tracked)?;
    }
    let (links, dead) = check(&site)?;
    ensure!(dead.is_empty(), "{} link(s) lead nowhere:\n{}", dead.len(), dead.join("\n"));
    println!(
        "{links} links, all of them lead somewhere; {} files of the repository have a page",
        shown.len()
    );
    println!("in {}", site.join("index.html").display());
    Ok(())
}

/// Every page of the site. The page for a wrong address is not one: its links begin at the site's root.
fn pages(site: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(site.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "html") && path != Path::new("404.html")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A file or folder of the repository to which a page links.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Outside {
    path: PathBuf,
    is_folder: bool,
}

impl Outside {
    /// What a link means that leaves the site: its pages lie in `docs/`, and mdBook turned the ending of a page's name
    /// into `.html`.
    fn of(link: &str, page: &Path, tracked: &BTreeSet<PathBuf>) -> Option<Self> {
        let (path, _) = relative(link)?;
        let path = joined(&Path::new("docs").join(page), path)?;
        if path.starts_with("docs") {
            return None;
        }
        let is_folder = tracked.iter().any(|file| file.starts_with(&path) && *file != path);
        let written = [path.clone(), path.with_extension("md")];
        let path = written.into_iter().find(|path| is_folder || tracked.contains(path))?;
        Some(Self { path, is_folder })
    }

    /// Its page in the site.
    fn page(&self) -> PathBuf {
        let page = Path::new(FILES).join(&self.path);
        match self.is_folder {
            true => page.join("index.html"),
            false => format!("{}.html", page.display()).into(),
        }
    }

    /// The link from a page of the documentation, all of which lie side by side.
    fn link(&self) -> String {
        self.page().display().to_string()
    }

    fn write(&self, root: &Path, site: &Path, tracked: &BTreeSet<PathBuf>) -> Result<()> {
        let page = site.join(self.page());
        let up = "../".repeat(self.page().components().count() - 1);
        let name = escaped(&self.path.display().to_string());
        let mut text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{name}</title>\n\
             <style>body {{ color-scheme: light dark; font-family: sans-serif; margin: 2em }}</style>\n\
             <p><a href=\"{up}index.html\">pgentra</a> / {name}</p>\n"
        );
        if self.is_folder {
            for file in tracked.iter().filter(|file| file.starts_with(&self.path)) {
                let (is_folder, path) = (false, file.clone());
                let below = Self { path, is_folder };
                let link = format!("{up}{}", below.link());
                text.push_str(&format!(
                    "<p><a href=\"{link}\">{}</a></p>\n",
                    escaped(&file.display().to_string())
                ));
                below.write(root, site, tracked)?;
            }
        } else {
            let content = fs::read(root.join(&self.path)).with_context(|| self.path.display().to_string())?;
            text.push_str(&format!("<pre>{}</pre>\n", escaped(&String::from_utf8_lossy(&content))));
        }
        fs::create_dir_all(page.parent().context("a page lies in a folder")?)?;
        Ok(fs::write(page, text)?)
    }
}

/// The number of links, and those that lead nowhere.
fn check(site: &Path) -> Result<(usize, Vec<String>)> {
    let pages = pages(site)?;
    let texts: BTreeMap<_, _> = pages
        .iter()
        .map(|page| Ok((page.clone(), fs::read_to_string(site.join(page))?)))
        .collect::<Result<_>>()?;
    let (mut number, mut dead) = (0, Vec::new());
    for (page, text) in &texts {
        for link in links(text) {
            let Some((path, fragment)) = relative(link) else { continue };
            number += 1;
            let to = if path.is_empty() { Some(page.clone()) } else { joined(page, path) };
            let leads = to.is_some_and(|to| {
                let has_place = |text: &String| fragment.is_empty() || has_id(text, fragment);
                site.join(&to).is_file() && texts.get(&to).is_none_or(has_place)
            });
            if !leads {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    Ok((number, dead))
}

fn has_id(text: &str, fragment: &str) -> bool {
    text.contains(&format!("id=\"{fragment}\""))
}

const ATTRIBUTES: [&str; 2] = ["href=\"", "src=\""];

/// The values of all links in a page.
fn links(text: &str) -> impl Iterator<Item = &str> {
    ATTRIBUTES.into_iter().flat_map(|attribute| {
        text.split(attribute).skip(1).filter_map(|rest| rest.split_once('"').map(|(link, _)| link))
    })
}

/// The page with other links where `change` names one.
fn with_links(text: &str, mut change: impl FnMut(&str) -> Option<String>) -> String {
    let mut text = text.to_owned();
    for attribute in ATTRIBUTES {
        let mut changed = String::with_capacity(text.len());
        let mut parts = text.split(attribute);
        changed.push_str(parts.next().unwrap_or_default());
        for part in parts {
            changed.push_str(attribute);
            let (link, rest) = part.split_at(part.find('"').unwrap_or(0));
            match change(link) {
                Some(to) => changed.push_str(&to),
                None => changed.push_str(link),
            }
            changed.push_str(rest);
        }
        text = changed;
    }
    text
}

/// Path and fragment of a link within the site; `None` for an address elsewhere.
fn relative(link: &str) -> Option<(&str, &str)> {
    let has_scheme = link.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':'));
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    (!has_scheme && !link.starts_with('/')).then_some((path, fragment))
}

/// The path that a link in a page means. `None`: it leads out of everything.
fn joined(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => return None,
            _ => {}
        }
    }
    Some(path)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked() -> BTreeSet<PathBuf> {
        ["README.md", "deploy/a.yaml", "deploy/b/c.txt", "docs/local.md"].map(PathBuf::from).into()
    }

    #[test]
    fn a_link_out_of_the_site_gets_a_page() {
        let to = |link| Outside::of(link, Path::new("local.html"), &tracked()).map(|outside| outside.link());
        for (link, page) in [
            ("../README.html", Some("files/README.md.html")),
            ("../deploy/a.yaml#L2", Some("files/deploy/a.yaml.html")),
            ("../deploy/b", Some("files/deploy/b/index.html")),
            ("../deploy/", Some("files/deploy/index.html")),
            ("../secret.txt", None),
            ("../../etc/passwd", None),
            ("other.html", None),
            ("https://example.org/../x", None),
        ] {
            assert_eq!(to(link).as_deref(), page, "{link}");
        }
    }

    #[test]
    fn links_are_found_and_changed() {
        let page = "<a href=\"a.html#x\">a</a><img src=\"b.png\"><a href=\"a.html#x\">";
        assert_eq!(links(page).collect::<Vec<_>>(), ["a.html#x", "a.html#x", "b.png"]);
        let changed = with_links(page, |link| (link == "b.png").then(|| "c.png".to_owned()));
        assert_eq!(changed, page.replace("b.png", "c.png"));
    }

    #[test]
    fn what_leads_nowhere_is_found() {
        let site = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(site.path().join(name), text).unwrap();
        write("a.html", "<a href=\"b.html#x\"><a href=\"#y\"><p id=\"y\"><a href=\"mailto:a@example.org\">");
        write("b.html", "<p id=\"x\"><img src=\"none.png\"><a href=\"a.html#z\"><a href=\"../out\">");
        write("404.html", "<a href=\"none\">");
        let (number, dead) = check(site.path()).unwrap();
        assert_eq!(number, 5);
        assert_eq!(dead, ["b.html: a.html#z", "b.html: ../out", "b.html: none.png"]);
    }
}

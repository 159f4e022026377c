//! The wording of code and documents, and the width of the documents.

use std::path::Path;

use anyhow::Result;

use crate::tree;

/// Pronouns that hide who acts; a text names the client, the server or the user instead.
const VAGUE: [&str; 4] = ["whoever", "somebody", "nobody", "stranger"];
/// Most lines with a vague word: some name the system user `nobody`.
const VAGUE_LINES: usize = 20;
/// Most characters in a line of prose, so that a diff shows the sentence that changed.
const PROSE_WIDTH: usize = 100;

/// The lines with vague words if there are too many, and the lines of prose that are too long.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut vague = Vec::new();
    let mut wide = Vec::new();
    for path in tree::files(root)? {
        let is_ours = path.file_name().is_some_and(|name| name != "Cargo.lock");
        // An image is not text.
        let Ok(text) = String::from_utf8(std::fs::read(root.join(&path))?) else { continue };
        if is_ours {
            vague.extend(vague_lines(&path, &text));
        }
        if path.extension().is_some_and(|extension| extension == "md") {
            wide.extend(wide_lines(&path, &text));
        }
    }
    Ok([over(vague, VAGUE_LINES), wide].concat())
}

/// Nothing up to `most` lines, else all of them: which one is new is not known.
fn over(lines: Vec<String>, most: usize) -> Vec<String> {
    if lines.len() <= most {
        return Vec::new();
    }
    let total = format!("{} lines with a vague word; at most {most}", lines.len());
    lines.into_iter().chain([total]).collect()
}

fn vague_lines(path: &Path, text: &str) -> Vec<String> {
    let is_vague = |line: &str| {
        let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.any(|word| VAGUE.iter().any(|vague| word.eq_ignore_ascii_case(vague)))
    };
    found(path, text.lines().enumerate().filter(|(_, line)| is_vague(line)))
}

/// Lines of prose over the width. Code, tables, headings, pictures and link targets are no prose, and a line
/// without a space cannot be broken.
fn wide_lines(path: &Path, text: &str) -> Vec<String> {
    let mut is_code = false;
    let lines = text.lines().enumerate().filter(move |(_, line)| {
        let start = line.trim_start();
        if start.starts_with("```") || start.starts_with("~~~") {
            is_code = !is_code;
        }
        let is_link_target = start.starts_with('[') && start.contains("]: ");
        let is_prose = !start.starts_with(['|', '#']) && !start.starts_with("![") && !is_link_target;
        let can_break = start.trim_start_matches(['-', '>', ' ']).contains(' ');
        line.chars().count() > PROSE_WIDTH && !is_code && is_prose && can_break
    });
    found(path, lines)
}

fn found<'a>(path: &Path, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<String> {
    lines.map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, shown(line.trim()))).collect()
}

/// The line, cut to a width that a terminal shows.
fn shown(line: &str) -> String {
    line.chars().take(PROSE_WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_count_and_only_beyond_the_limit() {
        let [first, ..] = VAGUE;
        let text = format!("a {first}.\n{}'s\nx_{first}\n{first}s\n", first.to_uppercase());
        let lines = vague_lines(Path::new("a.rs"), &text);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(over(lines.clone(), 2), Vec::<String>::new());
        assert_eq!(over(lines, 1).len(), 3);
    }

    #[test]
    fn prose_has_a_width_and_tables_and_code_have_none() {
        let long = "word ".repeat(21);
        let text = format!(
            "{long}\n| {long} |\n```\n{long}\n```\n- {}\n- {long}\n# {long}\n[a]: {long}\n",
            "x".repeat(PROSE_WIDTH + 1)
        );
        let lines = wide_lines(Path::new("a.md"), &text);
        let numbers: Vec<_> = lines.iter().map(|line| line.split(':').nth(1).unwrap()).collect();
        assert_eq!(numbers, ["1", "7"]);
    }

    #[test]
    fn the_project_keeps_both_rules() {
        assert_eq!(check(&tree::root().unwrap()).unwrap(), Vec::<String>::new());
    }
}

//! Renders Markdown for a terminal: the sections of `docs/errors.md`.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use crate::text::{Text, bold, command, faint, hang, text, verbatim};

/// The indentation of code and of the text of a list.
const INDENT: &str = "  ";

/// A text in Markdown without its marks: paragraphs of one line each, commands indented and without
/// a prompt. With `keep_lines`, paragraphs keep the lines of the source, for a pipe.
pub(crate) fn rendered(markdown: &str, keep_lines: bool) -> Text {
    let mut page = Page { keep_lines, ..Page::default() };
    for event in Parser::new(markdown) {
        page.event(event);
    }
    page.text
}

/// The same in one line: the words alone.
pub(crate) fn words(markdown: &str) -> String {
    let words = |event| match event {
        Event::Text(text) | Event::Code(text) => Some(text.into_string()),
        Event::SoftBreak | Event::HardBreak => Some(" ".to_owned()),
        _ => None,
    };
    Parser::new(markdown).filter_map(words).collect()
}

#[derive(Default)]
struct Page {
    text: Text,
    keep_lines: bool,
    is_begun: bool,
    kind: LineKind,
    /// The depth of lists.
    depth: usize,
    /// The address of the link that is open, if it leads out of the documentation.
    link: Option<String>,
}

/// What the text at hand is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum LineKind {
    #[default]
    Prose,
    Bold,
    Code,
}

impl Page {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(code) if self.kind == LineKind::Code => self.code(&code),
            Event::Text(words) if self.kind == LineKind::Bold => self.text.push(bold(&words)),
            Event::Text(words) => self.text.push(&*words),
            Event::Code(code) => self.text.push(command(&code)),
            Event::SoftBreak if !self.keep_lines => self.text.push(" "),
            Event::SoftBreak | Event::HardBreak => self.text.push(format!("\n{}", INDENT.repeat(self.depth))),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } => {
                self.gap();
                self.kind = LineKind::Bold;
            }
            Tag::Paragraph => {
                self.gap();
                self.text.push(hang());
            }
            Tag::List(_) => {
                if self.depth == 0 {
                    self.gap();
                }
                self.depth += 1;
            }
            Tag::Item => {
                self.text.push(text![INDENT.repeat(self.depth - 1), "- ", hang()]);
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.gap();
                self.kind = LineKind::Code;
            }
            Tag::Emphasis | Tag::Strong => self.kind = LineKind::Bold,
            Tag::Link { dest_url, .. } => {
                self.link = dest_url.contains("://").then(|| dest_url.into_string());
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.kind = LineKind::Prose;
                self.text.push("\n");
            }
            TagEnd::Paragraph | TagEnd::Item => self.text.push("\n"),
            TagEnd::List(_) => self.depth = self.depth.saturating_sub(1),
            TagEnd::CodeBlock | TagEnd::Emphasis | TagEnd::Strong => self.kind = LineKind::Prose,
            TagEnd::Link => {
                if let Some(address) = self.link.take() {
                    self.text.push(faint(&format!(" ({address})")));
                }
            }
            _ => {}
        }
    }

    /// An empty line between two blocks.
    fn gap(&mut self) {
        if std::mem::replace(&mut self.is_begun, true) && self.depth == 0 {
            self.text.push("\n");
        }
    }

    /// Lines of code. A command is shown without its prompt, so that the line can be copied.
    fn code(&mut self, code: &str) {
        for line in code.lines() {
            self.text.push(match line.strip_prefix("$ ") {
                Some(line) => text![INDENT, command(line), "\n"],
                None => text![verbatim(&format!("{INDENT}{line}")), "\n"],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = "It is *not* there: `az login` makes\none, as [roles.md](roles.md) says.\n\n\
        - `A`: one\n  and more of it\n- two\n\n\
        See [the page](https://example.com/x).\n\n```console\n$ pgentra token -v\nout * put\n```\n";

    #[test]
    fn a_section_has_no_marks() {
        assert_eq!(
            rendered(SECTION, false).render(false),
            "It is not there: az login makes one, as roles.md says.\n\n\
             - A: one and more of it\n- two\n\n\
             See the page (https://example.com/x).\n\n  pgentra token -v\n  out * put\n"
        );
        assert_eq!(
            rendered(SECTION, true).render(false).lines().take(5).collect::<Vec<_>>(),
            ["It is not there: az login makes", "one, as roles.md says.", "", "- A: one", "  and more of it"]
        );
    }

    #[test]
    fn a_section_fits_the_terminal() {
        for width in [40, 60, 120] {
            let shown = rendered(SECTION, false).wrapped(false, Some(width));
            assert!(shown.lines().all(|line| line.len() <= width), "{shown}");
            assert!(shown.contains("\n  pgentra token -v\n"), "{shown}");
        }
        let shown = rendered("- a list of words that is long enough\n", false).wrapped(false, Some(30));
        assert_eq!(shown, "- a list of words that is long\n  enough\n");
    }

    #[test]
    fn words_are_one_line() {
        assert_eq!(words("It is *not* `there`,\nand [x](y.md)."), "It is not there, and x.");
    }
}

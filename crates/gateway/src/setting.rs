//! Rewrites `SET aad_validate_oids_in_tenant = off;`.
//!
//! Single Server has this setting. Another PostgreSQL refuses the name, because custom settings
//! need a prefix. So the gateway adds the prefix in SET, SHOW and RESET on the way to the server.

use super::lexer::{Lexeme, Lexer};

/// The setting as it is typed.
pub(crate) const TYPED: &str = "aad_validate_oids_in_tenant";
/// The setting as the server knows it.
pub(crate) const KNOWN: &str = "pgentra.aad_validate_oids_in_tenant";

/// The statements with the prefix added; `None` if they do not name the setting.
pub(crate) fn rename(sql: &[u8]) -> Option<Vec<u8>> {
    // Most statements do not name the setting, and this check is cheap.
    if !sql.windows(TYPED.len()).any(|window| window.eq_ignore_ascii_case(TYPED.as_bytes())) {
        return None;
    }
    let mut renamed = Vec::with_capacity(sql.len() + KNOWN.len());
    let mut copied = 0;
    let mut place = LexerState::Begin;
    let mut tokens = Lexer::new(sql).peekable();
    while let Some(token) = tokens.next() {
        let is = |word: &str| matches!(&token, Lexeme::Word(at) if sql[at.clone()].eq_ignore_ascii_case(word.as_bytes()));
        place = match (place, &token) {
            (_, Lexeme::Semicolon) => LexerState::Begin,
            (LexerState::Begin, _) if is("SET") => LexerState::Set,
            (LexerState::Begin, _) if is("SHOW") || is("RESET") => LexerState::Name,
            (LexerState::Set, _) if is("SESSION") || is("LOCAL") => LexerState::Name,
            (LexerState::Set | LexerState::Name, Lexeme::Word(at))
                if is(TYPED) && !matches!(tokens.peek(), Some(Lexeme::Other(b'.', _))) =>
            {
                renamed.extend_from_slice(&sql[copied..at.start]);
                renamed.extend_from_slice(KNOWN.as_bytes());
                copied = at.end;
                LexerState::Rest
            }
            _ => LexerState::Rest,
        };
    }
    if copied == 0 {
        return None;
    }
    renamed.extend_from_slice(&sql[copied..]);
    Some(renamed)
}

/// The lexer's state within a statement.
#[derive(Clone, Copy)]
enum LexerState {
    Begin,
    Set,
    /// The name of a setting must follow.
    Name,
    Rest,
}

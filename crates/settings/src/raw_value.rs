//! The written value of a key, and functions that parse it. An error continues a sentence that
//! begins with the key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use crate::quantity;

/// The written values; where one is expected, the last counts. The error of each method is a text
/// that continues a sentence which begins with the setting.
#[derive(Debug)]
pub struct RawValue<'a>(pub &'a [String]);

impl<'a> RawValue<'a> {
    /// The text, which must not be empty.
    pub fn text(&self) -> Result<&'a str, String> {
        match self.0.last() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err("is empty".to_owned()),
        }
    }

    /// The parsed text.
    pub fn parsed<T: FromStr<Err: Display>>(&self) -> Result<T, String> {
        let text = self.text()?;
        text.parse().map_err(|error| format!("cannot be `{text}`: {error}"))
    }

    /// Each text, parsed.
    pub fn list<T: FromStr<Err: Display>>(&self) -> Result<Vec<T>, String> {
        let one = |text: &String| text.parse().map_err(|error| format!("cannot be `{text}`: {error}"));
        self.0.iter().map(one).collect()
    }

    /// A path.
    pub fn path(&self) -> Result<PathBuf, String> {
        self.text().map(PathBuf::from)
    }

    /// `name=value` pairs, split at the last `=`: the distinguished name of a certificate contains
    /// several.
    pub fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let one = |text: &String| match text.rsplit_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => Err(format!("cannot be `{text}`: write NAME=VALUE")),
        };
        self.0.iter().map(one).collect()
    }

    /// As [`RawValue::pairs`], with each name once.
    pub fn map(&self) -> Result<Vec<(String, String)>, String> {
        let pairs = self.pairs()?;
        let is_again = |at: usize| pairs[..at].iter().any(|(name, _)| *name == pairs[at].0);
        match (0..pairs.len()).find(|at| is_again(*at)) {
            Some(at) => Err(format!("has `{}` twice", pairs[at].0)),
            None => Ok(pairs),
        }
    }

    /// A whole number within a range.
    pub fn number(&self, range: RangeInclusive<u64>) -> Result<u64, String> {
        quantity::count_within(self.text()?, range)
    }

    /// The same as a size.
    pub fn size(&self, range: RangeInclusive<u64>) -> Result<usize, String> {
        usize::try_from(self.number(range)?).map_err(|error| error.to_string())
    }

    /// A time, within a range of seconds.
    pub fn time(&self, range: RangeInclusive<u64>) -> Result<Duration, String> {
        quantity::time_within(self.text()?, range)
    }

    /// Parses the text with `read`.
    pub fn read<T>(&self, read: fn(&str) -> Result<T, String>) -> Result<T, String> {
        read(self.text()?)
    }

    /// `true` or `false`.
    pub fn switch(&self) -> Result<bool, String> {
        match self.text()? {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("is true or false, not `{other}`")),
        }
    }

    /// A name for logs and labels.
    pub fn label(&self) -> Result<String, String> {
        const CHARACTERS: usize = 63;
        let text = self.text()?;
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err("has a control character, or a blank at its end".to_owned());
        }
        match text.chars().count() {
            count if count > CHARACTERS => Err(format!("has {count} characters, and may have {CHARACTERS}")),
            _ => Ok(text.to_owned()),
        }
    }

    /// A GUID.
    pub fn guid(&self) -> Result<Uuid, String> {
        let text = self.text()?;
        text.parse().map_err(|_| format!("takes a GUID, not `{text}`"))
    }
}

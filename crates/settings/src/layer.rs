//! A layer of settings: the file, the variables, the flags, or a target.

use std::fmt;
use std::path::PathBuf;

use pgentra_system::Env;

use crate::error::Problems;
use crate::keys::{Form, KeyTable, SettingKey};
use crate::nearest::nearest;
use crate::raw_value::RawValue;

/// The name in problems of the target that flags and variables give.
pub const UNNAMED: &str = "the target";

/// The settings of one layer.
#[derive(Clone, Debug)]
pub struct SettingLayer<S: KeyTable>(Vec<Setting<S>>);

/// A key with its written value.
#[derive(Clone, Debug)]
pub struct Setting<S: KeyTable> {
    /// The key.
    pub key: &'static SettingKey<S>,
    /// The values as they were written.
    pub values: Vec<String>,
    /// Where they were written.
    pub origin: SettingOrigin,
}

/// The origin of a setting, as problems show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key as it was written.
        key: String,
    },
    /// A variable.
    Variable(String),
    /// A flag, without its hyphens.
    Flag(String),
    /// A parameter of a target.
    Target {
        /// The target in words.
        target: String,
        /// The key.
        key: String,
    },
}

impl<S: KeyTable> Default for SettingLayer<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: KeyTable> SettingLayer<S> {
    /// The settings from variables. A variable whose name is close to a key is added to `problems`;
    /// others are ignored, such as those that a Kubernetes Service sets in every pod.
    pub fn of_variables(env: &Env, problems: &mut Problems) -> Self {
        for variable in env.names(S::PREFIX) {
            let name = variable[S::PREFIX.len()..].to_ascii_lowercase();
            if S::FOREIGN.iter().any(|other| name.starts_with(other)) {
                continue;
            }
            let known = S::keys().iter().map(|key| key.name).chain(S::OTHERS.iter().copied());
            let hint = nearest(&name, known.clone());
            if !hint.is_empty() && !known.clone().any(|known| known == name) {
                problems.add(&variable, format!("is no key{hint}"));
            }
        }
        let said = |key: &'static SettingKey<S>| {
            let variable = key.variable();
            let values = split(key, vec![env.get(&variable)?]);
            Some(Setting { key, values, origin: SettingOrigin::Variable(variable) })
        };
        Self(S::keys().iter().filter_map(said).collect())
    }

    /// The settings from flags.
    pub fn of_flags(flags: &[(&'static SettingKey<S>, Vec<String>)]) -> Self {
        let said = |(key, values): &(&'static SettingKey<S>, Vec<String>)| Setting {
            key,
            values: values.clone(),
            origin: SettingOrigin::Flag(key.flag()),
        };
        Self(flags.iter().map(said).collect())
    }

    /// The settings from the parameters of `target`.
    pub fn of_parameters(target: &str, parameters: Vec<(String, String)>) -> Self {
        let mut layer = Self::default();
        for (name, value) in parameters {
            let Some(key) = SettingKey::find(&name) else { continue };
            let values = split(key, vec![value]);
            match layer.0.iter_mut().find(|said| said.key.name == name) {
                Some(said) => said.values.extend(values),
                None => {
                    let origin = SettingOrigin::Target { target: target.to_owned(), key: name };
                    layer.0.push(Setting { key, values, origin });
                }
            }
        }
        layer
    }

    /// The settings in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Setting<S>> {
        self.0.iter()
    }

    /// Adds settings.
    pub fn extend(&mut self, said: impl IntoIterator<Item = Setting<S>>) {
        self.0.extend(said);
    }

    /// Applies the settings: `store` gets what stores a value, and the value. Errors are added to
    /// `problems`.
    pub fn apply(
        &self,
        mut store: impl FnMut(S, &RawValue<'_>) -> Result<(), String>,
        problems: &mut Problems,
    ) {
        for said in &self.0 {
            if let Err(what) = store(said.key.set, &RawValue(&said.values)) {
                problems.add(&said.origin, what);
            }
        }
        for (at, said) in self.0.iter().enumerate() {
            let before = self.0[..at].iter().find(|before| said.key.excludes.contains(&before.key.name));
            if let Some(before) = before {
                problems.add(&said.origin, format!("cannot be set together with {}", before.key.name));
            }
        }
    }
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, key } => write!(f, "{}:{line} {key}", path.display()),
            Self::Variable(variable) => f.write_str(variable),
            Self::Flag(flag) => write!(f, "--{flag}"),
            // The target of flags and variables: problems show the key alone.
            Self::Target { target, key } if target == UNNAMED => f.write_str(key),
            Self::Target { target, key } => write!(f, "{target} {key}"),
        }
    }
}

/// In variables and parameters a list is separated by commas.
fn split<S: KeyTable>(key: &SettingKey<S>, values: Vec<String>) -> Vec<String> {
    match key.form {
        Form::List | Form::Table => {
            values.iter().flat_map(|value| value.split(',')).map(|one| one.trim().to_owned()).collect()
        }
        _ => values,
    }
}

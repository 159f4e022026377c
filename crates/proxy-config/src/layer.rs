//! A layer of settings: the file, the variables, the flags, or a target.

use std::fmt;
use std::path::PathBuf;

use pgentra_system::Env;

use crate::error::Problems;
use crate::keys::{Form, KEYS, Key, PREFIX, Set};
use crate::nearest::nearest;
use crate::raw_value::RawValue;
use crate::settings::{ProcessSettings, TargetSettings};

/// Variables of ours that are no keys.
const OTHERS: [&str; 5] = ["config", "log", "local", "local_folder", "local_instance"];

/// The name in problems of the target that flags and variables give.
pub(crate) const UNNAMED: &str = "the target";

/// The settings of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer(Vec<Setting>);

/// A key with its written value.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) key: &'static Key,
    pub(crate) values: Vec<String>,
    pub(crate) origin: SettingOrigin,
}

/// The origin of a setting, as problems show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettingOrigin {
    File {
        path: PathBuf,
        line: usize,
        key: String,
    },
    Variable(String),
    Flag(String),
    /// A parameter of a target.
    Target {
        target: String,
        key: String,
    },
}

impl Layer {
    /// The settings from variables. A variable whose name is close to a key is added to `problems`;
    /// others are ignored, such as those that a Kubernetes Service sets in every pod.
    pub(crate) fn of_variables(env: &Env, problems: &mut Problems) -> Self {
        for variable in env.names(PREFIX) {
            let name = variable[PREFIX.len()..].to_ascii_lowercase();
            let known = KEYS.iter().map(|key| key.name).chain(OTHERS);
            let hint = nearest(&name, known.clone());
            if !hint.is_empty() && !known.clone().any(|known| known == name) {
                problems.add(&variable, format!("is no key{hint}"));
            }
        }
        let said = |key: &'static Key| {
            let variable = key.variable();
            let values = split(key, vec![env.get(&variable)?]);
            Some(Setting { key, values, origin: SettingOrigin::Variable(variable) })
        };
        Self(KEYS.iter().filter_map(said).collect())
    }

    pub(crate) fn of_flags(flags: &[(&'static Key, Vec<String>)]) -> Self {
        let said = |(key, values): &(&'static Key, Vec<String>)| Setting {
            key,
            values: values.clone(),
            origin: SettingOrigin::Flag(key.flag()),
        };
        Self(flags.iter().map(said).collect())
    }

    /// The settings from the parameters of `target`.
    pub(crate) fn of_parameters(target: &str, parameters: Vec<(String, String)>) -> Self {
        let mut layer = Self::default();
        for (name, value) in parameters {
            let Some(key) = Key::find(&name) else { continue };
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    pub(crate) fn extend(&mut self, said: impl IntoIterator<Item = Setting>) {
        self.0.extend(said);
    }

    /// Applies the settings; errors are added to `problems`. Keys that are for the process only are
    /// ignored without `process`.
    pub(crate) fn apply(
        &self,
        mut process: Option<&mut ProcessSettings>,
        target: &mut TargetSettings,
        problems: &mut Problems,
    ) {
        for said in &self.0 {
            let given = RawValue(&said.values);
            let done = match (said.key.set, process.as_deref_mut()) {
                (Set::Target(set), _) => set(target, &given),
                (Set::Process(set), Some(process)) => set(process, &given),
                (Set::Process(_), None) => continue,
            };
            if let Err(what) = done {
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
fn split(key: &Key, values: Vec<String>) -> Vec<String> {
    match key.form {
        Form::List | Form::Table => {
            values.iter().flat_map(|value| value.split(',')).map(|one| one.trim().to_owned()).collect()
        }
        _ => values,
    }
}

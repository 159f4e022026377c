//! The options for a JVM that a user has in `JAVA_TOOL_OPTIONS`, beside those of a local cloud.

use std::collections::BTreeMap;
use std::path::Path;

use pgentra_system::Env;

use crate::environment::{CloudFiles, FOLDER_VARIABLE};
use crate::trust_store::{JAVA_VARIABLE, java_options, joined_options};

/// The user's own options in `JAVA_TOOL_OPTIONS`: without those of the local cloud that `env` was set
/// up for. `None` if no option is left.
pub fn own_java_options(env: &Env) -> Option<String> {
    let standing = env.get(JAVA_VARIABLE)?;
    let own = match env.get(FOLDER_VARIABLE) {
        Some(folder) => {
            let clouds = java_options(&CloudFiles::new(Path::new(&folder)).trust_store);
            standing.replace(&format!(" {clouds}"), "").replace(&clouds, "")
        }
        None => standing,
    };
    let own = own.trim();
    (!own.is_empty()).then(|| own.to_owned())
}

/// Puts the user's own options before the options for a JVM in the variables of a host.
pub fn keep_java_options(env: &Env, variables: &mut BTreeMap<String, String>) {
    if let Some(clouds) = variables.get_mut(JAVA_VARIABLE) {
        *clouds = joined_options(own_java_options(env).as_deref(), clouds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_user_stay() {
        for folder in ["/tmp/pgentra-0-one", "/tmp/a folder/pgentra-0-one"] {
            let clouds = java_options(&CloudFiles::new(Path::new(folder)).trust_store);
            assert_eq!(clouds.contains('"'), folder.contains(' '));
            for own in [None, Some("-Xmx64m"), Some("-Da=b -Djavax.net.ssl.trustStore=/mine.p12")] {
                let value = joined_options(own, &clouds);
                let env = Env::from_map([(JAVA_VARIABLE, &*value), (FOLDER_VARIABLE, folder)]);
                assert_eq!(own_java_options(&env).as_deref(), own);
                // Options that were added later stay as well.
                let value = format!("{value} -Dlater=yes");
                let env = Env::from_map([(JAVA_VARIABLE, &*value), (FOLDER_VARIABLE, folder)]);
                assert_eq!(own_java_options(&env), Some(joined_options(own, "-Dlater=yes")));
                // Another cloud's, or those that the user wrote, are not ours.
                let env = Env::from_map([(JAVA_VARIABLE, &*value), (FOLDER_VARIABLE, "/tmp/other")]);
                assert_eq!(own_java_options(&env), Some(value));
            }
        }
        assert_eq!(own_java_options(&Env::from_map([(JAVA_VARIABLE, " ")])), None);
    }
}

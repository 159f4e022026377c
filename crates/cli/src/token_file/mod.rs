//! `pgentra token --file`: a token in a file, for programs that read a password from one.

mod entry;
mod replace;
mod watch;

use std::path::{Path, PathBuf};

use pgentra_connect::{Layers, Target};
use pgentra_system::System;

use crate::arguments::Token;
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::sign_in;
use entry::Entry;
use watch::TokenFile;

/// Writes the token into `file`, and with `--watch` keeps it up to date until a signal.
pub(crate) async fn run(system: &System, arguments: &Token, file: PathBuf) -> Outcome {
    check(&file)?;
    let target = match &arguments.pgpass {
        Some(conninfo) => {
            Some(Target::resolve(&Layers::gather(Some(conninfo), &[], system.env(), system.files())?)?)
        }
        None => None,
    };
    let entry = match &target {
        Some(target) => Entry::pgpass(target)?,
        None => Entry::Token,
    };
    // A token command may need the server's name without a .pgpass line too.
    let target = target.or_else(|| sign_in::target_of_environment(system));
    let (credential, resource) = sign_in::credential_for(system, &arguments.identity, target.as_ref())?;
    let file = TokenFile { credential, resource, entry, path: file };
    if arguments.watch {
        return watch::run(system, file).await;
    }
    let token = waiting("waiting for a token", file.credential.token(&file.resource)).await?;
    file.write(&token)
}

/// Whether the path can be that of a file that is replaced.
fn check(file: &Path) -> Outcome {
    let is_other = file.symlink_metadata().is_ok_and(|metadata| !metadata.is_file());
    if is_other || file.file_name().is_none() {
        let message = format!("{} is not a regular file, which --file replaces", file.display());
        return Err(Problem::new(Blame::Usage, message).hint("name a file, in a folder that exists"));
    }
    Ok(())
}

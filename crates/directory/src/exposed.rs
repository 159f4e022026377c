//! A secret as text, for `#[serde(with)]` on a field that goes into a file which only its user can read.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes the secret in clear.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

/// Reads a text as a secret.
///
/// # Errors
/// If there is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

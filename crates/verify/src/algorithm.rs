//! The signature algorithms that tokens are accepted with.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// A signature algorithm (RFC 7518 section 3.1), always with SHA-256. Others are refused: `none` and the symmetric ones
/// because they prove nothing, the longer digests because no issuer in use signs access tokens with them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5. Entra signs access tokens with it and with no other.
    Rs256,
    /// RSASSA-PSS, with a salt as long as the digest.
    Ps256,
    /// ECDSA on the curve P-256.
    Es256,
}

/// RSA from 2,048 to 8,192 bits, as the signature algorithms demand; the modulus in bytes.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// An exponent is 65,537 in practice; the library's own bound is 33 bits.
const EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 3..=5;

/// NIST SP 800-56B section 6.2: an exponent is odd and above 2^16.
const LEAST_EXPONENT: u64 = 65_537;

/// One coordinate of a point on P-256, in bytes.
const COORDINATE_BYTES: usize = 32;

impl Algorithm {
    /// All that there are.
    pub const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256];

    /// The name in the member `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Ps256 => "PS256",
            Algorithm::Es256 => "ES256",
        }
    }

    /// A JSON Web Key (RFC 7518 section 6) as a key of this algorithm. `None`: it is of another kind, weak, or damaged.
    pub(crate) fn public_key(self, key: &Map<String, Value>) -> Option<ParsedPublicKey> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        match self {
            Algorithm::Rs256 | Algorithm::Ps256 if text("kty") == Some("RSA") => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                if !MODULUS_BYTES.contains(&n.len()) || !EXPONENT_BYTES.contains(&e.len()) {
                    return None;
                }
                let exponent = e.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
                if exponent < LEAST_EXPONENT || exponent % 2 == 0 {
                    return None;
                }
                let parameters = match self {
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()
            }
            Algorithm::Es256 if text("kty") == Some("EC") && text("crv") == Some("P-256") => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
                    return None;
                }
                // SEC 1 section 2.3.3: an uncompressed point. The library checks that it is on the curve.
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4], &x[..], &y].concat()).ok()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    /// Names are compared byte for byte.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownAlgorithm)
    }
}

/// A text that is not the name of an [`Algorithm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signature algorithm: write RS256, PS256 or ES256")]
pub struct UnknownAlgorithm;

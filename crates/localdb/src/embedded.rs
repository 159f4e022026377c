use std::path::Path;

use crate::StartError;
use crate::server::Programs;

/// Unpacks the PostgreSQL of this build into `folder`, which must not exist.
#[cfg(embedded_postgres)]
pub(crate) fn unpack(folder: &Path) -> Result<Programs, StartError> {
    use std::io::Read;

    static ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/postgres.tar.zst"));
    /// Several times what it needs: a damaged archive must not fill the disk.
    const UNPACKED_LIMIT: u64 = 200 << 20;

    let unpacked = ruzstd::decoding::StreamingDecoder::new(ARCHIVE)
        .map_err(std::io::Error::other)
        .and_then(|decoder| tar::Archive::new(decoder.take(UNPACKED_LIMIT)).unpack(folder));
    unpacked.map_err(StartError::io("unpack the embedded PostgreSQL"))?;
    Ok(Programs::in_bin(&folder.join("bin")))
}

/// Says that this build has none.
#[cfg(not(embedded_postgres))]
pub(crate) fn unpack(_folder: &Path) -> Result<Programs, StartError> {
    Err(StartError::NotEmbedded)
}

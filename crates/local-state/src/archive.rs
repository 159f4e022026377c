//! The container of a state. It is read as untrusted data: every length is bounded, and each path is a plain one
//! below the folder that it is for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;
use tar::{Archive, Builder, EntryType, Header};

use crate::error::{MOST_BYTES, MOST_ENTRIES, StateError};
use crate::manifest::StateManifest;

/// The name of the first entry.
const MANIFEST: &str = "manifest.json";
/// The folder of PostgreSQL's files.
const DATA: &str = "data";
/// Longest manifest in bytes: a thousand principals of each kind take less than one million.
const LONGEST_MANIFEST: u64 = 8 << 20;
/// Longest path in bytes, as the format has room for.
const LONGEST_PATH: usize = 255;
/// Deepest path: PostgreSQL has five levels.
const DEEPEST: usize = 12;
/// The files that say that a server runs.
const LOCK_FILES: [&str; 2] = ["postmaster.pid", "postmaster.opts"];

/// An entry of a state.
pub enum StateMember<'a> {
    /// The manifest, which is the first one.
    Manifest(Box<StateManifest>),
    /// A folder, which comes before what is in it. The path has plain components only.
    Folder(&'a str),
    /// A file and its content.
    File(&'a str, &'a mut dyn Read),
}

/// Reads a state and calls `visit` with each entry in turn, until it returns `false`. If it never does, the whole state
/// was as it was written when this returns `Ok`.
///
/// # Errors
/// See [`StateError`]; those of `visit` are passed on.
pub fn walk(
    from: impl Read,
    mut visit: impl FnMut(StateMember<'_>) -> Result<bool, StateError>,
) -> Result<(), StateError> {
    let mut archive = Archive::new(GzDecoder::new(from).take(MOST_BYTES));
    let mut count = 0;
    // Raw: long names and other extensions of tar are entries, which are refused.
    let entries = archive.entries().map_err(unreadable)?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(unreadable)?;
        count += 1;
        if count > MOST_ENTRIES {
            return Err(StateError::TooLarge);
        }
        let (kind, size) = (entry.header().entry_type(), entry.size());
        let path = entry.path_bytes().into_owned();
        let path = std::str::from_utf8(&path).map_err(|_| StateError::Damaged("a path is not text"))?;
        let goes_on = match (count, kind) {
            (1, EntryType::Regular) if path == MANIFEST && size <= LONGEST_MANIFEST => {
                let mut json = zeroize::Zeroizing::new(Vec::new());
                entry.read_to_end(&mut json).map_err(unreadable)?;
                visit(StateMember::Manifest(Box::new(StateManifest::parse(&json)?)))?
            }
            (1, _) => return Err(StateError::Damaged("it does not begin with a manifest")),
            (_, EntryType::Directory) if size == 0 => visit(StateMember::Folder(plain(path)?))?,
            (_, EntryType::Regular) if size <= MOST_BYTES => {
                let mut content = Content { entry: &mut entry, left: size };
                let goes_on = visit(StateMember::File(plain(path)?, &mut content))?;
                if goes_on && content.left > 0 {
                    io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
                }
                goes_on
            }
            _ => return Err(StateError::Damaged("it has something else than files and folders")),
        };
        if !goes_on {
            return Ok(());
        }
    }
    if count == 0 {
        return Err(StateError::Damaged("it has no manifest"));
    }
    // The end of the compressed stream has the checksum.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(unreadable)?;
    if rest.limit() == 0 { Err(StateError::TooLarge) } else { Ok(()) }
}

/// The content of an entry. An error of the archive is one of damage.
struct Content<'a, R: Read> {
    entry: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let damaged = |_| io::Error::new(ErrorKind::InvalidData, DamagedContent);
        let count = self.entry.read(into).map_err(damaged)?;
        self.left = self.left.saturating_sub(count as u64);
        if count == 0 && self.left > 0 && !into.is_empty() {
            return Err(damaged(io::Error::from(ErrorKind::UnexpectedEof)));
        }
        Ok(count)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the content of a file is damaged")]
struct DamagedContent;

/// An error while the archive itself is read: it was cut off or changed.
fn unreadable(error: io::Error) -> StateError {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::Other => {
            StateError::Damaged("it was cut off or changed")
        }
        _ => StateError::Io(error),
    }
}

/// The path below [`DATA`], in which no component leads elsewhere.
fn plain(path: &str) -> Result<&str, StateError> {
    let wrong = StateError::Damaged("a path is not one of PostgreSQL's");
    let below = path.strip_prefix(DATA).and_then(|rest| rest.strip_prefix('/'));
    let below = below.map(|path| path.strip_suffix('/').unwrap_or(path));
    let is_name = |name: &str| {
        !matches!(name, "" | "." | "..") && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    match below {
        Some(below)
            if path.len() <= LONGEST_PATH
                && below.split('/').count() <= DEEPEST
                && below.split('/').all(is_name) =>
        {
            Ok(below)
        }
        _ => Err(wrong),
    }
}

/// Reads the manifest alone.
///
/// # Errors
/// See [`StateError`].
pub fn manifest_of(file: &File) -> Result<StateManifest, StateError> {
    let mut found = None;
    walk(BufReader::new(file), |member| {
        if let StateMember::Manifest(manifest) = member {
            found = Some(*manifest);
        }
        Ok(false)
    })?;
    found.ok_or(StateError::Damaged("it has no manifest"))
}

/// Writes PostgreSQL's files into a folder, which is empty. Blocks.
///
/// # Errors
/// See [`StateError`].
pub fn unpack(file: &File, to: &Path) -> Result<(), StateError> {
    walk(BufReader::with_capacity(1 << 16, file), |member| {
        match member {
            StateMember::Manifest(_) => {}
            StateMember::Folder(path) => {
                DirBuilder::new().mode(0o700).create(to.join(path)).map_err(twice)?
            }
            StateMember::File(path, content) => {
                // A file that is there already is not written again.
                let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to.join(path));
                io::copy(content, &mut opened.map_err(twice)?).map_err(of_content)?;
            }
        }
        Ok(true)
    })
}

/// A path that is there twice, or whose folder is missing.
fn twice(error: io::Error) -> StateError {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::NotADirectory => {
            StateError::Damaged("its files are not those of PostgreSQL")
        }
        _ => StateError::Io(error),
    }
}

fn of_content(error: io::Error) -> StateError {
    match error.get_ref().is_some_and(|inner| inner.is::<DamagedContent>()) {
        true => StateError::Damaged("it was cut off or changed"),
        false => StateError::Io(error),
    }
}

/// Writes a state: the manifest, and the files in the folder `data`, of which no server may run. Blocks.
///
/// # Errors
/// If there is too much for a state, or something else than files; if a file cannot be read or written.
pub fn write(to: &mut File, manifest: &StateManifest, data: &Path) -> Result<(), StateError> {
    let mut json = zeroize::Zeroizing::new(Vec::new());
    serde_json::to_writer(&mut *json, manifest).map_err(io::Error::from)?;
    let mut left = Room { bytes: MOST_BYTES, entries: MOST_ENTRIES };
    let mut archive = Builder::new(GzEncoder::new(BufWriter::new(to), Compression::fast()));
    if json.len() as u64 > LONGEST_MANIFEST {
        return Err(StateError::TooLarge);
    }
    append(&mut archive, MANIFEST, &mut &**json, json.len() as u64, &mut left)?;
    append_tree(&mut archive, data, DATA, &mut left)?;
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

/// What a state has room for.
struct Room {
    bytes: u64,
    entries: u64,
}

impl Room {
    /// Takes room for an entry: its header, and its content in blocks of 512 bytes.
    fn take(&mut self, size: u64) -> Result<(), StateError> {
        let bytes = size.checked_add(1024).and_then(|size| self.bytes.checked_sub(size));
        self.entries = self.entries.checked_sub(1).ok_or(StateError::TooLarge)?;
        self.bytes = bytes.ok_or(StateError::TooLarge)?;
        Ok(())
    }
}

type StateWriter<'a> = Builder<GzEncoder<BufWriter<&'a mut File>>>;

fn append_tree(
    archive: &mut StateWriter<'_>,
    folder: &Path,
    name: &str,
    left: &mut Room,
) -> Result<(), StateError> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let file_name = entry.file_name();
        let below = format!("{name}/{}", file_name.to_string_lossy());
        if name == DATA && LOCK_FILES.iter().any(|lock| file_name == *lock) {
            continue;
        }
        if plain(&below).is_err() {
            return Err(StateError::NotPlain(below));
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            append_folder(archive, &below, left)?;
            append_tree(archive, &entry.path(), &below, left)?;
        } else if kind.is_file() {
            // The folder may belong to another user, who could put a link there now.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let mut open = OpenOptions::new();
            let mut file = open.read(true).custom_flags(flags.bits().cast_signed()).open(entry.path())?;
            let size = file.metadata()?.len();
            append(archive, &below, &mut file, size, left)?;
        } else {
            return Err(StateError::NotPlain(below));
        }
    }
    Ok(())
}

fn append_folder(archive: &mut StateWriter<'_>, path: &str, left: &mut Room) -> Result<(), StateError> {
    left.take(0)?;
    let mut header = header(EntryType::Directory, 0o700, 0);
    header.set_path(format!("{path}/"))?;
    header.set_cksum();
    Ok(archive.append(&header, io::empty())?)
}

fn append(
    archive: &mut StateWriter<'_>,
    path: &str,
    content: &mut impl Read,
    size: u64,
    left: &mut Room,
) -> Result<(), StateError> {
    left.take(size)?;
    let mut header = header(EntryType::Regular, 0o600, size);
    header.set_path(path)?;
    header.set_cksum();
    let mut content = Content { entry: content, left: size };
    Ok(archive.append(&header, (&mut content).take(size))?)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pgentra_emulator::{Clock, LocalAzure, Options};
    use pgentra_gateway::Flavour;
    use pgentra_localdb::SavedData;

    use super::*;

    async fn manifest() -> StateManifest {
        let azure = LocalAzure::start(Options::new(Clock::fixed(SystemTime::UNIX_EPOCH))).await.unwrap();
        let data =
            SavedData { version: "17.5".into(), platform: SavedData::platform(), password: "secret".into() };
        StateManifest::new(Flavour::Single, &data, azure.save().unwrap(), Vec::new(), String::new().into())
    }

    /// An archive with these entries: kind, path, link and content.
    fn archive(manifest: &[u8], entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
        let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut add = |kind, path: &str, link: &str, content: &[u8]| {
            let mut header = header(kind, 0o600, content.len() as u64);
            // As it is, also where `set_path` would refuse it.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            archive.append(&header, content).unwrap();
        };
        add(EntryType::Regular, MANIFEST, "", manifest);
        for (kind, path, link, content) in entries {
            add(*kind, path, link, content);
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    /// The paths and contents in an archive.
    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let mut found = Vec::new();
        walk(bytes, |member| {
            match member {
                StateMember::Manifest(manifest) => {
                    found.push((MANIFEST.to_owned(), serde_json::to_vec(&manifest).unwrap()))
                }
                StateMember::Folder(path) => found.push((format!("{path}/"), Vec::new())),
                StateMember::File(path, content) => {
                    let mut bytes = Vec::new();
                    content.read_to_end(&mut bytes).map_err(of_content)?;
                    found.push((path.to_owned(), bytes));
                }
            }
            Ok(true)
        })?;
        Ok(found)
    }

    fn damage(result: Result<impl std::fmt::Debug, StateError>) -> &'static str {
        match result {
            Err(StateError::Damaged(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_folder_is_read_as_it_was_written() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        fs::create_dir_all(from.join("base/5")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::create_dir(from.join("pg_wal")).unwrap();
        fs::write(from.join("PG_VERSION"), "17\n").unwrap();
        fs::write(from.join("postmaster.pid"), "1\n").unwrap();
        fs::write(from.join("base/5/1259"), vec![7; 3 << 16]).unwrap();
        fs::write(from.join("base/5/empty"), "").unwrap();
        let path = base.path().join("my.state");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        write(&mut file, &manifest().await, &from).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(manifest_of(&file).unwrap().data().version, "17.5");
        unpack(&File::open(&path).unwrap(), &to).unwrap();
        assert_eq!(fs::read(to.join("base/5/1259")).unwrap(), vec![7; 3 << 16]);
        assert_eq!(fs::read_to_string(to.join("PG_VERSION")).unwrap(), "17\n");
        assert!(to.join("pg_wal").is_dir() && to.join("base/5/empty").is_file());
        assert!(!to.join("postmaster.pid").exists(), "no server runs in the copy");

        std::os::unix::fs::symlink("/etc", from.join("pg_wal/1663")).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        let refused = write(&mut file, &manifest().await, &from).unwrap_err().to_string();
        assert!(refused.ends_with("data/pg_wal/1663"), "{refused}");
    }

    #[tokio::test]
    async fn paths_lead_nowhere_else() {
        let manifest = serde_json::to_vec(&manifest().await).unwrap();
        let regular = EntryType::Regular;
        for path in [
            "data/../x",
            "data/a/../../x",
            "../data/x",
            "/etc/passwd",
            "data//etc",
            "data",
            "data/",
            "data/.",
            "other/x",
            "data/a\\b",
            "data/a b",
            "data/ä",
            "data/1/2/3/4/5/6/7/8/9/10/11/12/13",
        ] {
            let bytes = archive(&manifest, &[(regular, path, "", b"x")]);
            assert_eq!(damage(read(&bytes)), "a path is not one of PostgreSQL's", "{path}");
        }
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Fifo,
            EntryType::Char,
            EntryType::Block,
            EntryType::GNULongName,
            EntryType::GNULongLink,
            EntryType::GNUSparse,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
            EntryType::Continuous,
        ] {
            let bytes = archive(&manifest, &[(kind, "data/x", "/etc/passwd", b"")]);
            assert_eq!(damage(read(&bytes)), "it has something else than files and folders", "{kind:?}");
        }
        let bytes = archive(&manifest, &[(EntryType::Directory, "data/x", "", b"content")]);
        assert_eq!(damage(read(&bytes)), "it has something else than files and folders");
    }

    #[tokio::test]
    async fn nothing_is_written_twice_or_beside_its_folder() {
        let manifest = serde_json::to_vec(&manifest().await).unwrap();
        let (regular, folder) = (EntryType::Regular, EntryType::Directory);
        for entries in [
            &[(regular, "data/x", "", &b"1"[..]), (regular, "data/x", "", b"2")][..],
            &[(folder, "data/x", "", b""), (folder, "data/x/", "", b"")],
            &[(regular, "data/x", "", b"1"), (regular, "data/x/y", "", b"2")],
            &[(regular, "data/x/y", "", b"1")],
        ] {
            let base = tempfile::tempdir().unwrap();
            let (file, to) = (base.path().join("file"), base.path().join("to"));
            fs::create_dir(&to).unwrap();
            fs::write(&file, archive(&manifest, entries)).unwrap();
            let unpacked = unpack(&File::open(&file).unwrap(), &to);
            assert_eq!(damage(unpacked), "its files are not those of PostgreSQL", "{entries:?}");
        }
    }

    #[tokio::test]
    async fn every_change_of_a_state_is_noticed() {
        let manifest = serde_json::to_vec(&manifest().await).unwrap();
        let content: Vec<u8> =
            (0..5000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let entries = [
            (EntryType::Directory, "data/base/", "", &b""[..]),
            (EntryType::Regular, "data/base/1", "", &content),
            (EntryType::Regular, "data/PG_VERSION", "", b"17\n"),
        ];
        let bytes = archive(&manifest, &entries);
        let whole = read(&bytes).unwrap();
        assert_eq!(whole.len(), 4);
        for length in (0..bytes.len()).step_by(97).chain(bytes.len() - 20..bytes.len()) {
            assert!(read(&bytes[..length]).is_err(), "cut off at {length} of {}", bytes.len());
        }
        for at in (0..bytes.len()).step_by(101).chain(bytes.len() - 20..bytes.len()) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            match read(&changed) {
                // Some bits mean nothing, such as those of the time in gzip's header.
                Ok(found) => assert!(found == whole, "changed at {at} of {}", bytes.len()),
                Err(error) => assert!(!matches!(error, StateError::Io(_)), "{at}: {error:?}"),
            }
        }
        for other in [&b""[..], b"\n", b"{}", &[0; 4096]] {
            assert!(matches!(read(other), Err(StateError::Damaged(_))), "{other:?}");
        }
        let [mut tar, mut empty] = [Vec::new(), Vec::new()].map(|to| GzEncoder::new(to, Compression::fast()));
        io::copy(&mut &b"not an archive"[..], &mut tar).unwrap();
        empty.flush().unwrap();
        for other in [tar.finish().unwrap(), empty.finish().unwrap()] {
            assert!(matches!(read(&other), Err(StateError::Damaged(_))));
        }
    }

    #[tokio::test]
    async fn a_size_is_bounded_before_anything_is_read() {
        let manifest = serde_json::to_vec(&manifest().await).unwrap();
        let claim = |path: &str, size: u64, is_first: bool| {
            let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
            let mut first = header(EntryType::Regular, 0o600, manifest.len() as u64);
            first.set_path(MANIFEST).unwrap();
            first.set_cksum();
            if !is_first {
                archive.append(&first, &*manifest).unwrap();
            }
            let mut claimed = header(EntryType::Regular, 0o600, size);
            claimed.set_path(path).unwrap();
            claimed.set_cksum();
            archive.append(&claimed, &b"x"[..]).unwrap();
            archive.into_inner().unwrap().finish().unwrap()
        };
        assert_eq!(
            damage(read(&claim(MANIFEST, LONGEST_MANIFEST + 1, true))),
            "it does not begin with a manifest"
        );
        let refused = damage(read(&claim("data/x", MOST_BYTES + 1, false)));
        assert_eq!(refused, "it has something else than files and folders");
        for size in [u64::MAX / 2, u64::MAX] {
            damage(read(&claim("data/x", size, false)));
        }
        assert_eq!(damage(read(&claim("data/x", MOST_BYTES, false))), "it was cut off or changed");
    }
}

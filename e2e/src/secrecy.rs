use std::fs;
use std::path::{Path, PathBuf};

use memchr::memmem;

/// The position in `text` of an access token, or of a part that reveals it.
///
/// A known token is found by its claims or its signature; any other by its form: two parts that
/// begin as JSON in base64.
pub(crate) fn find(text: &[u8], known: &[String]) -> Option<usize> {
    let parts = known.iter().flat_map(|token| token.split('.').skip(1)).filter(|part| part.len() > 20);
    let seen = parts.filter_map(|part| memmem::find(text, part.as_bytes())).min();
    seen.or_else(|| any_token(text))
}

/// The files below `folder` that contain a token, except those in `except`.
pub(crate) fn files(folder: &Path, known: &[String], except: &[PathBuf]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            found.extend(files(&path, known, except));
        } else if metadata.is_file()
            && !except.contains(&path)
            && fs::read(&path).is_ok_and(|text| find(&text, known).is_some())
        {
            found.push(path);
        }
    }
    found
}

fn any_token(text: &[u8]) -> Option<usize> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    let mut from = 0;
    while let Some(at) = memmem::find(&text[from..], b"eyJ") {
        let start = from + at;
        let header = text[start..].iter().take_while(|byte| is_base64(byte)).count();
        if text[start + header..].starts_with(b".eyJ") {
            return Some(start);
        }
        from = start + 3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str =
        "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL29zc3JkYm1zIn0.c2lnbmF0dXJlLW9mLXNvbWUtbGVuZ3Ro";

    #[test]
    fn tokens_are_found() {
        for (text, known, found) in [
            ("nothing here, eyJ included. eyJ", false, false),
            ("Bearer eyJhbGciOiJSUzI1NiJ9.eyJhdWQi", false, true),
            ("eyJhbGciOiJSUzI1NiJ9 eyJhdWQi", false, false),
            ("its signature: c2lnbmF0dXJlLW9mLXNvbWUtbGVuZ3Ro", true, true),
            ("its claims: eyJhdWQiOiJodHRwczovL29zc3JkYm1zIn0", true, true),
            ("its header only: eyJhbGciOiJSUzI1NiJ9", true, false),
        ] {
            let tokens = if known { vec![TOKEN.to_owned()] } else { Vec::new() };
            assert_eq!(find(text.as_bytes(), &tokens).is_some(), found, "{text}");
        }
    }

    #[test]
    fn files_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/log"), TOKEN).unwrap();
        fs::write(folder.path().join("a/own"), TOKEN).unwrap();
        fs::write(folder.path().join("clean"), "clean").unwrap();
        assert_eq!(files(folder.path(), &[], &[folder.path().join("a/own")]), [folder.path().join("a/log")]);
    }
}

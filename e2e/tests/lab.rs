//! The lab finds tokens, files and processes.

use std::path::Path;

use e2e::Lab;

const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJub3RoaW5nIn0.c2lnbmF0dXJl";

#[test]
#[should_panic(expected = "`echo")]
fn a_token_that_is_said_fails_the_test() {
    Lab::new().program(&["echo", TOKEN]).done().ok();
}

#[test]
#[should_panic(expected = "a token can be read in")]
fn a_token_that_is_written_fails_the_test() {
    Lab::new().shell("cat >core").input(TOKEN).done().ok();
}

#[test]
#[should_panic(expected = "nothing is left behind; last state: ([\"")]
fn a_file_that_is_left_fails_the_test() {
    Lab::new().shell("touch \"$TMPDIR/file\"").done().ok();
}

#[test]
#[should_panic(expected = "nothing is left behind; last state: ([], [(")]
fn a_process_that_is_left_fails_the_test() {
    let lab = Lab::new();
    lab.shell("sleep 600 >/dev/null 2>&1 & echo $! >pid").done().ok();
    let pid = lab.path().join("home/pid");
    let _end = End(&pid);
    lab.assert_nothing_left();
}

#[test]
fn a_failed_test_shows_no_token_of_the_lab() {
    let lab = Lab::new();
    lab.remember(TOKEN);
    assert!(!format!("{lab:?}").contains("eyJ"));
}

/// Ends the process whose number is in this file, while the test panics.
struct End<'a>(&'a Path);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("kill $(cat {})", self.0.display()))
            .status();
    }
}

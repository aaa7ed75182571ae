//! The manual pages in `cli/man`, which are generated from the definitions of the command line.
//! They are generated on one system, because the options are the same on each.

use std::fs;
use std::path::Path;

use clap::CommandFactory;

/// After a change of the command line, this writes the pages again:
/// `SOCKPIPE_WRITE_MAN=1 cargo test -p sockpipe-cli --bin sockpipe man`.
#[test]
fn manual_pages_match_the_command_line() {
    let made = tempfile::tempdir().expect("a directory");
    clap_mangen::generate_to(super::Args::command(), made.path()).expect("pages");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let write = std::env::var_os("SOCKPIPE_WRITE_MAN").is_some();

    let mut pages = Vec::new();
    for page in fs::read_dir(made.path()).expect("a directory") {
        let page = page.expect("a page");
        let expected = fs::read_to_string(page.path()).expect("a page");
        let file = kept.join(page.file_name());
        if write {
            fs::create_dir_all(&kept).expect("a directory");
            fs::write(&file, &expected).expect("a file");
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(found == expected, "{} is not up to date", file.display());
        pages.push(page.file_name());
    }
    assert_eq!(fs::read_dir(kept).expect("a directory").count(), pages.len());
    assert!(pages.len() > 8, "{pages:?}");
}

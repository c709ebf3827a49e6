//! For tests of generated files: the committed file must equal what the code renders now.
//! `LEGATION_BLESS=1 cargo test` writes it anew.

use std::path::Path;

/// Compares a file, named from the root of the repository, with what it should hold.
pub(crate) fn assert_current(file: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("LEGATION_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, rendered).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == rendered,
        "{file} is not current: run the tests once with LEGATION_BLESS=1 and commit it"
    );
}

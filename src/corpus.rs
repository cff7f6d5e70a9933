//! For tests: inputs that were found to be awkward once, tried before any random ones.

use std::path::Path;

/// The files of a folder of `fixtures/fuzz`, with their names; an empty one is a mistake.
pub(crate) fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/fuzz")
        .join(folder);
    let files = std::fs::read_dir(&folder).expect("the folder is there");
    let mut found: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let file = file.expect("it can be listed");
            let bytes = std::fs::read(file.path()).expect("it can be read");
            (file.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no file in {}", folder.display());
    found
}

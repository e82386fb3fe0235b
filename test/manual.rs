//! Writes the man pages and the completions of both programs to a folder: `cargo run --bin manual -- FOLDER`.

use std::path::PathBuf;
use std::{env, fs, io};

use ptth_test::manual;

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    fs::create_dir_all(&folder)?;
    for program in [manual::server(), manual::client()] {
        for (name, text) in program.files() {
            fs::write(folder.join(name), text)?;
        }
    }
    Ok(())
}

//! The sources of a token, or of keys, for both programs: the variable TOKEN, or a file.

use std::path::{Path, PathBuf};

use super::{Mistake, Sources};
use crate::files;
use crate::token::begins_like_one;

/// What `parse` makes of the text in the variable TOKEN, or in the file that `token_file` names; and that file. The
/// program declares both settings. Blocks.
pub fn token<T>(
    sources: &Sources<'_>,
    parse: impl FnOnce(&str, Option<&Path>) -> Result<T, String>,
) -> Result<Option<(T, Option<PathBuf>)>, Mistake> {
    let mut said = sources.nearest(&["token", "token_file"]);
    let Some((name, given)) = said.pop() else { return Ok(None) };
    if !said.is_empty() {
        let why = "the variables TOKEN and TOKEN_FILE are both set; unset one of them";
        return Err(Mistake::new(why));
    }
    let text = given.text()?;
    if name == "token" {
        let wrong = |why| Mistake::new(format!("the variable TOKEN: {why}"));
        return parse(&text, None).map(|it| Some((it, None))).map_err(wrong);
    }
    let path = given.path()?;
    if begins_like_one(&text) && !path.exists() {
        return Err(given.here(
            "--token-file (TOKEN_FILE) takes a path, not the token itself; give the token by the variable TOKEN, where other users don't see it",
        ));
    }
    let wrong = |why| given.here(format!("the token file {}: {why}", path.display()));
    let text = read_token_file(&path).map_err(|why| given.here(why))?;
    let parsed = parse(&text, Some(&path)).map_err(wrong)?;
    Ok(Some((parsed, Some(path))))
}

/// Blocks. The error is a sentence for the operator.
pub fn read_token_file(path: &Path) -> Result<String, String> {
    String::from_utf8(files::read("the token file", path)?)
        .map_err(|_| format!("the token file {} isn't UTF-8 text", path.display()))
}

//! The sources of a token, or of keys, for both programs: the variable TOKEN, or a file.

use std::path::{Path, PathBuf};

use super::{Given, Mistake, Sources};
use crate::files;
use crate::token::begins_like_one;

/// The text of a token or of keys: in the variable TOKEN, or in the file that `token_file` names.
#[derive(Debug)]
pub struct TokenSource {
    given: Given,
    pub file: Option<PathBuf>,
}

impl TokenSource {
    /// The program declares the settings `token` and `token_file`.
    pub fn of(sources: &Sources<'_>) -> Result<Option<Self>, Mistake> {
        let mut said = sources.nearest(&["token", "token_file"]);
        let Some((name, given)) = said.pop() else { return Ok(None) };
        if !said.is_empty() {
            let why = "the variables TOKEN and TOKEN_FILE are both set; unset one of them";
            return Err(Mistake::new(why));
        }
        let file = (name != "token").then(|| PathBuf::from(given.text()));
        if begins_like_one(&given.text()) && file.as_ref().is_some_and(|path| !path.exists()) {
            return Err(Mistake::new(
                "--token-file (TOKEN_FILE) takes a path, not the token itself; give the token by the variable TOKEN, where other users don't see it",
            ));
        }
        Ok(Some(Self { given, file }))
    }

    /// Blocks.
    pub fn read(&self) -> Result<String, Mistake> {
        match &self.file {
            None => Ok(self.given.text()),
            Some(path) => read_token_file(path).map_err(|why| self.given.here(why)),
        }
    }

    pub fn wrong(&self, why: impl std::fmt::Display) -> Mistake {
        match &self.file {
            None => Mistake::new(format!("the variable TOKEN: {why}")),
            Some(path) => self.given.here(format!("the token file {}: {why}", path.display())),
        }
    }
}

/// Blocks. The error is a sentence for the operator.
pub fn read_token_file(path: &Path) -> Result<String, String> {
    String::from_utf8(files::read("the token file", path)?)
        .map_err(|_| format!("the token file {} isn't UTF-8 text", path.display()))
}

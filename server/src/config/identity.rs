//! Who the gateway is and whom it admits: certificates and tokens, each from where it was given.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use ptth_link::env;
use ptth_link::files;
use ptth_link::keys::{KeysError, holds_secret, parse_keys};
use ptth_link::token::{self, Token};

use super::source::{self, Sources};
use super::{Admission, Args, CertificateSource, ConfigError, parse};
use crate::auth::{Secret, is_exposed};

/// The certificate that a flag, a variable or a key of the file gives, if one does, and then those of
/// `[[certificate]]`.
pub(super) fn certificates(
    args: &Args,
    sources: &Sources<'_>,
    tables: Vec<CertificateSource>,
) -> Result<Vec<CertificateSource>, ConfigError> {
    Ok(certificate(args, sources)?.into_iter().chain(tables).collect())
}

fn certificate(
    args: &Args,
    sources: &Sources<'_>,
) -> Result<Option<CertificateSource>, ConfigError> {
    // Whoever says it higher up has chosen: `--self-signed` with CERT set is no conflict.
    let by_file =
        sources.level(args.cert.is_some(), "CERT").max(sources.level(args.key.is_some(), "KEY"));
    let made = match sources.switch(args.self_signed, "SELF_SIGNED")? {
        true => sources.level(args.self_signed, "SELF_SIGNED"),
        false => 0,
    };
    let (cert, key) = match by_file >= made {
        true => (sources.path(&args.cert, "CERT")?, sources.path(&args.key, "KEY")?),
        false => (None, None),
    };
    let result = match (cert, key) {
        (None, None) if made > 0 => return self_signed(args, sources).map(Some),
        // Behind somebody else's TLS it needs none.
        (None, None) => return text(sources),
        _ if made == by_file => Err((ConfigError::CertificateTwice, "SELF_SIGNED")),
        (Some(_), Some(_)) if !args.name.is_empty() => return Err(ConfigError::NameWithFiles),
        (Some(_), Some(_)) if by_file == source::BY_FILE && sources.given("NAMES").is_some() => {
            Err((ConfigError::NameWithFiles, "NAMES"))
        }
        (Some(cert), Some(key)) => Ok(Some(CertificateSource::Files { cert, key })),
        (Some(cert), None) => Err((ConfigError::KeyMissing { cert }, "CERT")),
        (None, Some(key)) => Err((ConfigError::CertMissing { key }, "KEY")),
    };
    result.map_err(|(why, variable)| match sources.given(variable) {
        Some(given) if by_file == source::BY_FILE => given.origin().here(why),
        _ => why,
    })
}

/// As container platforms give it: PEM text in variables, or its base64.
fn text(sources: &Sources<'_>) -> Result<Option<CertificateSource>, ConfigError> {
    let pem = |name| -> Result<_, ConfigError> {
        let Some(text) = env::required(sources.env, name)? else { return Ok(None) };
        if text.contains("-----BEGIN") {
            return Ok(Some(Secret::new(text)));
        }
        let bare: String = text.split_whitespace().collect();
        let decoded = BASE64_STANDARD.decode(bare).map_err(|_| ConfigError::PemText(name))?;
        Ok(Some(Secret::new(decoded)))
    };
    match (pem("CERT_PEM")?, pem("KEY_PEM")?) {
        (Some(cert), Some(key)) => Ok(Some(CertificateSource::Text { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::KeyMissing { cert: "CERT_PEM".into() }),
        (None, Some(_)) => Err(ConfigError::CertMissing { key: "KEY_PEM".into() }),
    }
}

fn self_signed(args: &Args, sources: &Sources<'_>) -> Result<CertificateSource, ConfigError> {
    let Some((flag, names)) = sources.list(&args.name, "--name", "NAMES")? else {
        return Ok(CertificateSource::SelfSigned { names: Vec::new(), kept: None });
    };
    for name in &names {
        parse::name(&flag, name)?;
    }
    Ok(CertificateSource::SelfSigned { names, kept: None })
}

/// Whom the gateway as a whole admits, and the text that says so.
pub(super) fn admission(
    args: &Args,
    sources: &Sources<'_>,
    state: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<(Admission, String), ConfigError> {
    let inline = env::required(sources.env, "TOKEN")?;
    let level = sources.level(args.token_file.is_some(), "TOKEN_FILE");
    // A variable beats the file, whichever of the two it is.
    let file = match &inline {
        Some(_) if level == source::BY_FILE => None,
        _ => sources.path(&args.token_file, "TOKEN_FILE")?,
    };
    let open = sources.switch(args.open, "OPEN")?;
    // A token by mistake in the file's place: no message may quote it.
    if file.as_deref().is_some_and(holds_token) {
        return Err(ConfigError::TokenAsFile);
    }
    match (file, inline, open) {
        (None, None, false) => {
            let token = state.map_or_else(|| Ok(Token::generate()), kept)?;
            Ok((Admission::of(token), String::new()))
        }
        (None, None, true) => Ok((Admission::Open, String::new())),
        // No precedence here: guessing wrong would let everybody in.
        (_, _, true) => {
            let given = sources.given("OPEN").or(sources.given("TOKEN_FILE"));
            let why = ConfigError::OpenWithToken;
            Err(match given {
                Some(given) => given.origin().here(why),
                None => why,
            })
        }
        (Some(_), Some(_), false) if args.token_file.is_none() => Err(ConfigError::TokenTwice),
        (Some(path), _, false) => {
            let text = read_token_file(&path)?;
            warnings.extend(exposed(&path, &text));
            let keys = parse_keys(&text)
                .map_err(|why| ConfigError::TokenFile { path: path.clone(), why })?;
            Ok((Admission::Keys { keys, file: Some(path), made: None }, text))
        }
        (None, Some(text), false) => {
            let keys = parse_keys(&text).map_err(ConfigError::Token)?;
            Ok((Admission::Keys { keys, file: None, made: None }, text))
        }
    }
}

/// The token that was made at an earlier start, else a new one, which is kept for the next.
fn kept(folder: &Path) -> Result<Token, ConfigError> {
    let path = folder.join("token");
    match fs::read_to_string(&path) {
        Ok(text) => Token::parse(&text)
            .map_err(|why| ConfigError::TokenFile { path, why: KeysError::Line { line: 1, why } }),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let token = Token::generate();
            files::replace(&path, &format!("{}\n", token.reveal()), true)
                .map_err(|err| ConfigError::State { path, why: err.to_string() })?;
            Ok(token)
        }
        Err(err) => Err(ConfigError::unreadable(&path, &err)),
    }
}

/// Whether a path is a token that somebody gave instead of a file with one.
fn holds_token(path: &Path) -> bool {
    path.to_str().is_some_and(token::begins_like_one) && !path.exists()
}

/// Reads a token file; also for [`crate::tls::Tls::reload`].
pub(crate) fn read_token_file(path: &Path) -> Result<String, ConfigError> {
    let bytes = fs::read(path).map_err(|err| ConfigError::unreadable(path, &err))?;
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}

/// A warning if others on the machine can read a private half.
fn exposed(path: &Path, text: &str) -> Option<String> {
    (holds_secret(text) && is_exposed(path)).then(|| {
        format!(
            "{} holds a private token and everybody on this machine can read it; `chmod 600` it, or keep only the public half there",
            path.display()
        )
    })
}

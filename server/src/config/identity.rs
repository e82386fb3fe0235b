//! The gateway's certificate, and the keys of the backends that it admits, each from its source.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::ServerName;

use ptth_link::files;
use ptth_link::settings::{self, Mistake, Parser, Sources};
use ptth_link::token::{Token, holds_secret, parse_keys};

use super::{Admission, CertificateSource};
use crate::auth::{Secret, about};

/// The certificate that a flag, a variable or a key of the file gives, if one does.
pub(super) fn certificate(
    sources: &Sources<'_>,
    state: Option<&Path>,
) -> Result<Option<CertificateSource>, Mistake> {
    // The source that counts most decides alone: `--self-signed` with CERT set is no conflict.
    let said = sources.nearest(&["self_signed", "cert", "key"]);
    let Some((name, given)) = said.first() else {
        // Behind a proxy that ends TLS it needs none.
        return text(sources);
    };
    if *name == "self_signed" {
        if said.len() > 1 {
            return Err(
                given.here("--cert and --key contradict --self-signed; give one or the other")
            );
        }
        let names = sources.list("name", &NAME).unwrap_or_default();
        return Ok(Some(CertificateSource::SelfSigned { names, kept: state.map(Path::to_owned) }));
    }
    let names = sources
        .get("name")
        .filter(|names| names.name == "--name" || names.file.is_some() && given.file.is_some());
    match (sources.path("cert"), sources.path("key"), names) {
        // One of them is empty, which was told.
        _ if !sources.mistakes.is_empty() => Ok(None),
        (Some(_), Some(_), Some(names)) => Err(names.here(
            "--name is for --self-signed; the names of a certificate from a file are in the file",
        )),
        (Some(cert), Some(key), None) => Ok(Some(CertificateSource::Files { cert, key })),
        (Some(cert), ..) => Err(given.here(half(CERTIFICATE, &cert))),
        (_, Some(key), _) => Err(given.here(half(KEY, &key))),
        (None, None, _) => Ok(None),
    }
}

/// What is said of a certificate without its key, or of a key without its certificate.
fn half((half, needs): (&str, &str), path: &Path) -> String {
    let path = path.display();
    format!("the {half} {path} needs its {needs}, the same file if it holds both")
}

const CERTIFICATE: (&str, &str) = ("certificate", "private key: give --key FILE (or KEY)");
const KEY: (&str, &str) = ("key", "certificate: give --cert FILE (or CERT)");

/// As container platforms give it: PEM text in variables, or its base64.
fn text(sources: &Sources<'_>) -> Result<Option<CertificateSource>, Mistake> {
    let pem = |name| -> Result<_, Mistake> {
        let Some(given) = sources.get(name) else { return Ok(None) };
        let text = given.text()?;
        if text.contains("-----BEGIN") {
            return Ok(Some(Secret::new(text)));
        }
        let bare: String = text.split_whitespace().collect();
        let decoded = BASE64_STANDARD.decode(bare);
        let wrong = |_| given.wrong("holds neither PEM nor the base64 of it");
        decoded.map(|pem| Some(Secret::new(pem))).map_err(wrong)
    };
    match (pem("cert_pem")?, pem("key_pem")?) {
        (Some(cert), Some(key)) => Ok(Some(CertificateSource::Text { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Mistake::new(half(CERTIFICATE, "CERT_PEM".as_ref()))),
        (None, Some(_)) => Err(Mistake::new(half(KEY, "KEY_PEM".as_ref()))),
    }
}

/// A name in a certificate, perhaps with `*.` before it.
const NAME: Parser<String> = Parser(
    "a DNS name or an IP address, like `example.com` (`xn--…` for other alphabets)",
    |text| {
        let bare = text.strip_prefix("*.").unwrap_or(text);
        let is_name = ServerName::try_from(bare).is_ok() && !bare.ends_with('.');
        is_name.then(|| text.to_owned()).ok_or(None)
    },
);

/// Which backends the gateway as a whole admits.
pub(super) fn admission(
    sources: &Sources<'_>,
    state: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Admission, Mistake> {
    if let Some(open) = sources.get("open").filter(|_| sources.switch("open")) {
        // No precedence here: guessing wrong would let every backend in.
        return match sources.nearest(&["token", "token_file"])[..] {
            [] => Ok(Admission::Open),
            _ => Err(open.here(
                "--open admits any backend, so it contradicts --token-file, TOKEN_FILE and TOKEN; remove one of them",
            )),
        };
    }
    let given = settings::token(sources, |text, path| {
        let private = path.filter(|_| holds_secret(text));
        let warning = private.and_then(|path| files::exposed(path, "a private token"));
        warnings.extend(warning.map(|warning| warning + ", or keep only the public half there"));
        parse_keys(text)
    })?;
    match given {
        Some((keys, file)) => Ok(Admission::Keys { keys, file, made: None }),
        None => state.map_or_else(|| Ok(Token::generate()), kept).map(Admission::made),
    }
}

/// The token that was made at an earlier start, else a new one, which is kept for the next.
fn kept(folder: &Path) -> Result<Token, Mistake> {
    let path = folder.join("token");
    match fs::read_to_string(&path) {
        Ok(text) => Token::parse(&text).map_err(|why| {
            Mistake::new(format!("the token file {}: line 1: {why}", path.display()))
        }),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let token = Token::generate();
            files::replace(&path, format!("{}\n", token.reveal()), true).map_err(|err| {
                about(&path, format!("can't be written ({err}); check the folder of --state"))
            })?;
            Ok(token)
        }
        Err(err) => Err(about(&path, format!("can't be read ({err})"))),
    }
}

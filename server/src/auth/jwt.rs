//! JSON Web Tokens (RFC 7519) in a Bearer value: signed by a known key, short-lived, meant for us.
//!
//! Each key checks one algorithm only, whatever the token says: so no token is its own judge
//! (`alg: none`), and no public key can be taken for a secret (RFC 8725 §2.1).
//!
//! Invariant: a token that is accepted now ends within `max_lifetime_days` from now. Only registrations end
//! then: a tunnel lives on past `exp`, until it is lost or the configuration no longer has the key, since a
//! tunnel is often older than the minutes for which tokens are issued.

mod keys;
mod signature;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ptth_link::settings::Mistake;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::authorization;
use super::credential::{Claim, Credential, Pass, Refusal};
use super::secret::{Files, ensure};
use crate::identity::Mark;
use crate::router::is_label;

/// `jwt = { hs256_files = ["a", "b"], audience = "…" }`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Shared secrets, the bytes as they are in the file; several, so that they can be rotated.
    hs256_files: Vec<PathBuf>,
    hs256_env: Vec<String>,
    eddsa_files: Vec<PathBuf>,
    rs256_files: Vec<PathBuf>,
    /// What `aud` must hold. Without it, a token that has an `aud` is meant for another audience.
    audience: Option<String>,
    issuer: Option<String>,
    /// From `nbf` (or `iat`) to `exp`, in days; 31 if it isn't said.
    max_lifetime_days: Option<u32>,
    name_claim: Option<String>,
    /// How far the issuer's clock and ours may differ, in seconds; [`LEEWAY`] if it isn't said.
    leeway_seconds: Option<u64>,
}

impl Settings {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
        let leeway = self.leeway_seconds.unwrap_or(LEEWAY);
        ensure(leeway <= LEEWAY, "`jwt`: `leeway_seconds` can be 60 at most")?;
        let days = self.max_lifetime_days.unwrap_or(31);
        // Ten years: more isn't a limit.
        ensure((1..=3650).contains(&days), "`jwt`: `max_lifetime_days` must be 1 to 3650")?;
        let texts = [&self.audience, &self.issuer, &self.name_claim];
        ensure(
            !texts.into_iter().flatten().any(String::is_empty),
            "`jwt`: `audience`, `issuer` and `name_claim` can be left out, but not empty",
        )?;
        let mut keys = Vec::new();
        for path in &self.hs256_files {
            keys.push((Algorithm::HS256, keys::secret(path, files)?));
        }
        for name in &self.hs256_env {
            let secret = files.variable(name.as_bytes())?;
            keys.push((Algorithm::HS256, DecodingKey::from_secret(secret.bytes())));
        }
        for (algorithm, paths) in
            [(Algorithm::EdDSA, &self.eddsa_files), (Algorithm::RS256, &self.rs256_files)]
        {
            for path in paths {
                let found = keys::public(path, algorithm, files)?;
                keys.extend(found.into_iter().map(|key| (algorithm, key)));
            }
        }
        ensure(
            !keys.is_empty(),
            "`jwt` needs a key: name a file in `hs256_files`, `eddsa_files` or `rs256_files`, or a variable in `hs256_env`",
        )?;
        // Unless the program has chosen another one before.
        let _ = signature::PROVIDER.install_default();
        let keys = keys.into_iter().map(|(algorithm, key)| self.key(algorithm, key, leeway));
        Ok(Arc::new(Jwt {
            keys: keys.collect::<Result<_, _>>()?,
            max_lifetime: f64::from(days) * SECONDS_PER_DAY,
            name_claim: self.name_claim,
        }))
    }

    fn key(&self, algorithm: Algorithm, key: DecodingKey, leeway: u64) -> Result<Key, Mistake> {
        let mut rules = Validation::new(algorithm);
        rules.leeway = leeway;
        rules.validate_nbf = true;
        // The library looks at `aud` and `iss` only where they are, unless told that they must be.
        let mut required = vec!["exp"];
        if let Some(audience) = &self.audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        // A backend that passed with another audience, issuer or name must show that it passes with these.
        let text = |text: &Option<String>| format!("{text:?}").into_bytes();
        let (audience, issuer, name) =
            (text(&self.audience), text(&self.issuer), text(&self.name_claim));
        let of = format!("jwt {algorithm:?}");
        let bytes = key.try_get_as_bytes().map_err(Mistake::new)?;
        let mark = Mark::of(&of, &[bytes, &audience, &issuer, &name]);
        Ok(Key { key, rules, mark })
    }
}

/// In seconds.
const LEEWAY: u64 = 60;
/// The dates of a JWT are seconds (RFC 7519 §2, NumericDate), not a finer unit.
const SECONDS_PER_DAY: f64 = 86_400.0;

#[derive(Debug)]
struct Jwt {
    keys: Vec<Key>,
    /// In seconds.
    max_lifetime: f64,
    name_claim: Option<String>,
}

#[derive(Debug)]
struct Key {
    key: DecodingKey,
    /// For the one algorithm of this key.
    rules: Validation,
    mark: Mark,
}

impl Credential for Jwt {
    fn judge(&self, claim: &Claim<'_>) -> Result<Pass, Refusal> {
        let token = claim.authorization.and_then(authorization::bearer).ok_or(Refusal::Absent)?;
        self.read(token).map_err(Refusal::Wrong)
    }

    fn keeps(&self, mark: Mark) -> bool {
        self.keys.iter().any(|key| key.mark == mark)
    }

    fn challenge(&self) -> Option<&'static str> {
        Some(authorization::BEARER)
    }
}

impl Jwt {
    fn read(&self, token: &[u8]) -> Result<Pass, &'static str> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| NO_TOKEN)?;
        // RFC 7515 §4.1.11: a token with an extension that isn't understood is refused. None is understood here.
        if header.crit.is_some() {
            return Err("it has extensions that are critical, and unknown here");
        }
        let (claims, key) = self.signed(token)?;
        self.lives_short(&claims, key.rules.leeway)?;
        let name = match &self.name_claim {
            Some(claim) => Some(label(claims.get(claim))?),
            None => None,
        };
        let subject = claims.get("sub").and_then(Value::as_str);
        // A token without a subject is a principal of its own.
        let anonymous = if subject.is_none() && name.is_none() { token } else { &[] };
        let words = [subject, name.as_deref()].map(|word| word.unwrap_or_default().as_bytes());
        let pass = Pass::of(key.mark).principal(&[words[0], words[1], anonymous]);
        Ok(Pass { name, ..pass })
    }

    /// The claims, if one of the keys signed them and its rules hold.
    fn signed(&self, token: &[u8]) -> Result<(Map<String, Value>, &Key), &'static str> {
        let mut refused = "no key is for its algorithm";
        for key in &self.keys {
            match jsonwebtoken::decode(token, &key.key, &key.rules) {
                Ok(data) => return Ok((data.claims, key)),
                Err(err) => match err.into_kind() {
                    ErrorKind::InvalidAlgorithm => {}
                    ErrorKind::InvalidSignature => refused = "no key has signed it",
                    kind => return Err(reason(&kind)),
                },
            }
        }
        Err(refused)
    }

    /// The library checked that `nbf` is past and `exp` isn't.
    fn lives_short(&self, claims: &Map<String, Value>, leeway: u64) -> Result<(), &'static str> {
        let date = |name| claims.get(name).and_then(Value::as_f64);
        let end = date("exp").ok_or("its `exp` is no date")?;
        let begin = date("nbf").or_else(|| date("iat")).ok_or("it has neither `nbf` nor `iat`")?;
        // An `iat` in the future would make the lifetime look shorter than it is.
        let now = jsonwebtoken::get_current_timestamp().saturating_add(leeway);
        if begin > now as f64 {
            return Err("it isn't valid yet");
        }
        if end - begin > self.max_lifetime {
            return Err("it lives for longer than `max_lifetime_days`");
        }
        Ok(())
    }
}

/// The dynamic name that a claim holds: one label of a host name (RFC 1123 §2.1).
fn label(claim: Option<&Value>) -> Result<String, &'static str> {
    let text = claim.and_then(Value::as_str).ok_or("the claim with the name is missing")?;
    if !is_label(&text.to_ascii_lowercase()) {
        return Err("the claim with the name is no label of a host name");
    }
    // An issuer may tell Alice from alice; a name is in lower case, so no other spelling has it.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the claim with the name isn't in lower case");
    }
    Ok(text.to_owned())
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it isn't valid yet",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "aud" => "it has no `aud`",
            "iss" => "it has no `iss`",
            _ => "it has no `exp`",
        },
        ErrorKind::InvalidClaimFormat(_) => "a date of it is no number",
        _ => NO_TOKEN,
    }
}

const NO_TOKEN: &str = "it is no JSON Web Token with an algorithm that is known";

//! Users and passwords in a file: `user:password`, or `user:` and a hash that is slow on purpose, as in htpasswd files.
//!
//! Invariant: no sentence about a file quotes a password or a hash.

use super::secret::Secret;

/// A user of a password file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    pub name: Secret,
    pub password: Password,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Password {
    Plain(Secret),
    /// bcrypt's text, or a PHC string of argon2.
    Hash(Secret),
}

impl User {
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn new(name: &str, password: Password) -> Result<Self, &'static str> {
        // RFC 7617 §2: neither may hold control characters, and the first colon ends the user.
        let fine = !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_control());
        let name = Secret::new(name);
        fine.then_some(Self { name, password }).ok_or("must have a user without a colon")
    }

    /// The users of a file, one a line; empty lines and those that begin with `#` don't count.
    ///
    /// # Errors
    /// The number of a line, and what is wrong with it, as the end of a sentence.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let users = lines.map(|(number, line)| {
            let user = line.split_once(':').ok_or("must be `user:password`, or `user:` and a hash");
            let user = user.and_then(|(name, rest)| Self::new(name, Password::read(rest)?));
            user.map_err(|why| format!("line {number} {why}"))
        });
        let users = users.collect::<Result<Vec<_>, _>>()?;
        if users.is_empty() { Err("has no user".to_owned()) } else { Ok(users) }
    }
}

impl Password {
    fn read(text: &str) -> Result<Self, &'static str> {
        match text.as_bytes().first() {
            None => Err("has no password"),
            Some(b'$' | b'{') if is_known(text)? => Ok(Self::Hash(Secret::new(text))),
            Some(b'$' | b'{') => Err(UNKNOWN),
            Some(_) => Ok(Self::Plain(Secret::new(text))),
        }
    }

    /// Whether it is `shown`. Of a hash that takes a good part of a second, and as long for any `shown`.
    pub fn is(&self, shown: &[u8]) -> bool {
        match self {
            Self::Plain(password) => password.digest().is_of(shown),
            Self::Hash(hash) => str::from_utf8(hash.bytes()).is_ok_and(|hash| verify(hash, shown)),
        }
    }
}

#[cfg(feature = "password-hashes")]
const UNKNOWN: &str = "has a hash of a kind that is too weak or unknown; make it by `htpasswd -B`";
#[cfg(not(feature = "password-hashes"))]
const UNKNOWN: &str = "has a hash, and this program was built without `password-hashes`";

/// Whether the hash is bcrypt's or argon2's.
///
/// # Errors
/// It is, but of no use.
#[cfg(feature = "password-hashes")]
fn is_known(hash: &str) -> Result<bool, &'static str> {
    if hash.starts_with("$argon2") {
        let parsed = argon2::password_hash::phc::PasswordHash::new(hash);
        let fine = parsed.is_ok_and(|it| it.salt.is_some() && it.hash.is_some());
        return fine.then_some(true).ok_or("has a malformed argon2 hash");
    }
    if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
        return Ok(false);
    }
    let parts = hash.parse::<bcrypt::HashParts>().map_err(|_| "has a malformed bcrypt hash")?;
    if parts.get_cost() > MOST_COST {
        return Err("has a bcrypt hash of a cost above 15, which takes many seconds a visitor");
    }
    Ok(true)
}

#[cfg(feature = "password-hashes")]
const MOST_COST: u32 = 15;

#[cfg(feature = "password-hashes")]
fn verify(hash: &str, shown: &[u8]) -> bool {
    use argon2::{Argon2, PasswordVerifier};
    match hash.starts_with("$argon2") {
        true => Argon2::default().verify_password(shown, hash).is_ok(),
        false => bcrypt::verify(shown, hash).unwrap_or(false),
    }
}

#[cfg(not(feature = "password-hashes"))]
fn is_known(_: &str) -> Result<bool, &'static str> {
    Ok(false)
}

#[cfg(not(feature = "password-hashes"))]
fn verify(_: &str, _: &[u8]) -> bool {
    false
}

#[cfg(feature = "password-hashes")]
#[cfg(test)]
mod tests {

    use super::*;

    /// Made by `htpasswd -B -C 4` and `argon2 … -id -t 1 -m 5 -p 1 -e`.
    const BCRYPT: &str = "$2y$04$8OKOjn.QuO/MzIVn9QdZ9eZ/oS2EYdWPXB1JE1SxKVLt4ji7wacL.";
    const ARGON2: &str =
        "$argon2id$v=19$m=32,t=1,p=1$c2FsdHNhbHQx$2m85Jk9J8S4eUs/E45bV4sMK2adA0fnUGDVIZQdKNjw";

    #[test]
    fn a_password_is_its_own_and_no_other() {
        let list = format!("# us\r\n\r\nann:{BCRYPT}\r\n bob:{ARGON2}\ncid:a:b");
        let users = User::list(&list).unwrap();
        for (user, right) in users.iter().zip(["open sesame", "hunter42", "a:b"]) {
            assert!(user.password.is(right.as_bytes()), "{right}");
            let others = [format!("{right} "), format!("{right}\0"), right.repeat(2)];
            for wrong in others.iter().map(String::as_str).chain(["", "open", "hunter43"]) {
                assert!(!user.password.is(wrong.as_bytes()), "{right:?} {wrong:?}");
            }
        }
        assert!(!format!("{users:?}").contains("$2y$"));
    }
}

//! `[route.gate]` of the configuration file, checked; and the flags for the gate of the one route without a table.

use std::fmt;
use std::path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use ipnet::IpNet;
use ptth_link::headers;
use ptth_link::settings::{Given, NUMBER, Parser, SIZE, Sources, TEXT, TIMEOUT};

use super::listen::NETWORK;
use super::routes::Tables;
use crate::auth::{Files, Password, Secret, User, about};
use crate::https::{HttpsClient, Server};
use crate::identity::Mark;

/// What a visitor's request must pass before anything of it reaches a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gate {
    /// `None`: any address that `deny` doesn't have.
    pub allow: Option<Vec<IpNet>>,
    pub deny: Vec<IpNet>,
    pub rate: Option<Rate>,
    /// In bytes.
    pub max_body: Option<u64>,
    /// Never empty.
    pub basic: Option<Vec<User>>,
    pub forward: Option<Forward>,
    pub request_headers: Changes,
    pub response_headers: Changes,
}

/// Requests of one network: one in each `interval`, and `burst` at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Never zero.
    pub interval: Duration,
    /// At least 1; and all of it is free again within a year.
    pub burst: u32,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// An HTTP service that says whether a request may pass.
#[derive(Clone)]
pub struct Forward {
    pub(crate) client: Arc<HttpsClient>,
    /// What all questions have in common.
    pub question: Request<()>,
    pub timeout: Duration,
    /// The fields of its response that go on with the request.
    pub copy: Vec<HeaderName>,
    /// Of the service: its URL, and the certificates by which it is known.
    mark: Mark,
}

impl PartialEq for Forward {
    fn eq(&self, other: &Self) -> bool {
        (self.mark, self.timeout, &self.copy) == (other.mark, other.timeout, &other.copy)
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forward({}, {:?})", self.client.server, self.timeout)
    }
}

/// The table of a route.
pub(super) fn gate(given: Given<'_>, files: &mut Files) -> Option<Gate> {
    let mut fields = given.table("[route.gate]")?;
    let before = fields.mistakes.count();
    let gate = Gate {
        allow: fields.take("allow").map(|given| networks(&given)),
        deny: fields.take("deny").map(|given| networks(&given)).unwrap_or_default(),
        rate: fields.take("rate").and_then(rate),
        max_body: fields.take_value("max_body", &SIZE),
        basic: fields.take("basic").and_then(|given| basic(given, files)),
        forward: fields.take("forward").and_then(|given| forward(given, files)),
        request_headers: fields.take("request_headers").map(changes).unwrap_or_default(),
        response_headers: fields.take("response_headers").map(changes).unwrap_or_default(),
    };
    fields.end(&[]);
    (fields.mistakes.count() == before).then_some(gate)
}

/// The gate of the one route that there is without tables, by its flags.
pub(super) fn of_one_route(
    sources: &Sources<'_>,
    files: &mut Files,
    tables: &Tables,
) -> Option<Gate> {
    let names = ["gate_basic_file", "gate_allow", "gate_deny", "gate_rate", "gate_max_body"];
    let [basic_file, allow, deny, rate, max_body] = names.map(|name| sources.get(name));
    let first = [&basic_file, &allow, &deny, &rate, &max_body].into_iter().flatten().next()?;
    if !tables.routes.is_empty() || tables.names.is_some() {
        return first.refuse(format!(
            "{} is for a gateway without routes and names; write the table `[route.gate]` of each route that needs one",
            first.name
        ));
    }
    let users = |given: Given<'_>| {
        // Unlike the paths of tables, that of a flag doesn't begin at the file's folder.
        let path = sources.mistakes.note(given.path())?;
        let path = path::absolute(&path).unwrap_or(path);
        read_users(&given, &path, files)
    };
    Some(Gate {
        basic: basic_file.and_then(users),
        allow: allow.map(|given| networks(&given)),
        deny: deny.map(|given| networks(&given)).unwrap_or_default(),
        rate: rate.and_then(self::rate),
        max_body: max_body.and_then(|given| given.value(&SIZE)),
        ..Gate::default()
    })
}

fn networks(given: &Given<'_>) -> Vec<IpNet> {
    if given.items().is_empty() {
        given.refuse::<()>(format!("`{}` is empty; leave it out, or name a network", given.name));
    }
    given.list(&NETWORK)
}

const RATE: Parser<(usize, Duration)> = Parser("a number in a time, like \"20/1s\"", |text| {
    let (requests, per) = text.split_once('/').ok_or(None)?;
    let read = NUMBER.parse(requests).ok().zip(TIMEOUT.parse(per).ok());
    read.ok_or(None)
});

/// `"20/1s"`, or a table, which may have a `burst`.
fn rate(given: Given<'_>) -> Option<Rate> {
    let (requests, per, burst) = if given.value.get_ref().is_table() {
        let mut fields = given.clone().table("rate")?;
        let requests = fields.take_value("requests", &NUMBER);
        let per = fields.take_value("per", &TIMEOUT).unwrap_or(Duration::from_secs(1));
        let burst = fields.take_value("burst", &NUMBER);
        fields.end(&[]);
        let Some(requests) = requests else { return fields.refuse("`rate` needs `requests`") };
        (requests, per, burst)
    } else {
        let (requests, per) = given.value(&RATE)?;
        (requests, per, None)
    };
    let count = |number| u32::try_from(number).ok();
    let interval = count(requests).and_then(|requests| per.checked_div(requests));
    let rate =
        interval.filter(|interval| !interval.is_zero()).zip(count(burst.unwrap_or(requests)));
    let fits = |(interval, burst): &(Duration, u32)| interval.saturating_mul(*burst) <= YEAR;
    match rate.filter(fits) {
        Some((interval, burst)) => Some(Rate { interval, burst }),
        None => given.refuse("such a rate can't be counted; take smaller numbers"),
    }
}

/// The clock's arithmetic has limits.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// `{ user = "…", password_file = "…" }` or `{ htpasswd_file = "…" }`.
fn basic(given: Given<'_>, files: &mut Files) -> Option<Vec<User>> {
    let mut fields = given.table("basic")?;
    let [user, password, htpasswd] =
        ["user", "password_file", "htpasswd_file"].map(|key| fields.take(key));
    fields.end(&[]);
    match (user, password, htpasswd) {
        (None, None, Some(given)) => {
            let path = given.value(&TEXT)?;
            read_users(&given, path.as_ref(), files)
        }
        (Some(user), Some(given), None) => {
            let path = given.value(&TEXT)?;
            let password = files.secret(path.as_ref()).map_err(|why| given.placed(why));
            let password = Password::Plain(given.mistakes.note(password)?);
            let made = User::new(&user.value(&TEXT)?, password);
            let made = made.map_err(|why| user.here(format!("`basic` {why}")));
            Some(vec![user.mistakes.note(made)?])
        }
        _ => fields.refuse("`basic` needs `user` and `password_file`, or `htpasswd_file`"),
    }
}

/// The users of a file.
fn read_users(given: &Given<'_>, path: &path::Path, files: &mut Files) -> Option<Vec<User>> {
    let text = files.text(path);
    files.warn_if_exposed(path);
    let users = text.and_then(|text| User::list(&text).map_err(|why| about(path, why)));
    given.mistakes.note(users.map_err(|why| given.placed(why)))
}

/// Fields to set and to remove.
fn changes(given: Given<'_>) -> Changes {
    let Some(mut fields) = given.table("request_headers or response_headers") else {
        return Changes::default();
    };
    let set = fields.take("set").and_then(|given| given.table("set"));
    let remove = fields.take("remove");
    fields.end(&[]);
    let set = set.map(|set| set.fields()).unwrap_or_default();
    let set = set.iter().filter_map(|field| {
        let name = name(field, &field.name)?;
        // Neither line ends nor other control characters, so that a value is never two fields.
        let value = HeaderValue::from_str(&field.value(&TEXT)?).ok();
        let value = value.or_else(|| field.refuse("a field's value is visible ASCII, in one line"));
        Some((name, value?))
    });
    Changes { set: set.collect(), remove: remove.map(|it| names(&it)).unwrap_or_default() }
}

/// A list of names of fields.
fn names(given: &Given<'_>) -> Vec<HeaderName> {
    given.items().iter().filter_map(|item| name(item, &item.value(&TEXT)?)).collect()
}

/// The name of a field that may be changed. In a key, `_` was `-`.
fn name(given: &Given<'_>, text: &str) -> Option<HeaderName> {
    let Ok(name) = HeaderName::try_from(text.replace('_', "-")) else {
        return given.refuse(format!("{text:?} must be the name of a header field"));
    };
    match headers::is_free(name.as_str()) {
        true => Some(name),
        false => given.refuse(format!(
            "the field {name} frames or routes the message, or is the gateway's own, so it can't be changed here"
        )),
    }
}

/// `{ url = "http://127.0.0.1:4180/auth", copy = ["x-user"] }`.
fn forward(given: Given<'_>, files: &mut Files) -> Option<Forward> {
    let mut fields = given.table("forward")?;
    let timeout = fields.take_value("timeout", &TIMEOUT).unwrap_or(TIMEOUT_OF_FORWARD);
    let copy = fields.take("copy").map(|given| names(&given)).unwrap_or_default();
    let plain = fields.take("allow_plain").and_then(|given| given.switch()).unwrap_or(false);
    let (url, ca) = (fields.take("url"), fields.take("ca"));
    fields.end(&[]);
    let Some(url) = url else { return fields.refuse("`forward` needs `url`") };
    let text = Secret::new(url.value(&TEXT)?);
    // The URL isn't quoted: it may hold a secret.
    let why = "`url` must be like `http://127.0.0.1:4180/auth`, without user or password";
    let Some((server, question)) = Server::read(text.bytes()) else { return url.refuse(why) };
    if server.is_public() && !server.is_https() && !plain {
        return url.refuse("`http://` to a public address would show every visitor's cookies on the way; use `https://`, or say `allow_plain = true`");
    }
    if plain && !server.is_https() {
        let to = server.authority();
        files.warn(format!(
            "visitors' cookies go to the authenticator {to} unencrypted (`allow_plain`)"
        ));
    }
    let mut pem = Vec::new();
    let mut roots = None;
    if let Some(given) = ca {
        let path = given.value(&TEXT)?;
        let read = files.bytes(path.as_ref()).and_then(|read| {
            pem = read;
            files.roots(path.as_ref())
        });
        roots = Some(given.mistakes.note(read.map_err(|why| given.placed(why)))?);
    }
    let words = [text.bytes(), &pem, &[u8::from(plain)]];
    let mark = Mark::of("forward", &words);
    let Ok(client) = HttpsClient::new(server, roots, plain) else {
        return url.refuse("TLS can't be set up");
    };
    Some(Forward { client: Arc::new(client), question, timeout, copy, mark })
}

/// A visitor waits for it with each request.
const TIMEOUT_OF_FORWARD: Duration = Duration::from_secs(2);

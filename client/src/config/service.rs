//! One service: its tunnels and its origin, from flags, variables and tables of the file.

use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::ServerName;

use ptth_link::files::exposed;
use ptth_link::settings::{self, Mistake, PREFIX, Parser, Sources, TEXT, word};
use ptth_link::token::{self, Token};
use ptth_link::{alpn, crypto};

use super::{
    Authorization, Config, Gateway, HostHeader, MAX_TUNNELS, OriginAddress, OriginOptions, Proxies,
    Service, Trust, Value,
};

/// The doors of a gateway that a client may knock at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// The ALPN label, with the token's key.
    Alpn,
    /// An HTTP/1.1 request with `Upgrade: ptth`, with an Authorization.
    Upgrade,
    /// The same as extended CONNECT over HTTP/2 (RFC 8441).
    Connect,
    /// The first, and where something in between doesn't let it through, the second.
    Auto,
}

pub(super) fn service(sources: &Sources<'_>, warnings: &mut Vec<String>) -> Option<Service> {
    if sources.get("gateway").is_none() {
        sources.mistakes.add(Mistake::new(
            "no gateway: say which one to dial, like `2ptth-client example.com 8080` (or set GATEWAY)",
        ));
    }
    let gateway = read(sources, "gateway", Gateway::parse_either);
    let origin = read(sources, "origin", OriginAddress::parse).unwrap_or(OriginAddress::Demo);
    let asking = asking(sources, &origin, warnings);
    let (gateway, plain) = gateway?;
    let mut config = Config::new(gateway);
    config.plain = plain;
    config.trust = sources.mistakes.note(trust(sources))?;
    config.token =
        sources.mistakes.note(settings::token(sources, one_token))?.map(|(token, file)| {
            warnings.extend(file.and_then(|path| exposed(&path, "the token")));
            token
        });
    config.any_host = sources.switch("any_host");
    config.standby = sources.switch("standby");
    config.asked_host = sources.value("host", &HOST);
    if let Some(host) = &config.asked_host {
        config.host = host.clone();
    }
    config.name = sources.value("name", &NAME);
    config.path = sources.value("path", &PREFIX);
    config.tunnels = sources.value("tunnels", &TUNNELS).unwrap_or(config.tunnels);
    if let Some(given) = sources.get("alpn") {
        let label = alpn::parse_label(&given.value(&TEXT)?);
        config.alpn = sources.mistakes.note(label.map_err(|why| given.wrong(why)))?;
    }
    doors(&mut config, sources, warnings);
    sources.mistakes.is_empty().then_some(Service { label: None, config, origin, asking })
}

/// Which door to knock at, what to show there, and through which proxy.
fn doors(config: &mut Config, sources: &Sources<'_>, warnings: &mut Vec<String>) {
    config.via = sources.value("via", &DOOR).unwrap_or(Via::Auto);
    if config.plain && config.via == Via::Alpn {
        sources.mistakes.add(Mistake::new("a gateway without TLS has no ALPN label; write --via upgrade or connect, or leave it out"));
    }
    config.authorization = sources.mistakes.note(authorization(sources, warnings)).flatten();
    let insecure = config.trust == Trust::Insecure;
    if config.plain && insecure {
        warnings.push(
            "with http:// and --insecure, every machine on the way to the gateway can read the authorization, and all requests"
                .into(),
        );
    }
    if insecure && config.authorization.is_some() {
        warnings.push(
            "with --insecure, any server that answers in the gateway's place gets the authorization".into(),
        );
    }
    config.proxies = sources.mistakes.note(proxies(sources)).unwrap_or_default();
    config.all_addresses = sources.switch("all_addresses");
    if let Some(proxy) = config.proxies.to(&config.gateway).filter(|_| config.all_addresses) {
        sources.mistakes.add(Mistake::new(format!(
            "--all-addresses needs the addresses of the gateway, but the proxy {proxy} resolves its name; put the gateway into NO_PROXY, or leave --all-addresses out"
        )));
    }
}

/// The value of a setting, where the sentence about a wrong one is the parser's.
fn read<T>(
    sources: &Sources<'_>,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, Mistake>,
) -> Option<T> {
    let given = sources.get(name)?;
    let parsed = given.text().and_then(|text| parse(&text).map_err(|why| given.placed(why)));
    sources.mistakes.note(parsed)
}

fn asking(
    sources: &Sources<'_>,
    origin: &OriginAddress,
    warnings: &mut Vec<String>,
) -> OriginOptions {
    let name = sources.value("origin_name", &HOST);
    let asking = OriginOptions {
        host_header: read(sources, "host_header", HostHeader::parse).unwrap_or_default(),
        unforwarded: sources.value("forwarded", &UNFORWARDED).unwrap_or(false),
        ca: sources.path("origin_ca"),
        name: name.and_then(|name| name.try_into().ok()),
    };
    let secure = matches!(origin, OriginAddress::Https { .. });
    if !secure && (asking.ca.is_some() || asking.name.is_some()) {
        warnings.push("--origin-ca and --origin-name are for an https:// origin alone".into());
    }
    asking
}

/// How the gateway is known: by one of three settings at most, where any of them is said first.
fn trust(sources: &Sources<'_>) -> Result<Trust, Mistake> {
    let said = sources.nearest(&["ca", "pin", "insecure"]);
    match &said[..] {
        [] => Ok(Trust::System),
        [("ca", given)] => given.path().map(Trust::Ca),
        [("pin", given)] => {
            crypto::parse_pin(&given.text()?).map(Trust::Pin).ok_or_else(|| {
                given.here("--pin (PIN) must be `sha256:` and 64 hexadecimal digits; copy it from the gateway's output")
            })
        }
        [_] => Ok(Trust::Insecure),
        [(_, given), ..] => {
            Err(given.here("--ca, --pin and --insecure exclude each other; keep one"))
        }
    }
}

/// The one token in a text where blank lines and comments don't count.
fn one_token(text: &str, _: Option<&Path>) -> Result<Token, String> {
    let mut words = token::words(text).map(|(_, word)| word);
    let word = words.next().unwrap_or_default();
    if words.next().is_some() {
        return Err("holds more than one line; leave the token of this client only".to_owned());
    }
    Token::parse(word).map_err(|why| why.to_string())
}

/// What to show at a door of HTTP: one of three sources at most, where any of them is said first.
fn authorization(
    sources: &Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Authorization>, Mistake> {
    let said = sources.nearest(&["authorization_file", "authorization_command", "authorization"]);
    match &said[..] {
        [] => Ok(None),
        [("authorization_file", given)] => {
            let path = given.path()?;
            // Read for its mistakes alone: each dial reads it anew.
            let wrong =
                |why| given.here(format!("the authorization file {} {why}", path.display()));
            Value::read(&path).map_err(wrong)?;
            warnings.extend(exposed(&path, "the authorization"));
            Ok(Some(Authorization::File(path)))
        }
        [("authorization_command", given)] => match given.text()? {
            empty if empty.is_empty() => Err(given.here(
                "--authorization-command (AUTHORIZATION_COMMAND) is empty; write a command of the shell",
            )),
            command => Ok(Some(Authorization::Command(command))),
        },
        [(_, given)] => {
            let wrong = |why| Mistake::new(format!("the variable AUTHORIZATION {why}"));
            let value = Value::parse(&given.text()?);
            value.map(Authorization::Fixed).map(Some).map_err(wrong)
        }
        [(_, given), ..] => Err(given.here(
            "--authorization-file, --authorization-command and AUTHORIZATION exclude each other; keep one",
        )),
    }
}

/// By the names in upper case, else by those in lower case.
fn proxies(sources: &Sources<'_>) -> Result<Proxies, Mistake> {
    let either = |upper, lower| -> Result<(&'static str, String), Mistake> {
        match settings::variable(sources.env, upper, false)? {
            Some(text) => Ok((upper, text)),
            None => Ok((lower, settings::variable(sources.env, lower, false)?.unwrap_or_default())),
        }
    };
    let (https_name, https) = either("HTTPS_PROXY", "https_proxy")?;
    let (all_name, all) = either("ALL_PROXY", "all_proxy")?;
    let (_, no) = either("NO_PROXY", "no_proxy")?;
    Proxies::new(https.trim(), all.trim(), &no).map_err(|why| {
        let bad_https = Proxies::new(https.trim(), "", "").is_err();
        let variable = if bad_https { https_name } else { all_name };
        Mistake::new(format!(
            "the variable {variable}: {why}; write it like `http://proxy:3128` or `socks5://proxy:1080`"
        ))
    })
}

const DOOR: Parser<Via> = Parser("a door: alpn, upgrade, connect or auto", |text| {
    use Via::{Alpn, Auto, Connect, Upgrade};
    word(text, &[("alpn", Alpn), ("upgrade", Upgrade), ("connect", Connect), ("auto", Auto)])
});

/// A name or an address that can stand in SNI or in a certificate.
const HOST: Parser<String> = Parser(
    "a host name or an IP address, without scheme and port, like `www.example.com`",
    |text| {
        let host = text.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = bare.filter(|it| it.parse::<IpAddr>().is_ok()).unwrap_or(&host);
        ServerName::try_from(host).map(|_| host.to_owned()).map_err(|_| None)
    },
);

const NAME: Parser<String> = Parser(
    "a name: one label of a host, or one segment of a path, of 1 to 63 letters, digits and - . _ ~ %, like `blog`",
    |text| token::is_name(text).then(|| text.to_owned()).ok_or(None),
);

const TUNNELS: Parser<usize> = Parser("a number of tunnels, 1 to 64", |text| {
    text.parse().ok().filter(|it| (1..=MAX_TUNNELS).contains(it)).ok_or(None)
});

const UNFORWARDED: Parser<bool> =
    Parser("`all` or `none`", |text| word(text, &[("all", false), ("none", true)]));

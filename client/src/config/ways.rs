//! How to get to the gateway: by which door, with what to show, and through which proxy; and how to the origin.

use ptth_link::env::{self, Env};
use rustls::pki_types::ServerName;

use super::proxies::Variable;
use super::{
    Args, Authorization, Config, ConfigError, HostHeader, OriginAddress, OriginOptions, Proxies,
    Trust, Value, exposed, public_host, setting,
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

/// Fills in `config` from flags and variables.
pub(super) fn settle(
    config: &mut Config,
    args: &Args,
    env: &Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    if let Some((flag, text)) = setting(&args.via, env, "--via", "VIA")? {
        config.via = via(&text).ok_or(ConfigError::Via { flag, text })?;
    }
    if config.plain && config.via == Via::Alpn {
        return Err(ConfigError::PlainAlpn);
    }
    config.authorization = authorization(args, env, warnings)?;
    if config.plain && config.trust == Trust::Insecure {
        warnings.push(
            "with http:// and --insecure, whoever is on the way to the gateway reads the authorization, and all requests"
                .into(),
        );
    }
    if config.trust == Trust::Insecure && config.authorization.is_some() {
        warnings.push(
            "with --insecure, whoever answers in the gateway's place gets the authorization".into(),
        );
    }
    config.proxies = proxies(env)?;
    config.all_addresses = args.all_addresses || env::switch(env, "ALL_ADDRESSES")?;
    match config.proxies.to(&config.gateway) {
        Some(proxy) if config.all_addresses => {
            Err(ConfigError::AllAddressesByProxy(proxy.to_string()))
        }
        _ => Ok(()),
    }
}

/// How the origin is asked.
pub(super) fn asking(
    args: &Args,
    env: &Env<'_>,
    origin: &OriginAddress,
    warnings: &mut Vec<String>,
) -> Result<OriginOptions, ConfigError> {
    let mut asking = OriginOptions::default();
    if let Some((_, text)) = setting(&args.host_header, env, "--host-header", "HOST_HEADER")? {
        asking.host_header = HostHeader::parse(&text)?;
    }
    if let Some((flag, text)) = setting(&args.forwarded, env, "--forwarded", "FORWARDED")? {
        asking.unforwarded = match text.trim() {
            "all" => false,
            "none" => true,
            _ => return Err(ConfigError::Forwarded { flag, text }),
        };
    }
    asking.ca = setting(&args.origin_ca, env, "--origin-ca", "ORIGIN_CA")?.map(|it| it.1.into());
    if let Some((flag, text)) = setting(&args.origin_name, env, "--origin-name", "ORIGIN_NAME")? {
        let name = public_host(flag, &text)?;
        let invalid = |_| ConfigError::Host { flag, text };
        asking.name = Some(ServerName::try_from(name).map_err(invalid)?);
    }
    let secure = matches!(origin, OriginAddress::Https { .. });
    if !secure && (asking.ca.is_some() || asking.name.is_some()) {
        warnings.push("--origin-ca and --origin-name are for an https:// origin alone".into());
    }
    Ok(asking)
}

fn via(text: &str) -> Option<Via> {
    match text.trim() {
        "alpn" => Some(Via::Alpn),
        "upgrade" => Some(Via::Upgrade),
        "connect" => Some(Via::Connect),
        "auto" => Some(Via::Auto),
        _ => None,
    }
}

/// One of three sources at most, and those of the command line before those of the environment.
fn authorization(
    args: &Args,
    env: &Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Authorization>, ConfigError> {
    let mut ways = (args.authorization_file.clone(), args.authorization_command.clone(), None);
    if ways == (None, None, None) {
        ways = (
            env::required(env, "AUTHORIZATION_FILE")?.map(Into::into),
            env::required(env, "AUTHORIZATION_COMMAND")?,
            env::required(env, "AUTHORIZATION")?,
        );
    }
    match ways {
        (None, None, None) => Ok(None),
        (Some(path), None, None) => {
            // Read for its mistakes alone: each dial reads it anew.
            Value::read(&path)
                .map_err(|why| ConfigError::AuthorizationFile { path: path.clone(), why })?;
            warnings.extend(exposed(&path, "authorization"));
            Ok(Some(Authorization::File(path)))
        }
        (None, Some(command), None) if command.trim().is_empty() => {
            Err(ConfigError::AuthorizationCommand)
        }
        (None, Some(command), None) => Ok(Some(Authorization::Command(command))),
        (None, None, Some(text)) => Value::parse(&text)
            .map(|value| Some(Authorization::Fixed(value)))
            .map_err(ConfigError::Authorization),
        _ => Err(ConfigError::AuthorizationTwice),
    }
}

/// By the names in upper case, else by those in lower case.
fn proxies(env: &Env<'_>) -> Result<Proxies, ConfigError> {
    let either = |upper, lower| -> Result<(&'static str, String), ConfigError> {
        match env::text(env, upper)? {
            Some(text) => Ok((upper, text)),
            None => Ok((lower, env::text(env, lower)?.unwrap_or_default())),
        }
    };
    let (https_name, https) = either("HTTPS_PROXY", "https_proxy")?;
    let (all_name, all) = either("ALL_PROXY", "all_proxy")?;
    let (_, no) = either("NO_PROXY", "no_proxy")?;
    Proxies::new(https.trim(), all.trim(), &no).map_err(|(which, why)| ConfigError::Proxy {
        variable: if which == Variable::Https { https_name } else { all_name },
        why,
    })
}

/// A prefix of paths, as a gateway's routes have them: without a slash at its end.
pub(super) fn public_path(text: &str) -> Option<String> {
    let path = text.trim();
    let fine = path.starts_with('/')
        && path.len() <= LONGEST_PATH
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    let bare = path.trim_end_matches('/');
    fine.then(|| if bare.is_empty() { "/".to_owned() } else { bare.to_owned() })
}

/// Longer ones are nobody's.
const LONGEST_PATH: usize = 1024;

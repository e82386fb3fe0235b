//! The flags of the gateway.

use std::path::PathBuf;

use argh::{ArgsInfo, EarlyExit, FromArgs};

use ptth_link::cli;

/// The gateway of 2ptth: one public TLS port for visitors and for the backends that dial in.
#[derive(ArgsInfo, Debug, Default, FromArgs)]
#[argh(help_triggers("-h", "--help"), usage = "[options]")]
pub struct Args {
    /// configuration file, TOML: routes, dynamic names, and every flag under its own name; read
    /// again when it changes and on SIGHUP (CONFIG)
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,

    /// address for visitors and backends, like `443`, `0.0.0.0:443` or `[::1]:0`; repeatable
    /// (LISTEN, separated by commas; default `[::]:443`, which takes IPv4 too)
    #[argh(option, arg_name = "addr")]
    pub listen: Vec<String>,

    /// certificate chain, PEM, the server's own first; read again when it changes (CERT)
    #[argh(option, arg_name = "file")]
    pub cert: Option<PathBuf>,

    /// private key of the certificate, PEM, not encrypted (KEY)
    #[argh(option, arg_name = "file")]
    pub key: Option<PathBuf>,

    /// make a certificate at start, for localhost, this machine and each --name (SELF_SIGNED=1)
    #[argh(switch)]
    pub self_signed: bool,

    /// a further name or address in the --self-signed certificate; repeatable (NAMES, separated
    /// by commas)
    #[argh(option)]
    pub name: Vec<String>,

    /// keys of the backends to admit, one a line, public (`2ptth_pub_…`) or private (TOKEN_FILE,
    /// or TOKEN for the text itself; default: a token made at start and shown once)
    #[argh(option, arg_name = "file")]
    pub token_file: Option<PathBuf>,

    /// admit any backend, one at a time: for experiments only (OPEN=1)
    #[argh(switch)]
    pub open: bool,

    /// ALPN labels that mean "backend", separated by commas, %HH for odd bytes (BACKEND_ALPN;
    /// default 2ptth,%D5%87%C9%A5,ph2,rh2)
    #[argh(option, arg_name = "list")]
    pub backend_alpn: Option<String>,

    /// addresses and networks of proxies whose X-Forwarded-*, Forwarded and PROXY header count,
    /// separated by commas (TRUSTED_PROXIES; default none)
    #[argh(option, arg_name = "list")]
    pub trusted_proxies: Option<String>,

    /// whether --trusted-proxies begin connections with a PROXY header, version 1 or 2: off,
    /// optional or required (PROXY_PROTOCOL; default optional)
    #[argh(option, arg_name = "when")]
    pub proxy_protocol: Option<String>,

    /// address for HTTP without TLS, for a proxy in front that has it; repeatable; without --listen
    /// the only one (PLAIN, separated by commas; default none)
    #[argh(option, arg_name = "addr")]
    pub plain: Vec<String>,

    /// let --plain be on an address that is neither loopback nor private (PLAIN_ANYWHERE=1)
    #[argh(switch)]
    pub plain_anywhere: bool,

    /// address for HTTP that is only told to come by https; repeatable (REDIRECT, separated by
    /// commas; default none)
    #[argh(option, arg_name = "addr")]
    pub redirect: Vec<String>,

    /// folder where --self-signed's certificate and a token that is made are kept for the next start
    /// (STATE_DIRECTORY; default none)
    #[argh(option, arg_name = "folder")]
    pub state: Option<PathBuf>,

    /// share the ports with a gateway that is there already, which is to be stopped then (TAKE_OVER=1)
    #[argh(switch)]
    pub take_over: bool,

    /// how long a response may take to begin (HEAD_TIMEOUT; default 120 seconds)
    #[argh(option, arg_name = "time")]
    pub head_timeout: Option<String>,

    /// how long nothing may move in a response under way (STALL_TIMEOUT; default 300 seconds)
    #[argh(option, arg_name = "time")]
    pub stall_timeout: Option<String>,

    /// connections at a time (MAX_CONNECTIONS; default 0.8 × the descriptor limit)
    #[argh(option, arg_name = "n")]
    pub max_connections: Option<String>,

    /// connections at a time from one address (MAX_CONNECTIONS_PER_ADDRESS; default a quarter of
    /// --max-connections)
    #[argh(option, arg_name = "n")]
    pub max_connections_per_address: Option<String>,

    /// tunnels at a time of one credential on one route (MAX_TUNNELS; default 64)
    #[argh(option, arg_name = "n")]
    pub max_tunnels: Option<String>,

    /// how long running responses may go on after SIGTERM (GRACE; default 30 seconds)
    #[argh(option, arg_name = "time")]
    pub grace: Option<String>,

    /// off, error, warn, info, debug or trace (LOG; default info)
    #[argh(option, arg_name = "level")]
    pub log: Option<String>,

    /// only say whether configuration, certificates and secrets can be used, and exit
    #[argh(switch)]
    pub check: bool,

    /// print the version and exit
    #[argh(switch)]
    pub version: bool,
}

impl Args {
    /// Reads the arguments that follow the program's name. `--flag=value` is the same as
    /// `--flag value`. The error is the text of `--help`, or what is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, EarlyExit> {
        cli::parse("2ptth-server", arguments)
    }
}

//! The flags and other settings of the gateway.

use argh::{ArgsInfo, FromArgs};

use ptth_link::settings;

settings! {
    /// The gateway of 2ptth: one public TLS port for visitors and for the backends that dial in.
    #[derive(ArgsInfo, Debug, Default, FromArgs)]
    #[argh(help_triggers("-h", "--help"), usage = "[options]")]
    pub struct Args {
        /// address for visitors and backends, like `443`, `0.0.0.0:443` or `[::1]:0`; repeatable
        /// (LISTEN, separated by commas; default `[::]:443`, which takes IPv4 too)
        #[argh(option, arg_name = "addr")]
        listen: Vec<String> => List "LISTEN" NextStart;

        /// certificate chain, PEM, the server's own first; read again when it changes (CERT)
        #[argh(option, arg_name = "file")]
        cert: Option<String> => Path "CERT" Strict;

        /// private key of the certificate, PEM, not encrypted (KEY)
        #[argh(option, arg_name = "file")]
        key: Option<String> => Path "KEY" Strict;

        /// make a certificate at start, for localhost, this machine and each --name (SELF_SIGNED=1)
        #[argh(switch)]
        self_signed: bool => Switch "SELF_SIGNED";

        /// a further name or address in the --self-signed certificate; repeatable (NAMES, separated
        /// by commas)
        #[argh(option)]
        name: Vec<String> => List "NAMES";

        /// keys of the backends to admit, one a line, public (`2ptth_pub_…`) or private (TOKEN_FILE,
        /// or TOKEN for the text itself; default: a token made at start and shown once)
        #[argh(option, arg_name = "file")]
        token_file: Option<String> => Path "TOKEN_FILE" Strict;

        /// admit any backend, one at a time: for experiments only (OPEN=1)
        #[argh(switch)]
        open: bool => Switch "OPEN";

        /// ALPN labels that mean "backend", separated by commas, %HH for odd bytes (BACKEND_ALPN;
        /// default 2ptth,%D5%87%C9%A5,ph2,rh2)
        #[argh(option, arg_name = "list")]
        backend_alpn: Option<String> => Commas "BACKEND_ALPN" NextStart;

        /// addresses and networks of proxies whose X-Forwarded-*, Forwarded and PROXY header count,
        /// separated by commas (TRUSTED_PROXIES; default none)
        #[argh(option, arg_name = "list")]
        trusted_proxies: Option<String> => Commas "TRUSTED_PROXIES" NextStart;

        /// whether --trusted-proxies begin connections with a PROXY header, version 1 or 2: off,
        /// optional or required (PROXY_PROTOCOL; default optional)
        #[argh(option, arg_name = "when")]
        proxy_protocol: Option<String> => Text "PROXY_PROTOCOL" NextStart;

        /// address for HTTP without TLS, for a proxy in front that has it; repeatable; without --listen
        /// the only one (PLAIN, separated by commas; default none)
        #[argh(option, arg_name = "addr")]
        plain: Vec<String> => List "PLAIN" NextStart;

        /// let --plain be on an address that is neither loopback nor private (PLAIN_ANYWHERE=1)
        #[argh(switch)]
        plain_anywhere: bool => Switch "PLAIN_ANYWHERE";

        /// address for HTTP that is only told to come by https; repeatable (REDIRECT, separated by
        /// commas; default none)
        #[argh(option, arg_name = "addr")]
        redirect: Vec<String> => List "REDIRECT" NextStart;

        /// folder where --self-signed's certificate and a token that is made are kept for the next start
        /// (STATE_DIRECTORY; default none)
        #[argh(option, arg_name = "folder")]
        state: Option<String> => Path "STATE_DIRECTORY" Strict;

        /// share the ports with a gateway that is there already, which is to be stopped then (TAKE_OVER=1)
        #[argh(switch)]
        take_over: bool => Switch "TAKE_OVER";

        /// how long a response may take to begin (HEAD_TIMEOUT; default 120 seconds)
        #[argh(option, arg_name = "time")]
        head_timeout: Option<String> => Time "HEAD_TIMEOUT" NextStart;

        /// how long nothing may move in a response under way (STALL_TIMEOUT; default 300 seconds)
        #[argh(option, arg_name = "time")]
        stall_timeout: Option<String> => Time "STALL_TIMEOUT" NextStart;

        /// connections at a time (MAX_CONNECTIONS; default 0.8 × the descriptor limit)
        #[argh(option, arg_name = "n")]
        max_connections: Option<String> => Number "MAX_CONNECTIONS" NextStart;

        /// connections at a time from one address (MAX_CONNECTIONS_PER_ADDRESS; default a quarter of
        /// --max-connections)
        #[argh(option, arg_name = "n")]
        max_connections_per_address: Option<String> => Number "MAX_CONNECTIONS_PER_ADDRESS" NextStart;

        /// tunnels at a time of one credential on one route (MAX_TUNNELS; default 64)
        #[argh(option, arg_name = "n")]
        max_tunnels: Option<String> => Number "MAX_TUNNELS" NextStart;

        /// how long running responses may go on after SIGTERM (GRACE; default 30 seconds)
        #[argh(option, arg_name = "time")]
        grace: Option<String> => Time "GRACE" NextStart;

        /// off, error, warn, info, debug or trace (LOG; default info)
        #[argh(option, arg_name = "level")]
        log: Option<String> => Text "LOG" NextStart;
    }
    with {
        /// configuration file, TOML: routes, dynamic names, and every flag under its own name; read
        /// again when it changes and on SIGHUP (CONFIG)
        #[argh(option, arg_name = "file")]
        config: Option<String>;

        /// only say whether configuration, certificates and secrets can be used, and exit
        #[argh(switch)]
        check: bool;

        /// print the version and exit
        #[argh(switch)]
        version: bool;
    }
    beside {
        token => Text "TOKEN" Strict Secret;
        cert_pem => Text "CERT_PEM" Strict Secret;
        key_pem => Text "KEY_PEM" Strict Secret;
    }
}

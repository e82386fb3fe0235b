//! The flags and other settings of the gateway.

use ptth_link::settings;

settings! {
    /// The gateway of 2ptth: one public TLS port for visitors and for the backends that dial in.
    #[argh(help_triggers("-h", "--help"), usage = "[options]")]
    pub struct Args {
        /// address for visitors and backends, like `443`, `0.0.0.0:443` or `[::1]:0`; repeatable
        /// (LISTEN, separated by commas; default `[::]:443`, which takes IPv4 too)
        option "addr" => listen: Vec<String>, "LISTEN" NextStart;

        /// certificate chain, PEM, the server's own first; read again when it changes (CERT)
        option "file" => cert: Option<String>, "CERT" Strict;

        /// private key of the certificate, PEM, not encrypted (KEY)
        option "file" => key: Option<String>, "KEY" Strict;

        /// make a certificate at start, for localhost, this machine and each --name (SELF_SIGNED=1)
        switch => self_signed: bool, "SELF_SIGNED" Switch;

        /// a further name or address in the --self-signed certificate; repeatable (NAMES, separated
        /// by commas)
        option => name: Vec<String>, "NAMES";

        /// keys of the backends to admit, one a line, public (`2ptth_pub_…`) or private (TOKEN_FILE,
        /// or TOKEN for the text itself; default: a token made at start and shown once)
        option "file" => token_file: Option<String>, "TOKEN_FILE" Strict;

        /// admit any backend, one at a time: for experiments only (OPEN=1)
        switch => open: bool, "OPEN" Switch;

        /// ALPN labels that mean "backend", separated by commas, %HH for odd bytes (BACKEND_ALPN;
        /// default 2ptth,%D5%87%C9%A5,ph2,rh2)
        option "list" => backend_alpn: Option<String>, "BACKEND_ALPN" NextStart;

        /// addresses and networks of proxies whose X-Forwarded-*, Forwarded and PROXY header count,
        /// separated by commas (TRUSTED_PROXIES; default none)
        option "list" => trusted_proxies: Option<String>, "TRUSTED_PROXIES" NextStart;

        /// whether --trusted-proxies begin connections with a PROXY header, version 1 or 2: off,
        /// optional or required (PROXY_PROTOCOL; default optional)
        option "when" => proxy_protocol: Option<String>, "PROXY_PROTOCOL" NextStart;

        /// address for HTTP without TLS, for a proxy in front that has it; repeatable; without --listen
        /// the only one (PLAIN, separated by commas; default none)
        option "addr" => plain: Vec<String>, "PLAIN" NextStart;

        /// let --plain be on an address that is neither loopback nor private (PLAIN_ANYWHERE=1)
        switch => plain_anywhere: bool, "PLAIN_ANYWHERE" Switch;

        /// address for HTTP that is only told to come by https; repeatable (REDIRECT, separated by
        /// commas; default none)
        option "addr" => redirect: Vec<String>, "REDIRECT" NextStart;

        /// get and renew a certificate for this name from --acme-directory, whose terms you agree to by it;
        /// `auto` for the exact hosts of all routes; repeatable (ACME, separated by commas)
        option "name" => acme: Vec<String>, "ACME";

        /// address at which the directory may write to you (ACME_EMAIL; default none)
        option "address" => acme_email: Option<String>, "ACME_EMAIL";

        /// the directory of an authority that speaks ACME (ACME_DIRECTORY; default Let's Encrypt's)
        option "url" => acme_directory: Option<String>, "ACME_DIRECTORY";

        /// certificates to know the directory by, PEM, instead of the system's (ACME_CA)
        option "file" => acme_ca: Option<String>, "ACME_CA" Strict;

        /// where this program says how it is (/livez, /readyz, /status): `9090` or `127.0.0.1:9090`, loopback or
        /// private, or `unix:/path` (ADMIN; default nowhere)
        option "addr" => admin: Option<String>, "ADMIN" NextStart;

        /// let --admin be on an address that is neither loopback nor private (ADMIN_ANYWHERE=1)
        switch => admin_anywhere: bool, "ADMIN_ANYWHERE" Switch;

        /// path of a load balancer's probe on the public ports: answered with 200, and with 503 while the gateway
        /// stops, for any host and before all routes (HEALTH_PATH; default none)
        option "path" => health_path: Option<String>, "HEALTH_PATH" NextStart;

        /// folder where the certificates and the account of --acme, --self-signed's certificate and a token
        /// that is made are kept for the next start (STATE_DIRECTORY; default none)
        option "folder" => state: Option<String>, "STATE_DIRECTORY" Strict;

        /// share the ports with a gateway that is there already, which is to be stopped then (TAKE_OVER=1)
        switch => take_over: bool, "TAKE_OVER" Switch;

        /// how long a response may take to begin (HEAD_TIMEOUT; default 120 seconds)
        option "time" => head_timeout: Option<String>, "HEAD_TIMEOUT" NextStart;

        /// how long nothing may move in a response under way (STALL_TIMEOUT; default 300 seconds)
        option "time" => stall_timeout: Option<String>, "STALL_TIMEOUT" NextStart;

        /// connections at a time (MAX_CONNECTIONS; default 0.8 × the descriptor limit)
        option "n" => max_connections: Option<String>, "MAX_CONNECTIONS" NextStart;

        /// connections at a time from one address (MAX_CONNECTIONS_PER_ADDRESS; default a quarter of
        /// --max-connections)
        option "n" => max_connections_per_address: Option<String>, "MAX_CONNECTIONS_PER_ADDRESS" NextStart;

        /// tunnels at a time of one credential on one route (MAX_TUNNELS; default 64)
        option "n" => max_tunnels: Option<String>, "MAX_TUNNELS" NextStart;

        /// users and passwords of visitors, one `user:password` or line of htpasswd's format each
        /// (GATE_BASIC_FILE; default none)
        option "file" => gate_basic_file: Option<String>, "GATE_BASIC_FILE" Strict;

        /// addresses and networks of visitors that are let in, separated by commas (GATE_ALLOW; default all)
        option "list" => gate_allow: Option<String>, "GATE_ALLOW" Strict;

        /// addresses and networks of visitors that are kept out (GATE_DENY; default none)
        option "list" => gate_deny: Option<String>, "GATE_DENY" Strict;

        /// requests of one address in a time, like `20/1s` (GATE_RATE; default unlimited)
        option "rate" => gate_rate: Option<String>, "GATE_RATE" Strict;

        /// the largest body of a request, like `10MiB` (GATE_MAX_BODY; default unlimited)
        option "size" => gate_max_body: Option<String>, "GATE_MAX_BODY" Strict;

        /// how long running responses may go on after SIGTERM (GRACE; default 30 seconds)
        option "time" => grace: Option<String>, "GRACE" NextStart;

        /// off, error, warn, info, debug or trace (LOG; default info)
        option "level" => log: Option<String>, "LOG" NextStart;

        /// how the log and the access log are written: text or json, an object a line (LOG_FORMAT; default
        /// text)
        option "format" => log_format: Option<String>, "LOG_FORMAT" NextStart;

        /// syslog server that gets the log, too (RFC 5424): `host:port` by UDP, or `unix:/dev/log` (SYSLOG;
        /// default none)
        option "addr" => syslog: Option<String>, "SYSLOG" NextStart;

        /// file for a line an exchange, or `-` for stdout; opened anew on SIGHUP (ACCESS_LOG; default none)
        option "file" => access_log: Option<String>, "ACCESS_LOG" NextStart;

        /// print each frame of the tunnels, in plain words (EXPLAIN=1)
        switch => explain: bool, "EXPLAIN" Switch NextStart;

        /// print each frame of the visitors' HTTP/2 connections (EXPLAIN_VISITORS=1)
        switch => explain_visitors: bool, "EXPLAIN_VISITORS" Switch NextStart;

        /// the same, with the beginning of each piece of a body (EXPLAIN_BODIES=1)
        switch => explain_bodies: bool, "EXPLAIN_BODIES" Switch NextStart;

        /// configuration file, TOML: routes, dynamic names, and every flag under its own name; read
        /// again when it changes and on SIGHUP (CONFIG)
        option "file" => config: Option<String>;

        /// only say whether configuration, certificates and secrets can be used, and exit
        switch => check: bool;

        /// print the version and exit
        switch => version: bool;
    }
    beside {
        token, "TOKEN" Strict Secret;
        cert_pem, "CERT_PEM" Strict Secret;
        key_pem, "KEY_PEM" Strict Secret;
    }
}

//! The flags and other settings of the client.

use ptth_link::settings;

settings! {
    /// The client of 2ptth: dials a gateway and lets it ask the origin, a web server near you.
    #[argh(
        help_triggers("-h", "--help"),
        usage = "[options] GATEWAY[:PORT] [ORIGIN]",
        note = "The gateway is dialled through the proxy of the environment, if it has one: http://, https:// or\n\
            socks5:// (HTTPS_PROXY, else ALL_PROXY; not for the hosts in NO_PROXY).\n\
            `service install` in the place of both addresses writes a systemd unit of this user, which reads the file of\n\
            --config (default ~/.config/2ptth/client.toml); `service print` shows it. `doctor` in front of them says what\n\
            doesn't work."
    )]
    pub struct Args {
        /// file with the token that the gateway asks for (TOKEN_FILE, or TOKEN for the text itself)
        option "file" => token_file: Option<String>, "TOKEN_FILE" Strict;

        /// file with the Authorization value for a gateway reached by HTTP: `Bearer …`, `Basic …` or a bare
        /// token (AUTHORIZATION_FILE, or AUTHORIZATION for the text itself); read anew on every dial
        option "file" => authorization_file: Option<String>, "AUTHORIZATION_FILE" Strict;

        /// shell command that prints such a value, run on every dial (AUTHORIZATION_COMMAND)
        option "command" => authorization_command: Option<String>, "AUTHORIZATION_COMMAND" Strict;

        /// the gateway's door: `alpn`, `upgrade` over HTTP/1.1, `connect` over HTTP/2, or `auto`: alpn first,
        /// and upgrade where something in between doesn't let it through (VIA; default auto)
        option "door" => via: Option<String>, "VIA";

        /// hold the tunnels to each address that the gateway's name has (ALL_ADDRESSES=1)
        switch => all_addresses: bool, "ALL_ADDRESSES" Switch;

        /// public host to serve (PUBLIC_HOST; default: the gateway's name)
        option "name" => host: Option<String>, "PUBLIC_HOST" Own;

        /// serve only the gateway's route of this path (PUBLIC_PATH)
        option "path" => path: Option<String>, "PUBLIC_PATH" Own;

        /// ask for this dynamic name, one label of a host or one segment of a path (NAME)
        option "name" => name: Option<String>, "NAME" Own;

        /// know the gateway by certificates in this PEM file instead of the system's (CA)
        option "file" => ca: Option<String>, "CA" Strict;

        /// know the gateway by its certificate's `sha256:HEX`, which it prints (PIN)
        option "pin" => pin: Option<String>, "PIN" Strict;

        /// don't check who the gateway is: for experiments only (INSECURE=1)
        switch => insecure: bool, "INSECURE" Switch;

        /// where another backend keeps the place, wait until it is free, in place of ending (STANDBY=1)
        switch => standby: bool, "STANDBY" Switch;

        /// answer for hosts that the gateway's certificate doesn't cover, too (ANY_HOST=1)
        switch => any_host: bool, "ANY_HOST" Switch;

        /// parallel tunnels (TUNNELS; default 2)
        option "n" => tunnels: Option<String>, "TUNNELS";

        /// the Host that the origin sees: `keep` the visitor's, the `origin`'s own, or a value
        /// (HOST_HEADER; default keep)
        option "host" => host_header: Option<String>, "HOST_HEADER";

        /// what the origin is told of visitors: `all` of X-Forwarded-For and its kin, or `none`
        /// (FORWARDED; default all)
        option "how" => forwarded: Option<String>, "FORWARDED";

        /// know an https:// origin by certificates in this PEM file; else by the system's, unless it is on this
        /// machine (ORIGIN_CA)
        option "file" => origin_ca: Option<String>, "ORIGIN_CA";

        /// name that an https:// origin's certificate must have, if not the address's (ORIGIN_NAME)
        option "name" => origin_name: Option<String>, "ORIGIN_NAME";

        /// ALPN label by which the gateway knows a backend, %HH for odd bytes (ALPN; default 2ptth)
        option "label" => alpn: Option<String>, "ALPN";

        /// write the public addresses to this file, one a line (URL_FILE)
        option "file" => url_file: Option<String>, "URL_FILE" Global;

        /// where this program says how it is (/livez, /readyz, /status): `9090` or `127.0.0.1:9090`, loopback or
        /// private, or `unix:/path` (ADMIN; default nowhere)
        option "addr" => admin: Option<String>, "ADMIN" Global;

        /// let --admin be on an address that is neither loopback nor private (ADMIN_ANYWHERE=1)
        switch => admin_anywhere: bool, "ADMIN_ANYWHERE" Switch Global;

        /// show the exchanges on a page of this machine, 127.0.0.1:4040 (INSPECT=1)
        switch => inspect: bool, "INSPECT" Switch Global;

        /// show them there: a port, or a loopback address and a port (INSPECT_AT)
        option "addr" => inspect_at: Option<String>, "INSPECT_AT" Global;

        /// write each request to a file in this folder, which `2ptth-client replay` sends again (CAPTURE)
        option "dir" => capture: Option<String>, "CAPTURE" Global;

        /// exchanges that the page keeps (INSPECT_KEEP; default 500)
        option "n" => inspect_keep: Option<String>, "INSPECT_KEEP" Global;

        /// bytes of a body that it keeps (INSPECT_BODY; default 1MiB)
        option "size" => inspect_body: Option<String>, "INSPECT_BODY" Global;

        /// bytes that it keeps in all (INSPECT_BYTES; default 64MiB)
        option "size" => inspect_bytes: Option<String>, "INSPECT_BYTES" Global;

        /// fields whose values it masks, beside those whose names tell of a secret, separated by commas (REDACT)
        option "names" => redact: Option<String>, "REDACT" Global;

        /// off, error, warn, info, debug or trace (LOG; default info)
        option "level" => log: Option<String>, "LOG" Global;

        /// how the log is written: text or json, an object a line (LOG_FORMAT; default text)
        option "format" => log_format: Option<String>, "LOG_FORMAT" Global;

        /// syslog server that gets the log, too (RFC 5424): `host:port` by UDP, or `unix:/dev/log` (SYSLOG;
        /// default none)
        option "addr" => syslog: Option<String>, "SYSLOG" Global;

        /// print each frame of the tunnels, in plain words (EXPLAIN=1)
        switch => explain: bool, "EXPLAIN" Switch Global;

        /// the same, with the beginning of each piece of a body (EXPLAIN_BODIES=1)
        switch => explain_bodies: bool, "EXPLAIN_BODIES" Switch Global;

        /// the gateway to dial, with port 443 if none is said (GATEWAY), and the web server to show:
        /// `8080`, `host:port`, `http://…`, `https://…`, `unix:/path`, or `tcp://host:port` for what
        /// speaks otherwise (ORIGIN; default: a built-in demo)
        positional "gateway [origin]" => addresses: Vec<String>;

        /// read settings, and several services, from this TOML file (CONFIG)
        option "file" => config: Option<String>;

        /// print the version and exit
        switch => version: bool;
    }
    beside {
        gateway, "GATEWAY" Positional;
        origin, "ORIGIN" Own Positional;
        token, "TOKEN" Strict Secret;
        authorization, "AUTHORIZATION" Strict Secret;
    }
}

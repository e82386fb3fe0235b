//! The flags and other settings of the client.

use argh::{ArgsInfo, FromArgs};

use ptth_link::settings;
use ptth_link::settings::Flags;

settings! {
    /// The client of 2ptth: dials a gateway and lets it ask the origin, a web server near you.
    #[derive(ArgsInfo, Debug, Default, FromArgs)]
    #[argh(
        help_triggers("-h", "--help"),
        usage = "[options] GATEWAY[:PORT] [ORIGIN]",
        note = "The gateway is dialled through the proxy of the environment, if it has one: http://, https:// or\n\
            socks5:// (HTTPS_PROXY, else ALL_PROXY; not for the hosts in NO_PROXY)."
    )]
    pub struct Args {
        /// file with the token that the gateway asks for (TOKEN_FILE, or TOKEN for the text itself)
        #[argh(option, arg_name = "file")]
        token_file: Option<String> => Path "TOKEN_FILE" Strict;

        /// file with the Authorization value for a gateway reached by HTTP: `Bearer …`, `Basic …` or a bare
        /// token (AUTHORIZATION_FILE, or AUTHORIZATION for the text itself); read anew on every dial
        #[argh(option, arg_name = "file")]
        authorization_file: Option<String> => Path "AUTHORIZATION_FILE" Strict;

        /// shell command that prints such a value, run on every dial (AUTHORIZATION_COMMAND)
        #[argh(option, arg_name = "command")]
        authorization_command: Option<String> => Text "AUTHORIZATION_COMMAND" Strict;

        /// the gateway's door: `alpn`, `upgrade` over HTTP/1.1, `connect` over HTTP/2, or `auto`: alpn first,
        /// and upgrade where something in between doesn't let it through (VIA; default auto)
        #[argh(option, arg_name = "door")]
        via: Option<String> => Text "VIA";

        /// hold the tunnels to each address that the gateway's name has (ALL_ADDRESSES=1)
        #[argh(switch)]
        all_addresses: bool => Switch "ALL_ADDRESSES";

        /// public host to serve (PUBLIC_HOST; default: the gateway's name)
        #[argh(option, arg_name = "name")]
        host: Option<String> => Text "PUBLIC_HOST" Own;

        /// serve only the gateway's route of this path (PUBLIC_PATH)
        #[argh(option, arg_name = "path")]
        path: Option<String> => Text "PUBLIC_PATH" Own;

        /// ask for this dynamic name, one label of a host or one segment of a path (NAME)
        #[argh(option, arg_name = "name")]
        name: Option<String> => Text "NAME" Own;

        /// know the gateway by certificates in this PEM file instead of the system's (CA)
        #[argh(option, arg_name = "file")]
        ca: Option<String> => Path "CA" Strict;

        /// know the gateway by its certificate's `sha256:HEX`, which it prints (PIN)
        #[argh(option, arg_name = "pin")]
        pin: Option<String> => Text "PIN" Strict;

        /// don't check who the gateway is: for experiments only (INSECURE=1)
        #[argh(switch)]
        insecure: bool => Switch "INSECURE";

        /// where another backend keeps the place, wait until it is free, in place of ending (STANDBY=1)
        #[argh(switch)]
        standby: bool => Switch "STANDBY";

        /// answer for hosts that the gateway's certificate doesn't cover, too (ANY_HOST=1)
        #[argh(switch)]
        any_host: bool => Switch "ANY_HOST";

        /// parallel tunnels (TUNNELS; default 2)
        #[argh(option, arg_name = "n")]
        tunnels: Option<String> => Number "TUNNELS";

        /// the Host that the origin sees: `keep` the visitor's, the `origin`'s own, or a value
        /// (HOST_HEADER; default keep)
        #[argh(option, arg_name = "host")]
        host_header: Option<String> => Text "HOST_HEADER";

        /// what the origin is told of visitors: `all` of X-Forwarded-For and its kin, or `none`
        /// (FORWARDED; default all)
        #[argh(option, arg_name = "how")]
        forwarded: Option<String> => Text "FORWARDED";

        /// know an https:// origin by certificates in this PEM file; else by the system's, unless it is on this
        /// machine (ORIGIN_CA)
        #[argh(option, arg_name = "file")]
        origin_ca: Option<String> => Path "ORIGIN_CA";

        /// name that an https:// origin's certificate must have, if not the address's (ORIGIN_NAME)
        #[argh(option, arg_name = "name")]
        origin_name: Option<String> => Text "ORIGIN_NAME";

        /// ALPN label by which the gateway knows a backend, %HH for odd bytes (ALPN; default 2ptth)
        #[argh(option, arg_name = "label")]
        alpn: Option<String> => Text "ALPN";

        /// write the public addresses to this file, one a line (URL_FILE)
        #[argh(option, arg_name = "file")]
        url_file: Option<String> => Path "URL_FILE" Global;

        /// off, error, warn, info, debug or trace (LOG; default info)
        #[argh(option, arg_name = "level")]
        log: Option<String> => Text "LOG" Global;
    }
    with {
        /// the gateway to dial, with port 443 if none is said (GATEWAY), and the web server to show:
        /// `8080`, `host:port`, `http://…`, `https://…`, `unix:/path`, or `tcp://host:port` for what
        /// speaks otherwise (ORIGIN; default: a built-in demo)
        #[argh(positional, arg_name = "gateway [origin]")]
        addresses: Vec<String>;

        /// read settings, and several services, from this TOML file (CONFIG)
        #[argh(option, arg_name = "file")]
        config: Option<String>;

        /// print the version and exit
        #[argh(switch)]
        version: bool;
    }
    beside {
        gateway => Text "GATEWAY" Positional;
        origin => Text "ORIGIN" Own Positional;
        token => Text "TOKEN" Strict Secret;
        authorization => Text "AUTHORIZATION" Strict Secret;
    }
}

impl Args {
    /// What was written for each setting; the third address and those behind it are none.
    pub(super) fn written(&self) -> Flags {
        let mut given = self.given();
        let addresses = ["gateway", "origin"].into_iter().zip(&self.addresses);
        given.extend(addresses.map(|(name, text)| (name, vec![text.clone()])));
        given
    }
}

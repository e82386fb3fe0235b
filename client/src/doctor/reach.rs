//! The way to the gateway below TLS: names, proxy, TCP; large packets, and a connection that is idle.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use http::header::HOST;
use http::response::Parts;
use http::{HeaderValue, Method, Request};
use ptth_link::doctor::Report;
use ptth_link::h1::{self, ResponseReader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::config::{Config, Gateway};
use crate::dial::{Network, Stream};

use super::Patient;

/// Finds the addresses and tries each. False where none answers.
pub(super) async fn reach<N: Network>(patient: &Patient<N>, report: &mut Report) -> bool {
    let gateway = &patient.config.gateway;
    let proxy = patient.dialer.proxy();
    let target = proxy.as_ref().map_or(gateway, |proxy| &proxy.address);
    match &proxy {
        Some(proxy) => {
            report.ok("proxy", format!("{proxy} leads to the gateway and looks its name up"))
        }
        None => report.ok("proxy", "none: the gateway is dialled directly"),
    }
    let begun = Instant::now();
    let found = soon(patient.network.addresses(target)).await;
    let took = millis(begun);
    let mut addresses = match found {
        Ok(addresses) if !addresses.is_empty() => addresses,
        failed => {
            let why = failed.map_or_else(|err| err.to_string(), |_| "it has no address".to_owned());
            let remedy = "check the spelling, and that the name has an A or AAAA record; or write the address";
            report.fail("names", format!("{} can't be looked up: {why}", target.host), remedy);
            return false;
        }
    };
    addresses.dedup();
    match target.host.parse::<IpAddr>() {
        Ok(_) => report.ok("names", format!("{} is an address", target.host)),
        Err(_) => {
            let kind = |it: &SocketAddr| if it.is_ipv4() { "A" } else { "AAAA" };
            let told = addresses.iter().map(|it| format!("{} {}", kind(it), it.ip()));
            let told = told.collect::<Vec<_>>().join(", ");
            report.ok("names", format!("{} is {told}{took}", target.host));
        }
    }
    tcp(patient, &addresses, report).await
}

async fn tcp<N: Network>(
    patient: &Patient<N>,
    addresses: &[SocketAddr],
    report: &mut Report,
) -> bool {
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for address in addresses {
        let to = Gateway { host: address.ip().to_string(), port: address.port() };
        let begun = Instant::now();
        match soon(patient.network.connect(&to)).await {
            Ok(_) => answers.push(format!("{to} answers{}", millis(begun))),
            Err(err) => silent.push((to, err)),
        }
    }
    let reached = !answers.is_empty();
    if reached {
        report.ok("tcp", answers.join(", "));
    }
    for (to, err) in silent {
        let remedy = match err.kind() {
            _ if reached => {
                "the client uses the other address; mend the way to this one, or remove its record"
            }
            io::ErrorKind::ConnectionRefused => {
                "nothing listens there: start the gateway, or correct the port"
            }
            io::ErrorKind::TimedOut => {
                "a firewall drops the packets: open the port on the gateway's machine and at its provider"
            }
            _ => "check the network of this machine",
        };
        let verdict = if reached { Report::warn } else { Report::fail };
        verdict(report, "tcp", format!("{to} can't be reached: {err}"), remedy);
    }
    reached
}

/// Whether large packets pass where small ones do.
pub(super) async fn large<N: Network>(patient: &Patient<N>, report: &mut Report) {
    let begun = Instant::now();
    let found = |how| format!("a request of {LARGE} bytes {how}");
    match ask(patient, LARGE).await {
        // Whatever the answer: the whole request was read, or so much of it that it was too much.
        Ok(_) => report.ok("mtu", found("is answered") + &millis(begun)),
        Err(err) if err.kind() == io::ErrorKind::TimedOut => {
            report.fail("mtu", found("stalls, where a small one is answered"), MTU);
        }
        Err(err) => report.skip("mtu", found("is refused: ") + &err.to_string()),
    }
}

/// Whether a connection that is idle for so long survives.
pub(super) async fn idle<N: Network>(patient: &Patient<N>, time: Duration, report: &mut Report) {
    let mut io = match ask(patient, 0).await {
        Ok(io) => io,
        Err(err) => return report.skip("idle", format!("no request is answered: {err}")),
    };
    let begun = Instant::now();
    if timeout(time, io.read_u8()).await.is_ok() {
        let found = "the gateway closes an idle connection itself after ";
        return report
            .skip("idle", format!("{found}{} s: ask for less", begun.elapsed().as_secs()));
    }
    match soon(head(&mut io, &patient.config, 0)).await {
        Ok(_) => report.ok("idle", format!("a connection survives {time:?} of silence")),
        Err(err) => report.fail(
            "idle",
            format!("a connection is lost within {time:?} of silence: {err}"),
            "a tunnel sends a PING every 10 s; where that is too seldom, raise the time-out of the NAT or firewall",
        ),
    }
}

/// A fresh connection, after a request of so many bytes was answered on it.
async fn ask<N: Network>(patient: &Patient<N>, padding: usize) -> io::Result<Stream> {
    soon(async {
        let mut io = patient.visit().await.map_err(io::Error::other)?.stream;
        head(&mut io, &patient.config, padding).await?;
        Ok(io)
    })
    .await
}

/// Asks for `/` on a connection, with so many bytes of padding.
pub(super) async fn head(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    config: &Config,
    padding: usize,
) -> io::Result<Parts> {
    let host = HeaderValue::try_from(config.public_authority()).map_err(io::Error::other)?;
    let padding = HeaderValue::try_from("x".repeat(padding)).map_err(io::Error::other)?;
    let request = Request::builder().method(Method::HEAD).uri("/").header(HOST, host);
    let request = request.header("x-padding", padding).body(()).map_err(io::Error::other)?;
    let (mut input, reader) = (BytesMut::new(), ResponseReader::default());
    Ok(h1::ask(io, (&request, &[]), (&mut input, reader)).await?.parts)
}

pub(super) async fn soon<T>(asking: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, asking).await.unwrap_or_else(|late| Err(late.into()))
}

pub(super) fn millis(begun: Instant) -> String {
    format!(" ({:.1} ms)", begun.elapsed().as_secs_f64() * 1000.0)
}

/// For each question.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A request of several packets of the usual 1,500 bytes, whose head any server takes.
const LARGE: usize = 6 << 10;
pub(super) const MTU: &str = "something on the way may drop large packets: lower the MTU of this machine's network (`ip link set dev … mtu 1280`), or have the router clamp TCP's MSS";

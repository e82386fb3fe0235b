//! The origin, asked as the client asks it: whether it answers, and whether it takes a visitor's Host.

use std::io;

use http::{Method, Request, Response, StatusCode};
use ptth_link::body::Body;
use ptth_link::doctor::Report;
use tokio::time::{Instant, timeout};
use tower_service::Service as _;

use crate::config::OriginAddress;
use crate::origin::{Origin, OriginBody, OriginError};
use crate::serve::Own;

use super::reach::{PATIENCE, millis};

/// `public` is the URL by which visitors come, without a path.
pub(super) async fn look(
    origin: &Origin,
    address: &OriginAddress,
    public: &str,
    report: &mut Report,
) {
    let begun = Instant::now();
    let looked = timeout(PATIENCE, origin.look()).await;
    let took = millis(begun);
    let status = match looked {
        Ok(Ok(None)) => {
            return report.ok("origin", format!("{address} takes connections {took}"));
        }
        Ok(Ok(Some(status))) => status,
        Ok(Err(err)) => return report.fail("origin", format!("{address}: {err}"), remedy(&err)),
        Err(_) => {
            let found = format!("{address} gives no response within {} s", PATIENCE.as_secs());
            return report.fail(
                "origin",
                found,
                "is it a web server? What isn't has an address like tcp://localhost:22",
            );
        }
    };
    let tls = if matches!(address, OriginAddress::Https { .. }) { "TLS" } else { "no TLS" };
    let found = format!("{address} answers {} (HTTP/1.1, {tls}){took}", status.as_u16());
    if status.is_server_error() {
        return report.warn("origin", found, "the origin has an error of its own");
    }
    report.ok("origin", found);
    let request = Request::builder().method(Method::HEAD).uri(format!("{public}/"));
    let Ok(request) = request.body(Body::empty()) else { return };
    match timeout(PATIENCE, origin.clone().call(request)).await {
        Ok(Ok(answer)) if refuses(status, &answer) => report.warn(
            "host",
            format!("the origin answers {} where the visitor's host is {public}", answer.status().as_u16()),
            "--host-header origin has it see its own host; where it refuses proxies, --forwarded none helps",
        ),
        Ok(Ok(answer)) if answer.extensions().get::<Own>().is_none() => {
            report.ok("host", format!("it takes visitors of {public}"));
        }
        _ => report.warn("host", format!("no response where the visitor's host is {public}"), ""),
    }
}

/// Development servers answer hosts that they don't know with 400 or 403.
fn refuses(own: StatusCode, theirs: &Response<OriginBody>) -> bool {
    let refused = [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN];
    refused.contains(&theirs.status()) && !refused.contains(&own)
}

fn remedy(err: &OriginError) -> &'static str {
    match err {
        OriginError::Connect(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
            "nothing listens there: start the web server, or write the port that it has"
        }
        OriginError::Connect(_) => "correct the address, or the way to it",
        _ => "",
    }
}

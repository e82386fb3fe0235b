//! Sends one response: head, body and trailers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use ptth_link::body::Inflow;
use ptth_link::headers;
use ptth_link::pump::{Patience, PumpError, pump};

/// Sends the response, and stops taking the request once it is out: nobody would read the rest (h2 then
/// says RST_STREAM(NO_ERROR), RFC 9113 §8.1).
pub(super) async fn reply<B>(
    respond: &mut SendResponse<Bytes>,
    response: Response<B>,
    inflow: &mut Inflow,
) -> Result<u64, &'static str>
where
    B: HttpBody<Data = Bytes>,
{
    let (mut parts, body) = response.into_parts();
    headers::response(&mut parts.headers);
    let end = body.is_end_stream();
    let head = Response::from_parts(parts, ());
    let mut stream = respond.send_response(head, end).map_err(|_| "the gateway took it back")?;
    if end {
        return Ok(0);
    }
    let body = body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            headers::trailers(trailers);
        }
        frame
    });
    // No clock here: the gateway resets what stands still, and a gateway that is gone shows by its silence.
    let mut pumping = pin!(pump(body, &mut stream, Patience::default()));
    let pumped = poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        pumping.as_mut().poll(cx)
    });
    pumped.await.map_err(|err| match err {
        PumpError::Body(_) => "the origin broke off",
        PumpError::Receiver(_) => "the visitor left",
        PumpError::Stalled(_) => "the visitor stopped reading",
        PumpError::Silent(_) => "the origin stopped sending",
    })
}

pub(super) fn refuse(mut respond: SendResponse<Bytes>, status: StatusCode, text: &'static str) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    match respond.send_response(response, false) {
        Ok(mut stream) => {
            let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
        }
        Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

//! What the gateway answers on its admin address ([`ptth_link::admin`]): probes, scrapers and operators ask.

use std::sync::Arc;

use http::{Response, StatusCode, Uri};
use ptth_link::admin::text;

use crate::shard::Shard;

/// The page at a target; `None` where there is none.
pub(crate) async fn answer(shard: Arc<Shard>, target: Uri) -> Option<Response<String>> {
    let _ = &shard;
    match target.path() {
        "/livez" => Some(text(StatusCode::OK, "ok\n".to_owned())),
        _ => None,
    }
}

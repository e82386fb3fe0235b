//! An axum application on the internet without a listening port of its own.
//!
//! `TOKEN=2ptth_… cargo run --example axum -- example.com [sha256:PIN]`

use std::error::Error;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use ptth_client::config::{Config, Gateway, Trust};
use ptth_link::crypto::parse_pin;
use ptth_link::token::Token;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let gateway = arguments.next().ok_or("which gateway?")?;
    let mut config = Config::new(Gateway::parse(&gateway)?);
    if let Some(pin) = arguments.next() {
        config.trust = Trust::Pin(parse_pin(&pin).ok_or("a pin looks like sha256:HEX")?);
    }
    config.token = Some(Token::parse(&std::env::var("TOKEN")?)?);

    let application =
        Router::new().route("/", get(|| async { "Transmission is possible!\n" })).route(
            "/hello/{name}",
            get(|Path(name): Path<String>| async move { format!("Hello, {name}!\n") }),
        );
    ptth_client::serve(config, application).await?;
    Ok(())
}

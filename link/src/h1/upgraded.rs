//! A connection that speaks another protocol from here on (RFC 9110 §7.8).

use std::io::Cursor;

use bytes::BytesMut;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, Chain, Join, ReadHalf, WriteHalf, join, split,
};

/// A byte stream, with the bytes that were read of it before.
pub type Upgraded<IO> = Join<Chain<Cursor<BytesMut>, ReadHalf<IO>>, WriteHalf<IO>>;

/// `read` came behind the head.
pub fn upgraded<IO: AsyncRead + AsyncWrite>(io: IO, read: BytesMut) -> Upgraded<IO> {
    let (reader, writer) = split(io);
    join(Cursor::new(read).chain(reader), writer)
}

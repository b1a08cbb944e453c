//! HTTP/2 for tunnels: a connection state machine without I/O that knows CONNECT and nothing else (RFC 9113).
//!
//! # Theory of operation
//!
//! The owner of the socket feeds decrypted bytes to [`Connection::receive`] and acts on the [`Event`]s; it sends what
//! [`Connection::outgoing`] holds before any DATA frame that it makes itself.
//!
//! *Receiving streams.* DATA payloads, up to 1 MiB a frame and spread over many TLS records, are handed out as slices
//! of the caller's input as they arrive; nothing is copied or allocated for them. Only the frames that must be seen
//! whole (heads, SETTINGS and the like) are gathered when the input ends inside one, and their size is bounded.
//!
//! *Sending does not copy either.* The caller reads application bytes behind a gap of nine bytes, as many as
//! [`Connection::sendable`] allows, and [`Connection::data_head`] accounts for them and fills the gap.
//!
//! *Flow control follows the application.* Bytes handed out count as held until [`Connection::consumed`] returns them,
//! and only then is the peer's credit renewed: backpressure reaches the far application through the windows.
//!
//! *Nothing that a peer sends can grow without bound.* `limits.rs` lists every bound with its reason. There is no
//! clock in here; floods are counted against useful progress, and [`Connection::ping`], which the owner calls at
//! intervals, stands for the passage of time.
//!
//! Read `connection.rs` first (the state and the sending half), then `receive.rs` (the parser), `data.rs`, `control.rs`
//! (what the small frames do), `heads.rs` and `fields.rs` (HEADERS to requests and responses). `hpack.rs` compresses
//! fields, `streams.rs` remembers who is open, `window.rs` does the sums.

mod connection;
mod control;
mod data;
mod fields;
mod frame;
mod heads;
mod hpack;
mod limits;
mod outgoing;
mod receive;
mod streams;
#[cfg(test)]
mod tests;
mod types;
mod window;

pub use connection::Connection;
pub use fields::REFUSAL_HEADER;
pub use frame::FRAME_HEAD_BYTES;
pub use types::{
    ConnectHead, ConnectionError, ErrorCode, Event, MalformedRequest, OpenError, RequestHead, Settings, StreamGone,
    StreamId,
};

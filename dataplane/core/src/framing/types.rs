//! The values that cross the border of the framer.

use std::fmt;

/// What we announce to the peer. The numbers are those of Istio's ztunnel (facts/ztunnel.md section 1.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that the peer may send on one stream before we consume some: 4 MiB, a path of 10 Gbit/s and 3 ms.
    pub initial_window: u32,
    /// The same for the whole connection: 16 MiB, so that one stalled stream cannot stop the others. Values below the
    /// protocol's 65,535 count as that, because a connection's window cannot be lowered.
    pub connection_window: u32,
    /// The largest frame payload that we take: 1 MiB. Payloads are streamed, so this costs no memory.
    pub max_frame_size: u32,
    /// The largest decoded header list that we take, in bytes as RFC 9113 section 6.5.2 counts them.
    pub max_header_list: u32,
    /// How many streams the peer may have open; `None` (clients) announces nothing, as servers open none.
    pub max_concurrent_streams: Option<u32>,
    /// How many streams we open at most, whatever the peer allows: past 100 another connection carries more, because
    /// all streams share one TCP connection's losses and one worker's core.
    pub open_limit: u32,
}

impl Settings {
    /// What the end that opens tunnels announces.
    pub fn client() -> Self {
        Self {
            initial_window: 4 << 20,
            connection_window: 16 << 20,
            max_frame_size: 1 << 20,
            max_header_list: 16_384,
            max_concurrent_streams: None,
            open_limit: 100,
        }
    }

    /// What the end that accepts tunnels announces: longer heads and 200 streams.
    pub fn server() -> Self {
        Self {
            max_header_list: 65_536,
            max_concurrent_streams: Some(200),
            ..Self::client()
        }
    }
}

/// Names a stream of one connection. Ids grow and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    /// The number on the wire.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a stream or a connection ends (RFC 9113 section 7). Peers may send numbers that have no name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

macro_rules! error_codes {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        impl ErrorCode {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// The RFC's name, for logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

error_codes! {
    NO_ERROR = 0, "Nothing is wrong; a graceful end.";
    PROTOCOL_ERROR = 1, "The peer broke a rule that has no code of its own.";
    INTERNAL_ERROR = 2, "The sender broke down.";
    FLOW_CONTROL_ERROR = 3, "More bytes than the window allowed, or a window too large.";
    SETTINGS_TIMEOUT = 4, "SETTINGS were not acknowledged in time.";
    STREAM_CLOSED = 5, "A frame for a stream whose sender had ended it.";
    FRAME_SIZE_ERROR = 6, "A frame of a forbidden size.";
    REFUSED_STREAM = 7, "Nothing was done for the stream: it can be tried again.";
    CANCEL = 8, "The stream is no longer wanted.";
    COMPRESSION_ERROR = 9, "A header block cannot be decoded.";
    CONNECT_ERROR = 10, "The TCP connection behind a CONNECT failed or was reset.";
    ENHANCE_YOUR_CALM = 11, "The peer asks for more than its share.";
    INADEQUATE_SECURITY = 12, "The transport is too weak.";
    HTTP_1_1_REQUIRED = 13, "HTTP/1.1 is demanded.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "UNKNOWN" => write!(f, "UNKNOWN({})", self.0),
            name => f.write_str(name),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The peer broke the protocol so that the connection cannot go on. GOAWAY with this code waits in the outgoing
/// bytes; send it and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("http/2 connection error {code}: {detail}")]
pub struct ConnectionError {
    /// What GOAWAY says.
    pub code: ErrorCode,
    /// What the peer did.
    pub detail: &'static str,
}

/// Why no stream can be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// One end has said GOAWAY, or the stream ids are used up: open another connection.
    #[error("the connection takes no more streams")]
    Draining,
    /// As many streams are open as the peer or our own limit allows: wait, or open another connection.
    #[error("the connection has as many streams open as its limits allow")]
    TooManyStreams,
    /// The head is longer than the peer takes (its SETTINGS_MAX_HEADER_LIST_SIZE).
    #[error("the CONNECT head is longer than the peer takes")]
    HeadTooLarge,
}

/// The stream has ended, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct StreamGone;

/// The head of a CONNECT as the client writes it. Fields are sent as given: they must be visible ASCII.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectHead<'a> {
    /// `ip:port`, `[v6]:port` or `hostname:port`.
    pub authority: &'a str,
    /// Who the source is; may be empty.
    pub baggage: Option<&'a str>,
    /// Where the connection came from.
    pub forwarded: Option<&'a str>,
    /// Identifier of the connection for logs.
    pub traceparent: Option<&'a str>,
    /// The client's network; on the inner layer of double HBONE only.
    pub x_forwarded_network: Option<&'a str>,
}

/// The head of a CONNECT as the server reads it; its fields are those of [`ConnectHead`]. Fields that are not visible
/// ASCII count as absent (facts/ztunnel.md section 1.5). Several `baggage` lines are joined by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // documented on ConnectHead
pub struct RequestHead {
    pub authority: String,
    pub baggage: Option<String>,
    pub forwarded: Option<String>,
    pub traceparent: Option<String>,
    pub x_forwarded_network: Option<String>,
}

/// Why a request is not a CONNECT that can be answered with a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRequest {
    /// Another method, or none.
    #[error("the method is not CONNECT")]
    NotConnect,
    /// `:scheme`, `:path`, `:protocol` or an unknown pseudo-header field.
    #[error("a pseudo-header field that CONNECT must not have")]
    ForbiddenPseudoField,
    /// No `:authority`, or one that is not visible ASCII.
    #[error("the authority is missing or not text")]
    MissingAuthority,
    /// A field that RFC 9113 section 8.2 forbids: upper case, repeated or late pseudo-header, connection-specific.
    #[error("a header field that HTTP/2 forbids")]
    ForbiddenField,
    /// The decoded list is longer than we announced.
    #[error("the header list is too long")]
    HeadTooLarge,
}

impl MalformedRequest {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge => 431,
            _ => 400,
        }
    }
}

/// What happened on the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A new stream (servers). Answer with [`super::Connection::respond`], a malformed one with its status.
    Request {
        /// The new stream.
        stream: StreamId,
        /// The head, or why it is none.
        request: Result<RequestHead, MalformedRequest>,
        /// The client sends no data at all.
        end: bool,
    },
    /// The answer to a CONNECT (clients). Anything but 200 is a refusal: reset the stream.
    Response {
        /// The stream that was opened.
        stream: StreamId,
        /// A final status: 1xx are skipped.
        status: u16,
        /// Who the destination is.
        baggage: Option<String>,
        /// Why it refuses, in `REFUSAL_HEADER`.
        refusal: Option<String>,
        /// The server sends no data at all.
        end: bool,
    },
    /// Bytes of a stream; return them with [`super::Connection::consumed`] once the application has them.
    Data {
        /// Whose bytes.
        stream: StreamId,
        /// Never empty.
        bytes: &'a [u8],
        /// These are the last.
        end: bool,
    },
    /// The peer's half of the stream ended without further bytes.
    Finished {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream is gone, both halves, with whatever was held of it: drop it. The peer reset it, or broke a rule on
    /// it (then RST_STREAM with this code is in the outgoing bytes), or refused it by GOAWAY (REFUSED_STREAM).
    Reset {
        /// Which stream.
        stream: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// A window that was shut lets bytes through again; ask [`super::Connection::sendable`].
    WindowOpened {
        /// `None`: the connection's window, or the initial window of all streams.
        stream: Option<StreamId>,
    },
    /// The peer takes no new streams; `Reset` follows for each of ours above `last_stream`.
    GoAway {
        /// The last of our streams that the peer may have acted on.
        last_stream: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// The answer to [`super::Connection::ping`].
    PingAck {
        /// What was sent with it.
        payload: [u8; 8],
    },
    /// The peer announced its settings: limits on streams and frames may have changed.
    SettingsReceived,
}

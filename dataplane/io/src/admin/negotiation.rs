//! What the client asks for in its headers, and a body in that form: lists of metrics shrink to a twentieth.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, HeaderValue, VARY};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};

use super::Reply;

/// Give `reply` the body `plain`, compressed by the first of ours that `Accept-Encoding` lists, if it lists one.
pub(super) fn encode(request: &Request<Incoming>, reply: Reply, plain: String) -> Reply {
    let (mut head, _) = reply.into_parts();
    head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    let encoded = if lists(request, &ACCEPT_ENCODING, "gzip") {
        Some(("gzip", gzip(plain.as_bytes())))
    } else if lists(request, &ACCEPT_ENCODING, "deflate") {
        Some(("deflate", deflate(plain.as_bytes())))
    } else {
        None
    };
    let body = match encoded {
        Some((name, Ok(bytes))) => {
            head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
            Bytes::from(bytes)
        }
        // Writing to memory does not fail; if it did, the plain form is right as well.
        Some((_, Err(_))) | None => Bytes::from(plain),
    };
    Response::from_parts(head, Full::new(body))
}

/// Whether a header names `wanted` among its comma-separated values.
pub(super) fn lists(request: &Request<Incoming>, name: &HeaderName, wanted: &str) -> bool {
    let values = request
        .headers()
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut items = values.flat_map(|value| value.split(','));
    items.any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        is_named && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

fn deflate(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

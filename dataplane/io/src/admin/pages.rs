//! What the three servers answer.

use ambit_core::mesh_state::ConfigDump;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::negotiation::{encode, lists};
use super::{Page, Reply, certificates};
use crate::logging;
use crate::node::Node;

const PLAIN: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const INDEX: &str = "\
/config_dump: what this ztunnel knows
/logging (POST): the log's levels
/logging?level=LEVELS (POST): also write by these, as in info or access=debug,dns=off
/logging?reset (POST): write as at the start again
/quitquitquit (POST): end, as SIGTERM does
";
const LOGGING_USAGE: &str = "\
POST /logging: show the levels
POST /logging?level=LEVEL or SCOPE=LEVEL, comma-separated; levels: error, warn, info, debug, off
POST /logging?reset: as at the start
";

pub(super) fn readiness<'a>(node: &'a Node, request: &'a Request<Incoming>) -> Page<'a> {
    Box::pin(async move {
        if request.uri().path() != "/healthz/ready" {
            return text(StatusCode::NOT_FOUND, "not found; try /healthz/ready\n");
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let pending = node.shared.readiness.pending();
        let mut reply = if pending.is_empty() {
            text(StatusCode::OK, "ready\n")
        } else {
            let body = format!("not ready, pending: {}\n", pending.join(", "));
            text(StatusCode::INTERNAL_SERVER_ERROR, body)
        };
        // While one ztunnel takes another's place, whoever waits for it must know which of the two answers.
        let process = HeaderValue::from(std::process::id());
        reply.headers_mut().insert("x-ambit-process", process);
        reply
    })
}

pub(super) fn stats<'a>(node: &'a Node, request: &'a Request<Incoming>) -> Page<'a> {
    Box::pin(async move {
        match request.uri().path() {
            "/metrics" | "/stats/prometheus" => {
                let kind = if lists(request, &ACCEPT, "application/openmetrics-text") {
                    OPEN_METRICS
                } else {
                    PLAIN
                };
                encode(request, reply(StatusCode::OK, kind, ""), node.shared.metrics.render())
            }
            _ => text(StatusCode::NOT_FOUND, "not found; try /metrics\n"),
        }
    })
}

pub(super) fn admin<'a>(node: &'a Node, request: &'a Request<Incoming>) -> Page<'a> {
    Box::pin(async move {
        let is_post = request.method() == Method::POST;
        match request.uri().path() {
            "/" => text(StatusCode::OK, INDEX),
            "/config_dump" => match serde_json::to_vec_pretty(&config_dump(node).await) {
                Ok(body) => reply(StatusCode::OK, "application/json", body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/logging" if is_post => change_levels(request.uri().query().unwrap_or_default()),
            "/logging" => text(StatusCode::METHOD_NOT_ALLOWED, LOGGING_USAGE),
            "/quitquitquit" if is_post => end(),
            "/quitquitquit" => text(StatusCode::METHOD_NOT_ALLOWED, "POST /quitquitquit ends this ztunnel\n"),
            _ => text(StatusCode::NOT_FOUND, "not found; see /\n"),
        }
    })
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, PLAIN, body)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// `reset` first, then `level=LEVELS`; without either nothing is changed (ztunnel.md 8.1).
fn change_levels(query: &str) -> Reply {
    let (mut reset, mut change) = (false, None);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let parameter = percent_decode_str(parameter).decode_utf8_lossy();
        match parameter.split_once('=').unwrap_or((&parameter, "")) {
            ("reset", _) => reset = true,
            ("level", levels) => match levels.parse() {
                Ok(levels) => change = Some(levels),
                Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            },
            (unknown, _) => {
                let body = format!("there is no parameter {unknown:?}\n{LOGGING_USAGE}");
                return text(StatusCode::BAD_REQUEST, body);
            }
        }
    }
    let filter = logging::change_filter(change, reset);
    text(StatusCode::OK, format!("current log level is {filter}\n"))
}

fn end() -> Reply {
    match kill(Pid::this(), Signal::SIGTERM) {
        Ok(()) => text(StatusCode::OK, "shutdown now\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// What this ztunnel knows, in the shape of stock ztunnel's dump. Keys are never part of it.
async fn config_dump(node: &Node) -> Value {
    let mut dump = serde_json::to_value(ConfigDump(&node.shared.mesh())).unwrap_or_default();
    dump["version"] = json!({ "version": env!("CARGO_PKG_VERSION"), "component": "ambit-ztunnel" });
    dump["certificates"] = certificates::dump(node.shared.certificates.all());
    dump["workloadState"] = node.dump().await;
    dump
}

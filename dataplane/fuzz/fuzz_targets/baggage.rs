//! Any text as the headers that describe a client: what is read is written so that it is read again.
#![no_main]

use ambit_core::hbone::{Baggage, TraceParent, parse_forwarded_host};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let baggage = Baggage::parse(text);
    assert_eq!(Baggage::parse(&baggage.to_string()), baggage);
    if let Some(parsed) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parsed.to_string()), Some(parsed));
    }
    if let Some(host) = parse_forwarded_host(text) {
        assert!(!host.is_empty() && text.contains(host));
    }
});

//! Any bytes as what a SOCKS5 client says: a whole message stays whole, and what is lacking is never nothing.
#![no_main]

use ambit_core::socks5::{MAX_MESSAGE_BYTES, Progress, read_greeting, read_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    for length in 0..=message.len().min(MAX_MESSAGE_BYTES) {
        let part = &message[..length];
        match read_request(part) {
            Ok(Progress::Lacks(count)) => assert!(count > 0 && length + count <= MAX_MESSAGE_BYTES),
            Ok(whole) => {
                // Exactly so much is read from the socket: there is never more.
                assert_ne!(whole, Progress::Lacks(0));
                break;
            }
            Err(error) => {
                assert!(error.answer().is_none_or(|answer| answer[0] == 5));
                break;
            }
        }
    }
    for length in 0..=message.len().min(257) {
        match read_greeting(&message[..length]) {
            Ok(Progress::Lacks(count)) => assert!(count > 0),
            Ok(Progress::Whole(())) | Err(_) => break,
        }
    }
});

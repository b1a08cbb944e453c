//! The framer against hand-made frames (`heads`, `errors`, `windows`, `lifecycle`, `floods`), and against random bytes and
//! itself under random schedules (`properties`). `dataplane/core/tests/http2_peer.rs` sets it against another
//! implementation.

mod errors;
mod floods;
mod heads;
mod lifecycle;
mod properties;
mod support;
mod windows;

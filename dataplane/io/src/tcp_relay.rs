//! Bytes between two plain TCP connections: the way to and from what is outside the mesh.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};

use tokio::net::TcpStream;

use crate::telemetry::Moved;
use crate::{busy_poll, sockets};

/// One read. Shared by a worker's connections, so that idle ones own no buffer.
const READ: usize = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Move bytes both ways until both directions have ended; an end of one is passed on while the other goes on.
///
/// When it fails or is cancelled, both connections are reset, so that a cut transfer never looks complete.
pub(crate) async fn relay(client: &TcpStream, server: &TcpStream, moved: &Moved) -> io::Result<()> {
    let mut cut = CutOnDrop {
        client,
        server,
        done: false,
    };
    tokio::try_join!(copy(client, server, &moved.forth), copy(server, client, &moved.back))?;
    cut.done = true;
    Ok(())
}

async fn copy(from: &TcpStream, to: &TcpStream, moved: &Cell<u64>) -> io::Result<()> {
    loop {
        sockets::readable(from).await?;
        let step = BUFFER.with_borrow_mut(|buffer| move_batch(from, to, buffer));
        match step {
            Ok(Step::End) => {
                // It fails only when the connection is gone, which the other direction reports.
                let _ = socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
                return Ok(());
            }
            Ok(Step::Moved(bytes)) => moved.set(moved.get() + bytes as u64),
            Ok(Step::Rest(written, rest)) => {
                write_all(to, &rest).await?;
                moved.set(moved.get() + (written + rest.len()) as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

enum Step {
    End,
    Moved(usize),
    /// So many bytes were written; these were not taken yet.
    Rest(usize, Vec<u8>),
}

fn move_batch(from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<Step> {
    let read = from.try_read(buffer)?;
    if read == 0 {
        return Ok(Step::End);
    }
    busy_poll::note_message(read);
    if read < buffer.len() {
        sockets::note_drained(from);
    }
    let written = match sockets::write_now(to, &[IoSlice::new(&buffer[..read])]) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    if written == read {
        Ok(Step::Moved(read))
    } else {
        Ok(Step::Rest(written, buffer[written..read].to_vec()))
    }
}

/// Write all of `bytes`, waiting as long as the peer makes us.
pub(crate) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        sockets::writable(to).await?;
        match sockets::write_now(to, &[IoSlice::new(bytes)]) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct CutOnDrop<'a> {
    client: &'a TcpStream,
    server: &'a TcpStream,
    done: bool,
}

impl Drop for CutOnDrop<'_> {
    fn drop(&mut self) {
        if !self.done {
            sockets::reset_on_close(self.client);
            sockets::reset_on_close(self.server);
        }
    }
}

//! From the tunnel's socket to its streams: records, frames, deliveries.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use ambit_core::framing::{ErrorCode, Event, StreamId};

use super::buffers::{INBOX, INBOX_SIZE};
use super::stream::Side;
use super::{FAREWELL, Request, Stream, Tunnel, TunnelEnd, tls_end};
use crate::tls::records::Opened;
use crate::{busy_poll, sockets};

/// What a batch of received records asks for, in order, once the framer is done with it.
enum Delivery {
    Bytes(StreamId, Range<usize>),
    End(StreamId),
    Reset(StreamId, ErrorCode),
}

impl Tunnel {
    pub(super) fn receive(self: &Rc<Self>) {
        let result = INBOX.with_borrow_mut(|inbox| self.receive_into(inbox));
        match result {
            Ok(true) => {}
            Ok(false) => self.finish(TunnelEnd::Closed),
            Err(end) => {
                // The framer has a GOAWAY that tells the peer what it did.
                self.flush();
                self.finish(end);
            }
        }
        self.flush();
    }

    /// One read of the socket, and all whole records of it. Returns false when the peer ended its direction.
    fn receive_into(self: &Rc<Self>, inbox: &mut [u8]) -> Result<bool, TunnelEnd> {
        let kept = {
            let mut state = self.state.borrow_mut();
            let kept = state.undecrypted.len();
            inbox[..kept].copy_from_slice(&state.undecrypted);
            state.undecrypted.clear();
            kept
        };
        let read = match self.socket.try_read(&mut inbox[kept..INBOX_SIZE]) {
            Ok(read) => {
                busy_poll::note_message(read);
                if read < INBOX_SIZE - kept {
                    sockets::note_drained(&self.socket);
                }
                read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => usize::MAX,
            Err(error) => return Err(TunnelEnd::Io(error.to_string())),
        };
        let filled = if read == usize::MAX { kept } else { kept + read };
        let mut deliveries = Vec::new();
        let (mut position, mut open) = (0, read != 0);
        let result = loop {
            let opened = self.state.borrow_mut().records.open(&mut inbox[..filled], position);
            match opened {
                Ok(None) => break Ok(()),
                Ok(Some((size, content))) => {
                    position += size;
                    match content {
                        Opened::Content(range) => {
                            if let Err(end) = self.unframe(&inbox[range.clone()], range.start, &mut deliveries) {
                                break Err(end);
                            }
                        }
                        Opened::Nothing => {}
                        Opened::CloseNotify => open = false,
                    }
                }
                Err(error) => break Err(tls_end(&error)),
            }
        };
        self.state
            .borrow_mut()
            .undecrypted
            .extend_from_slice(&inbox[position..filled]);
        self.deliver(inbox, &deliveries);
        if read != usize::MAX && read != 0 {
            self.state.borrow_mut().ping_unanswered = false;
        }
        result.map(|()| open)
    }

    pub(super) fn receive_early(self: &Rc<Self>, early: &[u8]) {
        let mut deliveries = Vec::new();
        if let Err(end) = self.unframe(early, 0, &mut deliveries) {
            self.finish(end);
        }
        self.deliver(early, &deliveries);
        self.flush();
    }

    /// Run the framer over one record's content, which starts at `offset` of the buffer.
    fn unframe(
        self: &Rc<Self>,
        content: &[u8],
        offset: usize,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<(), TunnelEnd> {
        let mut input = content;
        loop {
            let mut state = self.state.borrow_mut();
            let event = match state.framer.receive(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(error) => return Err(TunnelEnd::Http2(error.to_string())),
            };
            match event {
                Event::Data { stream, bytes, end } => {
                    let start = offset + (bytes.as_ptr() as usize - content.as_ptr() as usize);
                    if !bytes.is_empty() {
                        deliveries.push(Delivery::Bytes(stream, start..start + bytes.len()));
                    }
                    if end {
                        deliveries.push(Delivery::End(stream));
                    }
                }
                Event::Finished { stream } => deliveries.push(Delivery::End(stream)),
                Event::Reset { stream, code } => deliveries.push(Delivery::Reset(stream, code)),
                Event::Request {
                    stream: id,
                    request: head,
                    end,
                } => {
                    let stream = Rc::new(Stream::new(id, Rc::clone(self), Side::Server));
                    if end {
                        stream.peer_finished();
                    }
                    state.streams.insert(id, Rc::clone(&stream));
                    state.requests.push_back(Request { stream, head });
                }
                Event::Response {
                    stream,
                    status,
                    baggage,
                    refusal,
                    end,
                } => {
                    if let Some(stream) = state.streams.get(&stream) {
                        stream.answered(status, if status == 200 { baggage } else { refusal });
                        if end {
                            stream.peer_finished();
                        }
                    }
                }
                Event::WindowOpened { stream: Some(stream) } => {
                    if let Some(stream) = state.streams.get(&stream) {
                        stream.may_send();
                    }
                }
                Event::WindowOpened { stream: None } => state.wake_senders(),
                Event::GoAway { .. } => {
                    // Streams go on; the pool sees `can_open` turn false.
                    self.closing.set(true);
                    self.attention.raise();
                }
                Event::PingAck { payload } => {
                    if payload == FAREWELL {
                        self.farewell_until.set(None);
                        self.attention.raise();
                    }
                }
                Event::SettingsReceived => {}
            }
        }
    }

    fn stream(&self, id: StreamId) -> Option<Rc<Stream>> {
        self.state.borrow().streams.get(&id).cloned()
    }

    /// Hand a batch's bytes to their streams, each run of pieces of one stream with one write.
    fn deliver(&self, buffer: &[u8], deliveries: &[Delivery]) {
        let mut rest = deliveries;
        while let Some(first) = rest.first() {
            match first {
                Delivery::Bytes(id, _) => {
                    let run = rest
                        .iter()
                        .take_while(|next| matches!(next, Delivery::Bytes(same, _) if same == id))
                        .count();
                    let pieces = rest[..run].iter().filter_map(|delivery| match delivery {
                        Delivery::Bytes(_, range) => Some(&buffer[range.clone()]),
                        _ => None,
                    });
                    let total: usize = pieces.clone().map(<[u8]>::len).sum();
                    match self.stream(*id) {
                        Some(stream) => stream.deliver(pieces, total),
                        // The stream is gone; its bytes must still be credited to the connection.
                        None => self.consumed(*id, total),
                    }
                    rest = &rest[run..];
                }
                Delivery::End(id) => {
                    if let Some(stream) = self.stream(*id) {
                        stream.peer_finished();
                    }
                    rest = &rest[1..];
                }
                Delivery::Reset(id, code) => {
                    let stream = self.state.borrow_mut().streams.remove(id);
                    if let Some(stream) = stream {
                        stream.peer_reset(*code);
                    }
                    rest = &rest[1..];
                }
            }
        }
    }

    pub(super) fn consumed(&self, id: StreamId, bytes: usize) {
        self.state.borrow_mut().framer.consumed(id, bytes);
    }
}

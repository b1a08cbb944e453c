//! TLS 1.3 records, sealed and opened where they lie (RFC 8446, section 5).
//!
//! A record is `head | content | content type | tag`: 5 bytes, up to 16,384, 1 and 16. The sender leaves the gaps free when it
//! reads the application's bytes (`Layout`), so that sealing moves nothing; the receiver gets the content as a slice of the
//! buffer that the kernel filled. Keys come from rustls, which stays in charge of the key schedule through `Rekey`.

use std::io;
use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

/// Bytes before the content.
pub(crate) const HEAD: usize = 5;
/// Bytes after the content: its type and the tag.
pub(crate) const TAIL: usize = 1 + 16;
/// The most content in a record (RFC 8446, 5.1).
pub(crate) const MAX_CONTENT: usize = 16_384;
/// The most bytes that a record can claim after its head (RFC 8446, 5.2).
const MAX_CIPHERTEXT: usize = MAX_CONTENT + 256;
/// Records under one key before we change it: AES-GCM's bound is 2^24.5 (RFC 8446, 5.5); half of a safe 2^24.
const REKEY_AFTER: u64 = 1 << 23;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const KEY_UPDATE: u8 = 24;
const NEW_SESSION_TICKET: u8 = 4;
const CLOSE_NOTIFY: u8 = 0;
/// Handshake messages after the handshake are small; a peer that sends more in one record is not one of ours.
const MAX_POST_HANDSHAKE: usize = MAX_CONTENT;

/// Why a TLS connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The peer's bytes are not a record, or are not authentic.
    #[error("tls: {0}")]
    Invalid(&'static str),
    /// The peer said why it ends the connection.
    #[error("tls: peer sent fatal alert {0}")]
    Alert(u8),
    /// The key schedule failed.
    #[error("tls: {0}")]
    Key(#[from] rustls::Error),
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// rustls's side of a connection whose records we handle.
pub(crate) enum Rekey {
    /// We dialled.
    Client(Box<KernelConnection<ClientConnectionData>>),
    /// We accepted.
    Server(Box<KernelConnection<ServerConnectionData>>),
}

impl Rekey {
    fn transmit(&mut self) -> Result<HalfKey, RecordError> {
        let (sequence, secrets) = match self {
            Rekey::Client(connection) => connection.update_tx_secret()?,
            Rekey::Server(connection) => connection.update_tx_secret()?,
        };
        HalfKey::new(sequence, &secrets)
    }

    fn receive(&mut self) -> Result<HalfKey, RecordError> {
        let (sequence, secrets) = match self {
            Rekey::Client(connection) => connection.update_rx_secret()?,
            Rekey::Server(connection) => connection.update_rx_secret()?,
        };
        HalfKey::new(sequence, &secrets)
    }
}

/// The key of one direction and how often it was used.
pub(crate) struct HalfKey {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl HalfKey {
    /// Errors for a cipher suite that the mesh does not allow.
    pub(crate) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(RecordError::Invalid("a cipher suite other than AES-GCM was agreed")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Invalid("bad key length"))?;
        let iv = iv
            .as_ref()
            .try_into()
            .map_err(|_| RecordError::Invalid("bad nonce length"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv,
            sequence,
        })
    }

    /// The nonce of the next record (RFC 8446, 5.3).
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Both directions of an established connection.
pub(crate) struct RecordLayer {
    sealing: HalfKey,
    opening: HalfKey,
    rekey: Rekey,
    /// The peer asked us to change our key; done with the next record that we send.
    key_update_due: bool,
}

/// What one record held.
pub(crate) enum Opened {
    /// Application bytes: this range of the buffer.
    Content(Range<usize>),
    /// Nothing for the layer above.
    Nothing,
    /// The peer ended its direction cleanly.
    CloseNotify,
}

impl RecordLayer {
    /// Take over after the handshake.
    pub(crate) fn new(sealing: HalfKey, opening: HalfKey, rekey: Rekey) -> Self {
        Self {
            sealing,
            opening,
            rekey,
            key_update_due: false,
        }
    }

    /// Seal the content at `HEAD..HEAD + length` of `record`, which has `TAIL` bytes to spare; returns the record's size.
    pub(crate) fn seal(&mut self, record: &mut [u8], length: usize) -> Result<usize, RecordError> {
        self.seal_as(APPLICATION_DATA, record, length)
    }

    /// A change of our key, if one is due, written to the front of `space`; returns its size, or 0.
    pub(crate) fn seal_key_update(&mut self, space: &mut [u8]) -> Result<usize, RecordError> {
        if !self.key_update_due && self.sealing.sequence < REKEY_AFTER {
            return Ok(0);
        }
        self.key_update_due = false;
        space[HEAD..HEAD + 5].copy_from_slice(&[KEY_UPDATE, 0, 0, 1, 0]);
        let size = self.seal_as(HANDSHAKE, space, 5)?;
        self.sealing = self.rekey.transmit()?;
        Ok(size)
    }

    /// Change our key with the next record, as if it had been used up.
    #[cfg(test)]
    pub(super) fn request_key_update(&mut self) {
        self.key_update_due = true;
    }

    /// A clean end of our direction, written to the front of `space`; returns its size.
    pub(crate) fn seal_close(&mut self, space: &mut [u8]) -> Result<usize, RecordError> {
        space[HEAD..HEAD + 2].copy_from_slice(&[1, CLOSE_NOTIFY]);
        self.seal_as(ALERT, space, 2)
    }

    fn seal_as(&mut self, kind: u8, record: &mut [u8], length: usize) -> Result<usize, RecordError> {
        let size = HEAD + length + TAIL;
        let head = head_of(length + TAIL);
        let nonce = self.sealing.next_nonce();
        record[..HEAD].copy_from_slice(&head);
        record[HEAD + length] = kind;
        let (content, rest) = record[HEAD..size].split_at_mut(length + 1);
        let tag = self
            .sealing
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(head), content)
            .map_err(|_| RecordError::Invalid("sealing failed"))?;
        rest.copy_from_slice(tag.as_ref());
        Ok(size)
    }

    /// Open the record at the front of `buffer[from..]` in place; returns its size and what it held, or `None` when it is not
    /// whole yet. Ranges count from the start of `buffer`.
    pub(crate) fn open(&mut self, buffer: &mut [u8], from: usize) -> Result<Option<(usize, Opened)>, RecordError> {
        let Some((head, rest)) = buffer[from..].split_first_chunk_mut::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length > MAX_CIPHERTEXT {
            return Err(RecordError::Invalid("a record is longer than TLS allows"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let size = HEAD + length;
        if head[0] != APPLICATION_DATA {
            return Err(RecordError::Invalid("a record in plaintext after the handshake"));
        }
        let nonce = self.opening.next_nonce();
        let inner = self
            .opening
            .key
            .open_in_place(nonce, Aad::from(*head), &mut rest[..length])
            .map_err(|_| RecordError::Invalid("a record is not authentic"))?;
        let Some(end) = inner.iter().rposition(|byte| *byte != 0) else {
            return Err(RecordError::Invalid("a record without a content type"));
        };
        let opened = match inner[end] {
            APPLICATION_DATA => Opened::Content(from + HEAD..from + HEAD + end),
            HANDSHAKE => {
                let message = inner[..end].to_vec();
                self.receive_handshake(&message)?
            }
            ALERT => receive_alert(&inner[..end])?,
            _ => return Err(RecordError::Invalid("an unknown content type")),
        };
        Ok(Some((size, opened)))
    }

    /// Session tickets are ignored (resumption is off); a key update changes the key (RFC 8446, 4.6).
    fn receive_handshake(&mut self, mut messages: &[u8]) -> Result<Opened, RecordError> {
        if messages.len() > MAX_POST_HANDSHAKE {
            return Err(RecordError::Invalid("too long a message after the handshake"));
        }
        while let [kind, high, middle, low, rest @ ..] = messages {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            let Some((body, next)) = rest.split_at_checked(length) else {
                return Err(RecordError::Invalid("a message after the handshake spans records"));
            };
            match (*kind, body) {
                (NEW_SESSION_TICKET, _) => {}
                (KEY_UPDATE, [requested @ (0 | 1)]) if next.is_empty() => {
                    self.opening = self.rekey.receive()?;
                    self.key_update_due |= *requested == 1;
                }
                _ => return Err(RecordError::Invalid("an unexpected message after the handshake")),
            }
            messages = next;
        }
        if messages.is_empty() {
            Ok(Opened::Nothing)
        } else {
            Err(RecordError::Invalid("a truncated message"))
        }
    }
}

fn receive_alert(alert: &[u8]) -> Result<Opened, RecordError> {
    match alert {
        [_, CLOSE_NOTIFY] => Ok(Opened::CloseNotify),
        [_, description] => Err(RecordError::Alert(*description)),
        _ => Err(RecordError::Invalid("a malformed alert")),
    }
}

/// TLS 1.3's outer head always claims TLS 1.2 application data (RFC 8446, 5.2).
fn head_of(length: usize) -> [u8; HEAD] {
    let [high, low] = u16::try_from(length)
        .expect("a record is at most 16,401 bytes")
        .to_be_bytes();
    [APPLICATION_DATA, 3, 3, high, low]
}

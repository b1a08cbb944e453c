//! The few cuts through DER that signature checks need (X.690; RFC 5280, 4.1 and 5.1).

/// Tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// What a certificate or a revocation list consists of.
pub(super) struct SignedParts<'a> {
    /// What was signed.
    pub message: &'a [u8],
    /// By which algorithm: its identifier, without the outer tag.
    pub algorithm: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

/// The parts of a certificate or a revocation list.
pub(super) fn signed_parts(der: &[u8]) -> Option<SignedParts<'_>> {
    let (whole, _) = Element::read(der)?;
    let (message, rest) = Element::read(whole.content_of(SEQUENCE)?)?;
    let (algorithm, rest) = Element::read(rest)?;
    let (signature, _) = Element::read(rest)?;
    Some(SignedParts {
        message: message.whole,
        algorithm: algorithm.content_of(SEQUENCE)?,
        signature: signature.bits()?,
    })
}

/// Algorithm identifier and key of a SubjectPublicKeyInfo.
pub(super) fn public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (whole, _) = Element::read(der)?;
    let (algorithm, rest) = Element::read(whole.content_of(SEQUENCE)?)?;
    let (key, _) = Element::read(rest)?;
    Some((algorithm.content_of(SEQUENCE)?, key.bits()?))
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The first element of `der`, and what follows it.
    fn read(der: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&tag, rest) = der.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
                (length, rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        let whole = &der[..der.len() - after.len()];
        Some((Self { tag, content, whole }, after))
    }

    fn content_of(&self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    /// A BIT STRING of whole bytes.
    fn bits(&self) -> Option<&'a [u8]> {
        match self.content_of(BIT_STRING)? {
            [0, bits @ ..] => Some(bits),
            _ => None,
        }
    }
}

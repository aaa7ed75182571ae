//! The bytes of an abstract socket's name as text.

use std::fmt;

use super::ParseEndpointError;

/// Reads `text[start..]`: each `%XX` is the byte with this hexadecimal number.
pub(super) fn decode(text: &str, start: usize) -> Result<Vec<u8>, ParseEndpointError> {
    let mut bytes = Vec::with_capacity(text.len() - start);
    let mut rest = &text.as_bytes()[start..];
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }

        let Some((high, low)) = after.first().zip(after.get(1)) else {
            return Err(incomplete(text, text.len() - rest.len() - 1));
        };
        let digits = digit(*high).zip(digit(*low));
        let Some((high, low)) = digits else {
            return Err(incomplete(text, text.len() - rest.len() - 1));
        };
        bytes.push(high << 4 | low);
        rest = &after[2..];
    }
    Ok(bytes)
}

fn digit(character: u8) -> Option<u8> {
    u8::try_from(char::from(character).to_digit(16)?).ok()
}

fn incomplete(text: &str, at: usize) -> ParseEndpointError {
    ParseEndpointError {
        input: text.to_owned(),
        position: Some(at),
        reason: "two hexadecimal digits follow a `%`, as in `%00` for a NUL byte; the character \
                 itself is written `%25`"
            .to_owned(),
    }
}

/// The text of bytes that [`decode`] reads back. Bytes that are not UTF-8, control characters and
/// `%` are escaped.
pub(super) struct Encoded<'a>(pub(super) &'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character == '%' || character.is_control() {
                    let mut room = [0; 4];
                    escape(f, character.encode_utf8(&mut room).as_bytes())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            escape(f, chunk.invalid())?;
        }
        Ok(())
    }
}

fn escape(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_escaped() {
        for (bytes, shown) in [
            (&b"plain /:@"[..], "plain /:@"),
            (b"a\0\0", "a%00%00"),
            (b"\xff\xfe", "%FF%FE"),
            ("ü%\n".as_bytes(), "ü%25%0A"),
        ] {
            assert_eq!(Encoded(bytes).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_as_they_were_displayed(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&Encoded(&bytes).to_string(), 0), Ok(bytes));
        }
    }
}

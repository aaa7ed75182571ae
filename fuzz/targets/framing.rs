//! Decodes frames that consist of a length and that many bytes, like those of
//! `examples/typed_messages.rs`. However the bytes are split, the frames are the same. No frame
//! exceeds the limit, and a longer length is an error before memory is reserved for it. Frames that
//! are encoded decode to the same bytes.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

const LIMIT: usize = 1 << 20;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LIMIT).new_codec()
}

/// Returns the frames in `bytes`, which arrive in pieces, and how decoding ended.
fn decode(bytes: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<BytesMut>, Result<(), String>) {
    let (mut codec, mut buffer, mut frames) = (codec(), BytesMut::new(), Vec::new());
    let mut rest = bytes;
    loop {
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= LIMIT);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, Err(error.to_string())),
            }
            assert!(buffer.capacity() <= 4 * (LIMIT + bytes.len()), "{}", buffer.capacity());
        }
        if rest.is_empty() {
            let end = codec.decode_eof(&mut buffer).map_err(|error| error.to_string());
            return (frames, end.map(|last| assert!(last.is_none())));
        }
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let whole = decode(bytes, || bytes.len());
    let mut turn = usize::from(cut);
    let cut = decode(bytes, || {
        turn = turn * 37 % 101;
        turn
    });
    assert_eq!(whole, cut);

    // Encodes the same bytes as the contents of frames.
    let mut written = BytesMut::new();
    let frames: Vec<_> = bytes.chunks(turn + 1).collect();
    for frame in &frames {
        codec().encode(Bytes::copy_from_slice(frame), &mut written).expect("a short frame");
    }
    let (read, end) = decode(&written, || turn + 3);
    assert_eq!((read, end), (frames.iter().map(|frame| BytesMut::from(*frame)).collect(), Ok(())));
});

//! Follows HTTP/1 messages on one connection. Whatever both sides send, and however it is split,
//! the state after each piece is the same.
#![no_main]

#[allow(dead_code, reason = "its own tests use the rest")]
#[path = "../../src/listener/exchanges.rs"]
mod exchanges;

use exchanges::Exchanges;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<(bool, &[u8])>| {
    let (mut whole, mut cut) = (Exchanges::default(), Exchanges::default());
    for (by_client, piece) in pieces {
        if by_client {
            whole.received(piece);
            piece.chunks(1).for_each(|byte| cut.received(byte));
        } else {
            whole.sent(piece);
            piece.chunks(1).for_each(|byte| cut.sent(byte));
        }
        assert_eq!(whole.are_answered(), cut.are_answered());
    }
});

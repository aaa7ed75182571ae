//! Both sides of a lane run under random schedules, over a socket made of queues.
//!
//! Each side has a thread that writes and one that reads. One thread runs at a time. Before each
//! access to a word and each call of the socket, the scheduler picks the next thread at random.

mod sides;
mod world;

use std::io::ErrorKind;
use std::sync::Arc;

use self::sides::run;
pub(super) use self::world::wait_for;
use self::world::{Case, Readiness, Socket, World};
use super::{Lane, Role, Wire};

/// Returns how many schedules to run, which is more with `SOCKPIPE_FULL=1`.
fn schedules() -> u64 {
    match std::env::var_os("SOCKPIPE_FULL") {
        // Under Miri each schedule takes a second.
        _ if cfg!(miri) => 4,
        Some(_) => 20_000,
        None => 400,
    }
}

fn run_all(case: Case) {
    let mut upgraded = 0;
    for seed in 0..schedules() {
        upgraded += u64::from(run(seed, case));
    }
    println!("{case:?}: {upgraded} of {} schedules moved into memory", schedules());
    // If the client writes everything before it reads, the server notices the client's mark late.
    let few = if case.reads_late { schedules() / 100 } else { schedules() / 4 };
    assert!(upgraded > few, "too few moved into memory: {upgraded}");
}

const PLAIN: Case =
    Case { readiness: Readiness::Level, reads_late: false, dies: false, lengths: 60 };

#[test]
fn every_byte_arrives_with_level_readiness() {
    run_all(PLAIN);
}

#[test]
fn every_byte_arrives_with_edge_readiness() {
    run_all(Case { readiness: Readiness::Edge, ..PLAIN });
}

#[test]
fn a_client_that_reads_after_its_last_write_gets_everything() {
    run_all(Case { readiness: Readiness::Edge, reads_late: true, ..PLAIN });
}

#[test]
fn bytes_written_before_a_side_died_arrive() {
    run_all(Case { dies: true, ..PLAIN });
    run_all(Case { readiness: Readiness::Edge, dies: true, ..PLAIN });
}

#[test]
fn every_byte_of_a_short_conversation_arrives() {
    let case = Case { lengths: 6, readiness: Readiness::Edge, ..PLAIN };
    (0..schedules()).for_each(|seed| {
        run(seed, case);
    });
}

#[test]
fn bells_behind_the_byte_of_an_offer_are_heard_too() {
    let world = World::new(0, PLAIN);
    let [client, server] = [0, 1].map(|side| Socket { world: Arc::clone(&world), side });
    let (_made, memory) = server.make().expect("memory");
    let offer = memory.clone();
    server.offer(7, &offer).expect("room");
    // The client takes it without a read.
    let _taken = client.take(client.peek_offer(7).expect("an offer")).expect("memory");
    server.ring_reader().expect("room");

    let lane = Lane::new(Role::Taker, 0, true);
    lane.hear(&client).expect("the offer's byte, and perhaps more");
    let heard = lane.hear(&client).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::WouldBlock));
    assert!(!client.has_bells());
}

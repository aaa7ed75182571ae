//! Both sides of a lane run under many schedules, over a socket made of queues.
//!
//! Each side has a thread that writes and one that reads, or one that does both. One thread runs at
//! a time. Before each access to a word and each call of the socket, the scheduler chooses the next
//! thread: at random, or one option after the other, until it has tried all lists of choices that
//! differ from the usual one in a few places.

mod choices;
mod hostile;
mod sides;
mod socket;
mod world;

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use self::choices::Choices;
use self::sides::{Ran, run};
use self::socket::Socket;
use self::world::{Case, Readiness, World};
pub(super) use self::world::{patience, retry};
use super::{Lane, Outcome, Read, Role, Then, Wire};

/// Returns whether to run many more schedules.
fn is_full() -> bool {
    std::env::var_os("SOCKPIPE_FULL").is_some()
}

/// Returns how many random schedules to run, which is more with `SOCKPIPE_FULL=1`.
fn schedules() -> u64 {
    match is_full() {
        // Under Miri each schedule takes a second.
        _ if cfg!(miri) => 4,
        true => 20_000,
        false => 400,
    }
}

/// Runs random schedules.
fn run_random(case: Case) {
    let (mut upgraded, mut withdrawn, mut offered_again) = (0, 0, 0);
    for seed in 0..schedules() {
        let ran = run(Choices::random(seed), case);
        upgraded += u64::from(ran.upgraded);
        withdrawn += u64::from(ran.withdrawn > 0);
        offered_again += u64::from(ran.offers > 1);
    }

    let all = schedules();
    println!("{case:?}: {upgraded} of {all} random schedules moved into memory");
    println!("an offer was withdrawn in {withdrawn}, and another made in {offered_again}");

    // If the client writes everything before it reads, the server notices the client's mark late.
    let few = if case.reads_late || case.patience.is_some() { all / 100 } else { all / 4 };
    assert!(upgraded > few, "too few moved into memory: {upgraded}");
    if case.patience.is_some() && !cfg!(miri) {
        assert!(offered_again > all / 20, "too few offers were withdrawn: {offered_again}");
    }
}

const PLAIN: Case = Case {
    readiness: Readiness::Level,
    alone: false,
    reads_late: false,
    asks: false,
    victims: &[],
    lengths: (0, 60),
    calls: (5, 7),
    patience: None,
    turn: u64::MAX,
};

/// Both kinds of readiness, and tasks that have their streams to themselves.
fn ways() -> [Case; 3] {
    let edge = Case { readiness: Readiness::Edge, ..PLAIN };
    [PLAIN, edge, Case { alone: true, ..edge }]
}

#[test]
fn every_byte_arrives_with_level_readiness() {
    run_random(PLAIN);
}

#[test]
fn every_byte_arrives_with_edge_readiness() {
    run_random(Case { readiness: Readiness::Edge, ..PLAIN });
}

#[test]
fn every_byte_arrives_at_tasks_that_have_their_streams_to_themselves() {
    run_random(Case { readiness: Readiness::Edge, alone: true, ..PLAIN });
}

#[test]
fn a_client_that_reads_after_its_last_write_gets_everything() {
    run_random(Case { readiness: Readiness::Edge, reads_late: true, ..PLAIN });
}

/// Only the answer to its question wakes a client, and no end of file does.
#[test]
fn each_question_and_each_answer_wakes_its_reader() {
    let asks = |case| Case { asks: true, lengths: (40, 40), ..case };
    ways().into_iter().for_each(|case| run_random(asks(case)));
}

#[test]
fn bytes_written_before_a_side_died_arrive() {
    ways().into_iter().for_each(|case| run_random(Case { victims: &[0, 1], ..case }));
}

#[test]
fn a_withdrawn_offer_loses_no_byte() {
    ways().into_iter().for_each(|case| run_random(Case { patience: Some(2), ..case }));
}

#[test]
fn every_byte_of_a_short_conversation_arrives() {
    let case = Case { lengths: (0, 6), readiness: Readiness::Edge, ..PLAIN };
    (0..schedules()).for_each(|seed| {
        run(Choices::random(seed), case);
    });
}

/// The schedules that were listed, and their results.
#[derive(Debug, Default)]
struct Listed {
    schedules: usize,
    upgraded: usize,
    /// In which a second offer followed the first.
    offered_again: usize,
}

/// Runs all schedules of each case that differ from the usual one in at most `most` choices.
fn run_listed(cases: impl IntoIterator<Item = Case>, most: usize) -> Listed {
    let mut listed = Listed::default();
    for case in cases {
        let most = if cfg!(miri) { 0 } else { most };
        let mut choices = Some(Choices::listed(most));
        while let Some(next) = choices {
            let Ran { choices: made, upgraded, offers, .. } = run(next, case);
            listed.schedules += 1;
            listed.upgraded += usize::from(upgraded);
            listed.offered_again += usize::from(offers > 1);
            choices = made.next();
        }
    }
    println!("{}: {listed:?}", std::thread::current().name().unwrap_or_default());
    listed
}

/// Fails if there are fewer schedules than there have been, or if too few reach the memory.
fn check(listed: &Listed, least: usize) {
    if cfg!(miri) {
        return;
    }
    assert!(listed.schedules >= least, "{listed:?}, and no longer {least}");
    assert!(listed.upgraded * 2 > listed.schedules, "too few moved into memory: {listed:?}");
}

/// Returns how many choices of a schedule differ from the usual one. Two choices make hundreds of
/// thousands of schedules for each test, which a debug build has no time for.
fn few() -> usize {
    if is_full() && !cfg!(debug_assertions) { 2 } else { 1 }
}

/// Conversations in which both sides sleep and wake on the socket and in memory. The threads take
/// turns of different lengths, and each call carries a different number of bytes.
fn listed_cases(turns: &[u64], calls: &[(u64, u64)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in ways() {
        for turn in turns {
            let case = Case { lengths: (12, 12), turn: *turn, ..way };
            cases.extend(calls.iter().map(|calls| Case { calls: *calls, ..case }));
        }
    }
    cases
}

#[test]
fn every_byte_arrives_in_all_listed_schedules() {
    let cases = listed_cases(&[1, 10], &[(1, 7)]);
    check(&run_listed(cases, few()), 2000);
}

/// In a short conversation of tasks that have their streams to themselves, one choice more can
/// differ.
#[test]
fn every_byte_of_a_short_conversation_arrives_in_all_listed_schedules() {
    let case = Case { readiness: Readiness::Edge, alone: true, ..PLAIN };
    let short = Case { lengths: (4, 4), calls: (3, 2), turn: 1, ..case };
    check(&run_listed([short], few() + 1), 1500);
}

/// A side that dies before it rings has published bytes that only the socket's end reveals.
#[test]
fn bytes_published_before_a_side_died_are_read_in_all_listed_schedules() {
    let case = Case { readiness: Readiness::Edge, alone: true, victims: &[1], ..PLAIN };
    let case = Case { lengths: (12, 12), calls: (3, 2), ..case };
    check(&run_listed([case], 2), 12000);
}

#[test]
fn a_client_that_reads_late_gets_everything_in_all_listed_schedules() {
    let late = |case| Case { reads_late: true, lengths: (16, 16), ..case };
    let cases = listed_cases(&[10], &[(3, 2)]).into_iter().map(late);
    check(&run_listed(cases, few()), 500);
}

#[test]
fn each_question_and_each_answer_wakes_its_reader_in_all_listed_schedules() {
    let asks = |case| Case { asks: true, ..case };
    let cases = listed_cases(&[1, u64::MAX], &[(2, 7)]).into_iter().map(asks);
    check(&run_listed(cases, few()), 1500);
}

/// One thread at a time runs until it has to wait, so that both rings fill up.
#[test]
fn a_full_ring_wakes_its_writer_in_all_listed_schedules() {
    let long = |case| Case { lengths: (36, 36), ..case };
    let cases = listed_cases(&[u64::MAX], &[(5, 7)]).into_iter().map(long);
    check(&run_listed(cases, few()), 1500);
}

#[test]
fn bytes_written_before_a_side_died_arrive_in_all_listed_schedules() {
    for victims in [&[0], &[1]] {
        let dies = |case| Case { victims, ..case };
        let cases = listed_cases(&[10], &[(3, 2)]).into_iter().map(dies);
        check(&run_listed(cases, few()), 800);
    }
}

#[test]
fn a_withdrawn_offer_loses_no_byte_in_all_listed_schedules() {
    let impatient = |case| Case { patience: Some(1), lengths: (16, 16), ..case };
    let cases = listed_cases(&[10], &[(2, 1)]).into_iter().map(impatient);
    let listed = run_listed(cases, few());
    check(&listed, 1000);
    assert!(cfg!(miri) || listed.offered_again > listed.schedules / 20, "{listed:?}");
}

#[test]
fn bells_behind_the_byte_of_an_offer_are_heard_too() {
    let world = World::new(Choices::listed(0), PLAIN);
    let [client, server] = [0, 1].map(|side| Socket { world: Arc::clone(&world), side });
    let (_made, memory) = server.make().expect("memory");
    let offer = memory.clone();
    server.offer(socket::BYTE, &offer).expect("room");
    // The client takes it without a read.
    let _taken = client.take(client.peek_offer(socket::BYTE).expect("an offer")).expect("memory");
    server.ring_reader().expect("room");

    let lane = Lane::new(Role::Taker, 0, true);
    lane.hear(&client).expect("the offer's byte, and perhaps more");
    let heard = lane.hear(&client).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::WouldBlock));
    assert!(!client.has_bells());
}

#[test]
fn an_offer_that_the_socket_has_no_room_for_stands_until_it_is_sent() {
    let world = World::new(Choices::listed(0), PLAIN);
    world.state().marked = true;
    let [client, server] = [0, 1].map(|side| Socket { world: Arc::clone(&world), side });
    let lane = Lane::new(Role::Maker, 0, true);
    let write = || lane.write(&server, &[IoSlice::new(&[7; socket::SOCKET])], Then::Sleep);

    for _ in 0..100 {
        // The data takes all the room.
        assert_eq!(write().expect("room"), Outcome::Done(socket::SOCKET));
        client.send(&[IoSlice::new(&[7])]).expect("room");
        let read = lane.read(&server, &mut [0; 2], Then::Sleep).expect("a byte");
        assert!(matches!(read, Outcome::Done(Read { length: 1, .. })), "{read:?}");
        world.state().queues[1].items.clear();
    }

    assert_eq!(world.state().made.len(), 1, "one offer after the other");
    lane.write(&server, &[IoSlice::new(&[7])], Then::Sleep).expect("room");
    assert!(world.state().queues[1].items.iter().any(|item| item.offer.is_some()));
}

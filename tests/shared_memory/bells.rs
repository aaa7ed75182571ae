//! A side without busy-polling wakes its peer by a bell, which is a system call.

use std::fs;

use super::*;
use common::unix::strace;

/// The kinds of talk, whether messages have answers, and how many there are in both directions. One
/// way they are more than the ring holds, so that the writer may wait for room too.
const TALKS: [(&str, bool, usize); 2] = [("round trips", true, 4000), ("one way", false, 20_000)];
const LENGTH: usize = 64;
/// The helper prints this once its streams are in memory, and so writes it into the log.
const STARTS: &str = "the messages start";

/// Writes `count` messages, and reads an answer to each if there are `answers`.
async fn ask(mut stream: Stream, count: usize, answers: bool) -> Stream {
    let mut message = [7; LENGTH];
    for _ in 0..count {
        stream.write_all(&message).await.expect("a write");
        if answers {
            stream.read_exact(&mut message).await.expect("an answer");
        }
    }
    stream
}

/// The other side of [`ask`]. It reads all that has come, so that it has to sleep often.
async fn answer(mut stream: Stream, count: usize, answers: bool) -> Stream {
    let (mut buffer, mut left) = (vec![0; 64 * 1024], count * LENGTH);
    while left > 0 {
        let length = stream.read(&mut buffer).await.expect("messages");
        left -= length;
        if answers {
            stream.write_all(&buffer[..length]).await.expect("a write");
        }
    }
    stream
}

/// Returns whether messages have answers, and how many the client sends.
fn talk(name: &str) -> (bool, usize) {
    let talk = TALKS.iter().find(|(known, ..)| *known == name).expect("a kind of talk");
    let (_, answers, messages) = *talk;
    (answers, if answers { messages / 2 } else { messages })
}

/// The helper is both sides of a conversation, on a thread each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helper_converses() {
    let Some(argument) = argument() else { return };
    let (answers, count) = talk(&argument);
    let (client, server) = in_memory_pair().await;
    println!("{STARTS}");
    let asking = tokio::spawn(ask(client, count, answers));
    let answering = tokio::spawn(answer(server, count, answers));
    let ends = within(async { tokio::join!(asking, answering) }).await;
    drop((ends.0.expect("no panic"), ends.1.expect("no panic")));
}

#[cfg(feature = "blocking")]
#[test]
fn helper_converses_by_threads() {
    use std::io::{Read, Write};

    let Some(argument) = argument() else { return };
    let (answers, count) = talk(&argument);
    let (mut client, mut server) = threads::threads_in_memory();
    println!("{STARTS}");
    let answering = std::thread::spawn(move || {
        let (mut buffer, mut left) = (vec![0; 64 * 1024], count * LENGTH);
        while left > 0 {
            let length = server.read(&mut buffer).expect("messages");
            left -= length;
            if answers {
                server.write_all(&buffer[..length]).expect("a write");
            }
        }
        server
    });

    let mut message = [7; LENGTH];
    for _ in 0..count {
        client.write_all(&message).expect("a write");
        if answers {
            client.read_exact(&mut message).expect("an answer");
        }
    }
    drop(answering.join().expect("no panic"));
}

/// The number of bells that both sides of the helper ring. `None` where there is no strace.
fn bells(helper: &str, talk: &str) -> Option<usize> {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let command = helper_command(&format!("shared_memory::bells::{helper}"), talk);
    let mut command = strace(&log, &["-e", "trace=sendto,write"], &command)?;
    let output = command.env("SOCKPIPE_TEST_HELPER", talk).output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = fs::read_to_string(&log).expect("a log");
    let (_, calls) = calls.split_once(STARTS).expect("the messages");
    let bells =
        calls.lines().filter(|call| call.contains("sendto(") && call.contains("\"\\0\", 1,"));
    Some(bells.count())
}

#[test]
fn a_message_takes_at_most_one_bell() {
    let mut helpers = vec!["helper_converses"];
    if cfg!(feature = "blocking") {
        helpers.push("helper_converses_by_threads");
    }
    for helper in helpers {
        for (talk, answers, messages) in TALKS {
            let Some(bells) = bells(helper, talk) else { return };
            println!("{helper}, {talk}: {bells} bells for {messages} messages");
            assert!(bells > 0 || !answers, "a side that sleeps needs one");
            assert!(bells <= messages, "{helper}, {talk}: {bells} bells");
        }
    }
}

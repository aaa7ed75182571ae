//! The bars that the measured figures have to meet.

use std::fmt::Write as _;

use crate::competitors::Competitor::{self, *};
use crate::groups::{KILLED, LONGEST};
use crate::report::{Figure, Results};
use crate::work::{Neighbour, Sink, Work};

enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// At most this much more than the other, in the unit of the figure.
    MoreBy(f64),
}

use Limit::{AtLeast, AtMost, MoreBy};

/// One competitor's figure, divided by another's or less that one.
struct Bar {
    group: &'static str,
    what: &'static str,
    figure: Figure,
    of: (Competitor, Work),
    to: Option<(Competitor, Work)>,
    limit: Limit,
}

/// The comparison with a stream that pays for recvmsg too, and looks at the readiness twice.
const BY_RECVMSG: &str = "sockpipe to tokio that reads by recvmsg";

fn bars() -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |group, what, figure, of, to, limit| {
        bars.push(Bar { group, what, figure, of, to: Some(to), limit });
    };
    let [small, large] = [Work::PingPong(64), Work::PingPong(64 * 1024)];
    let same = "W1 64 B round trip, same core";
    add(same, "sockpipe", Figure::P50, (Sockpipe, small), (Tokio, small), AtMost(1.05));
    add(same, "sockpipe, spin", Figure::P50, (Spin, small), (Tokio, small), AtMost(1.02));
    add(same, BY_RECVMSG, Figure::P50, (Sockpipe, small), (TokioRecvmsg, small), AtMost(1.02));
    let cross = "W1 64 B round trip, cross core";
    add(cross, "sockpipe", Figure::P50, (Sockpipe, small), (Tokio, small), AtMost(1.10));
    add(cross, "sockpipe, spin", Figure::P50, (Spin, small), (Tokio, small), AtMost(0.15));
    add(cross, "sockpipe, spin: CPU", Figure::Cpu, (Spin, small), (Tokio, small), AtMost(0.35));
    for (group, limit, spin) in [(same, 1.05, 1.05), (cross, 1.10, 0.2)] {
        let to = (Std, small);
        add(group, "blocking, to std", Figure::P50, (Threads, small), to, AtMost(limit));
        add(group, "blocking, spin, to std", Figure::P50, (ThreadsSpin, small), to, AtMost(spin));
    }
    let cross = "W1 64 KiB round trip, cross core";
    add(cross, "sockpipe", Figure::P50, (Sockpipe, large), (Tokio, large), AtMost(1.15));
    add(cross, "sockpipe, spin", Figure::P50, (Spin, large), (Tokio, large), AtMost(0.6));
    for (group, work) in [
        ("20 round trips each 3 ms, cross core", Work::Bursts),
        ("64 B round trip, a peer that works for 25 µs, cross core", Work::Thinking),
    ] {
        add(group, "sockpipe, spin", Figure::P50, (Spin, work), (Tokio, work), AtMost(1.05));
        add(group, "sockpipe, spin: CPU", Figure::Cpu, (Spin, work), (Tokio, work), AtMost(1.05));
    }
    let hogs = "64 B round trip beside two busy processes";
    add(hogs, "sockpipe, spin", Figure::Rate, (Spin, small), (Tokio, small), AtLeast(0.95));
    for (group, neighbour) in [
        ("a timer on the thread of a conversation", Neighbour::Timer),
        ("a call from outside to that thread", Neighbour::Outside),
        ("a busy task on that thread", Neighbour::Busy),
    ] {
        let work = Work::Beside(neighbour);
        add(group, "sockpipe, spin", Figure::P50, (Spin, work), (Tokio, work), AtMost(1.05));
        add(group, "sockpipe, spin: p99", Figure::P99, (Spin, work), (Tokio, work), AtMost(1.2));
    }
    let pairs = "64 B round trip, four pairs of processes";
    add(pairs, "sockpipe, spin", Figure::Rate, (Spin, small), (Tokio, small), AtLeast(0.95));
    let [block, big] = [Work::OneWay(64 * 1024), Work::OneWay(1 << 20)];
    let way = "W2 64 KiB writes, one way, same core";
    add(way, "sockpipe", Figure::Rate, (Sockpipe, block), (Tokio, block), AtLeast(0.97));
    add(way, "sockpipe, spin", Figure::Rate, (Spin, block), (Tokio, block), AtLeast(0.97));
    let way = "W2 64 KiB writes, one way";
    add(way, "sockpipe", Figure::Rate, (Sockpipe, block), (Tokio, block), AtLeast(0.97));
    add(way, "sockpipe, spin", Figure::Rate, (Spin, block), (Tokio, block), AtLeast(0.97));
    add(
        way,
        "sockpipe to TCP loopback",
        Figure::Rate,
        (Sockpipe, block),
        (Competitor::Tcp, block),
        AtLeast(1.3),
    );
    add(way, "sockpipe to Go", Figure::Rate, (Sockpipe, block), (Go, block), AtLeast(1.2));
    add(way, "sockpipe, bulk", Figure::Rate, (Bulk, block), (Tokio, block), AtLeast(1.15));
    add(way, "blocking, to std", Figure::Rate, (Threads, block), (Std, block), AtLeast(0.95));
    let way = "W2 1 MiB writes, one way";
    add(way, "sockpipe", Figure::Rate, (Sockpipe, big), (Tokio, big), AtLeast(0.95));
    add(way, "sockpipe, bulk", Figure::Rate, (Bulk, big), (Tokio, big), AtLeast(1.15));
    let echo = "W2 64 KiB echo";
    add(echo, "sockpipe", Figure::Rate, (Sockpipe, Work::Echo), (Tokio, Work::Echo), AtLeast(0.95));
    add(
        echo,
        "sockpipe, serve + echo",
        Figure::Rate,
        (Serve, Work::Echo),
        (Tokio, Work::Echo),
        AtLeast(0.95),
    );
    add(
        echo,
        "sockpipe to Go",
        Figure::Rate,
        (Sockpipe, Work::Echo),
        (Go, Work::Echo),
        AtLeast(1.4),
    );
    add(
        echo,
        "sockpipe to TCP loopback",
        Figure::Rate,
        (Sockpipe, Work::Echo),
        (Competitor::Tcp, Work::Echo),
        AtLeast(2.0),
    );
    let messages = "W3 64 B messages, one way";
    let [each, batch, framed] = [Sink::Each, Sink::Batch, Sink::Own].map(Work::Messages);
    add(
        messages,
        "sockpipe, a write each",
        Figure::Rate,
        (Sockpipe, each),
        (Tokio, each),
        AtLeast(0.95),
    );
    add(
        messages,
        "FrameSink to tokio's write each",
        Figure::Rate,
        (Sockpipe, framed),
        (Tokio, each),
        AtLeast(25.0),
    );
    add(
        messages,
        "FrameSink to tokio's 64 KiB by hand",
        Figure::Rate,
        (Sockpipe, framed),
        (Tokio, batch),
        AtLeast(0.9),
    );
    add(
        messages,
        "FrameSink to ZeroMQ",
        Figure::Rate,
        (Sockpipe, framed),
        (ZeroMq, each),
        AtLeast(6.0),
    );
    let echo = "W3 64 B messages in 64 KiB, echo";
    let work = Work::MessagesEcho;
    add(echo, "sockpipe", Figure::Rate, (Sockpipe, work), (Tokio, work), AtLeast(0.90));
    add(echo, "sockpipe to Go", Figure::Rate, (Sockpipe, work), (Go, work), AtLeast(1.7));
    for (group, work, tcp) in [
        ("W4 connect, byte, close; 1 at a time", Work::Connect(1), 1.5),
        ("W4 connect, byte, close; 64 at a time", Work::Connect(64), 2.0),
    ] {
        add(group, "sockpipe", Figure::Rate, (Sockpipe, work), (Tokio, work), AtLeast(0.97));
        add(
            group,
            "sockpipe to TCP loopback",
            Figure::Rate,
            (Sockpipe, work),
            (Competitor::Tcp, work),
            AtLeast(tcp),
        );
    }
    let one = "W4 connect, byte, close; 1 at a time";
    let work = Work::Connect(1);
    let to = (TokioRecvmsg, work);
    add(one, BY_RECVMSG, Figure::Rate, (Sockpipe, work), to, AtLeast(0.97));
    let many = "W5 64 connections in turns";
    let work = Work::Many(64);
    add(many, "sockpipe", Figure::Rate, (Sockpipe, work), (Tokio, work), AtLeast(0.97));
    add(many, "sockpipe: p99", Figure::P99, (Sockpipe, work), (Tokio, work), AtMost(1.1));
    add(many, "sockpipe, spin", Figure::Rate, (Spin, work), (Tokio, work), AtLeast(0.97));
    add(many, "sockpipe, spin: p99", Figure::P99, (Spin, work), (Tokio, work), AtMost(1.2));
    let to = (TokioRecvmsg, work);
    for (what, figure, who, limit) in [
        (BY_RECVMSG, Figure::Rate, Sockpipe, AtLeast(0.97)),
        ("sockpipe to tokio that reads by recvmsg: p99", Figure::P99, Sockpipe, AtMost(1.1)),
        ("sockpipe, spin, to tokio that reads by recvmsg", Figure::Rate, Spin, AtLeast(0.97)),
    ] {
        add(many, what, figure, (who, work), to, limit);
    }
    let memory = "sockpipe, shared memory, spin";
    let one_more = "W5 65 connections in turns";
    let thousand = "W7 64 B round trips over 1,000 connections";
    let [down, big_down] = [Work::Download(64 * 1024), Work::Download(1 << 20)];
    let [echo, bytes] = [Work::Echo, Work::Messages(Sink::Each)];
    for (group, figure, work, limit) in [
        ("W1 64 B round trip, cross core", Figure::P50, small, AtMost(0.03)),
        ("W1 64 B round trip, same core", Figure::P50, small, AtMost(0.85)),
        ("W1 64 KiB round trip, cross core", Figure::P50, large, AtMost(0.25)),
        ("W2 64 KiB writes, one way", Figure::Rate, block, AtLeast(1.8)),
        ("W2 1 MiB writes, one way", Figure::Rate, big, AtLeast(3.0)),
        ("W2 64 KiB writes, one way, to the client", Figure::Rate, down, AtLeast(1.8)),
        ("W2 1 MiB writes, one way, to the client", Figure::Rate, big_down, AtLeast(3.0)),
        ("W2 64 KiB echo", Figure::Rate, echo, AtLeast(1.3)),
        ("W3 64 B messages, one way", Figure::Rate, bytes, AtLeast(20.0)),
        ("W4 connect, byte, close; 1 at a time", Figure::Rate, Work::Connect(1), AtLeast(0.92)),
        ("W4 connect, byte, close; 64 at a time", Figure::Rate, Work::Connect(64), AtLeast(0.92)),
        (many, Figure::Rate, Work::Many(64), AtLeast(1.0)),
        (one_more, Figure::Rate, Work::Many(65), AtLeast(1.0)),
        ("W6 5,000 idle connections", Figure::Memory, Work::Idle, AtMost(1.05)),
        (thousand, Figure::Rate, Work::Scale(1000), AtLeast(1.0)),
    ] {
        add(group, memory, figure, (Lane, work), (Tokio, work), limit);
    }
    let cross = "W1 64 B round trip, cross core";
    let to = (Iceoryx, small);
    add(cross, "shared memory, spin, to iceoryx2", Figure::P50, (Lane, small), to, AtMost(1.0));
    let sleeps = "sockpipe, shared memory without spin";
    add(cross, sleeps, Figure::P50, (LaneSleeps, small), (Tokio, small), AtMost(1.05));
    for (group, work) in [(many, work), (one_more, Work::Many(65))] {
        let (of, to) = ((Lane, work), (Tokio, work));
        add(group, "shared memory, spin: p99", Figure::P99, of, to, AtMost(1.2));
    }
    let (thousands, work) = ("W7 64 B round trips over 10,000 connections", Work::Scale(10_000));
    add(
        thousands,
        "the option on, to it off",
        Figure::Rate,
        (Lane, work),
        (Spin, work),
        AtLeast(0.95),
    );
    let (idle, work) = ("W6 5,000 idle connections", Work::Idle);
    add(idle, "the option on, to it off", Figure::Memory, (Lane, work), (Spin, work), AtMost(1.05));
    for (group, work) in [
        ("W4 connect, byte, close; 1 at a time", Work::Connect(1)),
        ("W4 connect, byte, close; 64 at a time", Work::Connect(64)),
    ] {
        let (of, to) = ((LaneSleeps, work), (Sockpipe, work));
        add(group, "the option on, to it off", Figure::Rate, of, to, AtLeast(0.95));
    }
    let pipes = [
        ("Pipes: 64 B round trip", Figure::P50, small),
        ("Pipes: 64 KiB round trip", Figure::P50, large),
        ("Pipes: 64 KiB writes, one way", Figure::Rate, block),
        ("Pipes: 64 KiB echo", Figure::Rate, Work::Echo),
        ("Pipes: 64 B messages, a write each", Figure::Rate, each),
        ("Pipes: 64 connections in turns", Figure::Rate, Work::Many(64)),
    ];
    for (group, figure, work) in pipes {
        let limit = if figure == Figure::P50 { AtMost(1.6) } else { AtLeast(0.9) };
        add(group, "sockpipe", figure, (Sockpipe, work), (Tokio, work), limit);
    }
    add(many, "blocking, to std", Figure::Rate, (Threads, work), (Std, work), AtLeast(0.92));
    add(
        many,
        "blocking, spin, to std",
        Figure::Rate,
        (ThreadsSpin, work),
        (Std, work),
        AtLeast(0.95),
    );
    let idle = "W6 5,000 idle connections";
    let work = Work::Idle;
    add(
        idle,
        "sockpipe, equal buffers",
        Figure::Memory,
        (Sockpipe, work),
        (Tokio, work),
        AtMost(1.05),
    );
    for (what, figure, who) in [
        ("shared memory, spin: p50, microseconds later", Figure::P50, Lane),
        ("shared memory, spin: p99, microseconds later", Figure::P99, Lane),
        ("shared memory without spin: p99, microseconds later", Figure::P99, LaneSleeps),
    ] {
        let (of, to) = ((who, Work::Killed), (Tokio, Work::Killed));
        add(KILLED, what, figure, of, to, MoreBy(2000.0));
    }
    for (group, figure, work) in [
        ("W1 64 B round trip, same core", Figure::P50, small),
        ("W1 64 B round trip, cross core", Figure::P50, small),
        ("W2 64 KiB writes, one way", Figure::Rate, block),
        ("W2 64 KiB echo", Figure::Rate, Work::Echo),
        ("W3 64 B messages, one way", Figure::Rate, each),
        ("W4 connect, byte, close; 1 at a time", Figure::Rate, Work::Connect(1)),
        ("W4 connect, byte, close; 64 at a time", Figure::Rate, Work::Connect(64)),
        (many, Figure::Rate, Work::Many(64)),
        (idle, Figure::Memory, Work::Idle),
    ] {
        let limit = || if figure == Figure::Rate { AtLeast(0.95) } else { AtMost(1.05) };
        if work != Work::Idle {
            let what = "the option on at the client, to it off";
            add(group, what, figure, (PlainServer, work), (Spin, work), limit());
        }
        let what = "the option on at the server, to it off";
        add(group, what, figure, (PlainClient, work), (Spin, work), limit());
    }
    bars.push(Bar {
        group: LONGEST,
        what: "the move into shared memory: p99.9, in microseconds",
        figure: Figure::P999,
        of: (Lane, Work::Longest),
        to: None,
        limit: AtMost(3000.0),
    });
    bars.push(Bar {
        group: idle,
        what: "sockpipe, serve + echo, in bytes each",
        figure: Figure::Memory,
        of: (Serve, work),
        to: None,
        limit: AtMost(1126.0),
    });
    bars
}

/// Prints a table of the bars and the measured ratios. `memory` selects those of shared memory.
pub fn print(text: &mut String, all: &[Results], memory: bool) {
    let _ = writeln!(text, "| workload | what, to tokio unless said | bar | measured | noise | |");
    let _ = writeln!(text, "|---|---|--:|--:|--:|---|");
    for bar in bars().into_iter().filter(|bar| !memory || bar.of.0.is_in_memory()) {
        let Some(results) = all.iter().find(|results| results.group.title == bar.group) else {
            continue;
        };
        let (limit, sign) = match bar.limit {
            AtMost(limit) | MoreBy(limit) => (limit, '≤'),
            AtLeast(limit) => (limit, '≥'),
        };
        let of = results.of(bar.of, bar.figure);
        let measured = match bar.to {
            Some(to) => of.zip(results.base(to, bar.figure)).map(|(of, to)| match bar.limit {
                MoreBy(_) => of - to,
                _ => of / to,
            }),
            None => of,
        };
        let noise = bar.to.filter(|(who, _)| matches!(who, Tokio | Spin));
        let noise = noise.and_then(|(_, work)| results.noise(work, bar.figure));
        let noise = noise.map_or("–".to_owned(), |noise| format!("{noise:.2}"));
        let is_ratio = bar.to.is_some() && !matches!(bar.limit, MoreBy(_));
        let decimals = if is_ratio { 2 } else { 0 };
        let (shown, verdict) = match measured {
            Some(value) => {
                let met = match bar.limit {
                    AtMost(limit) | MoreBy(limit) => value <= limit,
                    AtLeast(limit) => value >= limit,
                };
                let mut shown = format!("{value:.decimals$}");
                // A missed bar must not look met because of rounding.
                if !met && shown == format!("{limit:.decimals$}") {
                    shown = format!("{value:.3}");
                }
                (shown, if met { "met" } else { "**falls short**" })
            }
            None => ("–".to_owned(), "not measured here"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {sign} {limit:.decimals$} | {shown} | {noise} | {verdict} |",
            bar.group, bar.what
        );
    }
    text.push('\n');
}

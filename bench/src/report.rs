//! Runs the groups, and says what came of it.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::competitors::Competitor::{self, *};
use crate::groups::{self, By, Group};
use crate::run::{self, Folder, Pin, Sample};
use crate::work::{Neighbour, Sink, Work};

/// How much is run.
#[derive(Clone, Copy)]
struct Effort {
    repetitions: usize,
    millis: u64,
}

const FULL: Effort = Effort { repetitions: 11, millis: 300 };
const REDUCED: Effort = Effort { repetitions: 3, millis: 200 };

/// All samples of a group, by entry.
struct Results {
    group: Group,
    samples: Vec<Vec<Sample>>,
}

pub fn table(options: &[&str]) -> ExitCode {
    let mut effort = FULL;
    let mut only = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "full" => effort = FULL,
            "reduced" => effort = REDUCED,
            "--only" => only = options.next().copied(),
            other => {
                eprintln!("no such option: {other}");
                return ExitCode::from(2);
            }
        }
    }
    let started = Instant::now();
    let groups = groups::all()
        .into_iter()
        .filter(|group| only.is_none_or(|word| group.title.contains(word)));
    let results: Vec<_> = groups.map(|group| measure(group, effort)).collect();
    let mut text = String::new();
    print_head(&mut text, effort, started);
    print_bars(&mut text, &results);
    for result in &results {
        print_group(&mut text, result);
    }
    println!("{text}");
    let mut whole = true;
    for result in &results {
        for ((who, work), samples) in result.group.entries.iter().zip(&result.samples) {
            if samples.is_empty() {
                eprintln!("{} has no sample of {}", who.name(), work.name());
                whole = false;
            }
        }
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every repetition has an order of its own: what one leaves behind for a moment, as many sockets that
/// the kernel still has to free, is not to be always the same next one's.
fn measure(mut group: Group, effort: Effort) -> Results {
    group.entries.retain(|(who, work)| who.takes_part(*work));
    if !can_pin() {
        group.pin = Pin::Anywhere;
    }
    let folder = Folder::new();
    // Its memory is a few numbers that hardly differ, and each takes a second.
    let repetitions =
        if group.by == By::Memory { effort.repetitions.min(3) } else { effort.repetitions };
    let mut samples = vec![Vec::new(); group.entries.len()];
    for repetition in 0..repetitions {
        eprintln!("{} ({} of {repetitions})", group.title, repetition + 1);
        for at in shuffled(group.entries.len(), repetition) {
            let (who, work) = group.entries[at];
            match run::sample(&folder, who, work, group.pin, effort.millis) {
                Ok(sample) => samples[at].push(sample),
                Err(error) => eprintln!("{} in {}: {error}", who.name(), work.name()),
            }
            let sockets = matches!(work, Work::Connect(_) | Work::Idle);
            thread::sleep(Duration::from_millis(if sockets { 100 } else { 10 }));
        }
    }
    Results { group, samples }
}

/// The same in every run, so that a run can be run again.
fn shuffled(count: usize, repetition: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(repetition as u64 + 1);
    for last in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

fn can_pin() -> bool {
    let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    cfg!(target_os = "linux") && several
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some(if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle] + values[middle + 1]) / 2.0
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    P50,
    P99,
    Rate,
    Cpu,
    Memory,
}

impl Results {
    fn figure(&self, at: usize, figure: Figure) -> Option<f64> {
        median(self.samples[at].iter().map(|sample| match figure {
            Figure::P50 => sample.outcome.p50,
            Figure::P99 => sample.outcome.p99,
            Figure::Rate => sample.outcome.rate(),
            Figure::Cpu => sample.cpu,
            Figure::Memory => sample.memory,
        }))
    }

    fn of(&self, entry: (Competitor, Work), figure: Figure) -> Option<f64> {
        self.figure(self.group.entries.iter().position(|known| *known == entry)?, figure)
    }

    fn main(&self) -> Figure {
        match self.group.by {
            By::P50 => Figure::P50,
            By::Rate => Figure::Rate,
            By::Memory => Figure::Memory,
        }
    }
}

fn print_head(text: &mut String, effort: Effort, started: Instant) {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let _ = writeln!(
        text,
        "{} on {} with {cores} cores; {} repetitions of {} ms each, in {} s; medians.\n",
        env!("CARGO_PKG_NAME"),
        std::env::consts::OS,
        effort.repetitions,
        effort.millis,
        started.elapsed().as_secs()
    );
}

fn print_group(text: &mut String, results: &Results) {
    let group = &results.group;
    let main = results.main();
    let unit = match group.by {
        By::P50 => "p50",
        By::Rate => "rate",
        By::Memory => "memory each",
    };
    let _ = writeln!(text, "### {}\n", group.title);
    let several = group.entries.iter().any(|(_, work)| *work != group.entries[0].1);
    let _ = writeln!(text, "| | {unit} | to tokio | p99 | CPU an operation | |");
    let _ = writeln!(text, "|---|--:|--:|--:|--:|---|");
    let base = results.figure(0, main);
    let ratios: Vec<_> =
        (0..group.entries.len()).map(|at| Some(results.figure(at, main)? / base?)).collect();
    let most = ratios.iter().flatten().copied().fold(1.0, f64::max);
    for (at, (who, work)) in group.entries.iter().enumerate() {
        let name =
            if several { format!("{}, {}", who.name(), how(*work)) } else { who.name().to_owned() };
        let shown = |figure| {
            results.figure(at, figure).map_or("–".to_owned(), |value| show(figure, *work, value))
        };
        let (ratio, bar) = match ratios[at] {
            Some(ratio) => {
                (format!("{ratio:.2}"), "█".repeat((ratio / most * 30.0).round() as usize))
            }
            None => ("–".to_owned(), String::new()),
        };
        let _ = writeln!(
            text,
            "| {name} | {} | {ratio} | {} | {} | {bar} |",
            shown(main),
            shown(Figure::P99),
            shown(Figure::Cpu)
        );
    }
    text.push('\n');
}

fn how(work: Work) -> &'static str {
    match work {
        Work::Messages(Sink::Each) => "a write each",
        Work::Messages(Sink::Batch) => "64 KiB by hand",
        Work::Messages(Sink::Framed) => "FramedWrite",
        Work::Messages(Sink::Own) => "FrameSink",
        other => other.name(),
    }
}

fn show(figure: Figure, work: Work, value: f64) -> String {
    match figure {
        Figure::P50 | Figure::P99 => format!("{value:.1} µs"),
        Figure::Cpu => format!("{value:.2} µs"),
        Figure::Memory => format!("{value:.0} B"),
        Figure::Rate => match work.bytes() {
            Some(bytes) => format!("{:.2} GB/s", value * bytes as f64 / 1e9),
            None if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            None => format!("{value:.0}/s"),
        },
    }
}

// ---- the bars ---------------------------------------------------------------

enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Limit::{AtLeast, AtMost};

/// A figure of one, and that of another by which it is divided.
struct Bar {
    group: &'static str,
    what: &'static str,
    figure: Figure,
    of: (Competitor, Work),
    to: Option<(Competitor, Work)>,
    limit: Limit,
}

fn bars() -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |group, what, figure, of, to, limit| {
        bars.push(Bar { group, what, figure, of, to: Some(to), limit });
    };
    let [small, large] = [Work::PingPong(64), Work::PingPong(64 * 1024)];
    let same = "W1 64 B round trip, same core";
    add(same, "sockpipe", Figure::P50, (Sockpipe, small), (Tokio, small), AtMost(1.05));
    add(same, "sockpipe, spin", Figure::P50, (Spin, small), (Tokio, small), AtMost(1.05));
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
    add(way, "sockpipe", Figure::Rate, (Sockpipe, block), (Tokio, block), AtLeast(0.95));
    add(way, "sockpipe, spin", Figure::Rate, (Spin, block), (Tokio, block), AtLeast(0.97));
    let way = "W2 64 KiB writes, one way";
    add(way, "sockpipe", Figure::Rate, (Sockpipe, block), (Tokio, block), AtLeast(0.95));
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
        add(group, "sockpipe", Figure::Rate, (Sockpipe, work), (Tokio, work), AtLeast(0.92));
        add(
            group,
            "sockpipe to TCP loopback",
            Figure::Rate,
            (Sockpipe, work),
            (Competitor::Tcp, work),
            AtLeast(tcp),
        );
    }
    let many = "W5 64 connections in turns";
    let work = Work::Many;
    add(many, "sockpipe", Figure::Rate, (Sockpipe, work), (Tokio, work), AtLeast(0.92));
    add(many, "sockpipe: p99", Figure::P99, (Sockpipe, work), (Tokio, work), AtMost(1.2));
    add(many, "sockpipe, spin", Figure::Rate, (Spin, work), (Tokio, work), AtLeast(0.95));
    add(many, "sockpipe, spin: p99", Figure::P99, (Spin, work), (Tokio, work), AtMost(1.2));
    let pipes = [
        ("Pipes: 64 B round trip", Figure::P50, small),
        ("Pipes: 64 KiB round trip", Figure::P50, large),
        ("Pipes: 64 KiB writes, one way", Figure::Rate, block),
        ("Pipes: 64 KiB echo", Figure::Rate, Work::Echo),
        ("Pipes: 64 B messages, a write each", Figure::Rate, each),
        ("Pipes: 64 connections in turns", Figure::Rate, Work::Many),
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
    bars.push(Bar {
        group: idle,
        what: "sockpipe, serve + echo, in bytes each",
        figure: Figure::Memory,
        of: (Serve, work),
        to: None,
        limit: AtMost(1331.0),
    });
    bars
}

fn print_bars(text: &mut String, all: &[Results]) {
    let _ = writeln!(text, "| workload | what, to tokio unless said | bar | measured | |");
    let _ = writeln!(text, "|---|---|--:|--:|---|");
    for bar in bars() {
        let Some(results) = all.iter().find(|results| results.group.title == bar.group) else {
            continue;
        };
        let (limit, sign) = match bar.limit {
            AtMost(limit) => (limit, '≤'),
            AtLeast(limit) => (limit, '≥'),
        };
        let of = results.of(bar.of, bar.figure);
        let measured = match bar.to {
            Some(to) => of.zip(results.of(to, bar.figure)).map(|(of, to)| of / to),
            None => of,
        };
        let decimals = if bar.to.is_some() { 2 } else { 0 };
        let (shown, verdict) = match measured {
            Some(value) => {
                let met = match bar.limit {
                    AtMost(limit) => value <= limit,
                    AtLeast(limit) => value >= limit,
                };
                (format!("{value:.decimals$}"), if met { "met" } else { "**falls short**" })
            }
            None => ("–".to_owned(), "not measured here"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {sign} {limit:.decimals$} | {shown} | {verdict} |",
            bar.group, bar.what
        );
    }
    text.push('\n');
}

// ---- smoke --------------------------------------------------------------------

/// Everything once and briefly, then a few against tokio three times: a gross loss fails.
pub fn smoke() -> ExitCode {
    let folder = Folder::new();
    let mut failed = 0;
    let mut ran = 0;
    for group in groups::all() {
        for (who, work) in group.entries {
            if !who.takes_part(work) {
                println!("not here: {} in {}", who.name(), work.name());
                continue;
            }
            let sample = run::sample(&folder, who, work, Pin::Anywhere, 100);
            match sample {
                Ok(sample) if sample.outcome.ops > 0.0 => ran += 1,
                other => {
                    failed += 1;
                    println!("{} in {}: {other:?}", who.name(), work.name());
                }
            }
        }
    }
    println!("{ran} combinations run");
    for (by, pin, work) in [
        (By::P50, Pin::Cross, Work::PingPong(64)),
        (By::Rate, Pin::Anywhere, Work::OneWay(64 * 1024)),
        (By::Rate, Pin::Anywhere, Work::Many),
        (By::Rate, Pin::Anywhere, Work::Connect(1)),
    ] {
        // What else the machine does in one try is not sockpipe's doing.
        if !(0..3).any(|_| half_of_tokio(by, pin, work)) {
            failed += 1;
        }
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn half_of_tokio(by: By, pin: Pin, work: Work) -> bool {
    let entries = [Tokio, Sockpipe, Spin].map(|who| (who, work)).to_vec();
    let effort = Effort { repetitions: 3, millis: 150 };
    let results = measure(Group { title: work.name(), pin, by, entries }, effort);
    let figure = |at| results.figure(at, results.main()).unwrap_or(f64::NAN);
    [1, 2].into_iter().all(|at| {
        // As a speed: more is better.
        let speed = if by == By::P50 { figure(0) / figure(at) } else { figure(at) / figure(0) };
        let name = results.group.entries[at].0.name();
        println!("{}: {name} has {speed:.2} of tokio's speed", work.name());
        speed >= 0.5
    })
}

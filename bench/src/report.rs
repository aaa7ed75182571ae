//! Runs the groups, and prints the results.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::bars;
use crate::competitors::Competitor::{self, *};
use crate::groups::{self, By, Group};
use crate::run::{self, Folder, Pin, Sample};
use crate::work::{Sink, Work};

/// The number of repetitions, and the length of each.
#[derive(Clone, Copy)]
struct Effort {
    repetitions: usize,
    millis: u64,
}

const FULL: Effort = Effort { repetitions: 11, millis: 300 };
const REDUCED: Effort = Effort { repetitions: 3, millis: 200 };

/// The samples of a group, by entry.
pub struct Results {
    pub group: Group,
    samples: Vec<Vec<Sample>>,
}

pub fn table(options: &[&str]) -> ExitCode {
    let mut effort = FULL;
    let (mut only, mut memory) = (None, false);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "full" => effort = FULL,
            "reduced" => effort = REDUCED,
            "--memory" => memory = true,
            "--repetitions" => match options.next().and_then(|count| count.parse().ok()) {
                Some(count) => effort.repetitions = count,
                None => return usage("--repetitions needs a number"),
            },
            "--only" => only = options.next().copied(),
            other => return usage(&format!("no such option: {other}")),
        }
    }
    let started = Instant::now();
    let groups = groups::all()
        .into_iter()
        .filter(|group| only.is_none_or(|word| group.title.contains(word)));
    let groups = groups.filter_map(|group| if memory { group.of_memory() } else { Some(group) });
    let results: Vec<_> = groups.map(|group| measure(group, effort)).collect();
    #[cfg(feature = "iceoryx2")]
    crate::iceoryx::clean_up();
    let mut text = String::new();
    print_head(&mut text, effort, started);
    bars::print(&mut text, &results, memory);
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

fn usage(wrong: &str) -> ExitCode {
    eprintln!("{wrong}");
    ExitCode::from(2)
}

/// Measures a group, in a different order in each repetition. A competitor can leave something
/// behind for a moment, such as sockets that the kernel still has to free, and its successor must
/// not always be the same.
fn measure(mut group: Group, effort: Effort) -> Results {
    group.entries.retain(|(who, work)| who.takes_part(*work));
    if !can_pin() && matches!(group.pin, Pin::Same | Pin::Cross) {
        group.pin = Pin::Anywhere;
    }
    let folder = Folder::new();
    // Memory hardly differs between repetitions, and each takes a second.
    let repetitions = match (group.by, group.entries[0].1) {
        (By::Memory, _) => effort.repetitions.min(3),
        // The figures of one-way transfers differ most between runs.
        (_, Work::OneWay(_) | Work::Download(_)) => effort.repetitions * 2,
        _ => effort.repetitions,
    };
    let times = match group.entries[0].1 {
        // A percentile of one in a thousand needs thousands of operations.
        Work::Longest => 10,
        // Each kill takes a server of its own.
        Work::Killed => 3,
        _ => 1,
    };
    let millis = effort.millis * times;
    let mut samples = vec![Vec::new(); group.entries.len()];
    for repetition in 0..repetitions {
        eprintln!("{} ({} of {repetitions})", group.title, repetition + 1);
        for at in shuffled(group.entries.len(), repetition) {
            let (who, work) = group.entries[at];
            match run::sample(&folder, who, work, group.pin, millis) {
                Ok(sample) => samples[at].push(sample),
                Err(error) => eprintln!("{} in {}: {error}", who.name(), work.name()),
            }
            let sockets = matches!(work, Work::Connect(_) | Work::Idle | Work::Scale(_));
            thread::sleep(Duration::from_millis(if sockets { 100 } else { 10 }));
        }
    }
    Results { group, samples }
}

/// Returns the order of a repetition, which is the same in every run, so that runs are repeatable.
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
pub enum Figure {
    P50,
    P99,
    P999,
    Rate,
    Cpu,
    Memory,
}

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::P50 => sample.outcome.p50,
            Self::P99 => sample.outcome.p99,
            Self::P999 => sample.outcome.p999,
            Self::Rate => sample.outcome.rate(),
            Self::Cpu => sample.cpu,
            Self::Memory => sample.memory,
        }
    }
}

impl Results {
    fn figure(&self, at: usize, figure: Figure) -> Option<f64> {
        median(self.samples[at].iter().map(|sample| figure.of(sample)))
    }

    pub fn of(&self, entry: (Competitor, Work), figure: Figure) -> Option<f64> {
        self.figure(self.group.entries.iter().position(|known| *known == entry)?, figure)
    }

    /// Returns the figure that others are compared with. For tokio it includes both of its rows.
    pub fn base(&self, (who, work): (Competitor, Work), figure: Figure) -> Option<f64> {
        let counts = |entry: &(Competitor, Work)| {
            *entry == (who, work) || (who == Tokio && *entry == (Noise, work))
        };
        let entries = self.group.entries.iter().zip(&self.samples);
        let samples = entries.filter(|(entry, _)| counts(entry)).flat_map(|(_, samples)| samples);
        median(samples.map(|sample| figure.of(sample)))
    }

    /// Returns the ratio between tokio's two rows.
    pub fn noise(&self, work: Work, figure: Figure) -> Option<f64> {
        Some(self.of((Noise, work), figure)? / self.of((Tokio, work), figure)?)
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
    let base = results.base(group.entries[0], main);
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
        Figure::P50 | Figure::P99 | Figure::P999 => format!("{value:.1} µs"),
        Figure::Cpu => format!("{value:.2} µs"),
        Figure::Memory => format!("{value:.0} B"),
        Figure::Rate => match work.bytes() {
            Some(bytes) => format!("{:.2} GB/s", value * bytes as f64 / 1e9),
            None if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            None => format!("{value:.0}/s"),
        },
    }
}

/// Runs everything once and briefly, and then compares a few workloads with tokio, in up to three
/// tries. It fails if sockpipe is grossly slower.
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
            // The smoke run does not pin processes, but keeps the load beside them.
            let pin = match group.pin {
                Pin::Same | Pin::Cross => Pin::Anywhere,
                beside => beside,
            };
            let sample = run::sample(&folder, who, work, pin, 100);
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
        (By::Rate, Pin::Anywhere, Work::Many(64)),
        (By::Rate, Pin::Anywhere, Work::Connect(1)),
    ] {
        // Other load may disturb one of the tries.
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
        // The ratio is a speed, so more is better.
        let speed = if by == By::P50 { figure(0) / figure(at) } else { figure(at) / figure(0) };
        let name = results.group.entries[at].0.name();
        println!("{}: {name} has {speed:.2} of tokio's speed", work.name());
        speed >= 0.5
    })
}

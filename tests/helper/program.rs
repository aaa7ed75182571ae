//! The program that the Unix tests run as processes: servers, clients and rivals, each a verb.
//!
//! It is built as an example, so that `cargo test` builds it. It ends with its standard input, so
//! that no process is left when a test fails, even if another program started it.

#[cfg(unix)]
mod cancel;
#[cfg(unix)]
mod clients;
#[cfg(unix)]
mod cost;
#[cfg(unix)]
mod raw;
#[cfg(unix)]
mod rivals;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod starts;
#[cfg(unix)]
mod talk;
#[cfg(unix)]
mod upgrade;

/// Only tests of the Unix backend need the program.
#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run());
}

#[cfg(unix)]
async fn run() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", path, ref options @ ..] => server::run(path, options).await,
        ["reason", path] => server::reason(path),
        ["inherited", ref options @ ..] => server::inherited(options).await,
        ["activated"] => server::activated().await,
        ["passed"] => server::passed().await,
        ["served"] => server::served().await,
        ["children", path, count] => server::children(path, number(count)).await,
        ["connect", path, ref options @ ..] => clients::connect(path, options).await,
        ["trips", path, count] => clients::trips(path, number(count)).await,
        ["sink", path] => clients::fill_a_sink(path).await,
        ["closed-peers", way, count] => {
            clients::write_to_closed_peers(way, number(count)).await;
        }
        ["exact", whose, _, count] => cost::exact(whose, number(count)).await,
        ["bytes", whose, path, count] => cost::bytes(whose, path, number(count)).await,
        ["connect-cost", whose, path, count] => cost::connects(whose, path, number(count)).await,
        ["cancel", path, count] => cancel::run(path, number(count)).await,
        ["once", path] => rivals::once(path).await,
        ["holds", path] => rivals::hold(path),
        ["clean", path] => rivals::clean(path),
        ["occupancy", path] => rivals::occupancy(path),
        ["takeovers", path, count] => rivals::takeovers(path, number(count)).await,
        ["binds", path, count, ref options @ ..] => {
            rivals::binds(path, number(count), options).await;
        }
        ["churn", path, millis, seed] => rivals::churn(path, number(millis), number(seed)).await,
        ["raw-server", path, backlog] => raw::server(path, number(backlog)),
        ["raw-connects", path, count] => raw::connects(path, number(count)),
        ["hammer", path] => clients::hammer(path).await,
        ["raw-hammer", path] => raw::hammer(path),
        ["daemon", path] => starts::daemon(path).await,
        ["spawning", path, ref through @ ..] => starts::client(path, through).await,
        ["single", path] => starts::single(path).await,
        ["upgrade", path] => upgrade::run(path, true).await,
        ["upgrade-once", path] => upgrade::run(path, false).await,
        ["instance", path, wish] => starts::instance(path, wish).await,
        _ => panic!("no such verb: {arguments:?}"),
    }
}

#[cfg(unix)]
fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}

/// Returns an error in one line for the tests: its kind, the name of its reason, and its message.
#[cfg(unix)]
fn shown(error: &std::io::Error) -> String {
    let reason = sockpipe::Error::of(error).map(|error| format!("{:?}", error.reason()));
    let reason = reason.as_deref().unwrap_or("NoReason");
    let name = reason.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    format!("{:?} {name}: {error}", error.kind())
}

/// Returns how many descriptors this process has open.
#[cfg(unix)]
fn open_descriptors() -> usize {
    // The listing itself opens one.
    std::fs::read_dir("/dev/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

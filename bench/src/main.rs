//! Measures what a stream through sockpipe costs, compared with others. Two processes run one
//! workload, and the competitors take turns.
//!
//! ```console
//! sockpipe-bench table [full|reduced] [--only WORD]   runs the groups and prints them as markdown
//! sockpipe-bench table [full|reduced] --memory        the same, of shared memory beside iceoryx2
//! sockpipe-bench table [full|reduced] --repetitions N the same, so many times each
//! sockpipe-bench smoke                                one minute: it runs, and is not grossly slow
//! sockpipe-bench charts PAGE FOLDER                   draws the tables of a page, as SVG
//! sockpipe-bench list                                 what there is to run
//! ```
//!
//! These commands start this program again, as `server` and `client`.

mod bars;
mod beside;
mod blocking;
mod charts;
mod competitors;
mod download;
mod flow;
mod groups;
#[cfg(feature = "iceoryx2")]
mod iceoryx;
mod killed;
mod measure;
#[cfg(unix)]
mod recvmsg;
mod report;
mod run;
mod streams;
mod work;
mod zeromq;

use std::env;
use std::process::ExitCode;

use crate::competitors::Competitor;
use crate::work::Work;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", competitor, work, address] => {
            Competitor::named(competitor).serve(Work::named(work), address);
        }
        ["client", competitor, work, address, millis] => {
            let millis = millis.parse().expect("a number");
            let result = Competitor::named(competitor).drive(Work::named(work), address, millis);
            println!("{}", result.line());
        }
        ["hog", _] => run::hog(),
        ["table", ref options @ ..] => return report::table(options),
        ["smoke"] => return report::smoke(),
        ["charts", page, folder] => {
            if let Err(error) = charts::draw(page, folder) {
                eprintln!("cannot draw {page}: {error}");
                return ExitCode::FAILURE;
            }
        }
        ["list"] => groups::list(),
        _ => {
            eprintln!(
                "usage: sockpipe-bench table [full|reduced] [--only WORD] [--memory] \
                 [--repetitions N] | smoke | charts PAGE FOLDER | list"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

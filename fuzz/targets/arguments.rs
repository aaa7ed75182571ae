//! The tool parses any command line, given as one argument a line, or refuses it with a message.
//! Parsed values are usable: a TCP address has a port, and a rate and a time are within their
//! limits.
#![no_main]

#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tool's source, used in part")]
#[path = "../../cli/src/args.rs"]
mod args;

use args::{Address, Args, Verb};
use clap::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A NUL cannot be in an argument.
    if text.contains('\0') {
        return;
    }
    let arguments = std::iter::once("sockpipe").chain(text.lines());
    match Args::try_parse_from(arguments) {
        Err(error) => assert!(!error.render().to_string().is_empty()),
        Ok(Args { verb: Verb::Relay(relay), .. }) => {
            for address in [relay.from, relay.to] {
                match address {
                    Address::Tcp(address) => {
                        let port = address.rsplit(':').next().map(str::parse::<u16>);
                        assert!(matches!(port, Some(Ok(_))), "{address}");
                    }
                    Address::Local(endpoint) => {
                        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
                    }
                    Address::Passed(_) | Address::Stdio => {}
                }
            }
        }
        Ok(Args { verb: Verb::Ping(ping), .. }) => {
            assert!((1..=1 << 30).contains(&ping.size) && ping.count > 0);
            assert!(ping.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0));
        }
        Ok(_) => {}
    }
});

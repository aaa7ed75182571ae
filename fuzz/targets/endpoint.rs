//! Any text either is refused, with an error whose position is inside it, or parses to an endpoint
//! that
//! prints as text that parses to the same endpoint. The same text as a path does so too.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sockpipe::Endpoint;

fuzz_target!(|text: &str| {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => assert_eq!(endpoint.to_string().parse(), Ok(endpoint)),
        Err(error) => {
            assert_eq!(error.input(), text);
            assert!(text.is_char_boundary(error.position().unwrap_or(0)));
            assert!(!error.to_string().is_empty());
        }
    }
    if let Ok(endpoint) = Endpoint::try_from(Path::new(text)) {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }
});

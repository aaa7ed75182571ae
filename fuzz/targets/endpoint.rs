//! Parses any text as an endpoint. The parser refuses the text, with an error whose position is
//! inside it, or returns an endpoint. That endpoint prints as text that parses to the same
//! endpoint. The same holds for the text as a path.
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

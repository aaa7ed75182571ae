//! Detects Wine and the model of NT. The unit tests use this file too.
#![allow(unreachable_pub, reason = "as its neighbours")]

/// Reports whether this Windows is Wine.
pub fn is_wine() -> bool {
    let root = std::env::var_os("SystemRoot").expect("Windows");
    let ntdll = std::path::Path::new(&root).join("system32").join("ntdll.dll");
    let ntdll = std::fs::read(ntdll).expect("a library");
    let has = b"wine_get_version";
    ntdll.windows(has.len()).any(|bytes| bytes == has)
}

/// Reports whether this Wine has the server that answers like NT, see `scripts/nt.sh`.
pub fn is_model() -> bool {
    std::env::var_os("SOCKPIPE_NT_MODEL").is_some()
}

/// Reports whether this is Wine, with or without the model of NT, and prints why it cannot run the
/// test.
pub fn skipped(reason: &str) -> bool {
    let wine = is_wine();
    if wine && is_model() {
        not_run(&format!("waits for a real Windows: {reason}"));
    } else if wine {
        not_run(&format!("this is Wine: {reason}"));
    }
    wine
}

/// Reports whether this is Wine without the model of NT, and prints why it cannot run the test.
pub fn skipped_without_model(reason: &str) -> bool {
    if is_model() {
        println!("run under the model of NT");
        return false;
    }
    skipped(reason)
}

/// Prints that a test was not run. CI sets `SOCKPIPE_REAL_WINDOWS` on a real Windows, where this is
/// a failure.
pub fn not_run(reason: &str) {
    let required = std::env::var_os("SOCKPIPE_REAL_WINDOWS").is_some();
    assert!(!required, "not run, and SOCKPIPE_REAL_WINDOWS is set: {reason}");
    println!("not run: {reason}");
}

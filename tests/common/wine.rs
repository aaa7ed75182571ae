//! Whether this Windows is one. The unit tests use this file too.
#![allow(unreachable_pub, reason = "as its neighbours")]

/// Whether this Windows is Wine.
pub fn is_wine() -> bool {
    let root = std::env::var_os("SystemRoot").expect("Windows");
    let ntdll = std::path::Path::new(&root).join("system32").join("ntdll.dll");
    let ntdll = std::fs::read(ntdll).expect("a library");
    let has = b"wine_get_version";
    ntdll.windows(has.len()).any(|bytes| bytes == has)
}

/// Whether this Wine has the server that answers as NT is said to, see `scripts/nt.sh`.
pub fn is_model() -> bool {
    std::env::var_os("SOCKPIPE_NT_MODEL").is_some()
}

/// Whether neither Wine nor the model of NT can show what is to be shown; says so.
pub fn skipped(reason: &str) -> bool {
    let wine = is_wine();
    if wine && is_model() {
        not_run(&format!("waits for a real Windows: {reason}"));
    } else if wine {
        not_run(&format!("this is Wine: {reason}"));
    }
    wine
}

/// Whether Wine cannot show what the model of NT can; says so.
pub fn skipped_without_model(reason: &str) -> bool {
    if is_model() {
        println!("run under the model of NT");
        return false;
    }
    skipped(reason)
}

/// With `SOCKPIPE_REAL_WINDOWS` set, as where CI has a real Windows, it is a failure.
pub fn not_run(reason: &str) {
    let required = std::env::var_os("SOCKPIPE_REAL_WINDOWS").is_some();
    assert!(!required, "not run, and SOCKPIPE_REAL_WINDOWS is set: {reason}");
    println!("not run: {reason}");
}

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

/// Whether Wine cannot show what is to be shown; says so.
pub fn skipped(reason: &str) -> bool {
    let wine = is_wine();
    if wine {
        not_run(&format!("this is Wine: {reason}"));
    }
    wine
}

/// With `SOCKPIPE_REAL_WINDOWS` set, as where CI has a real Windows, it is a failure.
pub fn not_run(reason: &str) {
    let required = std::env::var_os("SOCKPIPE_REAL_WINDOWS").is_some();
    assert!(!required, "not run, and SOCKPIPE_REAL_WINDOWS is set: {reason}");
    println!("not run: {reason}");
}

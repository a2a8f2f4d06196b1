//! Faults planted into tests that must notice them.

/// Runs one of these tests in a process of its own with a fault planted, at CI size, and answers whether it passed and what it
/// printed.
pub fn with_fault(fault: &str, test: &str) -> (bool, String) {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("STRONGROOM_PLANTED_FAULT", fault)
        .env_remove("STRONGROOM_FULL")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
    assert!(printed.contains("running 1 test"), "{printed}");
    (child.status.success(), printed)
}

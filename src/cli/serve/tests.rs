use super::*;
use crate::crypto::entropy::OsEntropy;

#[derive(Debug, thiserror::Error)]
#[error("cannot open: {source}")]
struct Outer {
    source: io::Error,
}

#[test]
fn a_cause_is_told_once() {
    let error = Outer { source: io::Error::other("no such disk") };
    assert_eq!(told(&error), "cannot open: no such disk");
    assert_eq!(failed("the store", &error).message, "the store: cannot open: no such disk");
}

#[test]
fn the_configuration_that_the_help_shows_is_one() {
    let shown = HELP.split_once("folder):\n").unwrap().1.split_once("Where else").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strongroom.toml");
    std::fs::write(&file, shown).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.listener.address.port(), 7443);
    assert!(!config.allow_same_device);
}

/// Every other source that the help shows is one too, in place of the file.
#[test]
fn every_root_source_that_the_help_shows_is_one() {
    let (_, shown) = HELP.split_once("folder):\n").unwrap();
    let (whole, rest) = shown.split_once("Where else").unwrap();
    let sources = rest.split_once("\n").unwrap().1.split_once("Examples:").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let mut kinds = Vec::new();
    for line in sources.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let replaced: Vec<&str> =
            whole.lines().map(|old| if old.contains("passphrase_file") { line } else { old }).collect();
        let file = folder.path().join("strongroom.toml");
        std::fs::write(&file, replaced.join("\n")).unwrap();
        match Config::load(&file) {
            Ok(config) => kinds.push(config.root.kind()),
            Err(error) => assert!(line.starts_with("aws_kms") && error.to_string().contains("--features"), "{error}"),
        }
    }
    kinds.retain(|kind| *kind != "AWS KMS");
    assert_eq!(kinds, ["key file", "credential", "transit engine", "PKCS#11 token", "set of shares"]);
}

fn development(dir: &Path) -> Config {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    crate::cli::dev::prepare(dir, Some(anywhere), &SystemClock::new(), &OsEntropy).unwrap()
}

fn start(config: &Config) -> Result<Running, Failure> {
    Running::start(config.clone(), Arc::new(SystemClock::new()))
}

#[test]
fn a_stopped_server_lets_go_of_the_store_and_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = development(folder.path());
    let first = start(&config).unwrap();
    config.listener.address = first.address;
    assert!(start(&config).map(drop).unwrap_err().message.starts_with("cannot listen on 127.0.0.1:"));
    config.listener.address.set_port(0);
    assert!(start(&config).map(drop).unwrap_err().message.contains("another process holds this store"));
    config.listener.address = first.address;
    first.stop().unwrap();
    start(&config).unwrap().stop().unwrap();
}

#[test]
fn bad_certificates_are_not_reloaded_and_good_ones_are() {
    let folder = tempfile::tempdir().unwrap();
    let config = development(folder.path());
    let running = start(&config).unwrap();
    let before = running.trust.server_config();
    let crl = &config.trust.crls[0];
    let good = std::fs::read(crl).unwrap();
    std::fs::write(crl, "no list").unwrap();
    running.reload();
    assert!(Arc::ptr_eq(&before, &running.trust.server_config()));
    std::fs::write(crl, good).unwrap();
    running.reload();
    assert!(!Arc::ptr_eq(&before, &running.trust.server_config()));
    running.stop().unwrap();
}

#[test]
fn every_missing_file_ends_the_start_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = development(folder.path());
    let expected: [(&Path, _); 4] = [
        (&config.trust.certificate, "certificates"),
        (&config.trust.crls[0], "certificates"),
        (&config.keyring, "there is no keyring"),
        (&config.root.path().unwrap(), "key file"),
    ];
    for (file, words) in expected {
        let aside = folder.path().join("aside");
        std::fs::rename(file, &aside).unwrap();
        let failure = start(&config).map(drop).unwrap_err();
        std::fs::rename(&aside, file).unwrap();
        assert_eq!((failure.code, failure.message.lines().count()), (5, 1));
        assert!(failure.message.contains(words) && failure.message.contains(&file.display().to_string()), "{failure}");
    }
}

#[test]
fn a_root_beside_the_database_is_refused_unless_allowed_and_then_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = development(folder.path());
    let status = root_status(&config).unwrap();
    assert_eq!(status.source, "key file");
    assert!(status.warnings.iter().any(|warning| warning.contains("database's device")));
    config.allow_same_device = false;
    let refused = root_status(&config).unwrap_err();
    assert!(refused.message.contains("allow_same_device") && refused.code == 5);
}

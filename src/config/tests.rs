use super::*;

const GOOD: &str = "\
trust_domain = 'strongroom.dev'
sweep_interval = '2s'

[listen]
address = '127.0.0.1:0'
workers = 2

[tls]
certificate = 'certs/server.pem'
key = 'certs/server-key.pem'
roots = 'certs/ca.pem'
crls = ['certs/crl.pem']

[data]
database = 'strongroom.db'
ledger = '/elsewhere/erasure.ledger'
keyring = 'keyring'

[root]
key_file = 'root.key'

[[tenant]]
name = 'kitchenware'
policy = 'builtin:kitchenware'

[[carrier]]
name = 'swift'
serial = '[A-Z]{2}[0-9]{9}'
";

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&file)
}

#[test]
fn a_good_file_is_read_and_its_paths_start_at_its_folder() {
    let config = parse(GOOD, Path::new("/etc/strongroom")).unwrap();
    assert_eq!(config.trust.certificate, Path::new("/etc/strongroom/certs/server.pem"));
    assert_eq!(config.store.ledger, Path::new("/elsewhere/erasure.ledger"));
    assert_eq!(config.root, RootSource::KeyFile { path: "/etc/strongroom/root.key".into() });
    assert_eq!((config.listener.workers, config.sweep_interval), (2, Duration::from_secs(2)));
    assert!(!config.allow_same_device);
    assert_eq!(config.policies.keys().map(TenantId::as_str).collect::<Vec<_>>(), ["kitchenware"]);
    assert!(config.serial_patterns[&"swift".parse().unwrap()].matches("SW123456789"));
}

#[test]
fn what_is_left_out_has_a_default() {
    let short =
        GOOD.replace("sweep_interval = '2s'\n", "").replace("[listen]\naddress = '127.0.0.1:0'\nworkers = 2\n", "");
    let config = parse(&short, Path::new("")).unwrap();
    assert_eq!((config.listener.address, config.sweep_interval), (DEFAULT_ADDRESS, DEFAULT_SWEEP));
    assert!(config.listener.workers >= 1);
    assert_eq!((config.log.level, config.log.format, config.log.file), (Level::Info, Format::Json, None));
}

#[test]
fn every_mistake_is_named_with_its_line_key_and_reason() {
    for (from, to, line, words) in [
        ("trust_domain =", "trust_domain", 1, ""),
        ("'strongroom.dev'", "'Strongroom.dev'", 1, "trust_domain: is no trust domain"),
        ("'strongroom.dev'", "'spiffe://x'", 1, "trust_domain: is no trust domain"),
        ("'2s'", "'soon'", 2, "sweep_interval: is no duration"),
        ("'2s'", "'-2s'", 2, "sweep_interval: is not between"),
        ("'2s'", "'1 day'", 2, "sweep_interval: is no"),
        ("'127.0.0.1:0'", "'localhost'", 5, "listen.address: is no IP address"),
        ("workers = 2", "workers = 0", 6, "listen.workers: is not between 1 and 1024"),
        ("workers = 2", "workers = 'two'", 6, "invalid type"),
        ("workers = 2", "threads = 2", 6, "unknown field `threads`"),
        ("roots = 'certs/ca.pem'\n", "", 8, "missing field `roots`"),
        ("key_file = 'root.key'\n", "", 19, "root: name exactly one"),
        ("key_file = 'root.key'", "key_file = 'a'\npassphrase_file = 'b'", 19, "root: name exactly one"),
        ("key_file = 'root.key'", "passphrase = 'correct horse'", 20, "unknown field `passphrase`"),
        ("'kitchenware'", "'Kitchenware'", 23, "tenant.name: a name is"),
        ("'builtin:kitchenware'", "'builtin:garden'", 24, "tenant.policy: is no policy of this build"),
        ("'builtin:kitchenware'", "'none.toml'", 24, "none.toml: cannot be read"),
        ("[[carrier]]", "[[tenant]]\nname = 'kitchenware'\npolicy = 'builtin:kitchenware'\n[[carrier]]", 27, "twice"),
        ("'swift'", "'swift'\nserial = 'x'\n[[carrier]]\nname = 'swift'", 30, "carrier.name: is given twice"),
        (
            "[[carrier]]",
            "[[anchor]]\nroots = 'a'\ntenants = ['K']\nroles = []\n[[carrier]]",
            28,
            "anchor.tenants: a name",
        ),
        (
            "[[carrier]]",
            "[[anchor]]\nroots = 'a'\ntenants = []\nroles = ['king']\n[[carrier]]",
            29,
            "anchor.roles: is no role",
        ),
        ("'[A-Z]{2}[0-9]{9}'", "'('", 28, "carrier.serial: a serial pattern must be"),
    ] {
        let shown = load(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        let place = format!("config.toml, line {line}");
        assert!(shown.contains(&place) && shown.contains(words), "{from} -> {to}: {shown}");
        assert!(!shown.contains("correct horse"), "{shown}");
    }
}

#[test]
fn a_server_without_a_tenant_is_refused() {
    let none = GOOD.replace("[[tenant]]\nname = 'kitchenware'\npolicy = 'builtin:kitchenware'\n", "");
    assert!(load(&none).unwrap_err().to_string().contains("missing field `tenant`"));
    let empty = format!("tenant = []\n{none}");
    assert!(load(&empty).unwrap_err().to_string().contains("tenant: no tenant is given"));
}

#[test]
fn a_mistake_inside_a_policy_is_named_with_the_policys_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.toml"), Policy::KITCHENWARE.replace("P60D", "60 days")).unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, GOOD.replace("builtin:kitchenware", "shop.toml")).unwrap();
    let shown = Config::load(&file).unwrap_err().to_string();
    assert!(shown.contains("shop.toml: line ") && shown.contains("is no ISO-8601 duration"), "{shown}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let shown = Config::load(Path::new("/nowhere/config.toml")).unwrap_err().to_string();
    assert!(shown.starts_with("/nowhere/config.toml: cannot be read"), "{shown}");
}

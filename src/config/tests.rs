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

fn root_of(text: &str) -> Result<RootSource, String> {
    let text = GOOD.replace("key_file = 'root.key'", text);
    load(&text).map(|config| config.root).map_err(|error| error.to_string())
}

#[test]
fn every_root_source_is_read_and_its_secrets_are_paths() {
    let transit = "transit = { address = 'https://bao.example:8200', key = 'k', token_file = 'token', mount = 'a/b' }";
    let Ok(RootSource::Transit(read)) = root_of(transit) else { panic!() };
    assert_eq!((read.address.as_str(), read.mount.as_str()), ("https://bao.example:8200/", "a/b"));
    assert!(read.token_file.is_absolute() && read.token_file.ends_with("token"));
    let pkcs11 = "pkcs11 = { module = '/lib/m.so', token = 'a token', key = 'k', pin_file = 'pin' }";
    let Ok(RootSource::Pkcs11(read)) = root_of(pkcs11) else { panic!() };
    assert_eq!((read.module.as_path(), read.token.as_str()), (Path::new("/lib/m.so"), "a token"));
    assert!(read.pin_file.ends_with("pin"));
    assert!(matches!(root_of("shares = { shares = 5, threshold = 3 }"), Ok(RootSource::Shares(_))));
    assert!(matches!(root_of("credential = 'root'"), Ok(RootSource::Credential { .. })));
}

#[test]
fn every_mistake_in_a_root_source_is_named_with_its_line_and_key() {
    let transit =
        |address: &str, key: &str| format!("transit = {{ address = '{address}', key = '{key}', token_file = 't' }}");
    let bao = "https://bao.example";
    for (text, words) in [
        ("credential = '../root'".to_owned(), "line 20, root.credential: is no credential's name"),
        (transit("http://bao.example", "k"), "line 20, root.transit.address: is no address"),
        (transit(bao, "../sys/raw"), "line 20, root.transit.key: is no plain name"),
        (transit(bao, "k?x=1"), "line 20, root.transit.key: is no plain name"),
        (transit(bao, ""), "line 20, root.transit.key: is no plain name"),
        ("transit = { address = 'https://b', key = 'k', token = 'secret' }".to_owned(), "unknown field `token`"),
        ("transit = { address = 'https://b', key = 'k' }".to_owned(), "missing field `token_file`"),
        (
            "pkcs11 = { module = 'm', token = '', key = 'k', pin_file = 'p' }".to_owned(),
            "root.pkcs11.token: is no plain",
        ),
        ("pkcs11 = { module = 'm', token = 't', key = 'k', pin = '1234' }".to_owned(), "unknown field `pin`"),
        ("shares = { shares = 5, threshold = 6 }".to_owned(), "line 20, root.shares: is no way to split"),
        ("shares = { shares = 5, threshold = 1 }".to_owned(), "line 20, root.shares: is no way to split"),
        ("shares = { shares = 261, threshold = 3 }".to_owned(), "line 20, root.shares: is no way to split"),
        ("key_file = 'a'\ncredential = 'b'".to_owned(), "line 19, root: name exactly one"),
        ("allow_same_device = true".to_owned(), "line 19, root: name exactly one"),
    ] {
        let refused = root_of(&text).unwrap_err();
        assert!(refused.contains(words), "{text}: {refused}");
        assert!(!refused.contains("secret") && !refused.contains("1234"), "{refused}");
    }
}

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
    assert!(config.listener.workers >= 1 && config.sandbox);
    assert_eq!((config.log.level, config.log.format, config.log.file), (Level::Info, Format::Json, None));
    assert_eq!((config.reserve, config.limits, config.metrics), (DEFAULT_RESERVE, Limits::default(), None));
}

#[test]
fn a_limit_changes_what_it_names_of_its_role_and_nothing_else() {
    let config = load(&format!("{GOOD}\n[limits.carrier]\nburst = 7\nmisses_per_minute = 9\n")).unwrap();
    let usual = Limits::default().of(Role::Carrier);
    let expected = crate::policy::limits::Limit { burst: 7, misses_per_minute: 9, ..usual };
    assert_eq!(config.limits, Limits::default().with(Role::Carrier, expected));
}

#[test]
fn a_reserve_is_read_in_its_units() {
    for (text, bytes) in [("0", 0), ("1MiB", MIB), ("64 MiB", 64 * MIB), ("2GiB", 2048 * MIB)] {
        let config = load(&GOOD.replace("keyring = 'keyring'", &format!("keyring = 'k'\nreserve = '{text}'"))).unwrap();
        assert_eq!(config.reserve, bytes, "{text}");
    }
}

#[test]
fn metrics_are_served_to_other_machines_only_where_that_is_allowed() {
    let with = |lines: &str| load(&format!("{GOOD}\n[metrics]\n{lines}\n"));
    assert_eq!(with("address = '127.0.0.1:9464'").unwrap().metrics.unwrap().port(), 9464);
    let refused = with("address = '0.0.0.0:9464'").unwrap_err().to_string();
    assert!(refused.contains("metrics.address: is reachable from other machines"), "{refused}");
    assert!(with("address = '0.0.0.0:9464'\nallow_remote = true").unwrap().metrics.is_some());
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
        ("keyring = 'keyring'", "keyring = 'b/k'\nbackups = 'b'", 18, "data.backups: holds the keyring"),
        ("keyring = 'keyring'", "keyring = 'k'\nbackups = '.'", 18, "data.backups: holds the keyring"),
        ("keyring = 'keyring'", "keyring = 'k'\nreserve = '64 MB'", 18, "data.reserve: is no size"),
        ("keyring = 'keyring'", "keyring = 'k'\nreserve = '-1MiB'", 18, "data.reserve: is no size"),
        ("keyring = 'keyring'", "keyring = 'k'\nreserve = '99999GiB'", 18, "data.reserve: is not between"),
        ("[[carrier]]", "[limits.king]\nburst = 1\n[[carrier]]", 26, "limits: is no role"),
        ("[[carrier]]", "[limits.shop]\nburst = 0\n[[carrier]]", 27, "limits.burst: is not between 1 and"),
        ("[[carrier]]", "[limits.shop]\nspeed = 1\n[[carrier]]", 27, "unknown field `speed`"),
        ("[[carrier]]", "[metrics]\naddress = 'here'\n[[carrier]]", 27, "metrics.address: is no IP address"),
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
fn the_general_policy_loads_with_its_years_and_not_without() {
    let with =
        |parameters: &str| load(&GOOD.replace("builtin:kitchenware'", &format!("builtin:general'\n{parameters}")));
    let shown = with("").unwrap_err().to_string();
    assert!(shown.contains("line 24, tenant.policy: builtin:general: line "), "{shown}");
    assert!(shown.contains("years has no value") && shown.contains("parameters = { years = 5 }"), "{shown}");
    let config = with("parameters = { years = 5 }").unwrap();
    assert_eq!(config.policies.values().map(Policy::id).collect::<Vec<_>>(), ["general"]);
    assert!(config.policies.values().all(|policy| policy.text().contains("\nyears = 5\n")));
    let other = with("parameters = { months = 5 }").unwrap_err().to_string();
    assert!(other.contains("\"months\" is no parameter of this policy; there are: years"), "{other}");
    assert!(load(&GOOD.replace("builtin:kitchenware", "builtin:cross-border")).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let shown = Config::load(Path::new("/nowhere/config.toml")).unwrap_err().to_string();
    assert!(shown.starts_with("/nowhere/config.toml: cannot be read"), "{shown}");
}

#[test]
fn a_server_is_confined_unless_the_file_says_otherwise_by_its_right_name() {
    let sandbox = |text: &str| parse(&format!("{GOOD}\n{text}"), Path::new("")).map(|config| config.sandbox);
    assert!(sandbox("").unwrap() && sandbox("[process]\nsandbox = true").unwrap());
    assert!(!sandbox("[process]\nsandbox = false").unwrap());
    assert!(sandbox("[process]\nsandbx = false").is_err() && sandbox("[process]\nsandbox = 'no'").is_err());
}

#[test]
fn the_keys_are_kept_by_default_and_otherwise_as_the_file_says() {
    use crate::domain::time::{DAY, HOUR};
    let folder = Path::new("/etc/strongroom");
    let keys = parse(GOOD, folder).unwrap().keys;
    assert_eq!(keys.schedule.horizon(), 30 * DAY);
    assert_eq!((keys.places.file, keys.places.copies.len()), (Some("/etc/strongroom/keyring".into()), 0));
    assert!(keys.next_root.is_none());
    let more = "period = 'PT36H'\nrewrap_within = 'P1D'\nbackups = 'P7D'\nrewrap_budget = 9\ncopies = ['a', '/b']\n";
    let text = format!("{GOOD}\n[next_root]\nkey_file = 'next.key'\n\n[keys]\n{more}");
    let keys = parse(&text, folder).unwrap().keys;
    assert_eq!((keys.schedule.period, keys.schedule.backups, keys.budget), (36 * HOUR, 7 * DAY, 9));
    assert_eq!(keys.places.copies, [Path::new("/etc/strongroom/a"), Path::new("/b")]);
    assert_eq!(keys.next_root, Some(RootSource::KeyFile { path: "/etc/strongroom/next.key".into() }));
    for (bad, what) in [
        ("period = 'soon'", "keys.period: is no duration"),
        ("period = 'P2Y'", "keys.period: is n"),
        ("period = 'PT1S'", "keys.period: is not between an hour and 366 days"),
        ("backups = 'P1D'", "keys.backups: is less than 7 days"),
        ("rewrap_budget = 0", "keys.rewrap_budget: is not between 1"),
        ("colour = 1", "unknown field `colour`"),
    ] {
        let told = load(&format!("{GOOD}\n[keys]\n{bad}\n")).unwrap_err().to_string();
        assert!(told.contains(what), "{told}");
    }
}

#[test]
fn the_log_has_defaults_and_what_is_wrong_with_it_is_named() {
    let log = parse(GOOD, Path::new("")).unwrap().audit;
    assert_eq!((log.keeping.name.to_string().as_str(), log.keeping.keep_years), ("strongroom.dev", 3));
    assert_eq!((log.checkpoint_interval, log.witness_file, log.witness_url), (Duration::from_secs(60), None, None));
    let given = "[audit]\nname = 'shop'\ncheckpoint_interval = '5s'\nkeep_years = 10\nwitness_file = 'heads'\n\
                 witness_url = 'https://witness.example/add'\n";
    let log = parse(&format!("{GOOD}\n{given}"), Path::new("/etc")).unwrap().audit;
    assert_eq!((log.keeping.name.to_string().as_str(), log.keeping.keep_years), ("shop", 10));
    assert_eq!(log.checkpoint_interval, Duration::from_secs(5));
    assert_eq!(log.witness_file.as_deref(), Some(Path::new("/etc/heads")));
    for (good, bad, told) in [
        ("'shop'", "'a shop'", "audit.name: a log's name is"),
        ("'5s'", "'5ms'", "audit.checkpoint_interval: is not between 1s and 24h"),
        ("'5s'", "'often'", "audit.checkpoint_interval: is no duration"),
        ("10", "0", "audit.keep_years: is not between 1 and 100"),
        ("https://witness", "ftp://witness", "audit.witness_url: is no http:// or https:// address"),
    ] {
        let error = load(&format!("{GOOD}\n{}", given.replace(good, bad))).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
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

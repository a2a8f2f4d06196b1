//! Every source of a root key, against the real thing: the program itself, OpenBao's server, SoftHSM 2, moto's KMS. Each makes a
//! keyring, serves, is restarted, and still has its data; each says what is wrong when something is.
//!
//! A tool that is not here skips its test, and the test says so; with `STRONGROOM_ROOTS_REQUIRED=1` (as `.ci/run` sets it) it fails
//! instead. Tools are looked for in `target/tools/python/bin` and on the path; `STRONGROOM_TEST_BAO`, `STRONGROOM_TEST_MOTO` and
//! `STRONGROOM_TEST_SOFTHSM` name them otherwise.

#[path = "roots/tools.rs"]
mod tools;
#[path = "roots/vault.rs"]
mod vault;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tools::{Bao, SoftHsm};
use vault::Vault;

#[test]
fn a_credential_is_taken_from_where_systemd_puts_it_and_a_key_file_may_become_one() {
    let mut vault = Vault::new("key_file = 'root.key'\nallow_same_device = true");
    vault.init().unwrap();
    let token = vault.serves_and_stores();
    let folder = vault.dir.path().join("credentials");
    fs::create_dir(&folder).unwrap();
    fs::copy(vault.path("root.key"), folder.join("root")).unwrap();
    // Root's, readable by an access list, whose mask shows as the group's.
    fs::set_permissions(folder.join("root"), fs::Permissions::from_mode(0o440)).unwrap();
    vault.root("credential = 'root'\nallow_same_device = true");
    vault.refuses("no credentials were passed to this process");
    vault.env("CREDENTIALS_DIRECTORY", folder.to_str().unwrap());
    vault.still_serves(&token);
    fs::set_permissions(folder.join("root"), fs::Permissions::from_mode(0o444)).unwrap();
    vault.refuses("the credential is open to others");
    fs::set_permissions(folder.join("root"), fs::Permissions::from_mode(0o400)).unwrap();
    vault.root("credential = 'other'\nallow_same_device = true");
    vault.refuses("credential");
    vault.root("passphrase_file = 'root.key'\nallow_same_device = true");
    vault.refuses("made with another kind of root source: a key file");
}

#[test]
fn a_split_root_is_handed_out_once_and_opens_by_the_command_line() {
    let mut vault = Vault::new("shares = { shares = 5, threshold = 3 }");
    let stick = vault.path("stick");
    let stick = stick.to_str().unwrap();
    let config = vault.path("config.toml");
    let init = ["keys", "init", "--config", config.to_str().unwrap(), "--shares", "5", "--threshold"];
    let otherwise = vault.run(&[&init[..], &["2", "--out", stick]].concat(), "");
    assert!(otherwise.unwrap_err().contains("says otherwise than --shares and --threshold"));
    let printed = vault.run(&[&init[..], &["3", "--out", stick]].concat(), "").unwrap();
    assert!(printed.contains("3 of these 5 shares open the vault") && !printed.contains("srs1"), "{printed}");
    let share = |number: u8| fs::read_to_string(format!("{stick}/share-{number}.txt")).unwrap();
    for number in 1..=5 {
        let mode = fs::metadata(format!("{stick}/share-{number}.txt")).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, share(number).len()), (0o600, 80));
    }
    assert!(vault.run(&[&init[..], &["3", "--out", stick]].concat(), "").unwrap_err().contains("never overwritten"));

    // The first callers are enrolled on the machine, which takes shares too.
    let two = share(1) + &share(2);
    assert!(
        vault
            .run(&["dev", "--dir", vault.dir.path().to_str().unwrap()], &two)
            .unwrap_err()
            .contains("too few shares: 2 of the 3")
    );
    let mistyped = two.clone() + &share(3).replace("srs1q", "srs1p");
    let refused = vault.run(&["dev", "--dir", vault.dir.path().to_str().unwrap()], &mistyped).unwrap_err();
    assert!(refused.contains("line 3: this is no share, or it is mistyped") && !refused.contains("srs1p"), "{refused}");
    vault.stdin(&(two + &share(3)));
    let server = vault.start().unwrap();
    assert!(server.sealed);

    let sealed = server.client("operator-oncall", &["status"], "").unwrap_err();
    assert!(sealed.contains("SEALED") && sealed.contains("\"sealed\": true") && sealed.contains("0 of 3"), "{sealed}");
    let few = server.client("key-admin-office", &["unseal"], &(share(5) + &share(4))).unwrap_err();
    assert!(few.contains("too few shares: 2 of the 3 that are needed are in; 1 more"), "{few}");
    let again = server.client("key-admin-office", &["unseal"], &share(5)).unwrap_err();
    assert!(again.contains("REPEATED (field share)"), "{again}");
    let role = server.client("operator-oncall", &["unseal"], &share(1)).unwrap_err();
    assert!(role.contains("ROLE_NOT_ALLOWED"), "{role}");
    let file = format!("{stick}/share-2.txt");
    let open = server.client("key-admin-office", &["unseal", "--share-file", &file], "").unwrap();
    assert!(open.contains("\"sealed\": false"), "{open}");
    server.client("operator-oncall", &["status"], "").unwrap();
    let wrong = server.client("key-admin-office", &["seal", "--trust-domain", "shop.example"], "").unwrap_err();
    assert!(wrong.contains("UNKNOWN (field trust_domain)"), "{wrong}");
    let closed = server.client("key-admin-office", &["seal", "--trust-domain", "strongroom.dev"], "").unwrap();
    assert!(closed.contains("sealed by command"), "{closed}");
    assert!(server.client("operator-oncall", &["status"], "").unwrap_err().contains("sealed by command"));
    let log = server.stop();
    for number in 1..=5 {
        assert!(!log.contains(share(number).trim()), "a share is in the log");
    }
}

#[test]
fn shares_without_a_folder_are_printed_once_and_read_back_as_printed() {
    let vault = Vault::new("shares = { shares = 3, threshold = 2 }");
    let printed = vault.init().unwrap();
    let shares: Vec<&str> = printed.lines().filter(|line| line.contains("srs1")).collect();
    assert_eq!(shares.len(), 3, "{printed}");
    let config = vault.path("config.toml");
    // Whatever opens the keyring on the machine takes them as they were printed.
    let opened = vault.run(&["audit", "verify", "--config", config.to_str().unwrap()], &shares[1..].join("\n"));
    assert!(!opened.unwrap_err().contains("share"), "the database is what is missing");
}

#[test]
fn openbao_wraps_the_root_and_says_what_is_wrong() {
    let Some(mut bao) = Bao::start() else { return };
    let root = |key: &str, token: &str, ca: &str| {
        let address = &bao.address;
        format!("transit = {{ address = '{address}', key = '{key}', token_file = '{token}', ca = '{ca}' }}")
    };
    let ca = bao.ca.clone();
    let vault = Vault::new(&root("strongroom", "token", &ca));
    vault.secret("token", &bao.token);
    vault.init().unwrap();
    let token = vault.serves_and_stores();
    bao.cli(&["write", "-f", "transit/keys/strongroom/rotate"]);
    vault.still_serves(&token);

    vault.secret("bad", "s.notthetoken");
    vault.root(&root("strongroom", "bad", &ca));
    vault.refuses("transit engine refuses us");
    vault.secret("powerless", &bao.powerless);
    vault.root(&root("strongroom", "powerless", &ca));
    vault.refuses("transit engine refuses us");
    vault.root(&root("other", "token", &ca));
    vault.refuses("another key than the one that wrapped our root key");
    let strange = vault.path("certs/ca.pem");
    vault.root(&root("strongroom", "token", strange.to_str().unwrap()));
    vault.refuses("transit engine cannot be trusted");
    vault.secret("two-lines", "a\nb");
    vault.root(&root("strongroom", "two-lines", &ca));
    vault.refuses("token file holds no single line");
    vault.root(&root("strongroom", "token", &ca));

    // One character of the wrapped key, in the keyring's clear header.
    let keyring = fs::read(vault.path("keyring")).unwrap();
    let mut altered = keyring.clone();
    let at = altered.windows(9).position(|window| window == b"vault:v1:").unwrap() + 20;
    let byte = altered.get_mut(at).unwrap();
    *byte = if *byte == b'A' { b'B' } else { b'A' };
    fs::write(vault.path("keyring"), &altered).unwrap();
    vault.refuses("cannot unwrap our root key with this key");
    fs::write(vault.path("keyring"), &keyring).unwrap();

    bao.cli(&["write", "transit/keys/strongroom/config", "min_decryption_version=2"]);
    vault.refuses("does not let the version of its key be used any more");
    bao.cli(&["write", "transit/keys/strongroom/config", "min_decryption_version=1"]);
    vault.still_serves(&token);
    bao.cli(&["write", "transit/keys/strongroom/config", "deletion_allowed=true"]);
    bao.cli(&["delete", "transit/keys/strongroom"]);
    vault.refuses("transit engine knows no such key");
    bao.cli(&["operator", "seal"]);
    vault.refuses("transit engine is sealed itself");
    bao.stop();
    vault.refuses("transit engine cannot be reached");
    vault.never_told(&[&bao.token, "s.notthetoken"]);
}

#[test]
fn softhsm_wraps_the_root_and_says_what_is_wrong() {
    let Some(hsm) = SoftHsm::new() else { return };
    let root = |module: &str, token: &str, key: &str, pin: &str| {
        format!("pkcs11 = {{ module = '{module}', token = '{token}', key = '{key}', pin_file = '{pin}' }}")
    };
    let module = hsm.module.clone();
    hsm.init_token("vault");
    let mut vault = Vault::new(&root(&module, "vault", "roots", "pin"));
    vault.env("SOFTHSM2_CONF", &hsm.conf);
    vault.secret("pin", SoftHsm::PIN);
    let printed = vault.init().unwrap();
    assert!(printed.contains("key roots of the PKCS#11 token vault (made)"), "{printed}");
    let token = vault.serves_and_stores();
    vault.still_serves(&token);

    vault.secret("wrong", "654321");
    vault.root(&root(&module, "vault", "roots", "wrong"));
    vault.refuses("PKCS#11 token refuses the PIN");
    vault.root(&root(&module, "lost", "roots", "pin"));
    vault.refuses("has no token of that label");
    vault.root(&root("/nowhere/module.so", "vault", "roots", "pin"));
    vault.refuses("cannot be loaded: is the module's path right?");
    vault.root(&root(&module, "vault", "others", "pin"));
    vault.refuses("another key than the one that wrapped our root key");
    // Another token in its place: first without a key of that label, then with another key.
    hsm.init_token("spare");
    let keyring = fs::read(vault.path("keyring")).unwrap();
    vault.root(&root(&module, "spare", "roots", "pin"));
    vault.refuses("PKCS#11 token knows no such key");
    fs::remove_file(vault.path("keyring")).unwrap();
    fs::rename(vault.path("strongroom.db"), vault.path("aside.db")).unwrap();
    vault.init().unwrap();
    fs::write(vault.path("keyring"), &keyring).unwrap();
    fs::rename(vault.path("aside.db"), vault.path("strongroom.db")).unwrap();
    vault.refuses("cannot unwrap our root key with this key");
    hsm.init_token("spare");
    vault.refuses("has several tokens of that label");
    vault.root(&root(&module, "vault", "roots", "pin"));
    vault.still_serves(&token);
    vault.never_told(&[SoftHsm::PIN, "654321"]);
}

#[cfg(feature = "aws-kms")]
#[test]
fn kms_wraps_the_root_and_says_what_is_wrong() {
    let Some(mut moto) = tools::Moto::start() else { return };
    let (key, other) = (moto.create_key(), moto.create_key());
    let address = moto.address.clone();
    let root = |key: &str| format!("aws_kms = {{ key_id = '{key}', region = 'eu-central-1', endpoint = '{address}' }}");
    let mut vault = Vault::new(&root("alias/none"));
    vault.env("AWS_EC2_METADATA_DISABLED", "true");
    assert!(vault.init().unwrap_err().contains("AWS KMS gave us no credentials"));
    vault.env("AWS_ACCESS_KEY_ID", "testing");
    vault.env("AWS_SECRET_ACCESS_KEY", "canary-secret");
    assert!(vault.init().unwrap_err().contains("AWS KMS knows no such key"));
    vault.root(&root(&key));
    vault.init().unwrap();
    let token = vault.serves_and_stores();
    vault.still_serves(&token);
    // AWS says IncorrectKeyException; moto says that access is denied.
    vault.root(&root(&other));
    vault.refuses("AWS KMS refuses us");
    vault.root(&root(&key));
    vault.still_serves(&token);
    moto.stop();
    vault.refuses("AWS KMS cannot be reached");
    vault.never_told(&["canary-secret"]);
}

#[cfg(not(feature = "aws-kms"))]
#[test]
fn a_build_without_kms_says_so_with_the_line() {
    let vault = Vault::new("aws_kms = { key_id = 'alias/strongroom' }");
    let refused = vault.init().unwrap_err();
    assert!(
        refused.contains("config.toml, line ") && refused.contains("root.aws_kms: this build cannot ask AWS KMS"),
        "{refused}"
    );
}

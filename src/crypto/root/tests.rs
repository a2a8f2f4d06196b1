//! Claims about sources in general; each source's own are beside it.

use super::*;
use crate::crypto::entropy::SeededEntropy;

fn outside() -> [(RootSource, &'static str); 4] {
    let nowhere = PathBuf::from("/nowhere/secret");
    let address = "http://127.0.0.1:1".parse().unwrap();
    let (mount, key) = ("transit".to_owned(), "roots".to_owned());
    let transit = Transit { address, mount, key, token_file: nowhere.clone(), ca: None, namespace: None };
    let pkcs11 = Pkcs11 {
        module: "/nowhere/module.so".into(),
        token: "vault".to_owned(),
        key: "roots".to_owned(),
        pin_file: nowhere.clone(),
    };
    let kms = AwsKms { key_id: "alias/roots".to_owned(), region: None, endpoint: None };
    [
        (RootSource::Transit(transit), transit::ROLE),
        (RootSource::Pkcs11(pkcs11), pkcs11::ROLE),
        (RootSource::AwsKms(kms), aws_kms::ROLE),
        (RootSource::Shares(Split::new(5, 3).unwrap()), shares::ROLE),
    ]
}

fn wrapped(by: Wrapper) -> RootHeader {
    RootHeader::Wrapped(Wrapped { by, key: "roots".to_owned(), blob: vec![1; 60] })
}

#[test]
fn a_source_refuses_the_headers_of_all_others_and_names_them() {
    let headers = [
        (RootHeader::Passphrase { cost: CHEAP, salt: [1; 16] }, "passphrase file"),
        (RootHeader::KeyFile, "key file"),
        (wrapped(Wrapper::Transit), transit::ROLE),
        (wrapped(Wrapper::Pkcs11), pkcs11::ROLE),
        (wrapped(Wrapper::AwsKms), aws_kms::ROLE),
    ];
    for (source, role) in outside() {
        for (header, made_with) in &headers {
            if role != *made_with && (role != aws_kms::ROLE || cfg!(feature = "aws-kms")) {
                let refused = source.unlock(header).unwrap_err();
                assert!(matches!(refused, RootError::OtherSource { expected } if expected == *made_with), "{role}");
            }
        }
        assert_eq!(source.kind(), role);
        assert!(source.path().is_none());
    }
}

#[test]
fn another_key_of_the_same_service_is_refused_before_it_is_asked() {
    for (source, by) in outside().into_iter().zip([Wrapper::Transit, Wrapper::Pkcs11]) {
        let other = Wrapped { by, key: "others".to_owned(), blob: vec![1; 60] };
        let refused = source.0.unlock(&RootHeader::Wrapped(other)).unwrap_err();
        assert!(refused.to_string().ends_with("is to use another key than the one that wrapped our root key"));
    }
}

#[test]
fn a_missing_secret_file_is_named_by_its_role_and_a_build_without_kms_says_so() {
    let entropy = SeededEntropy::new(1);
    let told = |source: &RootSource| source.fresh(CHEAP, &entropy).unwrap_err().to_string();
    let [transit, pkcs11, kms, _] = outside().map(|(source, _)| source);
    assert_eq!(told(&transit), "the transit engine's token file cannot be read");
    assert_eq!(told(&pkcs11), "the PKCS#11 token's PIN file cannot be read");
    if cfg!(not(feature = "aws-kms")) {
        assert!(told(&kms).contains("--features aws-kms"));
    }
}

#[test]
fn a_credentials_name_is_one_plain_file_name() {
    for good in ["root", "strongroom.root-key_1"] {
        assert!(good.parse::<CredentialName>().is_ok());
    }
    for bad in ["", ".", "..", "../root", "a/b", "/etc/passwd", "a b", ".hidden", &"a".repeat(256)] {
        assert_eq!(bad.parse::<CredentialName>(), Err(BadCredentialName), "{bad}");
    }
}

#[test]
fn a_root_is_split_into_two_at_least_and_a_threshold_is_one_of_them() {
    for (shares, threshold) in [(2, 2), (5, 3), (32, 32), (32, 2)] {
        assert!(Split::new(shares, threshold).is_ok());
    }
    for (shares, threshold) in [(1, 1), (5, 1), (5, 6), (33, 3), (0, 0), (-5, -3), (256 + 5, 3), (5, 256 + 3)] {
        assert_eq!(Split::new(shares, threshold), Err(BadSplit), "{shares} {threshold}");
    }
}

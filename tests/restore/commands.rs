//! The commands, on a server in its sandbox.

use std::process::Command;

use serde_json::Value;

use super::server::Folder;
use super::*;

fn json(output: std::process::Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn backup(folder: &Folder, endpoint: &str, role: &str) -> std::process::Output {
    let certs = folder.data().join("certs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.args(["backup", "--server", endpoint]);
    command.arg("--cert").arg(certs.join(format!("{role}.pem")));
    command.arg("--key").arg(certs.join(format!("{role}-key.pem")));
    command.arg("--ca").arg(certs.join("ca.pem"));
    command.output().unwrap()
}

#[test]
fn backup_and_restore_as_an_operator_types_them() {
    let folder = Folder::new();
    let mut server = folder.serve(None).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut tokens = runtime.block_on(async {
        let channel = folder.channel(&server.endpoint, Role::Shop, "backend").await;
        strongroom::rpc::proto::token_service_client::TokenServiceClient::new(channel)
    });
    let token = runtime.block_on(tokens.tokenize(order(1))).unwrap().into_inner().token;
    let made = json(backup(&folder, &server.endpoint, "operator-oncall"));
    let manifest = PathBuf::from(made["manifest"].as_str().unwrap());
    assert!(made["dead_after"].as_str().unwrap() > "2026", "{made}");
    // Nobody else makes one.
    let refused = backup(&folder, &server.endpoint, "shop-backend");
    assert_eq!(refused.status.code(), Some(3));
    // Files for our eyes alone, and nothing of the keyring among them.
    use std::os::unix::fs::PermissionsExt as _;
    let names: Vec<String> = std::fs::read_dir(manifest.parent().unwrap())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            entry.path().extension().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(names.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), ["db", "manifest"].into());
    let reason = EraseReason::SubjectRequest.into();
    let request = EraseRequest { idempotency_key: "erase".to_owned(), token: token.clone(), reason };
    runtime.block_on(tokens.erase(request)).unwrap();
    runtime.block_on(tokens.tokenize(order(2))).unwrap();
    server.kill();
    drop(server);
    std::fs::remove_file(folder.data().join("strongroom.db")).unwrap();
    // Killed, it has left its write-ahead log, which must not become the restored database's.
    let again = || folder.command(&["restore", "--from", manifest.to_str().unwrap()]).output().unwrap();
    let refused = again();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("strongroom.db-wal is there still"), "{refused:?}");
    std::fs::remove_file(folder.data().join("strongroom.db-wal")).unwrap();
    let restored = json(again());
    assert_eq!((&restored["erased_again"], &restored["records"]), (&Value::from(1), &Value::from(0)), "{restored}");
    assert!(restored["log_entries_verified"].as_u64().unwrap() > 3, "{restored}");
    let server = folder.serve(None).unwrap();
    let mut tokens = runtime.block_on(async {
        let channel = folder.channel(&server.endpoint, Role::Shop, "backend").await;
        strongroom::rpc::proto::token_service_client::TokenServiceClient::new(channel)
    });
    let fields = vec![Field::Phone.into()];
    let request = DetokenizeRequest { token, fields, purpose: Purpose::SelfService.into() };
    let answer = runtime.block_on(tokens.detokenize(request)).unwrap().into_inner();
    assert_eq!(answer.fields[0].outcome(), Outcome::Erased);
}

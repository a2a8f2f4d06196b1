//! The real binary, killed at random instants of a rotation. Whatever instant it was, the next start opens all that was stored
//! and goes on by itself.

use std::time::Duration;

use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{BatchDetokenizeRequest, Outcome, Purpose, batch_detokenize_item};
use tokio::time::sleep;

use super::server::{Folder, Server};
use super::*;

/// A vault whose rewrap takes its time.
fn slow_folder() -> Folder {
    let folder = Folder::new();
    let config = folder.data().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let keys = "[keys]\nrewrap_budget = 400\ncopies = [\"copy-a\", \"copy-b\"]\n\n[log]";
    std::fs::write(&config, text.replace("[log]", keys)).unwrap();
    folder
}

fn serve(folder: &Folder) -> Server {
    folder.serve(None).unwrap_or_else(|output| panic!("no server: {output:?}"))
}

async fn key_admin(folder: &Folder, server: &Server) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(folder.channel(&server.endpoint, Role::KeyAdmin, "office").await)
}

async fn listed(keys: &mut KeyServiceClient<Channel>) -> ListKeysResponse {
    keys.list_keys(ListKeysRequest {}).await.unwrap().into_inner()
}

/// What a rewrap still has to move.
fn to_move(listed: &ListKeysResponse) -> u64 {
    let older = listed.epochs.iter().filter(|epoch| epoch.state() == EpochState::Retiring);
    older.flat_map(|epoch| &epoch.rows).filter(|rows| rows.table != "idempotency").map(|rows| rows.rows).sum()
}

async fn all_open(folder: &Folder, server: &Server, tokens: &[String]) {
    let mut shop = TokenServiceClient::new(folder.channel(&server.endpoint, Role::Shop, "backend").await);
    for page in tokens.chunks(256) {
        let request = BatchDetokenizeRequest {
            tokens: page.to_vec(),
            fields: vec![Field::Email.into()],
            purpose: Purpose::SelfService.into(),
        };
        for item in shop.batch_detokenize(request).await.unwrap().into_inner().items {
            let Some(batch_detokenize_item::Result::Done(done)) = item.result else { panic!("a record does not open") };
            assert_eq!(done.fields[0].outcome(), Outcome::Granted);
        }
    }
}

#[test]
fn a_rotation_killed_at_any_instant_goes_on_by_itself_and_loses_nothing() {
    let (kills, records) = if full() { (40, 1_000) } else { (8, 150) };
    let (dice, folder) = (dice(), slow_folder());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut server = serve(&folder);
        let mut shop = TokenServiceClient::new(folder.channel(&server.endpoint, Role::Shop, "backend").await);
        let mut tokens = Vec::new();
        for n in 0..records {
            tokens.push(shop.tokenize(account(n)).await.unwrap().into_inner().token);
        }
        let (mut midway, mut before) = (0, 0);
        for kill in 0..kills {
            let mut keys = key_admin(&folder, &server).await;
            let was = active(&listed(&mut keys).await);
            let mut asking = keys.clone();
            // Half of the kills come within the first milliseconds, when files are written; the others during the rewrap.
            let moment = if kill % 2 == 0 { below(30, &dice) } else { 100 + below(600, &dice) };
            let asked = tokio::spawn(async move { asking.rotate_kek(RotateKekRequest { active_epoch: was }).await });
            sleep(Duration::from_millis(moment)).await;
            assert!(server.kill(), "the server had ended by itself");
            let _ = asked.await;
            server = serve(&folder);
            let mut keys = key_admin(&folder, &server).await;
            let left = listed(&mut keys).await;
            match (active(&left) > was, to_move(&left)) {
                (true, 1..) => midway += 1,
                (false, _) => before += 1,
                (true, 0) => {}
            }
            all_open(&folder, &server, &tokens).await;
            // Something new goes in under whichever epoch is active, while the rewrap goes on.
            let mut shop = TokenServiceClient::new(folder.channel(&server.endpoint, Role::Shop, "backend").await);
            tokens.push(shop.tokenize(account(records + kill)).await.unwrap().into_inner().token);
        }
        // Nobody asks for anything any more: what is left is moved by itself.
        let mut keys = key_admin(&folder, &server).await;
        let mut last = u64::MAX;
        loop {
            let listed = listed(&mut keys).await;
            let left = to_move(&listed);
            assert!(left <= last, "a rewrap does not go back");
            last = left;
            let prepared = listed.epochs.iter().any(|epoch| epoch.state() == EpochState::Prepared);
            if left == 0 && !prepared {
                assert!(
                    listed.copies.iter().all(|copy| copy.generation == listed.generation),
                    "{:?}",
                    listed.generation
                );
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        println!("{kills} kills: {midway} found in the midst of a rewrap, {before} before the promotion; nothing lost");
        assert!(midway > 0, "no kill came during a rewrap");
        all_open(&folder, &server, &tokens).await;
        server.terminate();
        assert!(server.wait().success());
        let output = folder.command(&["audit", "verify"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
}

//! `strongroom unseal`: gives shares of the root key to a sealed vault, or has it ask its source again. INVARIANT: shares come by
//! standard input or file, one call a share; a bad one is named by its place, and the others still count.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::Failure;
use super::client::{self, Connection, print_json};
use super::shares;
use crate::rpc::proto::seal_service_client::SealServiceClient;
use crate::rpc::proto::{SealCause, SealState, SealStatusRequest, UnsealRequest};

const HELP: &str = "\
For a key admin. Where the root key is split, each of its keepers gives a share, from anywhere, in any order; the one that completes
them opens the vault. Give yours by standard input or from a file: what stands on a command line, every user of the machine reads.
Shares that wait longer than 15 minutes for the next one are forgotten. Where the root is not split, the server asks its source
again.

Examples:
  strongroom unseal < share-1.txt
  strongroom unseal --share-file /media/stick/share-2.txt
  strongroom status                     # for an operator: sealed, and how many shares are in";

/// Open a sealed vault: give it shares of its root key
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// A file with one share a line; may be given several times [default: standard input]
    #[arg(long, value_name = "FILE")]
    share_file: Vec<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = SealServiceClient::new(client::connect(&args.connection).await?);
    let mut state = state_of(client::answer(vault.seal_status(SealStatusRequest {})).await?.state)?;
    if !state.sealed {
        return print_json(&shown(&state));
    }
    if state.threshold == 0 {
        state = give(&mut vault, "").await?;
        return print_json(&shown(&state));
    }
    for share in read(&args)? {
        state = give(&mut vault, &share).await?;
        if !state.sealed {
            break;
        }
    }
    print_json(&shown(&state))?;
    if state.sealed {
        let missing = state.threshold.saturating_sub(state.shares_held);
        let (held, threshold) = (state.shares_held, state.threshold);
        return Err(Failure::unreachable(format!(
            "still sealed: too few shares: {held} of the {threshold} that are needed are in; {missing} more"
        )));
    }
    Ok(())
}

fn read(args: &Args) -> Result<Vec<Zeroizing<String>>, Failure> {
    if args.share_file.is_empty() {
        return shares::read(None);
    }
    let mut all = Vec::new();
    for path in &args.share_file {
        let named = |failure: Failure| Failure { message: format!("{}: {failure}", path.display()), ..failure };
        all.extend(shares::read(Some(path)).map_err(named)?);
    }
    Ok(all)
}

/// Gives one share; waits where attempts are too many.
async fn give(vault: &mut SealServiceClient<Channel>, share: &str) -> Result<SealState, Failure> {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        let call = vault.unseal(UnsealRequest { share: share.to_owned() });
        match tokio::time::timeout(client::PATIENCE, call).await {
            Err(_) => return Err(Failure::unreachable("no answer within 30 seconds; see `strongroom status`")),
            Ok(Ok(answer)) => return state_of(answer.into_inner().state),
            Ok(Err(status)) if status.code() == Code::ResourceExhausted => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(Err(status)) => return Err(status.into()),
        }
    }
    Err(Failure::unreachable("too many attempts; try again soon"))
}

fn state_of(state: Option<SealState>) -> Result<SealState, Failure> {
    state.ok_or_else(|| Failure::refused("the server answered without a result"))
}

/// The vault's state, for printing.
pub(super) fn shown(state: &SealState) -> Value {
    let cause = match state.cause() {
        SealCause::Unspecified => None,
        SealCause::Started => Some("not opened since the server started"),
        SealCause::Commanded => Some("sealed by command"),
    };
    let shares = (state.threshold > 0).then(|| format!("{} of {}", state.shares_held, state.threshold));
    json!({
        "sealed": state.sealed,
        "why": cause,
        "since": client::shown(state.since),
        "root_source": state.root_source,
        "shares": shares,
    })
}

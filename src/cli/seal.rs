//! `strongroom seal`: every key out of the server's memory, at once. INVARIANT: the vault that is meant is named, so that a command
//! for another one seals nothing.

use serde_json::Value;

use super::Failure;
use super::client::{self, Connection, print_json};
use super::unseal::shown;
use crate::rpc::proto::SealRequest;
use crate::rpc::proto::seal_service_client::SealServiceClient;

const HELP: &str = "\
For a key admin, in an emergency; it takes one person. Calls in flight end, and every later one is answered UNAVAILABLE, SEALED.
Then: `strongroom unseal` brings the vault back (with its shares, where the root key is split), and so does a restart (where it is
not: move the root away first if a restart must not).

Examples:
  strongroom seal --trust-domain shop.example";

/// Seal the vault: wipe every key from the server's memory
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Which vault is meant, by its trust domain; another one seals nothing
    #[arg(long, value_name = "TRUST_DOMAIN")]
    trust_domain: String,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = SealServiceClient::new(client::connect(&args.connection).await?);
    let request = SealRequest { trust_domain: args.trust_domain };
    let state = client::answer(vault.seal(request)).await?.state;
    print_json(&state.as_ref().map_or(Value::Null, shown))
}

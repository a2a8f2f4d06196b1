//! The command line: one file a command. INVARIANT: personal data, tokens and serials enter by standard input or file, never
//! by an argument (every user of a machine can read those), and leave only where the command exists to print them.

mod approve;
pub mod audit;
mod backup;
mod callers;
mod certs;
pub mod client;
mod confirm_clock;
mod correct;
pub mod customer;
mod deliver;
pub mod demo;
mod describe;
mod detokenize;
mod disclose;
pub mod dev;
mod drill;
mod erase;
mod event;
mod find;
mod forecast;
mod grant;
mod hold;
mod import;
mod inquire;
mod keys;
pub mod mint;
mod receipt;
mod resume_sweep;
mod process;
mod policy;
pub mod restore;
mod revoke;
mod seal;
pub mod serve;
mod statistics;
mod shares;
mod status;
mod tokenize;
mod unseal;
mod webhooks;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use client::Failure;

/// A vault for the personal data of a shop's customers.
///
/// Strongroom keeps names, addresses and contacts behind tokens, gives every caller only the fields it may see, encrypts
/// everything at rest, and destroys each record when its retention is over.
///
/// Start here: `strongroom demo` shows the whole life of a shop's orders; `strongroom dev` runs a server to play with and
/// prints commands ready to paste.
#[derive(Parser)]
#[command(version, about, long_about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Drill(drill::Args),
    Dev(dev::Args),
    Serve(serve::Args),
    Import(import::Args),
    Tokenize(tokenize::Args),
    Detokenize(detokenize::Args),
    Disclose(disclose::Args),
    Correct(correct::Args),
    Describe(describe::Args),
    Find(find::Args),
    Erase(erase::Args),
    Event(event::Args),
    Grant(grant::Args),
    Revoke(revoke::Args),
    Deliver(deliver::Args),
    #[command(subcommand)]
    Hold(hold::Args),
    #[command(subcommand)]
    Receipt(receipt::Args),
    Status(status::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Statistics(statistics::Args),
    Seal(seal::Args),
    Unseal(unseal::Args),
    /// Matters of retention.
    #[command(subcommand)]
    Retention(Retention),
    #[command(subcommand)]
    Policy(policy::Args),
    #[command(subcommand)]
    Certs(certs::Args),
    #[command(subcommand)]
    Keys(keys::Args),
    #[command(subcommand)]
    Audit(audit::Args),
    #[command(subcommand)]
    Callers(callers::Args),
    #[command(subcommand)]
    Approve(approve::Args),
    #[command(subcommand)]
    Inquire(inquire::Args),
    #[command(subcommand)]
    Webhooks(webhooks::Args),
}

#[derive(Subcommand)]
enum Retention {
    Forecast(Box<forecast::Args>),
    ConfirmClock(confirm_clock::Args),
    Resume(resume_sweep::Args),
}

/// Runs the command line to its exit code.
pub fn main() -> ExitCode {
    process::harden();
    crate::telemetry::init_panic_hook();
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Drill(args) => drill::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Callers(args) => callers::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Webhooks(args) => webhooks::run(args),
        Command::Approve(args) => client(approve::run(args)),
        Command::Inquire(args) => client(inquire::run(args)),
        Command::Import(args) => client(import::run(args)),
        Command::Tokenize(args) => client(tokenize::run(args)),
        Command::Detokenize(args) => client(detokenize::run(args)),
        Command::Disclose(args) => client(disclose::run(args)),
        Command::Correct(args) => client(correct::run(args)),
        Command::Describe(args) => client(describe::run(args)),
        Command::Find(args) => client(find::run(args)),
        Command::Erase(args) => client(erase::run(args)),
        Command::Event(args) => client(event::run(args)),
        Command::Grant(args) => client(grant::run(args)),
        Command::Revoke(args) => client(revoke::run(args)),
        Command::Deliver(args) => client(deliver::run(args)),
        Command::Hold(args) => client(hold::run(args)),
        Command::Receipt(args) => receipt::run(args),
        Command::Backup(args) => client(backup::run(args)),
        Command::Restore(args) => restore::run(args),
        Command::Status(args) => client(status::run(args)),
        Command::Statistics(args) => client(statistics::run(args)),
        Command::Seal(args) => client(seal::run(args)),
        Command::Unseal(args) => client(unseal::run(args)),
        Command::Retention(Retention::Forecast(args)) => client(forecast::run(*args)),
        Command::Retention(Retention::ConfirmClock(args)) => client(confirm_clock::run(args)),
        Command::Retention(Retention::Resume(args)) => client(resume_sweep::run(args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            #[expect(clippy::print_stderr, reason = "the one place where a command says why it failed")]
            {
                eprintln!("strongroom: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Runs a client command on a runtime of its own.
fn client(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::from)?.block_on(command)
}

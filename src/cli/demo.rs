//! `strongroom demo`: the whole vault, start to finish, on one page.

pub mod scan;

/// Show the whole vault at work on a file of orders.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Run the demo.
///
/// # Errors
/// When any of the demo's checks fails.
pub fn run(args: Args) -> Result<(), crate::cli::Failure> {
    let Args {} = args;
    Ok(())
}

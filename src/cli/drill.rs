//! `strongroom drill`: the fire drill of erasure, in a scratch folder. INVARIANT: nothing of a vault in service is touched; every claim
//! was checked from outside, by somebody who has taken the files and all keys, and one that does not hold fails the command.
//!
//! ```text
//! store → back up while the shop goes on → the control: with all keys the backup opens
//!       → erase and correct → at once: nothing of that opens from the live files with all keys, nor the backup without its root
//!       → lose the database, restore → nothing of it is back
//!       → W passes, the keys rotate → nothing of the backup opens with all keys of that day, nor is it restored
//! ```

mod attack;
mod shop;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::attack::{Attacker, is_nowhere};
use self::shop::Shop;
use super::Failure;
use super::demo::orders;
use super::demo::scan::Scanner;
use super::demo::stage::{Folder, Stage};
use super::demo::thief::Thief;
use super::demo::transcript::{Transcript, count, days_bar};
use super::keys::unlock;
use super::restore::{Restored, restore};
use super::serve::failed;
use crate::audit::manifest::Manifest;
use crate::config::Config;
use crate::domain::time::{Clock as _, DAY, MINUTE, SystemClock};
use crate::rpc::proto::Outcome;
use crate::store::forensic::Haul;
use crate::vault::database_of;

/// Rehearse a loss of the database, and prove that what was erased stays erased.
///
/// Runs a vault of its own in a scratch folder, over real mutual TLS: stores customers, backs up while more come, erases every other
/// one, corrects some, loses the database and restores it, lets the backup horizon pass while the keys rotate, and attacks live files
/// and backup with all keys of each day. Every sentence marked ✔ was checked; one that does not hold is marked ✘ and fails the
/// command.
#[derive(clap::Args)]
#[command(after_long_help = "\
ORDERS.jsonl is as for `strongroom demo`. Nothing of a vault in service is read or written: run it wherever the binary is.

Examples:
  strongroom drill
  strongroom drill orders.jsonl --keep")]
pub struct Args {
    /// The customers to rehearse with [default: a bundled sample of 60]
    #[arg(value_name = "ORDERS.jsonl")]
    orders: Option<PathBuf>,
    /// Where to work; must be new or empty, and stays afterwards [default: a temporary folder that goes]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Leave the temporary folder behind, keys and all
    #[arg(long)]
    keep: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let orders = orders::read(args.orders.as_deref())?;
    let folder = Folder::new("drill", args.dir.as_deref(), args.keep);
    let mut out = Transcript::default();
    out.line("Strongroom's fire drill: what is erased stays erased, in backups too.")?;
    // The keyring's first epoch is of now; the simulated calendar begins a little later.
    let stage = Stage::set(&folder, SystemClock::new().now().plus(MINUTE), |config| config.keys.budget = 1_000_000)?;
    let drill = Drill { shop: Shop::new(&orders), folder };
    let stage = drill.play(&mut out, stage)?;
    stage.stop()?;
    if drill.folder.stays() {
        out.line(&format!("\nEverything was left in {} (keys and all).", drill.folder.path.display()))?;
    }
    out.end()
}

struct Drill<'a> {
    shop: Shop<'a>,
    folder: Folder,
}

impl Drill<'_> {
    fn play(&self, out: &mut Transcript, stage: Stage) -> Result<Stage, Failure> {
        let mut thief = Thief::new(&stage.config.store.database);
        self.shop.store(&stage)?;
        let backup = self.back_up(out, &stage, &mut thief)?;
        let attacker = Attacker::of(&backup, &stage)?;
        self.control(out, &stage, &attacker)?;
        self.erase(out, &stage, &thief)?;
        let stage = self.lose_and_restore(out, stage, &backup, &thief)?;
        self.outlive(out, stage, &backup, &attacker)
    }

    /// Answers the manifest's path.
    fn back_up(&self, out: &mut Transcript, stage: &Stage, thief: &mut Thief) -> Result<PathBuf, Failure> {
        out.act("A backup, while the shop goes on")?;
        let (records, values) = (self.shop.records(), self.shop.values());
        out.say(&format!(
            "The shop has handed {} records with {} values to the vault. A thief notes every encrypted byte of them.",
            count(records),
            count(values)
        ))?;
        thief.look()?;
        let vault = stage.vault()?;
        let into = stage.config.backups.clone().ok_or_else(|| Failure::local("there is no folder for backups"))?;
        let copying = std::thread::spawn(move || vault.back_up(&into, |_, _| true));
        let mut meanwhile = 0;
        while !copying.is_finished() {
            self.shop.store_one_more(stage, meanwhile)?;
            meanwhile += 1;
        }
        let made = copying.join().map_err(|_| Failure::local("the backup panicked"))?;
        let (manifest, path) = made.map_err(|error| failed("the backup failed", &error))?;
        out.say(&format!(
            "{} bytes were copied; {} customers came meanwhile. The manifest says that the backup is dead after {}.",
            count(manifest.bytes),
            count(meanwhile),
            manifest.dead_after
        ))?;
        let keyring = unlock(&stage.config.root, &stage.config.keyring)?;
        let text = fs::read_to_string(&path).map_err(|error| Failure::io(&path, &error))?;
        let is_ours = Manifest::verify(&text, &keyring.signer().public()) == Ok(manifest);
        out.claim(is_ours, "the manifest is signed by the vault, and verifies with its public key alone")?;
        let root = stage.config.root.path().unwrap_or_default();
        let absent = is_nowhere(&[&stage.config.keyring, &root], &[&database_of(&path), &path])?;
        out.claim(absent, "neither the keyring nor the root is in it, nor any 16 bytes of theirs")?;
        Ok(path)
    }

    /// Before the deadline, with the keys, it opens: so the attacks below work.
    fn control(&self, out: &mut Transcript, stage: &Stage, attacker: &Attacker) -> Result<(), Failure> {
        out.act("The control: a backup in the hands of somebody with all keys")?;
        let keyring = unlock(&stage.config.root, &stage.config.keyring)?;
        let haul = attacker.attack(&keyring);
        let opened = self.shop.of_ours(stage, &haul.opened);
        out.claim(
            opened == self.shop.records(),
            &format!(
                "control: with the keyring and its root, {} of {} records open",
                count(opened),
                count(self.shop.records())
            ),
        )?;
        let met = attacker.dictionary(&keyring, &self.shop.guesses()?)?;
        out.claim(
            met.met == met.tags,
            &format!(
                "control: a dictionary of the shop's own values meets {} of {} index tags",
                count(met.met),
                count(met.tags)
            ),
        )?;
        out.act("The same without the root")?;
        let haul = attacker.attack_without_root();
        out.claim(
            haul.keys == 0 && haul.opened.is_empty(),
            &format!("without the root, {} keys unwrap and {} records open", haul.keys, haul.opened.len()),
        )?;
        let scanner = Scanner::new(self.shop.texts()).map_err(|error| Failure::local(error.to_string()))?;
        let found = attacker.found_in_files(&scanner, &stage.config)?;
        let looked_for = scanner.values().len();
        out.claim(
            found == 0,
            &format!("of {} values, {found} stand in the backup's or the live files' bytes", count(looked_for)),
        )
    }

    fn erase(&self, out: &mut Transcript, stage: &Stage, thief: &Thief) -> Result<(), Failure> {
        out.act("Erased and corrected, then attacked at once with all keys")?;
        self.shop.erase_every_other(stage)?;
        self.shop.correct_some(stage)?;
        let theft = thief.steal(&stage.config, &self.folder.path.join("stolen"))?;
        self.nothing_opens(out, stage, &theft.haul)?;
        let (keys, bytes) = (self.shop.erased_of(stage, &theft.keys_found), count(theft.bytes));
        out.claim(
            keys == 0,
            &format!("keys of erased records anywhere in the {bytes} bytes taken, free pages included: {keys}"),
        )?;
        // SQLite moves rows between its pages and leaves their old bytes; what no key opens is noise.
        let values = self.shop.erased_of(stage, &theft.values_found);
        out.say(&format!(
            "Of {} erased records encrypted values are still found there, which no key opens.",
            count(values)
        ))
    }

    /// Of what was erased or corrected; and that the attack works.
    fn nothing_opens(&self, out: &mut Transcript, stage: &Stage, haul: &Haul) -> Result<(), Failure> {
        let erased = self.shop.erased_of(stage, &haul.opened);
        out.claim(
            erased == 0,
            &format!("of {} erased records, {erased} open, whatever the thief remembers", count(self.shop.erased())),
        )?;
        let corrected = self.shop.corrected_of(stage, &haul.remembered);
        out.claim(
            corrected == 0,
            &format!("of {} corrected records, {corrected} give up a value from before", count(self.shop.corrected())),
        )?;
        let kept = self.shop.kept_of(stage, &haul.opened);
        out.claim(
            kept == self.shop.kept(),
            &format!("control: {} of the {} records that are kept open", count(kept), count(self.shop.kept())),
        )
    }

    fn lose_and_restore(
        &self,
        out: &mut Transcript,
        stage: Stage,
        backup: &Path,
        thief: &Thief,
    ) -> Result<Stage, Failure> {
        out.act("The database is lost, and the backup restored")?;
        let clock = stage.clock();
        let config = stage.stop()?;
        let lost = &config.store.database;
        fs::remove_file(lost).map_err(|error| Failure::io(lost, &error))?;
        let keyring = unlock(&config.root, &config.keyring)?;
        let Restored { applied, entries, .. } = restore(&config, keyring, backup, Arc::new(clock.clone()))?;
        out.say(&format!(
            "Before it served anything, the restored vault was told {} lines of the erasure ledger: {} records were destroyed again, \
             {} values that had been corrected were shredded again. All {} entries of its log verify.",
            count(applied.lines),
            count(applied.erased),
            count(applied.values),
            count(entries)
        ))?;
        let stage = Stage::serve(&self.folder.path, config, clock)?;
        let theft = thief.steal(&stage.config, &self.folder.path.join("stolen-again"))?;
        self.nothing_opens(out, &stage, &theft.haul)?;
        let outcomes = self.shop.outcomes(&stage)?;
        out.claim(
            outcomes.erased == self.shop.erased() && outcomes.kept_as(Outcome::Granted) == self.shop.kept_untouched(),
            "the restored vault answers ERASED for every erased record, and grants what is kept",
        )?;
        out.claim(
            outcomes.corrected_as(Outcome::NotSet) == self.shop.corrected(),
            "where a phone was corrected after the backup it has none: the old one is gone for good, the new one was lost",
        )?;
        Ok(stage)
    }

    fn outlive(
        &self,
        out: &mut Transcript,
        stage: Stage,
        backup: &Path,
        attacker: &Attacker,
    ) -> Result<Stage, Failure> {
        let horizon = stage.config.keys.schedule.horizon() / DAY + 1;
        out.act("The backup horizon passes")?;
        let bar = days_bar(horizon);
        for _ in 0..horizon {
            stage.pass_a_day();
            stage.sweep()?;
            stage.keep_keys()?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let keyring = unlock(&stage.config.root, &stage.config.keyring)?;
        let epochs: Vec<String> = keyring.epochs().map(|epoch| epoch.number().to_string()).collect();
        out.say(&format!(
            "{horizon} days later the keyring holds the epochs {}; whoever comes back with the backup has all of them, and the root.",
            epochs.join(", ")
        ))?;
        let haul = attacker.attack(&keyring);
        out.claim(
            haul.keys == 0 && haul.opened.is_empty(),
            &format!(
                "with all keys of that day, {} of the backup's keys unwrap and {} records open",
                haul.keys,
                haul.opened.len()
            ),
        )?;
        let met = attacker.dictionary(&keyring, &self.shop.guesses()?)?;
        out.claim(met.met == 0, &format!("the dictionary meets {} of its {} index tags", met.met, count(met.tags)))?;
        let mut fresh = Thief::new(&stage.config.store.database);
        fresh.look()?;
        let theft = fresh.steal(&stage.config, &self.folder.path.join("stolen-late"))?;
        let kept = self.shop.kept_of(&stage, &theft.haul.opened);
        out.claim(
            kept == self.shop.kept(),
            &format!(
                "control: {} of the {} kept records open from that day's files",
                count(kept),
                count(self.shop.kept())
            ),
        )?;
        let elsewhere = self.elsewhere(&stage.config)?;
        let refused = restore(&elsewhere, keyring, backup, Arc::new(stage.clock()));
        let is_dead = refused.is_err_and(|failure| failure.message.contains("the backup is dead"));
        out.claim(is_dead, "the backup is refused by `strongroom restore`: it is dead")?;
        Ok(stage)
    }

    /// A place to restore to that is nobody's.
    fn elsewhere(&self, config: &Config) -> Result<Config, Failure> {
        let folder = self.folder.path.join("elsewhere");
        fs::create_dir(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let mut elsewhere = config.clone();
        elsewhere.store.database = folder.join("strongroom.db");
        Ok(elsewhere)
    }
}

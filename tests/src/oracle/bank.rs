//! Money moves between accounts, two documents in one write. Wherever it is
//! looked at between two transfers, the total is the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tidegate_proto::v1::ChangeBatch;
use tidegate_proto::{Frame, Key};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::documents::Documents;
use crate::feed::{Judge, document_of};

/// How many accounts there are.
pub const ACCOUNTS: usize = 50;
/// What each has in the beginning.
const DEPOSIT: i64 = 1_000;
/// Between two transfers.
const PAUSE: Duration = Duration::from_millis(20);
/// The collection they are in.
const COLLECTION: &str = "accounts";

/// One account, as its document says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// What it has.
    pub balance: i64,
    /// How often it was written.
    pub version: u64,
    /// The last transfer that touched it.
    pub transfer: u64,
}

/// Follows the changes of a bank, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<String, Account>,
    /// The transfer whose changes come now.
    transfer: u64,
    /// All changes, to go back to one of them.
    taken: Vec<(String, Account)>,
    /// The next change was there before.
    rewound: bool,
    /// Sequences of a feed with which it began anew.
    anew: Vec<u64>,
    /// Changes taken.
    pub changes: u64,
}

/// What the bank itself knows.
pub type Totals = BTreeMap<String, Account>;

impl Ledger {
    /// The next change of an account.
    ///
    /// # Errors
    ///
    /// If a change of it is missing, doubled or out of order, or a transfer came
    /// in parts.
    pub fn take(&mut self, key: &str, document: &Value) -> Outcome<()> {
        let account = Account::read(document).ok_or("a document that is no account")?;
        if std::mem::take(&mut self.rewound) {
            self.go_back_to(key, account);
        }
        if account.transfer != self.transfer {
            self.balanced()?;
            if account.transfer != self.transfer + 1 {
                let (came, last) = (account.transfer, self.transfer);
                return Err(format!("transfer {came} came after transfer {last}").into());
            }
            self.transfer = account.transfer;
        }
        let version = self.accounts.get(key).map_or(0, |it| it.version);
        if account.version != version + 1 {
            return Err(format!("version {} came after version {version}", account.version).into());
        }
        self.accounts.insert(key.to_owned(), account);
        self.taken.push((key.to_owned(), account));
        self.changes += 1;
        Ok(())
    }

    /// All copies were lost: what comes next may have come before.
    pub fn rewind(&mut self) {
        self.rewound = true;
    }

    /// Whether its feed began anew with this sequence, behind a loss that was said.
    #[must_use]
    pub fn begins_anew(&self, sequence: u64) -> bool {
        self.anew.contains(&sequence)
    }

    /// Is as it was before this change came; as it is if it never came.
    fn go_back_to(&mut self, key: &str, account: Account) {
        let came = |(name, then): &(String, Account)| name == key && *then == account;
        let Some(at) = self.taken.iter().position(came) else { return };
        self.taken.truncate(at);
        self.accounts = self.taken.iter().cloned().collect();
        self.transfer = self.taken.last().map_or(0, |(_, account)| account.transfer);
    }

    /// # Errors
    ///
    /// If money was made or lost.
    pub fn balanced(&self) -> Outcome<()> {
        let total: i64 = self.accounts.values().map(|account| account.balance).sum();
        let whole = i64::try_from(ACCOUNTS)? * DEPOSIT;
        if self.transfer > 0 && total != whole {
            let after = self.transfer;
            return Err(format!("after transfer {after} there is {total}, not {whole}").into());
        }
        Ok(())
    }

    /// The transfer whose changes came last.
    #[must_use]
    pub fn transfer(&self) -> u64 {
        self.transfer
    }

    /// All accounts.
    #[must_use]
    pub fn accounts(&self) -> &Totals {
        &self.accounts
    }
}

impl Judge for Ledger {
    fn take(&mut self, shard: &str, frame: &Frame, batch: &ChangeBatch) -> Outcome<()> {
        if batch.rewound.is_some() {
            self.anew.push(frame.first().0);
            self.rewind();
        }
        for (sequence, change) in (frame.first().0..).zip(&batch.changes) {
            let mut key = Vec::new();
            Key::from_bytes(change.key.clone()).write_json(&mut key)?;
            let key: String = serde_json::from_slice(&key)?;
            self.take(&key, &document_of(batch, change)?)
                .map_err(|why| format!("{shard}: sequence {sequence}: {why}"))?;
        }
        Ok(())
    }
}

impl Account {
    /// `None` if the document is no account.
    #[must_use]
    pub fn read(document: &Value) -> Option<Self> {
        Some(Self {
            balance: document["balance"].as_i64()?,
            version: document["version"].as_u64()?,
            transfer: document["transfer"].as_u64()?,
        })
    }

    fn document(self) -> String {
        let Self { balance, version, transfer } = self;
        json!({"balance": balance, "version": version, "transfer": transfer}).to_string()
    }
}

/// Makes transfers until it is dropped. The only one who writes to its store.
#[derive(Debug)]
pub struct Teller {
    shared: Arc<Mutex<Books>>,
    task: JoinHandle<()>,
    pause: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Books {
    accounts: Totals,
    /// Why it has given up; empty while it works.
    failure: String,
}

impl Teller {
    /// Opens the accounts and begins.
    ///
    /// # Errors
    ///
    /// If the store does not take them.
    pub async fn start(documents: Arc<Documents>, seed: u64) -> Outcome<Self> {
        let account = |number| {
            let account = Account { balance: DEPOSIT, version: 1, transfer: 1 };
            (format!("account-{number:03}"), account)
        };
        let accounts: Totals = (0..ACCOUNTS).map(account).collect();
        write(&documents, &accounts).await?;
        let shared = Arc::new(Mutex::new(Books { accounts, failure: String::new() }));
        let (pause, paused) = watch::channel(false);
        let its = Arc::clone(&shared);
        let random = StdRng::seed_from_u64(seed);
        let task = tokio::spawn(async move {
            if let Err(error) = work(&documents, &its, random, paused).await {
                locked(&its).failure = error.to_string();
            }
        });
        Ok(Self { shared, task, pause })
    }

    /// What was written. The last transfer may still be on its way while it works.
    ///
    /// # Errors
    ///
    /// If it has given up; says why.
    pub fn accounts(&self) -> Outcome<Totals> {
        written(&self.shared)
    }

    /// Makes no transfer from now on; one that is on its way ends first.
    pub fn pause(&self) {
        self.pause.send_replace(true);
    }

    /// Makes no transfer from now on; one that is on its way ends first. Returns
    /// what was written.
    ///
    /// # Errors
    ///
    /// As [`Teller::accounts`].
    pub async fn stop(self) -> Outcome<Totals> {
        self.pause();
        let Self { shared, task, .. } = self;
        task.await?;
        written(&shared)
    }
}

fn locked(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

fn written(books: &Mutex<Books>) -> Outcome<Totals> {
    let books = locked(books);
    if books.failure.is_empty() {
        return Ok(books.accounts.clone());
    }
    Err(format!("the bank's store: {}", books.failure).into())
}

async fn work(
    documents: &Documents,
    books: &Mutex<Books>,
    mut random: StdRng,
    paused: watch::Receiver<bool>,
) -> Outcome<()> {
    for transfer in 2.. {
        if *paused.borrow() {
            break;
        }
        let mut changed = locked(books).accounts.clone();
        let names: Vec<_> = changed.keys().cloned().collect();
        let from = random.random_range(0..names.len());
        let to = (from + random.random_range(1..names.len())) % names.len();
        let amount = random.random_range(1..100);
        for (at, change) in [(from, -amount), (to, amount)] {
            if let Some(account) = changed.get_mut(&names[at]) {
                account.balance += change;
                account.version += 1;
                account.transfer = transfer;
            }
        }
        let both = changed.iter().filter(|(_, account)| account.transfer == transfer);
        write(documents, &both.map(|(name, account)| (name.clone(), *account)).collect()).await?;
        locked(books).accounts = changed;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// All of them or none. The store is not among what fails, so an error is one.
async fn write(documents: &Documents, accounts: &Totals) -> Outcome<()> {
    let texts = accounts.iter().map(|(name, account)| (name.clone(), account.document()));
    documents.write(COLLECTION, texts).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Ledger {
        let mut ledger = Ledger::default();
        for number in 0..ACCOUNTS {
            let document = json!({"balance": DEPOSIT, "version": 1, "transfer": 1});
            ledger.take(&number.to_string(), &document).unwrap();
        }
        ledger
    }

    fn document(balance: i64, version: u64, transfer: u64) -> Value {
        json!({"balance": balance, "version": version, "transfer": transfer})
    }

    #[test]
    fn whole_transfers_pass() {
        let mut ledger = opened();
        ledger.take("0", &document(990, 2, 2)).unwrap();
        ledger.take("1", &document(1010, 2, 2)).unwrap();
        ledger.take("1", &document(1000, 3, 3)).unwrap();
    }

    #[test]
    fn changes_come_again_after_a_rewind_and_only_then() {
        let mut ledger = opened();
        let both = [("0", document(990, 2, 2)), ("1", document(1010, 2, 2))];
        for _ in 0..2 {
            for (key, document) in &both {
                ledger.take(key, document).unwrap();
            }
            ledger.rewind();
        }
        ledger.take("0", &both[0].1).unwrap();
        assert!(ledger.take("0", &both[0].1).is_err(), "twice without a rewind");
    }

    #[test]
    fn a_torn_transfer_is_found() {
        let mut ledger = opened();
        ledger.take("0", &document(990, 2, 2)).unwrap();
        let error = ledger.take("1", &document(1000, 2, 3)).unwrap_err().to_string();
        assert!(error.contains("after transfer 2 there is 49990"), "{error}");
    }

    #[test]
    fn a_lost_a_doubled_and_a_late_change_are_found() {
        let missing = opened().take("0", &document(990, 3, 2)).unwrap_err();
        assert!(missing.to_string().contains("version 3 came after version 1"), "{missing}");
        let doubled = opened().take("0", &document(1000, 1, 1)).unwrap_err();
        assert!(doubled.to_string().contains("version 1 came after version 1"), "{doubled}");
        let skipped = opened().take("0", &document(990, 2, 3)).unwrap_err();
        assert!(skipped.to_string().contains("transfer 3 came after"), "{skipped}");
    }
}

//! What a database has to do to keep sessions: the seam between the rules, which are the same
//! everywhere, and each database.

use std::fmt;
use std::future::Future;

use stubborn_core::session::{
    Claim, Owner, SessionId, SessionSecret, SlotPosition, SlotRecord, SlotReport,
};

/// A database that keeps sessions beside an application's own tables.
///
/// Rows are read and written in transactions. What is read of a slot that is locked is the last that
/// was committed; two transactions never lock one slot at a time, in whichever processes they are.
pub trait CompletionStore: Send + Sync + 'static {
    /// A transaction, in which the application changes its own tables, too. Dropped, it is rolled
    /// back.
    type Transaction: CompletionTransaction;

    /// Begins one.
    ///
    /// # Errors
    /// If it cannot be begun now; [`StoreError::Locked`] if the database knows one at a time and
    /// another process has it.
    fn begin(&self) -> impl Future<Output = Result<Self::Transaction, StoreError>> + Send;

    /// What is known of all sessions. The first who asks makes the row, with this group id.
    ///
    /// # Errors
    /// If the database cannot be asked, or holds something else.
    fn service(
        &self,
        fresh_group: u64,
    ) -> impl Future<Output = Result<ServiceRow, StoreError>> + Send;

    /// A session, and what a slot of it was when last committed, without a lock; no record of a slot
    /// that was never used.
    ///
    /// # Errors
    /// If the database cannot be asked.
    fn look(
        &self,
        session: u64,
        slot: u32,
    ) -> impl Future<Output = Result<Option<(SessionRow, Option<SlotRecord>)>, StoreError>> + Send;

    /// Makes sure that the slot has a row, so that it can be locked. No error if the session is gone.
    ///
    /// # Errors
    /// If the database cannot be asked.
    fn make_slot(
        &self,
        session: u64,
        slot: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Moves the time on by `by` milliseconds if it is `seen`; returns what it then is.
    ///
    /// # Errors
    /// If the database cannot be asked.
    fn advance(&self, seen: u64, by: u64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// These sessions expire at this time, and no more before.
    ///
    /// # Errors
    /// If the database cannot be asked.
    fn renew(
        &self,
        sessions: &[u64],
        expires: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Bytes of all replies that are kept.
    ///
    /// # Errors
    /// If the database cannot be asked.
    fn kept(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Some sessions that expire at this time or before.
    ///
    /// # Errors
    /// If the database cannot be asked.
    fn expired(&self, time: u64) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send;
}

/// A transaction of a [`CompletionStore`].
pub trait CompletionTransaction: Send + 'static {
    /// What the application changes its tables with.
    type Native: ?Sized;

    /// The same transaction, for the application.
    fn native(&mut self) -> &mut Self::Native;

    /// Reads the row of all sessions, and locks it: sessions are opened one after the other.
    ///
    /// # Errors
    /// If the database cannot be asked. So it is with all that follow.
    fn lock_service(&mut self) -> impl Future<Output = Result<ServiceRow, StoreError>> + Send;

    /// Writes it.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn save_service(
        &mut self,
        row: &ServiceRow,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts sessions.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn count(&mut self, account: &[u8]) -> impl Future<Output = Result<Counts, StoreError>> + Send;

    /// The number of a session that nothing was heard of, so that it would expire at `before` or
    /// earlier, and of which no outcome is unsettled: of this account, or of any.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn spare(
        &mut self,
        account: Option<&[u8]>,
        before: u64,
    ) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// The number of the session that was opened with this nonce.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn opened_with(
        &mut self,
        nonce: &[u8],
    ) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Adds a session.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn insert_session(
        &mut self,
        row: &SessionRow,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads a session and locks it against others that lock it. Its slots are not locked by this.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn lock_session(
        &mut self,
        session: u64,
    ) -> impl Future<Output = Result<Option<SessionRow>, StoreError>> + Send;

    /// Writes the epoch, the holder and the expiry of a session that is locked.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn save_session(
        &mut self,
        row: &SessionRow,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes a session that is locked, with its slots.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if one of the slots is locked by another transaction: its call executes.
    fn delete_session(
        &mut self,
        session: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What became of the last number of each slot that was used.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn reports(
        &mut self,
        session: u64,
    ) -> impl Future<Output = Result<Vec<SlotReport>, StoreError>> + Send;

    /// Reads a slot and locks it until the end of the transaction, without waiting. `None` if the
    /// session is gone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another transaction has it.
    fn lock_slot(
        &mut self,
        session: u64,
        slot: u32,
    ) -> impl Future<Output = Result<Option<(SessionRow, SlotRecord)>, StoreError>> + Send;

    /// Writes a slot that is locked.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn save_slot(
        &mut self,
        session: u64,
        slot: u32,
        record: &SlotRecord,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The replies of these slots are not needed any more, where the number is still the slot's last.
    /// One that is locked is passed over.
    ///
    /// # Errors
    /// As [`lock_service`](Self::lock_service).
    fn release(
        &mut self,
        session: u64,
        list: &[SlotPosition],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Commits.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it may be committed or not. After any other it is not.
    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The one row about all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// What its sessions are of.
    pub group: u64,
    /// The time by which sessions expire, in milliseconds. It is moved on by servers, by what their
    /// monotonic clocks say; it stands still while no server runs, and never goes faster than they.
    pub time: u64,
    /// The number of the next session.
    pub next_session: u64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its number; with the group it is its id.
    pub number: u64,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The nonce of its opening, with the certificate that opened it.
    pub nonce: Vec<u8>,
    /// Who pays for it.
    pub account: Vec<u8>,
    /// Counts its attaches.
    pub epoch: u64,
    /// The process that has it, if its client keeps a journal.
    pub holder: Option<u64>,
    /// Slots 0 to this are granted.
    pub slots: u32,
    /// When it expires; [`CLOSED`](Self::CLOSED) if its client is done with it.
    pub expires: u64,
}

/// How many sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the account.
    pub of_account: u64,
    /// In all.
    pub sessions: u64,
    /// Slots of all sessions.
    pub slots: u64,
}

/// What goes wrong with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another transaction has the lock.
    Locked,
    /// It cannot be reached, or refuses for now. Nothing was changed.
    Unavailable(String),
    /// Whether the transaction was committed is not known.
    Unknown(String),
    /// It will not do later either. Nothing was changed.
    Broken(String),
}

impl SessionRow {
    /// The expiry of a session whose client is done with it.
    pub const CLOSED: u64 = 0;

    /// The session's name.
    pub fn id(&self, group: u64) -> SessionId {
        SessionId { incarnation: group, number: self.number }
    }

    /// Whether its client is done with it: it is as good as gone.
    pub fn is_closed(&self) -> bool {
        self.expires == Self::CLOSED
    }

    /// Whether what a client shows proves that it is its own.
    pub fn accepts(&self, claim: &Claim) -> bool {
        self.owner.accepts(claim)
    }

    /// The owner as two columns: the certificate, or the secret.
    pub(crate) fn owner_columns(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match &self.owner {
            Owner::Certificate(identity) => (Some(identity.to_vec()), None),
            Owner::Anonymous(secret) => (None, Some(secret.expose().to_vec())),
        }
    }

    /// The owner of two columns.
    pub(crate) fn owner_of(
        certificate: Option<Vec<u8>>,
        secret: Option<Vec<u8>>,
    ) -> Result<Owner, StoreError> {
        let owner = match (certificate, secret) {
            (Some(identity), None) => identity.try_into().ok().map(Owner::Certificate),
            (None, Some(secret)) => {
                let secret = secret.try_into().ok().map(SessionSecret::new);
                secret.map(Owner::Anonymous)
            }
            _ => None,
        };
        owner.ok_or_else(|| StoreError::damaged("a session's owner"))
    }
}

impl StoreError {
    /// A row holds what no server wrote.
    pub fn damaged(what: &str) -> Self {
        Self::Broken(format!("the database holds {what} that no server wrote"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another transaction has the lock"),
            Self::Unavailable(why) => write!(f, "the database cannot be used now: {why}"),
            Self::Unknown(why) => write!(f, "whether it was committed is not known: {why}"),
            Self::Broken(why) => write!(f, "the database refuses: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

//! What clients ask of sessions, but for running calls: openings, attaches, fences, releases, ends.

use std::sync::Arc;
use std::time::Duration;

use stubborn_core::limits::SILENT_SESSION;
use stubborn_core::node::{Ask, Asked, ClientMessage, Front, SessionCommand};
use stubborn_core::service::{NotExecuted, Peer};
use stubborn_core::session::{
    Answer, Attached, CallId, Claim, Opened, Owner, Refusal, SessionId, SessionSecret, Slot,
    SlotPosition, SlotRecord, Succession, account_name,
};

use crate::completions::{Inner, Pause};
use crate::running::Teller;
use crate::store::{CompletionStore, CompletionTransaction, SessionRow, StoreError};

/// When a client is to come again whose message could not be handled: the database is away.
const PUSH_BACK: stubborn_core::time::Duration = stubborn_core::time::Duration::from_millis(100);

/// How long a message waits for locks of others before its client is asked to send it again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What comes of a message.
pub(crate) enum Told {
    Say(ClientMessage),
    Nothing,
    /// The client is to send it again.
    Again(Teller),
}

/// Whether the session that a message is about may still be spoken for by its connection.
pub(crate) enum Standing {
    /// And this is what its slot was when last committed.
    Good(SlotRecord),
    Refused(ClientMessage),
}

impl<S: CompletionStore> Inner<S> {
    /// Does what a client asks, and tells it.
    pub(crate) async fn command(self: Arc<Self>, front: Arc<dyn Front>, command: SessionCommand) {
        let teller = Teller { front: front.clone(), client: command.client() };
        let told = match command.ask(front.now()) {
            Ok(ask) => self.asked(ask, &teller).await.unwrap_or_else(|error| {
                self.failed(&error);
                Told::Again(teller.clone())
            }),
            Err(violation) => Told::Say(violation),
        };
        match told {
            Told::Say(message) => teller.tell(message),
            Told::Nothing => {}
            Told::Again(teller) => {
                if let Some(busy) = command.push_back(PUSH_BACK) {
                    teller.tell(busy);
                }
            }
        }
    }

    async fn asked(self: &Arc<Self>, ask: Ask, teller: &Teller) -> Result<Told, StoreError> {
        let epoch = ask.attached.map_or(0, |(_, epoch)| epoch);
        match ask.asked {
            Asked::Run { id, method, digest, call } => {
                Ok(self.run(teller, id, epoch, method, digest, call).await)
            }
            Asked::Fence { id, why } => self.fence(teller, id, epoch, why).await,
            asked => self.change(&ask.peer, epoch, &asked).await,
        }
    }

    /// Changes a session; tries again while others have locks, for some time.
    async fn change(&self, peer: &Peer, epoch: u64, asked: &Asked) -> Result<Told, StoreError> {
        let (mut pause, until) = (Pause::new(), tokio::time::Instant::now() + PATIENCE);
        loop {
            let changed = match asked {
                Asked::Open { nonce, slots, secret } => {
                    self.open(peer, *nonce, *slots, secret).await
                }
                Asked::Attach { session, claim, succession } => {
                    self.attach(*session, claim, succession.as_ref()).await
                }
                Asked::Release { session, list } => self.release(*session, epoch, list).await,
                Asked::Close { session } => self.close(*session, epoch).await,
                Asked::Run { .. } | Asked::Fence { .. } => unreachable!("a call, not a session"),
            };
            match changed {
                Err(StoreError::Locked) if tokio::time::Instant::now() < until => {
                    pause.wait().await;
                }
                told => return told,
            }
        }
    }

    async fn open(
        &self,
        peer: &Peer,
        nonce: [u8; 16],
        wanted: u32,
        secret: &SessionSecret,
    ) -> Result<Told, StoreError> {
        let Some(address) = peer.address else { return Ok(Told::Nothing) };
        let limits = self.limits();
        let account = account_name(peer.identity.as_ref(), address.ip());
        let key = [peer.identity.as_ref().map_or(&[][..], |identity| identity), &nonce].concat();
        let mut tx = self.store.begin().await?;
        let mut service = tx.lock_service().await?;
        let expires = service.time + millis(limits.retention);
        let mut row = match tx.opened_with(&key).await? {
            Some(number) => match tx.lock_session(number).await? {
                Some(row) if !row.is_closed() => row,
                _ => {
                    let refusal = ClientMessage::refused_opening(nonce, Refusal::Expired);
                    return Ok(Told::Say(refusal));
                }
            },
            None => {
                let bound = match peer.identity {
                    Some(_) => limits.sessions_per_identity,
                    None => limits.sessions_per_address,
                };
                let silent = SILENT_SESSION.min(limits.retention / 2);
                let before = expires.saturating_sub(millis(silent));
                let mut counts = tx.count(&account).await?;
                for (full, whose) in [
                    (counts.of_account >= bound as u64, Some(&account[..])),
                    (counts.sessions >= limits.sessions as u64, None),
                ] {
                    if !full {
                        continue;
                    }
                    let Some(spare) = tx.spare(whose, before).await? else {
                        let refusal = ClientMessage::refused_opening(nonce, Refusal::Full);
                        return Ok(Told::Say(refusal));
                    };
                    tx.lock_session(spare).await?;
                    tx.delete_session(spare).await?;
                    counts = tx.count(&account).await?;
                }
                let left = limits.slots_in_all.saturating_sub(counts.slots);
                let left = u32::try_from(left).unwrap_or(u32::MAX);
                let row = SessionRow {
                    number: service.next_session,
                    owner: match peer.identity {
                        Some(identity) => Owner::Certificate(identity),
                        None => Owner::Anonymous(secret.clone()),
                    },
                    nonce: key,
                    account,
                    epoch: 0,
                    holder: None,
                    slots: wanted.min(self.session_slots()).min(left).max(1),
                    expires,
                };
                service.next_session += 1;
                tx.save_service(&service).await?;
                tx.insert_session(&row).await?;
                row
            }
        };
        (row.epoch, row.expires) = (row.epoch + 1, expires);
        tx.save_session(&row).await?;
        tx.commit().await?;
        let secret = match &row.owner {
            Owner::Anonymous(secret) => secret.clone(),
            Owner::Certificate(_) => SessionSecret::NONE,
        };
        let opened = Opened {
            session: row.id(self.group),
            secret,
            epoch: row.epoch,
            slots: row.slots,
            retention: limits.retention,
        };
        Ok(Told::Say(ClientMessage::opened(nonce, opened)))
    }

    async fn attach(
        &self,
        id: SessionId,
        claim: &Claim,
        succession: Option<&Succession>,
    ) -> Result<Told, StoreError> {
        let refused = |refusal| Ok(Told::Say(ClientMessage::refused(id, refusal)));
        if id.incarnation != self.group {
            return refused(Refusal::Unknown);
        }
        let time = self.store.service(self.group).await?.time;
        let mut tx = self.store.begin().await?;
        let Some(mut row) = tx.lock_session(id.number).await?.filter(|row| !row.is_closed()) else {
            let next = tx.lock_service().await?.next_session;
            return refused(forgotten(id, next));
        };
        if !row.accepts(claim) {
            return refused(Refusal::Denied);
        }
        let mut slots = tx.reports(id.number).await?;
        if let Some(succession) = succession {
            if !succession.may_attach(row.holder, || slots.clone()) {
                return refused(Refusal::TakenOver);
            }
            row.holder = Some(succession.holder);
        }
        row.epoch += 1;
        row.expires = time + millis(self.limits().retention);
        tx.save_session(&row).await?;
        tx.commit().await?;
        slots.retain(|report| report.sequence > 0);
        let attached = Attached {
            session: id,
            epoch: row.epoch,
            span: row.slots,
            wanted: row.slots,
            version: 0,
            // What is executing is told as it was before: the client sends it again, and is told of
            // its end then.
            slots,
        };
        Ok(Told::Say(ClientMessage::attached(attached)))
    }

    async fn fence(
        &self,
        teller: &Teller,
        id: CallId,
        epoch: u64,
        why: NotExecuted,
    ) -> Result<Told, StoreError> {
        // Its end is told to whoever asked last.
        match self.calls.give_up(id, teller) {
            Some(true) => return Ok(Told::Say(ClientMessage::known(id, Answer::Working))),
            Some(false) => return Ok(Told::Nothing),
            None => {}
        }
        if let Standing::Refused(message) = self.standing(id, epoch).await? {
            return Ok(Told::Say(message));
        }
        let (mut pause, mut told) = (Pause::new(), false);
        loop {
            match self.try_fence(id, &why).await {
                Err(StoreError::Locked) => {
                    if !told {
                        // Another server executes it. What becomes of it there is waited for.
                        teller.tell(ClientMessage::known(id, Answer::Working));
                        told = true;
                    }
                    pause.wait().await;
                }
                Err(StoreError::Unknown(_)) => pause.wait().await,
                ended => return ended.map(Told::Say),
            }
        }
    }

    pub(crate) async fn try_fence(
        &self,
        id: CallId,
        why: &NotExecuted,
    ) -> Result<ClientMessage, StoreError> {
        let mut tx = self.store.begin().await?;
        let locked = match tx.lock_slot(id.session.number, id.slot).await {
            Err(StoreError::Locked) if cfg!(feature = "planted-hasty-fence") => {
                return Ok(ClientMessage::not_executed(id, why.clone()));
            }
            locked => locked?,
        };
        let Some((_, record)) = locked.filter(|(row, _)| !row.is_closed()) else {
            return Ok(ClientMessage::refused(id.session, Refusal::Expired));
        };
        let mut slot = slot_of(record.clone())?;
        let answer = match slot.fence(id.sequence, why.reason) {
            Ok(answer) => answer,
            Err(violation) => return Ok(ClientMessage::violation(violation.as_str())),
        };
        match slot.record() {
            Some(fenced) if fenced != record => {
                tx.save_slot(id.session.number, id.slot, &fenced).await?;
                tx.commit().await?;
                Ok(ClientMessage::not_executed(id, why.clone()))
            }
            _ => Ok(ClientMessage::known(id, answer)),
        }
    }

    async fn release(
        &self,
        session: SessionId,
        epoch: u64,
        list: &[SlotPosition],
    ) -> Result<Told, StoreError> {
        let mut tx = self.store.begin().await?;
        match tx.lock_session(session.number).await? {
            Some(row) if row.epoch == epoch => {}
            _ => return Ok(Told::Nothing),
        }
        tx.release(session.number, list).await?;
        tx.commit().await?;
        Ok(Told::Nothing)
    }

    async fn close(&self, session: SessionId, epoch: u64) -> Result<Told, StoreError> {
        let mut tx = self.store.begin().await?;
        let row = match tx.lock_session(session.number).await? {
            Some(row) if row.epoch == epoch => row,
            _ => return Ok(Told::Nothing),
        };
        match tx.delete_session(session.number).await {
            Ok(()) => tx.commit().await?,
            // A call of it executes; it is removed when it has expired.
            Err(StoreError::Locked) => {
                drop(tx);
                let mut tx = self.store.begin().await?;
                tx.lock_session(session.number).await?;
                let closed = SessionRow { expires: SessionRow::CLOSED, ..row };
                tx.save_session(&closed).await?;
                tx.commit().await?;
            }
            Err(error) => return Err(error),
        }
        Ok(Told::Nothing)
    }

    /// Looks whether a number is one of a session that its connection may speak for, and makes sure
    /// that its slot can be locked.
    pub(crate) async fn standing(&self, id: CallId, epoch: u64) -> Result<Standing, StoreError> {
        let refused = |refusal| Ok(Standing::Refused(ClientMessage::refused(id.session, refusal)));
        let Some((row, record)) = self.store.look(id.session.number, id.slot).await? else {
            return refused(Refusal::Expired);
        };
        if row.is_closed() {
            return refused(Refusal::Expired);
        }
        if row.epoch != epoch {
            return refused(Refusal::Superseded);
        }
        if id.slot >= row.slots {
            let message = ClientMessage::violation("a slot that is not granted");
            return Ok(Standing::Refused(message));
        }
        if record.is_none() {
            self.store.make_slot(id.session.number, id.slot).await?;
        }
        Ok(Standing::Good(record.unwrap_or(SlotRecord::UNUSED)))
    }
}

/// The slot of a row.
pub(crate) fn slot_of(record: SlotRecord) -> Result<Slot<bytes::Bytes>, StoreError> {
    Slot::of_record(record).ok_or_else(|| StoreError::damaged("the number of a call"))
}

/// Numbers count up, so one below the next was issued.
fn forgotten(id: SessionId, next: u64) -> Refusal {
    if (1..next).contains(&id.number) { Refusal::Expired } else { Refusal::Unknown }
}

pub(crate) fn millis(time: stubborn_core::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
